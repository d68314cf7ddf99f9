"""NumPy arrays, torch tensors and .npy/.npz files.

The number of axes says what they are: [n columns] a table, [n c t] series, [n c h w] images, [n c d h w] volumes; also
[n h w c] where the last axis is 1, 3 or 4 and the second is not. Where that is ambiguous the user names the modality:
[n c t] may be audio and [n c n] points, [n c t h w] video. A pair (x, y) brings labels, and `targets` [n d] in an .npz
file a vector for each sample, which some methods learn from.
"""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headwater.core.errors import RequestError
from headwater.core.types import Sample
from headwater.data.labels import Labels, encode
from headwater.data.source import Source, digest
from headwater.data.stores import Disk

ENDINGS = frozenset({"npy", "npz"})
SMALL = 1 << 28  # bytes up to which a file is read into memory at once
MODALITIES = {1: "table", 2: "series", 3: "image", 4: "volume"}  # by the axes of one sample
AXES = {"table": 1, "series": 2, "audio": 2, "points": 2, "image": 3, "volume": 4, "video": 4}
PICTURES = frozenset({"image", "video", "volume"})  # whose bytes stay bytes


class Memory(Source):
    """Samples stacked in memory. `tensors` shares them with whoever wants batches by index; `read` copies."""

    def __init__(
        self,
        name: str,
        tensors: dict[str, Tensor],
        labels: Labels | None = None,
        at: str = "",
        notes: tuple[str, ...] = (),
        extra: dict[str, dict[str, Any]] | None = None,
        targets: np.ndarray | None = None,
    ) -> None:
        self.name, self.tensors, self.modalities = name, tensors, tuple(tensors)
        self._at, self.notes, self.extra, self.targets = at, notes, extra or {}, targets
        if labels is not None:
            self.labels, self.classes, self.notes = labels.values, labels.classes, notes + labels.notes

    def __len__(self) -> int:
        assert self.tensors is not None
        return len(next(iter(self.tensors.values())))

    def read(self, i: int) -> dict[str, Sample]:
        assert self.tensors is not None
        return {m: x[i].clone() for m, x in self.tensors.items()}

    def id(self, i: int) -> str:
        return str(i)

    def path(self, i: int) -> str:
        return self._at

    @functools.cached_property
    def fingerprint(self) -> str:
        assert self.tensors is not None
        labels, targets = (b"" if v is None else v.tobytes() for v in (self.labels, self.targets))
        parts = [p for m, x in self.tensors.items() for p in (f"{m}{tuple(x.shape)}{x.dtype}", x.numpy().tobytes())]
        return digest(*parts, labels, *([targets] if targets else []))


class Mapped(Source):
    """A large .npy file, memory-mapped: a sample is read when it is asked for."""

    def __init__(self, name: str, array: np.ndarray, at: str, modality: str) -> None:
        self.name, self._array, self._at = name, array, at
        self.modalities = (modality,)
        self._last = channels_last(array)

    def __len__(self) -> int:
        return len(self._array)

    def read(self, i: int) -> dict[str, Sample]:
        return {self.modalities[0]: tensor(self._array[i], self.modalities[0], self._last)}

    def id(self, i: int) -> str:
        return str(i)

    def path(self, i: int) -> str:
        return self._at

    @property
    def fingerprint(self) -> str:
        return digest(self._at, Disk().stamp(self._at))


def channels_last(stack: np.ndarray) -> bool:
    return stack.ndim == 4 and stack.shape[3] in (1, 3, 4) and stack.shape[1] not in (1, 3, 4)


def tensor(array: np.ndarray, modality: str, last: bool = False) -> Tensor:
    """A sample, or a stack of them, as the reader of files would give it: channels first, uint8 or float32."""
    if last:
        array = np.moveaxis(array, -1, -3)
    if modality in PICTURES and array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif modality == "image" and array.dtype == np.uint16:
        array = array.astype(np.float32) / np.float32(65535)
    elif modality == "audio" and array.dtype.kind == "i":
        array = array.astype(np.float32) / np.float32(-float(np.iinfo(array.dtype).min))
    elif modality not in PICTURES or array.dtype != np.uint8:
        array = array.astype(np.float32)
    return torch.from_numpy(np.array(array, order="C"))


def checked(array: np.ndarray, name: str, modality: str | None = None) -> np.ndarray:
    """Raises `RequestError` for what holds no numbers, no samples, or has an unexpected number of axes."""
    called = "The array" if name == "array" else f"The array {name}"
    if modality is not None and AXES.get(modality) != array.ndim - 1:
        wanted = f"{AXES[modality] + 1} axes" if modality in AXES else "another form of data"
        raise RequestError(f"{called} of shape {array.shape} cannot be read as {modality}, which needs {wanted}.")
    if array.dtype.kind not in "biuf":
        raise RequestError(f"{called} holds {array.dtype}; numbers are expected.")
    if array.ndim - 1 not in MODALITIES:
        raise RequestError(
            f"{called} has shape {array.shape}; expected [n columns] (a table), [n c t] (series), "
            f"[n c h w] or [n h w c] (images), or [n c d h w] (volumes)."
        )
    if not array.size:
        raise RequestError(f"{called} of shape {array.shape} is empty.")
    return array


def from_arrays(x: Any, y: Any, name: str, at: str = "", modality: str | None = None, targets: Any = None) -> Memory:
    """A stack of samples and, if y is not None, one label per sample, and one vector, if targets are not None."""
    stack = checked(plain(x), name, modality)
    modality = modality or MODALITIES[stack.ndim - 1]
    values = tensor(stack, modality, channels_last(stack))
    facts: dict[str, Any] = {"gaps": bool(values.isnan().any())} if modality == "series" else {}
    notes: tuple[str, ...] = ()
    if (aims := targets_of(targets, len(values), name)) is not None:
        facts["targets"] = aims.shape[1]
        notes = (f"Each item comes with a target vector of {aims.shape[1]:,} numbers.",)
    labels = labels_of(y, len(values), name)
    return Memory(name, {modality: values}, labels, at, notes, {modality: facts} if facts else {}, aims)


def labels_of(y: Any, n: int, name: str) -> Labels | None:
    if y is None:
        return None
    column = plain(y)
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    if column.shape != (n,):
        raise RequestError(f"The labels of {name} have shape {column.shape}; one per sample is expected: ({n},).")
    if column.dtype.kind == "O":
        column = np.array([str(v) for v in column])
    return encode(column, f"The labels of {name}")


def targets_of(targets: Any, n: int, name: str) -> np.ndarray | None:
    if targets is None:
        return None
    found = plain(targets)
    if found.ndim != 2 or len(found) != n or not found.shape[1] or found.dtype.kind not in "biuf":
        raise RequestError(
            f"The targets of {name} are {found.dtype} of shape {found.shape}; a vector of numbers per sample is expected: "
            f"({n}, d). Labels are called y."
        )
    if not np.isfinite(found).all():
        raise RequestError(f"The targets of {name} hold NaN or infinity; finite numbers are expected.")
    return found.astype(np.float32)


def plain(x: Any) -> np.ndarray:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)


def from_file(at: str, name: str, modality: str | None = None) -> Source:
    """A .npy file, memory-mapped if large, or an .npz file with x (and y, and targets). Nothing is unpickled."""
    try:
        found = np.load(at, mmap_mode="r" if at.lower().endswith("npy") else None, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise RequestError(f"The array file {at} cannot be read ({error}).") from error
    if isinstance(found, np.ndarray):
        array = checked(found, name, modality)
        if array.nbytes <= SMALL:
            return from_arrays(array, None, name, at, modality)
        return Mapped(name, array, at, modality or MODALITIES[array.ndim - 1])
    with found:
        arrays: Mapping[str, np.ndarray] = found
        key = "x" if "x" in arrays else next(iter(arrays)) if len(arrays) == 1 else None
        if key is None:
            raise RequestError(
                f"The file {at} holds {', '.join(sorted(arrays)) or 'nothing'}; x, and y for labels, are expected."
            )
        try:
            y, targets = (arrays.get(each) if key == "x" else None for each in ("y", "targets"))
            return from_arrays(arrays[key], y, name, at, modality, targets)
        except ValueError as error:
            if isinstance(error, RequestError):
                raise
            raise RequestError(f"The array file {at} cannot be read ({error}).") from error
