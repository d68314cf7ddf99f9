"""Two SimCLR views of 224 pixels from 500 × 375 JPEGs: images per second, against two peers in the same run.

    python benchmarks/views.py [--images 200] [--rounds 3]

pillow  the usual pipeline: one picture at a time through Pillow, in a DataLoader with two worker processes
grid    crop and flip of a whole batch by one `grid_sample` (no antialiasing, no colours), blur of all by convolution
ours    decoded by Pillow in two threads, one batch ahead; `simclr_view` on the batch of bytes, as the engine does it

`pillow` and `ours` have the same distribution of crops, flips, colours, greyness and blurs. Best of the rounds, which
take turns so that all meet the same load.
"""

import argparse
import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from headwater.core.rng import Rng
from headwater.parts.views import simclr_view

SIDE, BATCH, WORKERS = 224, 32, 2


def write_photos(folder: Path, count: int) -> list[Path]:
    """`count` JPEGs of 500 × 375 pixels: random crops of scikit-learn's two photographs."""
    from sklearn.datasets import load_sample_images  # here, so that the worker processes start without it

    photos, draw = [Image.fromarray(p) for p in load_sample_images().images], random.Random(0)
    paths = []
    for i in range(count):
        photo = photos[i % len(photos)]
        part = draw.uniform(0.6, 1.0)
        w, h = int(photo.width * part), int(photo.width * part * 0.75)
        w, h = (w, h) if h <= photo.height else (int(photo.height / 0.75), photo.height)
        left, top = draw.randint(0, photo.width - w), draw.randint(0, photo.height - h)
        crop = photo.resize((500, 375), Image.Resampling.BICUBIC, box=(left, top, left + w, top + h))
        paths.append(folder / f"{i:04}.jpg")
        crop.save(paths[-1], quality=90)
    return paths


def pillow_view(image: Image.Image, draw: random.Random) -> Image.Image:
    image = _pillow_crop(image, draw)
    if draw.random() < 0.5:
        image = ImageOps.mirror(image)
    if draw.random() < 0.8:
        changes = [_pillow_factor(e, 0.8) for e in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)]
        changes.append(_pillow_hue)
        draw.shuffle(changes)
        for change in changes:
            image = change(image, draw)
    if draw.random() < 0.2:
        image = image.convert("L").convert("RGB")
    if draw.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(draw.uniform(0.1, 2.0)))
    return image


def _pillow_crop(image: Image.Image, draw: random.Random) -> Image.Image:
    area = image.width * image.height
    for _ in range(10):
        target = area * draw.uniform(0.08, 1.0)
        ratio = math.exp(draw.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= image.width and 0 < h <= image.height:
            left, top = draw.randint(0, image.width - w), draw.randint(0, image.height - h)
            break
    else:
        w, h = min(image.width, round(image.height * 4 / 3)), min(image.height, round(image.width * 4 / 3))
        left, top = (image.width - w) // 2, (image.height - h) // 2
    return image.crop((left, top, left + w, top + h)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def _pillow_factor(enhance: Any, width: float) -> Callable[[Image.Image, random.Random], Image.Image]:
    return lambda image, draw: enhance(image).enhance(draw.uniform(max(0.0, 1 - width), 1 + width))


def _pillow_hue(image: Image.Image, draw: random.Random) -> Image.Image:
    h, s, v = image.convert("HSV").split()
    turned = np.asarray(h) + np.uint8(round(draw.uniform(-0.2, 0.2) * 255) % 256)
    return Image.merge("HSV", (Image.fromarray(turned), s, v)).convert("RGB")


class PillowViews(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, draw = Image.open(self.paths[index]).convert("RGB"), random.Random()
        first, second = (torch.from_numpy(np.array(pillow_view(image, draw))) for _ in range(2))
        return first.permute(2, 0, 1).float().div(255), second.permute(2, 0, 1).float().div(255)


def decoded(paths: list[Path], pool: ThreadPoolExecutor) -> Iterator[Tensor]:
    """Batches of bytes, channels last in memory; the next one is decoded while the caller works."""

    def read(path: Path) -> Tensor:
        return torch.from_numpy(np.array(Image.open(path).convert("RGB")))

    groups = [paths[i : i + BATCH] for i in range(0, len(paths), BATCH)]
    ahead = [pool.submit(read, path) for path in groups[0]]
    for following in [*groups[1:], []]:
        batch = torch.stack([one.result() for one in ahead]).permute(0, 3, 1, 2)
        ahead = [pool.submit(read, path) for path in following]
        yield batch


def grid_view(x: Tensor, rng: Rng) -> Tensor:
    b = len(x)
    side = rng.uniform(0.08, 1.0, b).sqrt()
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0] = side * (2 * rng.randint(2, b) - 1)
    theta[:, 1, 1] = side
    theta[:, :, 2] = (1 - side)[:, None] * (2 * rng.rand(b, 2) - 1)
    x = F.grid_sample(
        x.float() / 255, F.affine_grid(theta, [b, 3, SIDE, SIDE], align_corners=False), align_corners=False
    )
    weight = (-0.5 * (torch.arange(-11, 12) / rng.uniform(0.1, 2.0, b)[:, None]) ** 2).exp()
    weight = (weight / weight.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None, None]
    x = F.conv2d(x.flatten(0, 1)[None], weight, padding=(0, 11), groups=3 * b)
    return F.conv2d(x, weight.mT, padding=(11, 0), groups=3 * b).view(b, 3, SIDE, SIDE)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--images", type=int, default=200)
    ask.add_argument("--rounds", type=int, default=3)
    asked = ask.parse_args()
    ours = simclr_view(SIDE)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(WORKERS) as pool:
        paths = write_photos(Path(folder), asked.images)
        loader = DataLoader(
            PillowViews(paths), BATCH, num_workers=WORKERS, persistent_workers=True, multiprocessing_context="spawn"
        )

        def batched(view: Callable[[Tensor, Rng], Tensor]) -> int:
            return sum(
                len(view(x, Rng(2 * i))) and len(view(x, Rng(2 * i + 1))) for i, x in enumerate(decoded(paths, pool))
            )

        pipelines: dict[str, Callable[[], int]] = {
            "decoding alone": lambda: sum(len(x) for x in decoded(paths, pool)),
            "pillow": lambda: sum(len(first) for first, _ in loader),
            "grid": lambda: batched(grid_view),
            "ours": lambda: batched(ours),
        }
        best = dict.fromkeys(pipelines, 0.0)
        for turn in range(asked.rounds + 1):
            for name, pipeline in pipelines.items():
                start = time.perf_counter()
                count = pipeline()
                if turn:  # the first round warms up: worker processes start, memory is mapped
                    best[name] = max(best[name], count / (time.perf_counter() - start))
    for name, rate in best.items():
        print(f"{name:16} {rate:7.0f} images/s")
    over = {peer: best["ours"] / best[peer] for peer in ("pillow", "grid")}
    print("ours is " + ", ".join(f"{ratio:.2f} times as fast as {peer}" for peer, ratio in over.items()))


if __name__ == "__main__":
    main()
