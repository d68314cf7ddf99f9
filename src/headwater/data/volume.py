"""Volumes as float32 [c d h w]: NIfTI, arrays, and folders of DICOM slices."""

import gzip
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BufferedIOBase
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor

from headwater.core.errors import RequestError, Unreadable
from headwater.data import dicom
from headwater.data.reader import Reader
from headwater.data.stores import unpack

Spacing = tuple[float, float, float]
NEAR = 0.02  # spacings that differ by less are the same


@dataclass(frozen=True)
class VolumeReader(Reader):
    """Volumes of another spacing are resampled, linearly, to `spacing` (millimetres along depth, height, width), which,
    unless given, is the most common of the files looked at. What says no spacing is taken as it is."""

    spacing: Spacing | None = None
    modality = "volume"
    endings = frozenset({"nii", "gz", "npy"})
    slices = dicom.ENDINGS

    def decode(self, data: bytes, item: str) -> Float32[Tensor, "c d h w"]:
        values, spacing = raw(data, item)
        x = torch.from_numpy(np.array(values, np.float32, order="C"))
        if self.spacing is None or spacing is None or same(spacing, self.spacing):
            return x
        scale = [s / w for s, w in zip(spacing, self.spacing, strict=True)]
        size = [max(1, round(n * f)) for n, f in zip(x.shape[1:], scale, strict=True)]
        return F.interpolate(x[None], size, mode="trilinear", align_corners=False)[0]

    def settled(self, files: Sequence[BufferedIOBase]) -> tuple["VolumeReader", tuple[str, ...]]:
        found: Counter[Spacing | None] = Counter()
        for file in files[:16]:
            try:
                spacing = raw(file.read(), "")[1]
            except Unreadable:
                continue
            found[None if spacing is None else tuple(round(s, 3) for s in spacing)] += 1  # type: ignore[index]
        known = Counter({s: n for s, n in found.items() if s is not None})
        if not known:
            note = "The volumes say no spacing: a voxel is taken to be as deep as it is wide."
            return self, (note,) if found else ()
        chosen = self.spacing or known.most_common(1)[0][0]
        assert chosen is not None
        notes: list[str] = []
        told = " x ".join(f"{s:g}" for s in chosen)
        other = sum(n for s, n in known.items() if s is not None and not same(s, chosen))
        if other:
            notes.append(f"{other} of {sum(found.values())} volumes looked at are resampled to a spacing of {told} mm.")
        if found[None]:
            notes.append(
                f"{found[None]} of {sum(found.values())} volumes looked at say no spacing and are left as they are."
            )
        if max(chosen) > 2 * min(chosen):
            notes.append(f"Voxels are {told} mm: far from cubes; patches cover less along one axis than along another.")
        return replace(self, spacing=chosen), tuple(notes)

    def facts(self) -> dict[str, Any]:
        return {"spacing": self.spacing}

    def reading(self) -> dict[str, Any]:
        return {"spacing": None if self.spacing is None else list(self.spacing)}

    def conform(self, wanted: Mapping[str, Any]) -> "VolumeReader":
        spacing = wanted.get("spacing")
        return replace(self, spacing=None if spacing is None else tuple(spacing))


def same(a: Spacing, b: Spacing) -> bool:
    return all(abs(x - y) <= NEAR * max(x, y) for x, y in zip(a, b, strict=True))


def raw(data: bytes, item: str) -> tuple[np.ndarray, Spacing | None]:
    """Values [c d h w] and the spacing along d, h, w, where the file says it."""
    if not data:
        raise Unreadable(item, "the file is empty (zero bytes)")
    slices = unpack(data)
    if slices is not None:
        return _dicom(slices, item)
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError) as error:
            raise Unreadable(item, f"the packed file is damaged or cut short ({error})") from error
    if data[:6] == b"\x93NUMPY":
        try:
            array = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise Unreadable(item, f"the array is damaged or cut short ({error})") from error
        if array.ndim not in (3, 4):
            hint = {2: " (points:FOLDER or series:FOLDER would read it)"}.get(array.ndim, "")
            raise Unreadable(item, f"a volume has the axes [d h w] or [c d h w]; this has shape {array.shape}{hint}")
        return (array if array.ndim == 4 else array[None]).astype(np.float32), None
    return _nifti(data, item)


def _nifti(data: bytes, item: str) -> tuple[np.ndarray, Spacing | None]:
    nibabel = _nibabel()
    try:
        header = nibabel.Nifti1Header.from_fileobj(io.BytesIO(data))
        shape, zooms = header.get_data_shape(), header.get_zooms()
        values = np.frombuffer(data, header.get_data_dtype(), math.prod(shape), int(header.get_data_offset()))
        values = values.reshape(shape, order="F")
        slope, intercept = header.get_slope_inter()
        if slope is not None and (slope, intercept) != (1.0, 0.0):
            values = values.astype(np.float64) * slope + intercept
    except Exception as error:  # nibabel raises many kinds on damaged files
        raise Unreadable(item, f"the file is no whole NIfTI volume ({type(error).__name__})") from error
    if values.ndim not in (3, 4):
        raise Unreadable(item, f"a volume has three axes, or four with channels; this has shape {values.shape}")
    values = values[..., None] if values.ndim == 3 else values
    spacing = tuple(float(z) for z in reversed(zooms[:3]))
    return values.transpose(3, 2, 1, 0), spacing if min(spacing) > 0 else None  # type: ignore[return-value]


def _dicom(slices: list[tuple[str, bytes]], item: str) -> tuple[np.ndarray, Spacing | None]:
    """Slices in the order of their positions along the axis they are stacked on, as the scanner's own values."""
    found = []
    for name, data in slices:
        try:
            one, values = dicom.stored(data)
        except RequestError:
            raise
        except Exception as error:  # pydicom raises many kinds on damaged files
            raise Unreadable(item, f"the slice {name} cannot be read ({type(error).__name__})") from error
        values = dicom.rescaled(one, values)
        at = float(getattr(one, "InstanceNumber", 0) or 0)
        if "ImagePositionPatient" in one and "ImageOrientationPatient" in one:
            way = np.array(one.ImageOrientationPatient, float)
            at = float(np.cross(way[:3], way[3:]) @ np.array(one.ImagePositionPatient, float))
        found.append((at, values, one))
    several = len({str(getattr(one, "SeriesInstanceUID", "")) for _, _, one in found})
    if several > 1:
        raise Unreadable(
            item, f"its files belong to {several} series, not to one volume (image:FOLDER reads each by itself)"
        )
    found.sort(key=lambda f: f[0])
    if len({values.shape for _, values, _ in found}) > 1:
        raise Unreadable(item, "its slices differ in size")
    first = found[0][2]
    spacing: Spacing | None = None
    if "PixelSpacing" in first:
        step = np.diff([at for at, _, _ in found])
        depth = float(np.median(step)) if len(found) > 1 and np.median(step) > 0 else 0.0
        depth = depth or float(getattr(first, "SliceThickness", 0) or 0)
        high, wide = (float(s) for s in first.PixelSpacing)
        spacing = (depth, high, wide) if depth else None
    return np.stack([values for _, values, _ in found])[None], spacing


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise RequestError("NIfTI volumes need nibabel: pip install 'headwater[medical]'") from error
    return nibabel
