"""NumPy archives and arrays that anybody may have made: headers are checked against the file, objects are refused."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np

from ptrack.untrusted import pickles
from ptrack.untrusted.limits import Budget, Refused, array_bytes

HEADER_BYTES = 1 << 20  # NumPy's are below 64 KiB unless an array has thousands of named fields
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those that NumPy writes


def header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of a ``.npy``: shape, whether in Fortran's order, type; raises ValueError when it is none."""
    start = file.read(8)
    version = np.lib.format.read_magic(io.BytesIO(start))
    counted = file.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(counted, "little")
    if length > HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes")
    text = io.BytesIO(counted + file.read(length))
    form = np.lib.format
    return form.read_array_header_1_0(text) if version == (1, 0) else form.read_array_header_2_0(text)


class NpzArrays:
    """The arrays of an open archive, each read when asked for and only if the file can really hold it."""

    def __init__(self, archive: zipfile.ZipFile, budget: Budget) -> None:
        self._archive, self._budget = archive, budget
        self._members = {i.filename.removesuffix(".npy"): i for i in archive.infolist() if i.filename.endswith(".npy")}

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def names(self) -> list[str]:
        """Return the names of the arrays."""
        return list(self._members)

    def holds_objects(self, name: str) -> bool:
        """Return whether an array is one of Python objects, which would have to be unpickled."""
        with self._archive.open(self._members[name]) as file:
            return header(file)[2].hasobject

    def array(self, name: str) -> np.ndarray:
        """Return an array.

        Raises:
            Refused: it is missing, holds Python objects, or claims more than the file holds or may unpack to.
        """
        if name not in self._members:
            raise Refused(f"has no array '{name}'")
        member = self._members[name]
        if member.compress_type not in PACKINGS or member.flag_bits & 1:
            raise Refused(f"has packed '{name}' in a way that NumPy does not write")
        with self._archive.open(member) as file:
            shape, _, dtype = header(file)
            if dtype.hasobject:
                raise Refused(f"holds Python objects in '{name}'; it was not loaded and nothing in it was run")
            size = array_bytes(shape, dtype.itemsize)
            self._budget.take(size, f"'{name}'")
            if member.file_size - file.tell() != size:
                raise Refused(
                    f"is damaged: the header of '{name}' claims {size} bytes where the archive holds "
                    f"{max(0, member.file_size - file.tell())}"
                )
        with self._archive.open(member) as file:
            return np.lib.format.read_array(file, allow_pickle=False)

    def objects(self, name: str) -> Any:
        """Return what an array of Python objects holds, through the reader that runs nothing; raises Refused."""
        with self._archive.open(self._members[name]) as file:
            header(file)
            return pickles.load(cast(BinaryIO, file), self._budget)


@contextmanager
def opened(path: Path | str) -> Iterator[NpzArrays]:
    """Open an archive for reading."""
    with zipfile.ZipFile(path) as archive:
        yield NpzArrays(archive, Budget.of(path))


def arrays(path: Path | str, names: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """Return the arrays ``names`` of an archive that are there, all of them if None."""
    with opened(path) as archive:
        return {name: archive.array(name) for name in names or archive.names() if name in archive}


def check_npy(file: IO[bytes], budget: Budget) -> None:
    """Raise Refused when the header of an open ``.npy`` claims Python objects or more bytes than the file holds."""
    shape, _, dtype = header(file)
    if dtype.hasobject:
        raise Refused("holds Python objects; it was not loaded and nothing in it was run")
    size, there = array_bytes(shape, dtype.itemsize), budget.file_bytes - file.tell()
    if size > there:
        raise Refused(f"is damaged: its header claims {size} bytes where {there} follow")


def numbers(name: str, value: Any, dtype: Any = np.float32, kinds: str = "fiu") -> np.ndarray:
    """Return an array of a file as ``dtype``; raises Refused when its type is not one of the ``kinds`` of NumPy."""
    array = np.asarray(value)
    if array.dtype.kind not in kinds and array.size:
        raise Refused(f"holds '{name}' as {array.dtype}, which is no number of the kind expected")
    return array.astype(dtype, copy=False)
