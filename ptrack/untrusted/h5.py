"""HDF5 files that anybody may have made.

HDF5 can send a reader elsewhere (external and soft links, virtual datasets, external storage), load code (filter
plugins) and claim arrays of any size without storing them (fill values). All of that is refused before it is read.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptrack.untrusted.limits import Budget, Refused, array_bytes

FILTERS = {  # those that h5py itself brings; any other is a plugin, which is code from elsewhere
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_SZIP,
    h5py.h5z.FILTER_NBIT,
    h5py.h5z.FILTER_SCALEOFFSET,
    32000,  # 32000 is LZF
}
ATTRIBUTE_BYTES = 1 << 20  # of one attribute
CHUNKS = 1 << 22  # of one dataset
AT_ONCE = 1 << 14  # chunks that one call reads: HDF5 keeps 4 KB for each of them meanwhile
COLLECTION = b"GCOL\x01\0\0\0"  # the beginning of a heap of texts
NAMES = b"HEAP\0\0\0\0"  # of a heap of the names in a group
SEARCHED_BYTES = 128 << 20  # at each end of a file that are searched for heaps without an end: 0.1 s of reading
_REFERENCE = np.dtype([("length", "<u4"), ("heap", "<u8"), ("number", "<u4")])  # an element of a list of texts
REFERENCE = _REFERENCE.itemsize
TEXT_BLOCK = 64 << 20  # texts are read in blocks that take no more than this, whatever their heap declares


class H5Group:
    """A group of an open file that reads only what lies in the file itself and fits the file's budget."""

    def __init__(self, group: Any, budget: Budget) -> None:
        self._group, self._budget = group, budget

    def __contains__(self, name: str) -> bool:
        return self._group.get(name, getlink=True) is not None

    def names(self) -> list[str]:
        """Return the names in the group; raises Refused when they cannot be text."""
        return list(self._group)

    def item(self, name: str) -> Any:
        """Return the h5py dataset or group of a name, checked as a dataset; raises Refused if it is missing."""
        return member(self._group, name)

    def group(self, name: str) -> H5Group:
        """Return a group in this one; raises Refused if there is none."""
        item = self.item(name)
        if not isinstance(item, h5py.Group):
            raise Refused(f"holds '{name}' as data where a group was expected")
        return H5Group(item, self._budget)

    def dataset(self, name: str) -> Any:
        """Return a checked h5py dataset; raises Refused if there is none."""
        item = self.item(name)
        if not isinstance(item, h5py.Dataset):
            raise Refused(f"holds '{name}' as a group where data was expected")
        return item

    def array(self, name: str, rows: int | None = None) -> np.ndarray:
        """Return a whole numeric dataset, or its first ``rows`` rows.

        Raises:
            Refused: it is missing, lies elsewhere, or claims more memory than the file's budget.
        """
        data = self.dataset(name)
        shape = data.shape if rows is None else (rows, *data.shape[1:])
        if data.shape is None or data.dtype.hasobject:
            raise Refused(f"holds '{name}' in a form that is not numbers")
        self._budget.take(array_bytes(shape, data.dtype.itemsize), f"'{name}'")
        return in_blocks(data, shape)

    def texts(self, name: str) -> list[str]:
        """Return a one-dimensional dataset of text; raises Refused as ``array`` does."""
        data = self.dataset(name)
        if data.ndim != 1 or (data.dtype.kind != "S" and h5py.check_string_dtype(data.dtype) is None):
            raise Refused(f"holds '{name}' in a form that is not a list of text")
        self._budget.take(array_bytes(data.shape, max(64, data.dtype.itemsize)), f"'{name}'")
        if data.dtype.hasobject:
            check_references(data, name)
        # one text can be as long as the file, and every one of them may point at it
        block = max(1, TEXT_BLOCK // max(1, self._budget.file_bytes)) if data.dtype.hasobject else AT_ONCE
        block = min(block, AT_ONCE)
        found: list[str] = []
        for start in range(0, len(data), block):
            part = [
                text.decode("utf-8") if isinstance(text, bytes) else str(text) for text in data[start : start + block]
            ]
            self._budget.take(sum(map(len, part)), f"'{name}'")
            found.extend(part)
        return found

    def attributes(self) -> dict[str, Any]:
        """Return all attributes; raises Refused for one that is too large."""
        return {name: self.attribute(name) for name in self._group.attrs}

    def attribute(self, name: str) -> Any:
        """Return one attribute; raises Refused if it is missing or too large."""
        return attribute(self._group, name)


def in_blocks(data: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return the first ``shape[0]`` rows of a checked h5py dataset, read in as many calls as its chunks need."""
    if data.chunks is None or _pieces(shape, data.chunks) <= AT_ONCE:
        return data[: shape[0]] if shape else data[()]
    across = _pieces(shape[1:], data.chunks[1:])
    if across > AT_ONCE:
        raise Refused(f"splits a row of data into {across} pieces")
    rows = max(1, AT_ONCE // across) * data.chunks[0]
    whole = np.empty(shape, data.dtype)
    for start in range(0, shape[0], rows):
        whole[start : start + rows] = data[start : min(start + rows, shape[0])]
    return whole


def _pieces(shape: tuple[int, ...], chunks: tuple[int, ...]) -> int:
    return math.prod(-(-length // chunk) for length, chunk in zip(shape, chunks, strict=True))


def attribute(item: Any, name: str) -> Any:
    """Return an attribute of an h5py group or dataset; raises Refused if it is missing or too large."""
    if name not in item.attrs:
        raise Refused(f"lacks the attribute '{name}'")
    check_attribute(item, name)
    return item.attrs[name]


def check_attribute(item: Any, name: str) -> None:
    """Raise Refused when an attribute is too large, or of a type at which HDF5 crashes."""
    found = item.attrs.get_id(name)
    check_type(found.get_type(), name)
    if found.shape is not None and array_bytes(found.shape, found.dtype.itemsize) > ATTRIBUTE_BYTES:
        raise Refused(f"holds an attribute '{name}' of more than 1 MiB")


def check_type(kind: Any, name: str) -> None:
    """Raise Refused for an h5py type that is, or contains, a kind of variable length that does not exist.

    HDF5 (2.0) reads such values through a null pointer. The kind, 0 for lists and 1 for text, is in the lower half of
    the fourth byte of the encoded type; types of text have a class of their own.
    """
    number = kind.get_class()
    if number == h5py.h5t.VLEN and kind.encode()[3] & 15:
        raise Refused(f"is damaged: '{name}' is of a type that does not exist")
    if number in (h5py.h5t.VLEN, h5py.h5t.ARRAY):
        check_type(kind.get_super(), name)
    elif number == h5py.h5t.COMPOUND:
        for member_number in range(kind.get_nmembers()):
            check_type(kind.get_member_type(member_number), name)


def member(group: Any, name: str) -> Any:
    """Return an item of an h5py group by its path, following no link and checking datasets.

    Raises:
        Refused: it is missing, is or lies behind a link, or its data lie elsewhere, need a plugin or have huge chunks.
    """
    for part in name.split("/"):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            raise Refused(f"has no '{name}'")
        if not isinstance(link, h5py.HardLink):
            raise Refused(f"holds '{part}' as a link to another place, which ptrack does not follow")
        group = group[part]
    if isinstance(group, h5py.Dataset):
        check_dataset(group, name)
    return group


def check_dataset(data: Any, name: str) -> None:
    """Raise Refused when the data of an h5py dataset lie elsewhere, need a plugin, or come in huge or many chunks."""
    if data.is_virtual or data.external:
        raise Refused(f"keeps '{name}' in other files, which ptrack does not open")
    check_type(data.id.get_type(), name)
    plist = data.id.get_create_plist()
    for i in range(plist.get_nfilters()):
        if plist.get_filter(i)[0] not in FILTERS:
            raise Refused(f"has packed '{name}' with the filter {plist.get_filter(i)[0]}, which ptrack does not load")
    if data.chunks is not None:
        Budget(0).take(array_bytes(data.chunks, data.dtype.itemsize), f"one chunk of '{name}'")
        if _pieces(data.shape, data.chunks) > CHUNKS:
            raise Refused(f"splits '{name}' into more than {CHUNKS} pieces")


def check_tree(group: Any, file_bytes: int, depth: int = 3) -> None:
    """Check everything below an h5py group once, so that it can be read without further checks.

    Args:
        group: of an open file.
        file_bytes: size of the file; arrays that are not packed must lie in it whole, packed ones share a ``Budget``.
        depth: groups in groups that are expected at most.

    Raises:
        Refused: see ``member``; groups nest too deeply; an array claims more than the file holds or may unpack to.
    """
    _check_attributes(group)
    _check_below(group, Budget(file_bytes), depth)


def _check_attributes(item: Any) -> None:
    for name in item.attrs:
        check_attribute(item, name)


def _check_below(group: Any, budget: Budget, depth: int) -> None:
    for name in group:
        item = member(group, name)
        _check_attributes(item)
        if isinstance(item, h5py.Group):
            if depth == 0:
                raise Refused(f"holds groups in groups below '{name}'")
            _check_below(item, budget, depth - 1)
        elif isinstance(item, h5py.Dataset):
            size = array_bytes(item.shape or (), item.dtype.itemsize)
            if item.chunks is not None:
                budget.take(size, f"'{name}'")
                if _pieces(item.shape, item.chunks) > 4 * AT_ONCE:  # a clip's arrays are read in one call
                    raise Refused(f"splits '{name}' into more than {4 * AT_ONCE} pieces")
            elif size > min(item.id.get_storage_size(), budget.file_bytes):
                raise Refused(f"is damaged: '{name}' claims {size} bytes that the file does not hold")


def check_references(data: Any, name: str) -> None:
    """Raise Refused for a list of texts that HDF5 cannot read: one that claims too much, or lies in an endless heap.

    HDF5 takes the memory that a text claims before it looks for it. An element is its length (4 bytes), the address of
    its heap (8) and its number there (4). Lists in chunks are not looked at: ptrack writes none.
    """
    offset, count, path = data.id.get_offset(), len(data), data.file.filename
    if offset is None or data.id.get_storage_size() != count * REFERENCE:
        return
    with _mapped(path) as file:
        stored = np.frombuffer(file[offset : offset + count * REFERENCE], _REFERENCE)
        if (stored["length"] > len(file)).any():
            raise Refused(f"is damaged: a text of '{name}' claims to be longer than the file")
        if len(file) > 2 * SEARCHED_BYTES:  # else ``check_heaps`` has seen them all
            for at in np.unique(stored["heap"]).tolist():
                _check_heap(file, at)


def check_heaps(path: Path | str) -> None:
    """Raise Refused when a heap of texts or names in an HDF5 file has no end: HDF5 (2.0) walks through it for ever.

    A collection is "GCOL", version 1, its size and its objects: number, references, size, data. Number 0 is what is
    free; its size counts its own header, so 0 leads back to itself. Of a large file its two ends are searched, where
    attributes lie; ``check_references`` finds the heaps of lists of texts wherever they are.
    """
    size = os.stat(path).st_size
    if not size:
        return
    with _mapped(path) as data:
        first = min(size, SEARCHED_BYTES + len(COLLECTION))
        for begin, end in ((0, first), (max(SEARCHED_BYTES, size - SEARCHED_BYTES), size)):
            for signature, check in ((COLLECTION, _check_heap), (NAMES, _check_names)):
                at = data.find(signature, begin, end)
                while at >= 0:
                    check(data, at)
                    at = data.find(signature, at + 1, end)


@contextmanager
def _mapped(path: Path | str) -> Iterator[mmap.mmap]:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def _check_heap(data: mmap.mmap, at: int) -> None:
    """Walk through the collection at a byte; what does not begin as one is left to HDF5."""
    if at + 16 > len(data) or data[at : at + len(COLLECTION)] != COLLECTION:
        return
    end = min(len(data), at + struct.unpack_from("<Q", data, at + 8)[0])
    at += 16
    while at + 16 <= end:
        number, _, size = struct.unpack_from("<H6sQ", data, at)
        step = 16 + (size + 7) // 8 * 8 if number else size
        if step < 16 or step > 1 << 62:
            raise Refused("is damaged: a heap of texts in it has no end")
        at += step


def _check_names(data: mmap.mmap, at: int) -> None:
    """Follow the list of free places in the heap of names at a byte: each begins with the place of the next one, or 1.

    The heap's size, the first free place and the address of its content follow the signature. A place takes 16 bytes.
    """
    if at + 32 > len(data):
        return
    size, free, begin = struct.unpack_from("<QQQ", data, at + 8)
    for _ in range(min(size, len(data)) // 16 + 1):
        if free == 1 or free + 16 > size or begin + free + 16 > len(data):
            return
        (free,) = struct.unpack_from("<Q", data, begin + free)
    raise Refused("is damaged: a heap of names in it has no end")


@contextmanager
def opened(path: Path | str) -> Iterator[H5Group]:
    """Open a file for reading, without locks (network drives refuse them), and yield its root."""
    check_heaps(path)
    with h5py.File(path, "r", locking=False) as file:
        yield H5Group(file, Budget.of(path))
