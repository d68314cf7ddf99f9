"""Where bytes come from: folders, archives and columns of tables, on this machine or behind a URL.

A store knows names and bytes and nothing of modalities. None keeps a file open between reads, so one store serves any
number of threads and survives being copied to another process.
"""

import bz2
import os
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from hashlib import blake2b
from io import BufferedIOBase, BufferedReader, BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headwater.core.errors import Unreadable
from headwater.data.source import digest

PART = 65536  # names that are Python strings at one time


@dataclass(frozen=True)
class Disk:
    """Files of this machine."""

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        with open(path, "rb") as file:
            file.seek(start)
            return file.read() if end is None else file.read(end - start)

    def open(self, path: str) -> BufferedIOBase:
        return open(path, "rb")

    def stamp(self, path: str) -> str:
        """Size and modification time: what tells one version of a file from the next."""
        try:
            facts = os.stat(path)
        except OSError:
            return "missing"
        return f"{facts.st_size}:{facts.st_mtime_ns}"

    def url(self, path: str) -> str:
        return path


@dataclass(frozen=True)
class Remote:
    """Files of an fsspec file system."""

    fs: Any

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        data: bytes = self.fs.cat_file(path, start=start, end=end)
        return data

    def open(self, path: str) -> BufferedIOBase:
        file = self.fs.open(path, "rb")
        return file if isinstance(file, BufferedIOBase) else BufferedReader(file)

    def stamp(self, path: str) -> str:
        try:
            facts = self.fs.info(path)
        except OSError:
            return "missing"
        keys = ("size", "mtime", "created", "ETag", "etag", "LastModified", "last_modified", "updated", "md5Hash")
        return ":".join(str(facts.get(key, "")) for key in keys)

    def url(self, path: str) -> str:
        full: str = self.fs.unstrip_protocol(path)
        return full


class Store(ABC):
    """Named pieces of bytes; `names` is an Arrow array, so that millions of them weigh little."""

    names: pa.Array | pa.ChunkedArray

    def __len__(self) -> int:
        return len(self.names)

    def name(self, i: int) -> str:
        found: str = self.names[i].as_py()
        return found

    @abstractmethod
    def path(self, i: int) -> str: ...

    @abstractmethod
    def load(self, i: int) -> bytes:
        """Raises `Unreadable` for what cannot be read."""

    def open(self, i: int) -> BufferedIOBase:
        """To read a part of it without the rest, where that can be; close it soon. Raises `Unreadable`."""
        return BytesIO(self.load(i))

    @abstractmethod
    def fingerprint(self) -> str: ...


class Files(Store):
    """Files by path relative to `root` (absolute paths stay what they are)."""

    def __init__(self, place: Disk | Remote, root: str, names: pa.Array | pa.ChunkedArray) -> None:
        self.place, self.root, self.names = place, root, names

    def _at(self, i: int) -> str:
        return os.path.join(self.root, self.name(i))

    def path(self, i: int) -> str:
        return self.place.url(self._at(i))

    def load(self, i: int) -> bytes:
        try:
            return self.place.read(self._at(i))
        except OSError as error:
            raise self._unreadable(i, error) from error

    def open(self, i: int) -> BufferedIOBase:
        try:
            return self.place.open(self._at(i))
        except OSError as error:
            raise self._unreadable(i, error) from error

    def _unreadable(self, i: int, error: OSError) -> Unreadable:
        if isinstance(error, FileNotFoundError):
            return Unreadable(self.name(i), "the file does not exist")
        return Unreadable(self.name(i), f"the file cannot be read ({error.strerror or error})")

    def fingerprint(self) -> str:
        made = blake2b(digest_size=8)
        for start in range(0, len(self), PART):
            for name in self.names.slice(start, PART).to_pylist():
                at = os.path.join(self.root, name)
                made.update(f"{at}\0{self.place.stamp(at)}\0".encode())
        return made.hexdigest()


class Members(Store):
    """The members of a zip or tar, read by offset.

    `table` holds name, start (of the data in a tar, of the local header in a zip), length (as stored), method (zip's
    number; -1 for a tar) and checksum (CRC-32; -1 for a tar).
    """

    def __init__(self, place: Disk | Remote, at: str, table: pa.Table) -> None:
        self.place, self.at, self.names = place, at, table["name"]
        self._start, self._length, self._method, self._checksum = (
            table[c].to_numpy() for c in ("start", "length", "method", "checksum")
        )

    def path(self, i: int) -> str:
        return f"{self.place.url(self.at)}/{self.name(i)}"

    def load(self, i: int) -> bytes:
        start, length, method = int(self._start[i]), int(self._length[i]), int(self._method[i])
        if method >= 0:
            local = self._exactly(i, start, 30)
            if local[:4] != b"PK\3\4":
                raise Unreadable(self.name(i), "the archive is damaged (no member begins where it should)")
            start += 30 + sum(struct.unpack("<HH", local[26:30]))
        data = self._exactly(i, start, length)
        return data if method < 0 else self._unpacked(i, method, data)

    def _exactly(self, i: int, start: int, length: int) -> bytes:
        try:
            data = self.place.read(self.at, start, start + length) if length else b""
        except OSError as error:
            raise Unreadable(self.name(i), f"the archive cannot be read ({error.strerror or error})") from error
        if len(data) != length:
            raise Unreadable(self.name(i), "the archive ends before this member does")
        return data

    def _unpacked(self, i: int, method: int, data: bytes) -> bytes:
        try:
            if method == zipfile.ZIP_DEFLATED:
                data = zlib.decompress(data, -15)
            elif method == zipfile.ZIP_BZIP2:
                data = bz2.decompress(data)
            elif method != zipfile.ZIP_STORED:
                raise Unreadable(
                    self.name(i), f"the archive packs it by method {method}; stored, deflate and bzip2 are read"
                )
        except (zlib.error, OSError, ValueError) as error:
            raise Unreadable(self.name(i), f"the archive is damaged here ({error})") from error
        if zlib.crc32(data) != int(self._checksum[i]):
            raise Unreadable(self.name(i), "the archive is damaged here (its checksum differs)")
        return data

    def fingerprint(self) -> str:
        return digest(self.at, self.place.stamp(self.at))


class Column(Store):
    """Bytes held in a column of an Arrow table, which may be memory-mapped; named by row number."""

    def __init__(self, column: pa.ChunkedArray, at: str, stamp: str) -> None:
        self.column, self.at, self.stamp = column, at, stamp

    def __len__(self) -> int:
        return len(self.column)

    def name(self, i: int) -> str:
        return str(i)

    def path(self, i: int) -> str:
        return self.at

    def load(self, i: int) -> bytes:
        data = self.column[i].as_py()
        if data is None:
            raise Unreadable(self.name(i), "the cell is empty")
        return bytes(data)

    def fingerprint(self) -> str:
        return digest(self.at, self.stamp)


class Folders(Store):
    """Each folder that holds files directly is one item: the slices of a volume, the frames of a clip."""

    def __init__(self, files: Files) -> None:
        self.files = files
        parents = pc.replace_substring_regex(files.names, r"/?[^/]*$", "").cast(pa.large_string())
        self._members: dict[str, list[int]] = {}
        for i, parent in enumerate(parents.to_pylist()):
            self._members.setdefault(parent, []).append(i)
        self.names = pa.array(sorted(self._members), pa.large_string())

    def path(self, i: int) -> str:
        return self.files.path(self._members[self.name(i)][0]).rpartition("/")[0]

    def load(self, i: int) -> bytes:
        return pack([(self.files.name(j).rpartition("/")[2], self.files.load(j)) for j in self._members[self.name(i)]])

    def fingerprint(self) -> str:
        return digest("folders", self.files.fingerprint())


class Stems(Store):
    """Each file with one of `endings`, together with the files beside it that share its stem."""

    def __init__(self, files: Files, endings: frozenset[str], beside: frozenset[str]) -> None:
        self.files = files
        number = {name: i for i, name in enumerate(files.names.to_pylist())}
        chosen = [name for name in number if name.rpartition(".")[2].lower() in endings]
        self._members = []
        for name in chosen:
            others = (f"{name.rpartition('.')[0]}.{ending}" for ending in sorted(beside))
            self._members.append([number[name], *(number[other] for other in others if other in number)])
        self.names = pa.array(chosen, pa.large_string())

    def path(self, i: int) -> str:
        return self.files.path(self._members[i][0])

    def load(self, i: int) -> bytes:
        return pack([(self.files.name(j).rpartition("/")[2], self.files.load(j)) for j in self._members[i]])

    def fingerprint(self) -> str:
        return digest("stems", self.files.fingerprint())


PACK = b"headwater pack\0"


def pack(files: list[tuple[str, bytes]]) -> bytes:
    """Several small files as one piece of bytes."""
    out = [PACK, struct.pack("<Q", len(files))]
    for name, data in files:
        known = name.encode()
        out += [struct.pack("<QQ", len(known), len(data)), known, data]
    return b"".join(out)


def unpack(data: bytes) -> list[tuple[str, bytes]] | None:
    """The inverse of `pack`; None for bytes that are no such piece."""
    if not data.startswith(PACK):
        return None
    at = len(PACK) + 8
    out = []
    for _ in range(struct.unpack_from("<Q", data, len(PACK))[0]):
        name, size = struct.unpack_from("<QQ", data, at)
        at += 16
        out.append((data[at : at + name].decode(), data[at + name : at + name + size]))
        at += name + size
    return out
