"""Real files of every modality: written here, opened, learned from; what is broken among them is named."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import headwater as hw
from headwater.core.errors import RequestError, Unreadable
from headwater.core.types import Graph
from headwater.data.source import Source

RATE = 8000


def sounds(at: Path, n: int = 6, rate: int = RATE, seconds: float = 0.5) -> Path:
    import soundfile

    at.mkdir(exist_ok=True)
    for i in range(n):
        time = np.arange(int(rate * seconds)) / rate
        soundfile.write(at / f"{i}.wav", 0.3 * np.sin(2 * np.pi * (200 + 100 * i) * time), rate)
    return at


def clips(at: Path, n: int = 4, frames: int = 12, side: int = 32) -> Path:
    import av

    at.mkdir(exist_ok=True)
    for i in range(n):
        with av.open(str(at / f"{i}.mp4"), "w") as out:
            stream = out.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = side + 16, side, "yuv420p"
            for t in range(frames):
                picture = np.full((side, side + 16, 3), 15 * t + 3 * i, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            out.mux(stream.encode())
    return at


def volumes(at: Path, n: int = 4, spacing: tuple[float, float, float] = (1.0, 1.0, 2.0)) -> Path:
    import nibabel

    at.mkdir(exist_ok=True)
    for i in range(n):
        values = np.random.default_rng(i).normal(size=(8, 12, 16)).astype(np.float32)  # x y z
        nibabel.save(nibabel.Nifti1Image(values, np.diag([*spacing, 1.0])), at / f"{i}.nii.gz")
    return at


def clouds(at: Path, n: int = 5) -> Path:
    import trimesh

    at.mkdir(exist_ok=True)
    for i in range(n):
        trimesh.creation.icosphere(subdivisions=2, radius=1 + i).export(at / f"{i}.ply")
    return at


def graphs(at: Path, n: int = 6) -> Path:
    import networkx

    at.mkdir(exist_ok=True)
    for i in range(n):
        made = networkx.cycle_graph(4 + i)
        made.add_node(99)  # without a single edge
        networkx.set_node_attributes(made, {k: float(d) for k, d in made.degree}, "size")
        networkx.write_graphml(made, at / f"{i}.graphml")
    return at


def texts(at: Path, n: int = 6) -> Path:
    at.mkdir(exist_ok=True)
    for i in range(n):
        (at / f"{i}.txt").write_text("a text of its own length, " * (i + 1))
    return at


def series(at: Path, n: int = 6) -> Path:
    at.mkdir(exist_ok=True)
    for i in range(n):
        rows = [f"{t},{np.sin(t / (3 + i)):.4f},{'' if t % 7 == 3 else t % 5}" for t in range(60 + 8 * i)]
        (at / f"{i}.csv").write_text("time,a,b\n" + "\n".join(rows))
    return at


KINDS: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "audio": (sounds, "", "broken.wav"),
    "video": (clips, "", "broken.mp4"),
    "volume": (volumes, "", "broken.nii.gz"),
    "points": (clouds, "", "broken.ply"),
    "graph": (graphs, "", "broken.graphml"),
    "text": (texts, "", "broken.txt"),
    "series": (series, "series:", "broken.csv"),
}


def opened(kind: str, at: Path) -> Source:
    make, prefix, _ = KINDS[kind]
    return hw.open(f"{prefix}{make(at / 'data')}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_files_is_recognised_learned_from_and_embedded(kind: str, tmp_path: Path) -> None:
    source = opened(kind, tmp_path)
    assert source.modalities == (kind,)
    assert hw.doctor(source).lines()[0].startswith("data/:")
    method = "simclr" if kind == "text" else "mae"
    run = hw.pretrain(method, source, out=tmp_path / "run", steps=2, batch_size=4, workers=1)
    vectors = hw.embed(run.encoder, source)
    assert vectors.shape == (len(source), run.encoder.dim)
    assert np.isfinite(vectors).all()
    assert np.ptp(vectors, 0).max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_file_among_good_ones_is_named_and_left_out(kind: str, tmp_path: Path) -> None:
    make, prefix, name = KINDS[kind]
    at = make(tmp_path / "data")
    (at / name).write_bytes(b"" if kind == "text" else b"\x00\xffnothing that anybody could read")
    found = hw.doctor(hw.open(f"{prefix}{at}"))
    assert [item for item, _ in found.unreadable] == [name]
    assert found.items == found.sampled
    assert len(found.unreadable[0][1]) > 10


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_the_same_each_time_and_padding_changes_no_embedding(kind: str, tmp_path: Path) -> None:
    source = opened(kind, tmp_path)
    method = "simclr" if kind == "text" else "mae"
    encoder = hw.pretrain(method, source, out=tmp_path / "run", steps=1, batch_size=4, workers=1).encoder
    together = hw.embed(encoder, source)
    alone = hw.embed(encoder, source, batch_size=1)
    np.testing.assert_allclose(alone, together, rtol=1e-3, atol=2e-5)


def test_sounds_of_another_rate_are_resampled_as_the_encoder_learned(tmp_path: Path) -> None:
    slow, fast = hw.open(sounds(tmp_path / "slow")), hw.open(sounds(tmp_path / "fast", rate=44_100))
    assert slow.spec["audio"]["rate"] == RATE
    encoder = hw.pretrain("simclr", slow, out=tmp_path / "run", steps=1, batch_size=4).encoder
    assert encoder.card.preprocessing["read"]["rate"] == RATE
    near = np.linalg.norm(hw.embed(encoder, fast) - hw.embed(encoder, slow), axis=1)
    far = np.linalg.norm(hw.embed(encoder, slow)[:1] - hw.embed(encoder, slow)[1:], axis=1)
    assert near.max() < 0.3 * far.min()


def test_mixed_rates_are_noted_and_long_sounds_cut(tmp_path: Path) -> None:
    sounds(tmp_path / "mixed", n=4)
    import soundfile

    soundfile.write(tmp_path / "mixed" / "long.flac", np.zeros(16_000 * 31), 16_000)
    source = hw.open(tmp_path / "mixed")
    assert any("1 at 16000 Hz are resampled to 8000 Hz" in note for note in source.notes)
    assert any("longer than 10 s" in note for note in source.notes)
    assert [source.id(i) for i in (3, 4, 7)] == ["3.wav", "long.flac#0", "long.flac#3"]
    assert source.read(4)["audio"].shape == (1, 8000 * 31 // 4)


def test_a_clip_has_the_frames_in_their_order(tmp_path: Path) -> None:
    clip = hw.open(clips(tmp_path / "a")).read(0)["video"]
    assert clip.shape == (3, 16, 32, 32)
    light = clip.float().mean((0, 2, 3))
    assert (light.diff() >= -1).all()
    assert light[-1] > light[0] + 100


def test_folders_of_frames_and_animations_are_clips_where_the_user_says_video(tmp_path: Path) -> None:
    for clip in ("one", "two"):
        (tmp_path / "frames" / clip).mkdir(parents=True)
        for t in (0, 1, 2, 10):
            Image.new("RGB", (40, 32), (20 * t, 0, 0)).save(tmp_path / "frames" / clip / f"frame{t}.png")
    source = hw.open(f"video:{tmp_path / 'frames'}")
    assert [source.id(i) for i in range(len(source))] == ["one", "two"]
    red = source.read(0)["video"][0].float().mean((1, 2))
    assert red[0] == 0
    assert red[-1] == 200  # frame10 comes after frame2
    assert hw.open(tmp_path / "frames").modalities == ("image",)


def test_a_file_with_sound_alone_is_no_video(tmp_path: Path) -> None:
    clips(tmp_path / "v", n=3)
    sounds(tmp_path / "s", n=1)
    (tmp_path / "v" / "z.mp4").write_bytes((tmp_path / "s" / "0.wav").read_bytes())
    with pytest.raises(Unreadable, match="only sound"):
        hw.open(tmp_path / "v").read(3)


def test_volumes_keep_their_axes_and_are_resampled_to_one_spacing(tmp_path: Path) -> None:
    source = hw.open(volumes(tmp_path / "a"))
    assert source.spec["volume"]["spacing"] == (2.0, 1.0, 1.0)  # depth, height, width
    assert source.read(0)["volume"].shape == (1, 16, 12, 8)
    finer = hw.open(volumes(tmp_path / "b", spacing=(1.0, 1.0, 1.0)))
    assert finer.conform("volume", source.reading("volume")).read(0)["volume"].shape == (1, 8, 12, 8)


def test_a_folder_of_dicom_slices_is_one_volume(tmp_path: Path) -> None:
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    (tmp_path / "scan").mkdir()
    for place, name in ((2, "a"), (0, "b"), (1, "c")):  # stored in another order than they lie
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        one.Rows, one.Columns, one.SamplesPerPixel, one.PhotometricInterpretation = 6, 5, 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
        one.RescaleSlope, one.RescaleIntercept, one.PixelSpacing = 2, -1000, [0.5, 0.5]
        one.ImagePositionPatient, one.ImageOrientationPatient = [0, 0, 3.0 * place], [1, 0, 0, 0, 1, 0]
        one.PixelData = np.full((6, 5), 100 * place, np.uint16).tobytes()
        pydicom.dcmwrite(tmp_path / "scan" / f"{name}.dcm", one, enforce_file_format=True)
    source = hw.open(tmp_path, modality="volume")
    assert len(source) == 1
    assert source.read(0)["volume"][0, :, 0, 0].tolist() == [-1000.0, -800.0, -600.0]
    assert source.spec["volume"]["spacing"] == (3.0, 0.5, 0.5)


def test_points_in_text_and_arrays_are_what_was_written(tmp_path: Path) -> None:
    cloud = np.random.default_rng(0).normal(size=(50, 4))
    np.savetxt(tmp_path / "a.xyz", cloud)
    assert np.allclose(hw.open(tmp_path / "a.xyz").read(0)["points"].numpy(), cloud.T, atol=1e-6)
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "b.npy", cloud)
    assert hw.open(f"points:{tmp_path / 'arrays'}").read(0)["points"].shape == (4, 50)


def test_a_mesh_gives_points_on_its_surface_the_same_each_time(tmp_path: Path) -> None:
    source = hw.open(clouds(tmp_path / "m"))
    points = source.read(2)["points"]
    assert points.shape == (3, 2048)
    assert torch.equal(points, source.read(2)["points"])
    assert (points.norm(dim=0) - 3).abs().max() < 0.2


def test_too_few_points_for_the_groups_is_said_with_both_numbers(tmp_path: Path) -> None:
    encoder = hw.pretrain("mae", "surfaces", out=tmp_path / "run", steps=1, batch_size=4).encoder
    with pytest.raises(RequestError, match=r"cloud of 9 points cannot make 32 groups of 16"):
        encoder(torch.randn(2, 3, 9))


def test_an_edge_list_and_a_node_table_make_one_graph_whose_nodes_are_items(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("from,to\na,b\nb,c\nc,a\nc,d\n")
    (tmp_path / "nodes.csv").write_text("id,weight,label\na,1.5,x\nb,2,y\nc,3,x\nd,4,y\ne,5,y\n")
    source = hw.open(f"graph:{tmp_path / 'edges.csv'}")
    assert source.classes == ("x", "y")
    around = source.read(3)["graph"]  # d, then c, then what c touches
    assert isinstance(around, Graph)
    assert around.values[0, 0].tolist()[:2] == [4.0, 3.0]
    assert source.read(4)["graph"].values.shape == (1, 1, 1)  # e touches nothing
    (tmp_path / "nodes.csv").write_text("id,weight\na,1.5\n")
    with pytest.raises(RequestError, match=r"does not name, such as 'b' \(3 in all\)"):
        hw.open(f"graph:{tmp_path / 'edges.csv'}")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # what PyTorch Geometric does when it is imported
def test_networkx_and_geometric_objects_open(tmp_path: Path) -> None:
    import networkx
    from torch_geometric.data import Data

    karate = hw.open(networkx.karate_club_graph(), labels="club")
    assert (len(karate), karate.classes) == (34, ("Mr. Hi", "Officer"))
    several = [networkx.path_graph(3), networkx.complete_graph(4)]
    for graph, label in zip(several, "ab", strict=True):
        graph.graph["label"] = label
    assert hw.open(several).classes == ("a", "b")
    data = Data(x=torch.ones(3, 2), edge_index=torch.tensor([[0, 1], [1, 2]]), y=torch.tensor([0]))
    assert hw.open([data, data]).read(1)["graph"].edges[0].tolist() == [[0, 1], [1, 2]]


def test_texts_by_line_by_field_and_by_column(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first line\nsecond, longer line\n\nlast")
    lines = hw.open(f"text:{tmp_path / 'a.txt'}")
    assert bytes(lines.read(1)["text"].tolist()[:-1]) == b"second, longer line"
    with pytest.raises(Unreadable, match="empty"):
        lines.read(2)
    rows = [{"text": f"number {i}", "kind": "ab"[i % 2]} for i in range(6)]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    fields = hw.open(tmp_path / "b.jsonl", labels="kind")
    assert fields.classes == ("a", "b")
    assert fields.labels.tolist() == [0, 1] * 3
    (tmp_path / "c.csv").write_text("review,stars\ngood and cheap,1\nnot at all good,0\n")
    assert len(hw.open(f"text:{tmp_path / 'c.csv'}", labels="stars")) == 2


def test_a_trained_vocabulary_travels_with_the_encoder(tmp_path: Path) -> None:
    run = hw.pretrain("simclr", "sentences", out=tmp_path / "run", steps=1, batch_size=8, vocabulary=400)
    encoder = hw.load(tmp_path / "run")
    assert encoder.encoder.tokenizer.config.vocabulary == 401
    again = hw.open("sentences").conform("text", encoder.card.preprocessing["read"])
    plain = hw.open("sentences")
    assert len(again.read(0)["text"]) < len(plain.read(0)["text"]) / 2
    assert again.encoding.decode(again.read(0)["text"]) == plain.encoding.decode(plain.read(0)["text"])
    assert np.array_equal(hw.embed(encoder, "sentences"), hw.embed(run.encoder, plain))


def test_series_of_uneven_times_gaps_and_backward_clocks(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    times = [0, 1, 2, 3.5, 4, 5, 20, 21, 22]
    (tmp_path / "s" / "a.csv").write_text("time,v\n" + "\n".join(f"{t},{2 * t}" for t in times))
    values = hw.open(f"series:{tmp_path / 's'}").read(0)["series"][0]
    assert len(values) == 23
    assert values[:6].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert values[7:19].isnan().all()
    (tmp_path / "s" / "b.csv").write_text("time,v\n3,1\n2,1\n")
    with pytest.raises(Unreadable, match="run backwards"):
        hw.open(f"series:{tmp_path / 's'}").read(1)


def test_the_ts_format_and_long_tables(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text("@problemName a\n@classLabel true x y\n@data\n1,2,?:4,5,6:x\n1,2,3,4:4,5,6,7:y\n")
    source = hw.open(tmp_path / "a.ts")
    assert source.classes == ("x", "y")
    assert source.read(0)["series"].isnan().tolist() == [[False, False, True], [False] * 3]
    (tmp_path / "long.csv").write_text("id,time,v,kind\na,0,1,p\na,1,2,p\nb,0,5,q\nb,1,6,q\nb,2,7,q\n")
    long = hw.open(f"series:{tmp_path / 'long.csv'}", labels="kind")
    assert [long.id(i) for i in range(2)] == ["a", "b"]
    assert long.read(1)["series"].tolist() == [[5.0, 6.0, 7.0]]
    (tmp_path / "one.csv").write_text("v\n" + "\n".join(map(str, range(600))))
    pieces = hw.open(f"series:{tmp_path / 'one.csv'}")
    assert pieces.read(1)["series"][0, 0] == 256  # one after the other: no value stands in two pieces


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # how wfdb writes
def test_wfdb_records_are_read_with_their_signals(tmp_path: Path) -> None:
    import wfdb

    signal = np.sin(np.arange(200) / 9)[:, None] * [1.0, 0.5]
    for name in ("r1", "r2"):
        wfdb.wrsamp(
            name,
            fs=100,
            units=["mV"] * 2,
            sig_name=["I", "II"],
            p_signal=signal,
            fmt=["16"] * 2,
            write_dir=str(tmp_path),
        )
    source = hw.open(tmp_path)
    assert len(source) == 2
    assert np.allclose(source.read(1)["series"].numpy(), signal.T, atol=1e-3)


@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_plain_wfdb_records_are_read_to_the_bits_that_wfdb_reads_and_others_left_to_it(tmp_path: Path) -> None:
    import wfdb

    from headwater.data.recordings import plain

    signal = np.random.default_rng(0).normal(3, [1.0, 20.0, 0.01], (150, 3))
    signal[7, 1] = np.nan
    many: dict = {"units": ["mV", "NU", "mV"], "p_signal": signal, "write_dir": str(tmp_path)}
    for name, kinds in (("a", ["16"] * 3), ("b", ["16", "16", "24"]), ("c", ["212"] * 3)):
        wfdb.wrsamp(name, fs=257.5, sig_name=["I", "aV R", "V1"], fmt=kinds, **many)
        files = {path.name: path.read_bytes() for path in tmp_path.glob(f"{name}.*")}
        found, wanted = plain(files[f"{name}.hea"].decode(), files), wfdb.rdrecord(str(tmp_path / name))
        assert (found is None) == (name != "a")
        if found is not None:
            assert np.array_equal(found.values, wanted.p_signal.T, equal_nan=True)
            assert found.names == tuple(wanted.sig_name)
            assert found.step() == pytest.approx(1 / 257.5)
            text, cut = files["a.hea"].decode(), {**files, "a.dat": files["a.dat"][:-2]}
            assert plain(text, cut) is None
            for changed in (text.replace(" 16 ", " 16x2 ", 1), text.replace("a 3 ", "a/2 3 ", 1)):
                assert plain(changed, files) is None
    assert np.allclose(hw.open(tmp_path).read(2)["series"][0], signal[:, 0], atol=1e-2)


def test_a_zipped_nifti_is_a_volume_and_another_zip_is_not(tmp_path: Path) -> None:
    assert hw.open(volumes(tmp_path / "a", n=1) / "0.nii.gz").modalities == ("volume",)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with pytest.raises(RequestError, match="packed as a whole"):
        hw.open(tmp_path / "b.csv.gz")


def test_an_unknown_modality_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="volume"):
        hw.open(tmp_path, modality="volumes")
