"""Views do what they say, to the samples they say, and the same however the batch is split."""

import colorsys
import math
import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy.ndimage import gaussian_filter
from scipy.stats import kstest
from sklearn.datasets import load_sample_image
from torch import Tensor
from torch.nn.functional import interpolate

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Ragged
from headwater.parts.views import (
    Affine,
    Blur,
    CentreCrop,
    Chain,
    Colour,
    Corrupt,
    Crop,
    DropChannels,
    Elastic,
    Flip,
    Grey,
    Jitter,
    MultiCrop,
    Noise,
    Resize,
    Retouch,
    Scale,
    Shift,
    Solarise,
    View,
    Warp,
    Window,
    byol_views,
    dino_views,
    grey_view,
    rotations,
    simclr_view,
)

SIDES = (20, 60)  # below and above the size where a CPU changes its way of working

PICTURE_VIEWS: list[View] = [
    Crop(24),
    Crop(24, kind="bicubic"),
    Resize(24),
    CentreCrop(24),
    Flip(0.5),
    Affine(20.0, 0.1, (0.8, 1.2), 10.0),
    Elastic(2.0, 4.0),
    Colour(0.8, 0.8, 0.8, 0.2, p=0.8),
    Grey(0.5),
    Blur(p=0.5, kernel=5),
    Solarise(p=0.5),
    Noise(0.1),
    simclr_view(24),
    *byol_views(24),
    grey_view(24),
]
SERIES_VIEWS: list[View] = [
    Jitter(0.1),
    Scale(0.1),
    Shift(0.1),
    DropChannels(0.5),
    Window(10),
    Window(10, (0.3, 0.9)),
    Warp(),
]
NOTHING: list[View] = [
    Crop(20, (1.0, 1.0), (1.0, 1.0), flip=0.0),
    Resize(20),
    CentreCrop(20, part=1.0),
    Flip(0.0),
    Affine(),
    Elastic(0.0, 4.0),
    Colour(),
    Colour(0.5, 0.5, 0.5, 0.1, p=0.0),
    Grey(0.0),
    Blur(p=0.0),
    Blur((0.01, 0.01), p=1.0),
    Solarise(p=0.0),
    Noise(0.0),
    Chain(),
]


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def photo(h: int, w: int) -> Image.Image:
    return Image.fromarray(load_sample_image("china.jpg")).resize((w, h))


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("view", NOTHING, ids=repr)
@pytest.mark.parametrize("c", [1, 3, 5])
def test_nothing_asked_nothing_done(view: View, c: int) -> None:
    x = noise(4, c, 20, 20)
    torch.testing.assert_close(view(x, Rng(0)), x, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "view", [Jitter(0.0), Scale(0.0), Shift(0.0), DropChannels(0.0), Window(30), Warp(0.0)], ids=repr
)
def test_nothing_asked_nothing_done_to_series(view: View) -> None:
    x = noise(4, 3, 30)
    torch.testing.assert_close(view(x, Rng(0)), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("view", PICTURE_VIEWS, ids=repr)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", ["bytes", "floats", "ragged"])
def test_pictures_come_out_as_floats_the_same_however_split(view: View, side: int, kind: str) -> None:
    for c in (1, 3, 5):
        x = noise(8, c, side, side + 4)
        x = x if kind == "floats" else (x * 255).byte()
        before = x.clone()
        extent = torch.tensor([[side - 3, side], [side, side + 4]]).repeat(4, 1)
        if kind == "ragged" and not isinstance(view, Crop | Resize | CentreCrop | Chain):
            with pytest.raises(RequestError, match="differ in size"):
                view(Ragged(x, extent), Rng(1))
            continue
        halves = [Ragged(v, e) if kind == "ragged" else v for v, e in zip(x.chunk(2), extent.chunk(2), strict=True)]
        whole = view(Ragged(x, extent) if kind == "ragged" else x, Rng(1))
        assert whole.dtype == torch.float32
        assert whole.min() >= 0
        assert whole.max() <= 1 + 1e-6
        parts = [view(half, Rng(1, shard=i, shards=2)) for i, half in enumerate(halves)]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)
        assert torch.equal(x, before)


@pytest.mark.parametrize("view", SERIES_VIEWS, ids=repr)
def test_series_the_same_however_split(view: View) -> None:
    x = noise(8, 3, 30)
    before = x.clone()
    whole = view(x, Rng(1))
    parts = [view(half, Rng(1, shard=i, shards=2)) for i, half in enumerate(x.chunk(2))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)
    assert torch.equal(x, before)
    assert not torch.equal(view(x, Rng(2)), whole)


@pytest.mark.parametrize("view", PICTURE_VIEWS, ids=repr)
@pytest.mark.parametrize("side", SIDES)
def test_threads_and_modes_change_nothing(
    view: View, side: int, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = (noise(8, 3, side, side) * 255).byte()
    torch.set_num_threads(1)
    alone = view(x, Rng(3))
    monkeypatch.setattr("headwater.parts.views.compose.CACHE", 1)  # one picture at a time
    torch.set_num_threads(2)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(view(x, Rng(3)), alone, rtol=0, atol=1e-6)
    assert torch.get_num_threads() == 2


# Crop


def boxes_one_by_one(count: int, h: int, w: int) -> np.ndarray:
    """The usual sequential procedure, in Python's own random numbers."""
    draw, boxes = random.Random(5), []
    while len(boxes) < count:
        for _ in range(10):
            area = h * w * draw.uniform(0.08, 1)
            ratio = math.exp(draw.uniform(math.log(3 / 4), math.log(4 / 3)))
            bw, bh = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < bw <= w and 0 < bh <= h:
                boxes.append([draw.randint(0, h - bh), draw.randint(0, w - bw), bh, bw])
                break
        else:
            bw, bh = min(w, round(h * 4 / 3)), min(h, round(w * 4 / 3))
            boxes.append([(h - bh) // 2, (w - bw) // 2, bh, bw])
    return np.array(boxes)


@pytest.mark.parametrize(("h", "w"), [(375, 500), (100, 400)])
def test_crop_has_the_usual_distribution(h: int, w: int) -> None:
    ours = Crop(224).boxes(torch.tensor([[h, w]]).repeat(4000, 1), Rng(0)).numpy()
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= h).all()
    assert (ours[:, 1] + ours[:, 3] <= w).all()
    usual = boxes_one_by_one(4000, h, w)
    measures: list[Callable[[np.ndarray], np.ndarray]] = [
        lambda b: b[:, 2] * b[:, 3] / (h * w),
        lambda b: b[:, 3] / b[:, 2],
        lambda b: b[:, 0] / h,
        lambda b: b[:, 1] / w,
    ]
    for measure in measures:
        assert kstest(measure(ours), measure(usual)).pvalue > 1e-3


def test_crop_falls_back_to_the_largest_centred_box_of_a_permitted_ratio() -> None:
    boxes = Crop(8).boxes(torch.tensor([[10, 300], [300, 10]]), Rng(0))
    assert boxes.tolist() == [[0, 143, 10, 13], [143, 0, 13, 10]]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_crop_of_ragged_reads_no_padding(side: int, kind: str, dtype: torch.dtype) -> None:
    x = torch.full((6, 3, side, side), 200 if dtype == torch.uint8 else 200 / 255).to(dtype)
    extent = torch.randint(5, side + 1, (6, 2), generator=torch.Generator().manual_seed(1))
    for picture, (h, w) in zip(x, extent.tolist(), strict=True):
        picture[:, h:], picture[:, :, w:] = 0, 0
    for view in (Crop(16, kind=kind), Resize(16, kind=kind), CentreCrop(16, 1.0, kind=kind)):
        made = view(Ragged(x, extent), Rng(0))
        torch.testing.assert_close(made, torch.full_like(made, 200 / 255), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [16, 90])
def test_crop_resizes_as_torch_and_pillow_do(kind: str, size: int) -> None:
    image = photo(60, 70)
    resample = Image.Resampling.BILINEAR if kind == "bilinear" else Image.Resampling.BICUBIC
    view = Crop(size, flip=0.0, kind=kind)
    for seed in range(3):
        top, left, h, w = view.boxes(torch.tensor([[60, 70]]), Rng(seed))[0].tolist()
        pillow = image.crop((left, top, left + w, top + h)).resize((size, size), resample)
        x = tensor(image)
        made = view(x, Rng(seed))
        torch.testing.assert_close(made, tensor(pillow) / 255, rtol=0, atol=2.01 / 255)
        part = (x / 255)[:, :, top : top + h, left : left + w]
        exact = interpolate(part, (size, size), mode=kind, antialias=True).clamp(0, 1)
        torch.testing.assert_close(view(x / 255, Rng(seed)), exact, rtol=0, atol=1e-5)


def test_small_pictures_are_resized_as_large_ones() -> None:
    x = noise(8, 3, 40, 44)
    padded = torch.zeros(8, 3, 60, 60)  # the same pictures, in a tensor large enough to be taken one by one
    padded[:, :, :40, :44] = x
    extent = torch.tensor([[40, 44]]).repeat(8, 1)
    for view in (Crop(32), Crop(48, kind="bicubic")):
        torch.testing.assert_close(view(x, Rng(0)), view(Ragged(padded, extent), Rng(0)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", SIDES)
def test_flip_is_the_mirror_image_as_often_as_asked(side: int) -> None:
    x = noise(6, 3, side, side)
    assert torch.equal(Flip(1.0)(x, Rng(0)), x.flip(-1))
    torch.testing.assert_close(Crop(16, flip=1.0)(x, Rng(0)), Crop(16, flip=0.0)(x, Rng(0)).flip(-1))
    ramp = torch.arange(4.0).expand(4000, 1, 1, 4) / 4
    assert abs((Flip(0.3)(ramp, Rng(0))[:, 0, 0, 0] > 0).float().mean() - 0.3) < 0.03


# Geometry


def centre_of_mass(x: Tensor) -> Tensor:
    """(x, y) of the mass of [b 1 h w], in pixels from the centre."""
    _, _, h, w = x.shape
    mass = x[:, 0] / x[:, 0].sum((1, 2), keepdim=True)
    across, down = torch.arange(w) + 0.5 - w / 2, torch.arange(h) + 0.5 - h / 2
    return torch.stack([(mass.sum(1) * across).sum(1), (mass.sum(2) * down).sum(1)], 1)


def blob(b: int, x: int, y: int) -> Tensor:
    picture = torch.zeros(b, 1, 60, 80)
    picture[:, :, 29 + y : 31 + y, 39 + x : 41 + x] = 1
    return picture


def test_affine_turns_moves_and_magnifies_as_asked() -> None:
    turned = centre_of_mass(Affine(degrees=30.0)(blob(2000, 15, 0), Rng(0)))
    torch.testing.assert_close(turned.norm(dim=1), torch.full((2000,), 15.0), rtol=0, atol=0.3)
    assert kstest(torch.atan2(turned[:, 1], turned[:, 0]).rad2deg().numpy(), "uniform", (-30, 60)).pvalue > 1e-3
    moved = centre_of_mass(Affine(translate=0.2)(blob(2000, 0, 0), Rng(0)))
    for axis, side in enumerate((80, 60)):
        assert kstest(moved[:, axis].numpy(), "uniform", (-0.2 * side, 0.4 * side)).pvalue > 1e-3
    magnified = centre_of_mass(Affine(scale=(1.5, 1.5))(blob(1, 10, -8), Rng(0)))
    torch.testing.assert_close(magnified, torch.tensor([[15.0, -12.0]]), rtol=0, atol=0.2)
    sheared = centre_of_mass(Affine(shear=30.0)(blob(2000, 0, 12), Rng(0)))
    torch.testing.assert_close(sheared[:, 1], torch.full((2000,), 12.0), rtol=0, atol=0.2)
    angle = torch.atan2(sheared[:, 0], sheared[:, 1]).rad2deg()
    assert kstest(angle.numpy(), "uniform", (-30, 60)).pvalue > 1e-3


def test_elastic_moves_pixels_by_its_strength_and_smoothly() -> None:
    ramp = torch.arange(64.0).expand(32, 1, 64, 64) / 64
    moved = (Elastic(1.5, 6.0, padding="border")(ramp, Rng(0)) - ramp)[..., 8:-8, 8:-8] * 64
    assert abs(moved.square().mean().sqrt() - 1.5) < 0.2
    assert moved.diff(dim=-1).abs().mean() < 0.5


def test_rotations_are_exact_quarter_turns_image_by_image() -> None:
    x = noise(3, 2, 8, 8)
    turned, label = rotations(x)
    assert label.tolist() == [0, 1, 2, 3] * 3
    for i, picture in enumerate(x.numpy()):
        rows = picture.transpose(0, 2, 1)
        recipe = [picture, rows[:, ::-1], picture[:, ::-1, ::-1], picture[:, ::-1].transpose(0, 2, 1)]
        for k in range(4):
            assert np.array_equal(turned[4 * i + k].numpy(), recipe[k])
    again = x
    for _ in range(4):
        again = rotations(again)[0][1::4]
    assert torch.equal(again, x)
    with pytest.raises(RequestError, match="square"):
        rotations(noise(1, 1, 4, 5))


# Colour


def pillow_hue(image: Image.Image, turn: float) -> Image.Image:
    pixels = np.asarray(image).reshape(-1, 3) / 255
    turned = [colorsys.hsv_to_rgb((h + turn) % 1, s, v) for h, s, v in (colorsys.rgb_to_hsv(*p) for p in pixels)]
    return Image.fromarray((np.array(turned) * 255).round().astype(np.uint8).reshape(np.asarray(image).shape))


@pytest.mark.parametrize(
    "strength",
    [(0.8, 0.0, 0.0, 0.0), (0.0, 0.8, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 0.5), (0.4, 0.4, 0.4, 0.1)],
)
def test_colour_does_what_pillow_does(strength: tuple[float, float, float, float]) -> None:
    image = photo(50, 60)
    view = Colour(*strength)
    for seed in range(6):
        made = view(tensor(image), Rng(seed))
        rng = Rng(seed)
        order = [n for n in range(4) if strength[n]]
        rng.host.shuffle(order)
        rng.rand(1)
        factor = view.factors(1, rng)[0].tolist()
        usual = image
        for n in order:
            enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color, None)[n]
            usual = pillow_hue(usual, factor[n]) if enhance is None else enhance(usual).enhance(factor[n])
        apart = (made - tensor(usual) / 255).abs() * 255
        assert apart.mean() < 1.5
        assert apart.quantile(0.99) < 6


def test_colour_factors_are_uniform() -> None:
    factor = Colour(0.8, 0.4, 2.0, 0.2).factors(4000, Rng(0)).numpy()
    for column, (low, high) in zip(factor.T, [(0.2, 1.8), (0.6, 1.4), (0, 3), (-0.2, 0.2)], strict=True):
        assert kstest(column, "uniform", (low, high - low)).pvalue > 1e-3


def test_colour_changes_come_in_either_order() -> None:
    """Clamping in between makes brightness before contrast differ from contrast before brightness."""
    x = torch.tensor([0.4, 1.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    seen = set()
    for seed in range(20):
        rng = Rng(seed)
        rng.rand(1)
        bright, contrast, *_ = Colour(0.5, 0.5).factors(1, rng)[0].tolist()
        made = Colour(0.5, 0.5)(x, Rng(seed))[0, 0, 0]
        for order in ("bc", "cb"):
            value = x[0, 0, 0]
            for change in order:
                value = value * bright if change == "b" else value * contrast + value.mean() * (1 - contrast)
                value = value.clamp(0, 1)
            seen |= {order} if torch.allclose(value, made, atol=1e-5) else {f"not {order}"}
    assert {"bc", "cb", "not bc", "not cb"} <= seen


@pytest.mark.parametrize(
    "view", [Colour(0.5, p=0.3), Grey(0.3), Blur((1.0, 2.0), p=0.3), Solarise(0.2, p=0.3)], ids=repr
)
@pytest.mark.parametrize("side", SIDES)
def test_only_the_chosen_change(view: Retouch, side: int) -> None:
    x = noise(300, 3, side, side)
    same = (view(x, Rng(0)) == x).flatten(1).all(1)
    assert abs(same.float().mean() - 0.7) < 0.08


def test_grey_is_the_luma_and_leaves_other_channels_alone() -> None:
    image = photo(20, 20)
    grey = Grey(1.0)(tensor(image), Rng(0))
    torch.testing.assert_close(grey, tensor(image.convert("L").convert("RGB")) / 255, rtol=0, atol=1 / 255)
    for c in (1, 4):
        assert torch.equal(Grey(1.0)(noise(2, c, 6, 6), Rng(0)), noise(2, c, 6, 6))


def test_solarise_inverts_the_bright() -> None:
    x = torch.tensor([0.1, 0.4, 0.5, 0.9]).view(1, 1, 2, 2)
    torch.testing.assert_close(Solarise(0.4)(x, Rng(0)).flatten(), torch.tensor([0.1, 0.6, 0.5, 0.1]))


def test_noise_has_its_spread() -> None:
    made = Noise(0.05)(torch.full((4, 1, 50, 50), 0.5), Rng(0))
    assert abs(made.std() - 0.05) < 0.002
    assert abs(made.mean() - 0.5) < 0.002


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
def test_blur_is_gaussian_and_keeps_the_mean(side: int, sigma: float) -> None:
    x = noise(2, 3, side, side)
    made = Blur((sigma, sigma), p=1.0, kernel=19)(x, Rng(0))
    usual = gaussian_filter(x.numpy(), sigma=(0, 0, sigma, sigma), mode="mirror", truncate=9 / sigma)
    torch.testing.assert_close(made, torch.from_numpy(usual), rtol=0, atol=2e-3)
    even = torch.full((2, 3, side, side), 0.3)
    torch.testing.assert_close(Blur((sigma, sigma), p=1.0)(even, Rng(0)), even)
    dot = torch.zeros(1, 1, side, side)
    dot[..., side // 2, side // 2] = 1
    assert abs(Blur((sigma, sigma), p=1.0)(dot, Rng(0)).sum() - 1) < 1e-5


# Composition


def test_chain_writes_to_nothing_it_was_given() -> None:
    x = noise(4, 3, 20, 20)
    before = x.clone()
    one_by_one = Rng(0)
    made = Solarise()(Noise(0.2)(x, one_by_one), one_by_one)
    for first in (Resize(20), lambda x, rng: x):  # the second hands on what it was given
        assert torch.equal(Chain(first, Noise(0.2), Solarise())(x, Rng(0)), made)
        assert torch.equal(x, before)


def test_multi_crop_takes_its_large_views_in_turn() -> None:
    x = noise(2, 3, 40, 50)
    made = dino_views(32, 16, n_small=3)(x, Rng(0))
    assert [tuple(v.shape) for v in made] == [(2, 3, 32, 32)] * 2 + [(2, 3, 16, 16)] * 3
    grey, plain = Chain(Resize(8), Grey(1.0)), Resize(8)
    views = MultiCrop((grey, plain), Crop(4), n_large=3, n_small=1)(x, Rng(0))
    assert [bool((v[:, 0] == v[:, 1]).all()) for v in views] == [True, False, True, False]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Crop(8, scale=(0.5, 0.2)),
        lambda: Crop(8, scale=(0.5, 1.5)),
        lambda: Flip(1.2),
        lambda: Colour(hue=0.7),
        lambda: Colour(brightness=-0.1),
        lambda: Blur(kernel=4),
        lambda: Corrupt(1.5),
        lambda: Window(50)(noise(2, 1, 20), Rng(0)),
        lambda: Corrupt()(noise(1, 5), Rng(0)),
        lambda: Crop(8)(noise(3, 8, 8), Rng(0)),
    ],
)
def test_wrong_requests_are_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(RequestError):
        wrong()


# Series and tables


def test_scale_and_shift_are_constant_along_a_series() -> None:
    x = noise(200, 2, 30) + 1
    factor = Scale(0.2)(x, Rng(0)) / x
    torch.testing.assert_close(factor, factor[..., :1].expand_as(factor))
    assert abs(factor[..., 0].std() - 0.2) < 0.03
    assert abs(factor.mean() - 1) < 0.03
    offset = Shift(0.2)(x, Rng(0)) - x
    torch.testing.assert_close(offset, offset[..., :1].expand_as(offset), rtol=0, atol=1e-5)
    assert abs(offset[..., 0].std() - 0.2) < 0.03
    assert abs((Jitter(0.2)(x, Rng(0)) - x).std() - 0.2) < 0.01


def test_window_is_a_stretch_within_the_extent() -> None:
    times = torch.arange(40.0).expand(500, 1, 40)
    extent = torch.tensor([[20], [40]]).repeat(250, 1)
    padded = torch.where(torch.arange(40) < extent[:, None], times, torch.inf)
    cut = Window(12)(Ragged(padded, extent), Rng(0))[:, 0]
    assert (cut.diff(dim=1) == 1).all()
    assert set(cut[::2, 0].int().tolist()) == set(range(9))
    assert set(cut[1::2, 0].int().tolist()) == set(range(29))
    padded[padded.isinf()] = 1e6  # interpolation would turn a read of infinity into NaN
    stretch = Window(12, (0.3, 1.0))(Ragged(padded, extent), Rng(0))[:, 0]
    assert (stretch[:, -1] <= extent[:, 0] - 1 + 1e-4).all()
    share = (stretch[:, -1] - stretch[:, 0]) / (extent[:, 0] - 1)
    assert kstest(share.numpy(), "uniform", (0.3, 0.7)).pvalue > 1e-3
    torch.testing.assert_close(stretch.diff(dim=1), stretch.diff(dim=1)[:, :1].expand(-1, 11), rtol=0, atol=1e-3)


def test_warp_keeps_order_and_ends() -> None:
    times = torch.arange(50.0).expand(100, 2, 50)
    made = Warp(0.5)(times, Rng(0))
    assert (made.diff(dim=2) > 0).all()
    assert not torch.allclose(made, times, atol=0.5)
    torch.testing.assert_close(made[..., [0, -1]], times[..., [0, -1]], rtol=0, atol=1e-3)


def test_dropped_channels_are_zero_and_one_is_always_left() -> None:
    made = DropChannels(0.4)(torch.ones(1000, 6, 5), Rng(0))
    assert ((made == 0).all(2) | (made == 1).all(2)).all()
    assert abs((made[:, :, 0] == 0).float().mean() - 0.4) < 0.03
    assert (DropChannels(1.0)(torch.ones(50, 6, 5), Rng(0))[:, :, 0].sum(1) == 1).all()


def test_corrupt_takes_the_asked_number_of_cells_from_other_rows_of_the_column() -> None:
    x = torch.arange(8.0)[:, None] + 100 * torch.arange(10.0)
    made = Corrupt(0.3)(x, Rng(0))
    assert ((made != x).sum(1) == 3).all()  # a cell's own row would leave it unchanged
    assert torch.equal(made // 100, x // 100)
    x[2, :4], x[5, 7] = torch.nan, torch.nan
    for seed in range(20):
        assert torch.equal(Corrupt(0.9)(x, Rng(seed)).isnan(), x.isnan())
        assert torch.equal(Jitter(0.1)(x, Rng(seed)).isnan(), x.isnan())
