"""EfficientAD: shapes, the hardest errors, units and thresholds, and what a region finder is worth."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import headwater as hw
from headwater.api.anomalies import anomalies
from headwater.api.learned import load as load_learned
from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch
from headwater.data.generated.inspection import COUNTS, KINDS, part
from headwater.methods.assess.efficientad import TINY, Config, EfficientAD
from headwater.parts.losses import hardest
from headwater.parts.pdn import PDNConfig
from headwater.parts.reconstructor import WholePicture
from headwater.parts.regions import region_overlap
from headwater.parts.views.anomaly import one_of_three, pink
from tests import small
from tests.story.commands import headwater


def test_256_pixels_become_56_and_the_student_says_twice_as_much() -> None:
    teacher = PDNConfig().build()
    x = torch.rand(1, 3, 256, 256)
    assert teacher.map(x).shape == (1, 384, 56, 56)
    assert teacher.wider(2)(x).shape == (1, 768, 56, 56)
    assert PDNConfig(padded=True).build().map(x).shape == (1, 384, 64, 64)
    assert PDNConfig(inner=(8, 16), dim=4, deep=True).build().map(x).shape == (1, 4, 56, 56)
    assert WholePicture(3, 384, 256, 56, 64, 0.2)(x).shape == (1, 384, 56, 56)


def test_the_network_is_the_papers_line_by_line() -> None:
    net = PDNConfig(inner=(8, 16), dim=4).build().net
    assert {*net.state_dict()} == {f"conv{k}.{part}" for k in (1, 2, 3, 4) for part in ("weight", "bias")}
    x = torch.rand(2, 3, 64, 64)
    y = F.avg_pool2d(F.relu(F.conv2d(x, net.conv1.weight, net.conv1.bias)), 2, 2)
    y = F.avg_pool2d(F.relu(F.conv2d(y, net.conv2.weight, net.conv2.bias)), 2, 2)
    y = F.relu(F.conv2d(y, net.conv3.weight, net.conv3.bias))
    torch.testing.assert_close(net(x), F.conv2d(y, net.conv4.weight, net.conv4.bias))


def test_an_output_sees_33_pixels() -> None:
    x = torch.rand(1, 3, 65, 65, requires_grad=True)
    out = PDNConfig(inner=(8, 16), dim=4).build().map(x)
    out[0, :, 4, 4].sum().backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(0).nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [33, 33]


def test_a_fresh_autoencoder_follows_the_sizes_of_the_reference() -> None:
    assert WholePicture(3, 8, 256, 56, 8, 0.0).sides == [3, 8, 15, 32, 63, 127, 56]


def test_the_hardest_errors() -> None:
    error = torch.rand(3, 5, 7, 7, requires_grad=True)
    torch.testing.assert_close(hardest(error, 0.0), error.flatten(1).mean(1))
    made = hardest(error, 0.9)
    told = [e[e >= torch.quantile(e, 0.9)].mean() for e in error.flatten(1)]
    torch.testing.assert_close(made, torch.stack(told))
    made.sum().backward()
    assert error.grad is not None
    for e, g in zip(error.flatten(1), error.grad.flatten(1), strict=True):
        assert (g[e < torch.quantile(e, 0.9)] == 0).all() and (g[e >= torch.quantile(e, 0.9)] > 0).all()


def built(config: Config = TINY) -> EfficientAD:
    torch.manual_seed(0)
    made = EfficientAD(config, small.pdn())
    made.begin(torch.rand(64, 3, 16, 16))
    return made


def test_the_teacher_is_frozen_and_speaks_in_deviations() -> None:
    made = built().train()
    assert not made.teacher.training and not any(p.requires_grad for p in made.teacher.parameters())
    x = torch.rand(64, 3, 16, 16)
    made.begin(x)
    said = made.target(x)
    torch.testing.assert_close(said.mean((0, 2, 3)), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(said.std((0, 2, 3), correction=0), torch.ones(6), rtol=1e-3, atol=0)


def test_the_loss_is_the_sum_of_four_written_out() -> None:
    made, batch, step = built(), small.batch(), small.step()
    loss = made.loss(batch, step)
    x, rng = batch.x["image"], small.step().rng
    assert isinstance(x, torch.Tensor)
    noise, changed, d = pink(x.shape, rng), one_of_three(x, rng), 6
    norm = made.teacher.normalise
    errors = (made.target(x) - made.student(norm(x))[:, :d]).square()
    hard = torch.stack([e[e >= torch.quantile(e, 0.9)].mean() for e in errors.flatten(1)]).mean()
    whole = made.auto(norm(changed))
    told = (
        hard
        + made.student(noise)[:, :d].square().mean()
        + (made.target(changed) - whole).square().mean()
        + (whole - made.student(norm(changed))[:, d:]).square().mean()
    )
    torch.testing.assert_close(loss.value, told)


def test_who_copies_perfectly_finds_nothing_wrong() -> None:
    made, x = built().eval(), torch.rand(2, 3, 16, 16)
    said = torch.cat([made.target(x), made.auto(made.teacher.normalise(x))], 1)
    made.student.forward = lambda seen: said  # type: ignore[method-assign]
    assert (made.maps(x) == 0).all()
    made.units.ends = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    two = torch.rand(2, 2, 16, 16)
    torch.testing.assert_close(made.units(two), 0.1 * two.mean(0))


def test_quantiles_become_0_and_a_tenth_and_larger_stays_larger() -> None:
    made = built().eval()
    good = torch.rand(40, 3, 16, 16)
    made.settle(good.split(8))
    for k, map_ in enumerate(made.maps(good)):
        q = np.quantile(map_.numpy(), (0.9, 0.995))
        np.testing.assert_allclose(made.units.ends[k].numpy(), q, rtol=1e-4)
        alone = made.units.ends.clone()
        joined = made.units(torch.stack([torch.full((1, 2, 2), float(v)) for v in alone[:, 0]]))
        torch.testing.assert_close(joined, torch.zeros(1, 2, 2), atol=1e-6, rtol=0)
        top = made.units(torch.stack([torch.full((1, 2, 2), float(v)) for v in alone[:, 1]]))
        torch.testing.assert_close(top, torch.full((1, 2, 2), 0.1))
    scores = made.units(made.maps(good)).flatten(1).amax(1)
    assert (
        0 < float((scores > made.units.alarm).float().mean()) <= 0.05
    )  # 2 of 41 may be called wrong, one of them the next
    assert bool((made.units(2 * made.maps(good)) > made.units(made.maps(good))).all())


def test_dropout_is_off_at_test() -> None:
    made = built(Config(size=16, width=8, dropout=0.5, view=TINY.view, hard=0.9)).eval()
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(made.maps(x), made.maps(x))


def test_pictures_of_no_domain_have_the_spectrum_of_natural_ones() -> None:
    made = pink((8, 3, 64, 64), Rng(0))
    torch.testing.assert_close(made.mean((1, 2, 3)), torch.zeros(8), atol=1e-5, rtol=0)
    power = torch.fft.rfft2(made).abs().square().mean((0, 1))[0]
    slope = np.polyfit(np.log(np.arange(1, 31)), np.log(power[1:31].numpy()), 1)[0]
    assert -2.6 < slope < -1.4


def test_one_of_three_changes_at_a_time() -> None:
    x = torch.rand(60, 3, 8, 8) * 0.8
    made = one_of_three(x, Rng(0))
    ratio = made / x
    bright = (ratio.flatten(1).std(1) < 1e-4).sum()
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    saturated = ((made * luma).sum(1) - (x * luma).sum(1)).abs().flatten(1).amax(1) < 1e-5
    assert 8 < int(bright) < 32 and 8 < int(saturated.sum()) < 32
    factors = ratio[ratio.flatten(1).std(1) < 1e-4]
    assert 0.8 <= float(factors.min()) < 0.9 < 1.1 < float(factors.max()) <= 1.2


def test_region_overlap_by_hand() -> None:
    mask = np.zeros((10, 10), bool)
    mask[0, :4] = mask[5:8, 5:8] = True  # of unequal size, and they count alike
    perfect = mask.astype(np.float64)
    assert region_overlap([perfect], [mask]) == pytest.approx(1)
    assert region_overlap([-perfect], [mask]) == pytest.approx(0)
    half = perfect.copy()
    half[5:8, 5:8] = 0  # found with the ground alone: half of the regions at no false positive, then along the diagonal
    half += np.arange(100).reshape(10, 10) * 1e-6
    brute = []
    for t in np.sort(half.ravel())[::-1]:
        hit = half >= t
        brute.append((hit[~mask].mean(), np.mean([hit[0, :4].mean(), hit[5:8, 5:8].mean()])))
    x, y = np.array([(0.0, 0.0), *brute]).T
    last = np.interp(0.3, x, y)
    x, y = np.append(x[x <= 0.3], 0.3), np.append(y[x <= 0.3], last)
    told = np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / 0.3
    assert region_overlap([half], [mask]) == pytest.approx(told, abs=0.01)
    chance = [np.random.default_rng(k).random((40, 40)) for k in range(20)]
    marks = [np.pad(np.ones((9, 9), bool), ((5, 26), (9, 22)))] * 20
    assert region_overlap(chance, marks) == pytest.approx(0.15, abs=0.02)
    assert np.isnan(region_overlap([perfect], [np.zeros((10, 10), bool)]))


def test_the_generated_defects_are_where_the_masks_say() -> None:
    source = hw.open("inspected-parts")
    assert len(source) == sum(COUNTS) and source.classes == KINDS
    for kind in KINDS:
        picture, mask = part(7, kind)
        assert bool(mask.any()) == (kind != "good") and picture.shape == (1, 64, 64)
    again, _ = part(7, "spot")
    np.testing.assert_array_equal(again, part(7, "spot")[0])


def test_another_teacher_is_refused() -> None:
    with pytest.raises(RequestError, match="patch description network, and this is a ConvNet"):
        EfficientAD(TINY, small.convnet())
    with pytest.raises(RequestError, match="33 pixels a side at least"):
        PDNConfig().build().map(torch.rand(1, 3, 32, 32))


def test_a_teacher_of_grey_pictures_is_none_of_colours(tmp_path: Path) -> None:
    words = {"steps": 1, "batch_size": 8, "workers": 1}
    first = hw.pretrain("patch-description", torch.rand(8, 1, 16, 16), out=tmp_path / "a", **words)
    with pytest.raises(RequestError, match="made for 1 channels, and these data have 3"):
        hw.pretrain("efficientad", torch.rand(8, 3, 16, 16), out=tmp_path / "b", encoder=str(first.path), **words)


def test_a_folder_of_good_pictures_to_scores_and_heat_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, kinds, first in (("good", ("good",), 0), ("new", ("good", "spot"), 60)):
        for kind in kinds:
            at = tmp_path / name / kind
            at.mkdir(parents=True)
            for i in range(40 if name == "good" else 8):
                picture, mask = part(first + i, kind)
                Image.fromarray(picture[0]).save(at / f"{kind}{i:02}.png")
                if name == "new":
                    (tmp_path / "masks").mkdir(exist_ok=True)
                    Image.fromarray(mask).save(tmp_path / "masks" / f"{kind}{i:02}.png")
    run, out = tmp_path / "run", tmp_path / "scores.csv"
    words = ("-d", tmp_path / "good", "-o", run, "--steps", 12, "--batch-size", 8, "--json")
    said = headwater(capsys, "pretrain", "efficientad", *words)
    assert said.code == 0, said.err
    read = ("--read", f"masks={tmp_path / 'masks'}")
    said = headwater(capsys, "predict", "-e", run, "-d", tmp_path / "new", "-o", out, *read, "--json")
    assert said.code == 0, said.err
    found = said.json
    assert found["promised"] == pytest.approx(1 / 5)  # four of forty were kept aside
    assert found["scored"] == 16 and found["milliseconds"] > 0 and 0 <= found["aupro"] <= 1 and 0 <= found["auroc"] <= 1
    lines = out.read_text().splitlines()
    assert len(lines) == 17 and lines[0].replace('"', "") == "id,class,score,wrong"
    maps = np.load(tmp_path / "scores.maps.npy")
    assert maps.shape == (16, 64, 64)
    np.testing.assert_allclose([float(x.split(",")[2]) for x in lines[1:]], maps.max((1, 2)), rtol=1e-5)
    page = (tmp_path / "scores.html").read_text()
    assert "data:image/png" in page and "ms a picture" in page and "AUPRO" in page and "http" not in page
    shown = headwater(capsys, "predict", "-e", run, "-d", tmp_path / "new", "-o", tmp_path / "b.csv")
    assert "of good ones at most 20.0 % are" in page and "Of good ones at most 20.0 % are" in shown.out
    assert shown.code == 0 and "ms a picture" in shown.out and "AUPRO" not in shown.out
    other = ("-d", tmp_path / "good", "-o", tmp_path / "x", "--encoder", "resnet-micro")
    refused = headwater(capsys, "pretrain", "efficientad", *other)
    assert refused.code == 2 and "pdn-small" in refused.err
    for i in range(5, 40):
        (tmp_path / "good" / "good" / f"good{i:02}.png").unlink()
    refused = headwater(capsys, "pretrain", "efficientad", "-d", tmp_path / "good", "-o", tmp_path / "y")
    assert refused.code == 2 and "has 5 items, and 6 are the least" in refused.err


def marked(at: Path, kinds: tuple[str, ...], sizes: tuple[tuple[int, int], ...], n: int = 3) -> None:
    """As MVTec AD lays its pictures out: test/KIND/000.png, and white on black ground_truth/KIND/000_mask.png but of good ones.
    The part stands at the left, and what is added to it at the right."""
    for k, kind in enumerate(kinds):
        for i in range(n):
            picture, mask = part(60 + i, kind)
            wide = [(0, 0), (0, sizes[(i + k) % len(sizes)][1] - 64)]
            for folder, name, pixels in (("test", "", picture[0]), ("ground_truth", "_mask", 255 * mask)):
                if folder == "test" or kind != "good":
                    (at / folder / kind).mkdir(parents=True, exist_ok=True)
                    filled = np.pad(pixels, wide, constant_values=0)
                    Image.fromarray(filled).save(at / folder / kind / f"{i:03}{name}.png")


def test_grey_pictures_have_a_teacher_of_colours() -> None:
    made, grey = built(), torch.rand(4, 1, 16, 16)
    a, b = (made.loss(Batch({"image": x}), small.step()).value for x in (grey, grey.expand(-1, 3, -1, -1)))
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(made.eval().maps(grey), made.maps(grey.expand(-1, 3, -1, -1)))


def test_white_masks_mark_what_is_wrong_and_good_pictures_need_none(tmp_path: Path) -> None:
    marked(tmp_path, ("good", "spot"), ((64, 64), (64, 96)))
    source = hw.open(tmp_path / "test", masks=str(tmp_path / "ground_truth"))
    assert [source.id(i) for i in range(6)] == [f"{kind}/{i:03}.png" for kind in ("good", "spot") for i in range(3)]
    assert "3 pictures called good or normal or ok or sound have no mask" in "\n".join(source.notes)
    for i in range(6):
        marks = source.annotations(i, source.read(i)).masks
        assert marks is not None
        told = torch.from_numpy(part(60 + i % 3, "spot")[1]).long() * (i >= 3)
        assert torch.equal(marks[0, :, :64], told) and not marks[0, :, 64:].any()


def test_all_of_a_wide_picture_is_looked_at(tmp_path: Path) -> None:
    """Its masks too, in batches of unequal sizes: what a perfect method marks has no pixel wrong."""
    marked(tmp_path, ("good", "spot"), ((64, 64), (64, 128)))
    run = hw.pretrain("efficientad", tmp_path / "test", out=tmp_path / "run", steps=1, batch_size=4, workers=1)
    learned = load_learned(run.path)
    assert learned.preprocessing["image"]["fit"] == "stretch"
    seen = list[torch.Tensor]()
    learned.method.predict = lambda batch, step: seen.append(batch.x["image"]) or batch.x["image"][:, 0]  # type: ignore[func-returns-value]
    source = hw.open(tmp_path / "test", masks=str(tmp_path / "ground_truth"))
    made = anomalies(learned, source, batch_size=6, workers=1)
    assert seen[0].shape == (6, 1, 224, 224)
    for i, (picture, mask) in made.shown.items():
        plain = source.read(i)["image"]
        assert isinstance(plain, torch.Tensor)
        told = F.interpolate(plain[None].float(), (224, 224), mode="bilinear", antialias=True)[0] / 255
        torch.testing.assert_close(picture, told, atol=0.005, rtol=0)
        marks = source.annotations(i, source.read(i)).masks
        assert marks is not None and mask is not None
        small = F.interpolate(marks[None].float(), (224, 224), mode="bilinear", antialias=True)[0, 0]
        np.testing.assert_array_equal(mask, (small > 0.5).numpy())
    assert {"pixel_auroc", "aupro", "auroc"} <= {*made.measured}
