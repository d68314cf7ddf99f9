"""Clouds of points as float32 [c n], x y z first: PLY, OFF, OBJ, STL, lists of numbers, NPY. Meshes are sampled."""

import io
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from headwater.core.errors import RequestError, Unreadable
from headwater.data.reader import Reader

NUMBERS = frozenset({"xyz", "pts", "txt", "csv", "asc"})
SAMPLED = 2048  # points on the surface of a mesh


@dataclass(frozen=True)
class PointsReader(Reader):
    """A mesh becomes points spread evenly over its surface, the same ones each time. A file with faces is a mesh.

    Files of numbers hold a point per line, separated by blanks or commas; what follows x y z on a line is kept as
    further channels.
    """

    modality = "points"
    endings = frozenset({"ply", "off", "obj", "stl", "xyz", "pts", "asc"})
    named = frozenset({"txt", "csv", "npy"})

    def decode(self, data: bytes, item: str) -> Float32[Tensor, "c n"]:
        ending = item.rpartition(".")[2].lower()
        if not data:
            raise Unreadable(item, "the file is empty (zero bytes)")
        if data[:6] == b"\x93NUMPY":
            points = _array(data, item)
        elif ending in NUMBERS:
            points = _numbers(data, item)
        else:
            points = _mesh(data, ending, item)
        if points.ndim != 2 or points.shape[1] < 3 or not len(points):
            raise Unreadable(item, f"points are rows of x y z and more; this holds an array of shape {points.shape}")
        values = np.array(points.T, np.float32, order="C")
        if not np.isfinite(values).all():
            raise Unreadable(item, "some coordinates are no finite numbers")
        return torch.from_numpy(values)


def _array(data: bytes, item: str) -> np.ndarray:
    try:
        return np.asarray(np.load(io.BytesIO(data), allow_pickle=False), np.float64)
    except (ValueError, EOFError, OSError) as error:
        raise Unreadable(item, f"the array is damaged or cut short ({error})") from error


def _numbers(data: bytes, item: str) -> np.ndarray:
    text = data.decode(errors="replace").replace(",", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "//"))]
    try:
        return np.loadtxt(lines, ndmin=2)
    except ValueError as error:
        raise Unreadable(item, f"its lines are not rows of numbers ({error})") from error


def _mesh(data: bytes, ending: str, item: str) -> np.ndarray:
    trimesh = _trimesh()
    try:
        found = trimesh.load(io.BytesIO(data), file_type=ending, process=False)
        if isinstance(found, trimesh.Scene):
            found = found.to_geometry()
        if getattr(found, "faces", None) is not None and len(found.faces):
            seed = int.from_bytes(blake2b(data, digest_size=4).digest(), "little")  # the file alone decides
            return np.asarray(trimesh.sample.sample_surface(found, SAMPLED, seed=seed)[0])
        return np.asarray(found.vertices)
    except Exception as error:  # trimesh raises many kinds on damaged files
        raise Unreadable(
            item, f"the file is damaged or in no known format ({type(error).__name__}: {error})"
        ) from error


def _trimesh() -> Any:
    try:
        import trimesh
    except ImportError as error:
        raise RequestError("Clouds of points in this format need trimesh: pip install 'headwater[points]'") from error
    return trimesh
