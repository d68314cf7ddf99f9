"""How fast files are read beside the bare library on the same files, one thread each, in turns.

    python benchmarks/decoding.py [--files 40] [--rounds 5] [--write]

Files of every kind are made in a temporary folder. The bare call is the shortest code that gives the same values from a
path. 100 % is as fast as the bare library; at least 80 % is promised.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import networkx
import nibabel
import numpy as np
import pyarrow.csv
import pydicom
import soundfile
import torch
import trimesh
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

import headwater as hw

ROOT = Path(__file__).parents[1]
Draw = np.random.Generator


def picture(path: Path, draw: Draw) -> None:
    coarse = draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(path)


def sound(path: Path, draw: Draw) -> None:
    soundfile.write(path, draw.normal(0, 0.1, 16_000 * 8), 16_000)


def clip(path: Path, draw: Draw) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        coarse = draw.integers(0, 256, (15, 20, 3), dtype=np.uint8)
        big = np.asarray(Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC))
        for t in range(48):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(big, 3 * t, 1)), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def volume(path: Path, draw: Draw) -> None:
    nibabel.save(nibabel.Nifti1Image(draw.normal(0, 1, (64, 64, 48)).astype(np.float32), np.eye(4)), path)


def series(path: Path, draw: Draw) -> None:
    rows = draw.normal(0, 1, (2000, 4)).round(4)
    path.write_text("a,b,c,d\n" + "\n".join(",".join(map(str, row)) for row in rows.tolist()) + "\n")


def cloud(path: Path, draw: Draw) -> None:
    trimesh.PointCloud(draw.normal(0, 1, (20_000, 3))).export(path)


def graph(path: Path, draw: Draw) -> None:
    networkx.write_graphml(networkx.gnm_random_graph(60, 120, seed=int(draw.integers(1 << 30))), path)


def text(path: Path, draw: Draw) -> None:
    path.write_text(" ".join(f"word{i}" for i in draw.integers(0, 1000, 60)))


def slices(path: Path, draw: Draw) -> None:
    path.mkdir()
    series_uid = generate_uid()
    for k in range(12):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid()
        made = pydicom.Dataset()
        made.file_meta = meta
        made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        made.Modality, made.SeriesInstanceUID, made.InstanceNumber = "CT", series_uid, k + 1
        made.Rows = made.Columns = 128
        made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
        made.BitsAllocated = made.BitsStored = 16
        made.HighBit, made.PixelRepresentation = 15, 1
        made.PixelSpacing, made.SliceThickness, made.ImagePositionPatient = [1, 1], 1, [0, 0, k]
        made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        made.RescaleSlope, made.RescaleIntercept = 1, -1024
        made.PixelData = draw.integers(0, 2000, (128, 128), dtype=np.int16).tobytes()
        made.save_as(path / f"{k:03}.dcm", enforce_file_format=True)


def bare_clip(path: Path) -> Any:
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24", width=149, height=112) for f in container.decode(video=0)][::3]


def bare_slices(path: Path) -> Any:
    read = sorted((pydicom.dcmread(p) for p in path.iterdir()), key=lambda d: d.ImagePositionPatient[2])
    return np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in read])


def bare_series(path: Path) -> Any:
    table = pyarrow.csv.read_csv(path)
    return np.stack([c.to_numpy() for c in table.columns]).astype(np.float32)


# what: ending, prefix of `hw.open`, how a file is made, the bare call
KINDS: dict[str, tuple[str, str, Callable[[Path, Draw], None], Callable[[Path], Any]]] = {
    "JPEG": (".jpg", "", picture, lambda p: np.asarray(Image.open(p))),
    "PNG": (".png", "", picture, lambda p: np.asarray(Image.open(p))),
    "WAV": (".wav", "", sound, lambda p: soundfile.read(p, dtype="float32")),
    "FLAC": (".flac", "", sound, lambda p: soundfile.read(p, dtype="float32")),
    "OGG": (".ogg", "", sound, lambda p: soundfile.read(p, dtype="float32")),
    "MP4": (".mp4", "", clip, bare_clip),
    "NIfTI": (".nii", "", volume, lambda p: nibabel.load(p).get_fdata(dtype=np.float32)),
    "DICOM": ("", "volume:", slices, bare_slices),
    "CSV series": (".csv", "series:", series, bare_series),
    "PLY": (".ply", "", cloud, lambda p: np.array(trimesh.load(p).vertices.T, np.float32, order="C")),
    "GraphML": (".graphml", "", graph, networkx.read_graphml),
    "text": (".txt", "text:", text, lambda p: torch.tensor([*p.read_bytes(), 256])),
}


def measure(kind: str, files: int, rounds: int) -> dict[str, Any]:
    ending, prefix, make, bare = KINDS[kind]
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i:04}{ending}" for i in range(files)]
        for i, path in enumerate(paths):
            make(path, np.random.default_rng(i))
        source = hw.open(prefix + folder + "/")
        assert len(source) == files, (kind, len(source))
        rates: dict[str, list[float]] = {"ours": [], "bare": []}
        for _ in range(rounds):
            for name, work in (("ours", source.read), ("bare", lambda i: bare(paths[i]))):
                started = time.perf_counter()
                for i in range(files):
                    work(i)
                rates[name].append(files / (time.perf_counter() - started))
    ratio = statistics.median(a / b for a, b in zip(rates["ours"], rates["bare"], strict=True))
    ours, theirs = (statistics.median(rates[n]) for n in ("ours", "bare"))
    return {"kind": kind, "files_per_second": ours, "bare_per_second": theirs, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for kind in given.kinds.split(","):
        rows.append(measure(kind, given.files, given.rounds))
        row = rows[-1]
        print(
            f"{kind:12} {row['files_per_second']:8.0f} files/s, bare {row['bare_per_second']:8.0f}: {row['ratio']:5.0%}",
            flush=True,
        )
    if given.write:
        (ROOT / "benchmarks" / "results" / "decoding.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
