"""Files of ``torch.save`` that anybody may have made, read without ``torch.load``.

``torch.load(weights_only=True)`` runs no code, but it trusts the numbers in a file: it reserves what a storage claims,
and a storage that claims more than its record holds, or a view beyond its storage, is read from whatever lies behind it
in memory. Here every storage and every view is checked against the file first. Both layouts are read: the zip archive,
and the older stream of pickles followed by the storages.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import torch
from torch import Tensor

from ptrack.tensors import dtype_name
from ptrack.untrusted import pickles
from ptrack.untrusted.limits import Budget, Refused, array_bytes, check_values

TYPES = {  # storages, and types by name
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
REPEATED_BYTES = 1 << 20  # a view may show a value again and again (stride 0) up to this size
BLOCK = 16 << 20  # bytes read at once


class _Named:
    """Stand for a storage class in a pickle; it can only be named."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _TensorUnpickler(pickles.ArrayUnpickler):
    """Admits tensors, whose storages ``storage(key, dtype, count)`` returns as flat tensors."""

    def __init__(self, file: BinaryIO, budget: Budget, storage: Callable[[str, torch.dtype, int], Tensor]) -> None:
        super().__init__(file, budget)
        self._storage = storage
        for name, dtype in TYPES.items():
            for module in ("torch", "torch.storage"):
                self._names[module, name] = _Named(dtype)
            self._names["torch", dtype_name(dtype)] = dtype
        self._names |= {
            ("torch._utils", "_rebuild_tensor_v2"): _view,
            ("torch._utils", "_rebuild_tensor"): _view,
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: _tensor(data),
            ("torch", "Size"): self._sized(lambda sizes=(): tuple(map(int, sizes))),
            ("torch", "device"): lambda *_: "cpu",
            ("collections", "Counter"): self._sized(dict),
        }

    def persistent_load(self, pid: Any, /) -> Tensor:
        """Return a storage as a flat tensor."""
        words = [part.decode("latin1") if isinstance(part, bytes) else part for part in pid]
        if words[0] != "storage" or not isinstance(words[1], _Named) or not isinstance(words[4], int):
            raise pickle.UnpicklingError("objects outside of the file")
        if len(words) > 5 and words[5] is not None:
            raise pickle.UnpicklingError("a view of a storage in the oldest form")
        return self._storage(str(words[2]), words[1].dtype, words[4])

    def load_build(self) -> None:
        """Drop the notes that tables of weights carry as attributes; else as the base class."""
        if isinstance(self.stack[-2], dict) and isinstance(self.stack[-1], dict):
            self.stack.pop()
        else:
            super().load_build()

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickles.ArrayUnpickler.dispatch,
        pickle.BUILD[0]: load_build,
    }


def _tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise pickle.UnpicklingError("a parameter of another kind")
    return value


def _view(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """Return a view of a flat tensor; raises Refused when it reaches beyond it or repeats it without end."""
    flat, numbers = _tensor(storage), [offset, *size, *stride]
    if len(size) != len(stride) or any(not isinstance(n, int) or n < 0 for n in numbers):
        raise Refused("is damaged: a tensor has an impossible shape")
    count = array_bytes(tuple(size), 1)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and last >= len(flat):
        raise Refused(f"is damaged: a tensor claims {last + 1} values of a storage of {len(flat)}")
    if count > len(flat) and count * flat.element_size() > REPEATED_BYTES:
        raise Refused(f"claims {count} values in a tensor whose storage has {len(flat)}")
    return torch.as_strided(flat, tuple(size), tuple(stride), offset)


def load(path: Path | str) -> Any:
    """Return the tensors, arrays and plain containers of a file, on the CPU. Nothing in it is run.

    Raises:
        Refused: it asks for anything else or claims more than it holds; ``pickles.Foreign`` when that is code.
        Exception: it is damaged.
    """
    budget = Budget.of(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            content = _from_zip(archive, budget)
    else:
        with open(path, "rb") as file:
            content = _from_stream(file, budget)
    check_values(content, pickles.MOST_VALUES)
    return content


def _from_zip(archive: zipfile.ZipFile, budget: Budget) -> Any:
    members = {i.filename.partition("/")[2]: i for i in archive.infolist()}
    if "data.pkl" not in members:
        raise Refused("is an archive without weights of PyTorch (it has no data.pkl)")
    if "byteorder" in members and archive.read(members["byteorder"])[:10] != b"little":
        raise Refused("holds numbers in big-endian order, which ptrack does not read")
    known: dict[str, Tensor] = {}

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if key not in known:
            member = members.get(f"data/{key}")
            size = array_bytes((count,), dtype.itemsize)
            if member is None or member.file_size != size:
                there = "nothing" if member is None else f"{member.file_size} bytes"
                raise Refused(f"is damaged: a storage claims {size} bytes where the file holds {there}")
            budget.take(size, "a storage")
            with archive.open(member) as file:
                known[key] = _filled(_blocks(file), size)
        return known[key].view(dtype)

    size = members["data.pkl"].file_size
    budget.take(size, "its table of contents")
    return pickles.run(_TensorUnpickler(io.BytesIO(archive.read(members["data.pkl"])), budget, storage))


def _blocks(file: Any) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block


def _filled(blocks: Iterator[bytes], size: int) -> Tensor:
    """Return ``size`` bytes as a flat uint8 tensor."""
    flat = torch.empty(size, dtype=torch.uint8)
    at = 0
    for block in blocks:
        flat[at : at + len(block)] = torch.frombuffer(bytearray(block), dtype=torch.uint8)
        at += len(block)
    if at != size:
        raise EOFError("it ends too early")
    return flat


def _from_stream(file: BinaryIO, budget: Budget) -> Any:
    """Read the older layout: magic number, version, notes, the pickle, the list of storages, and these in order."""
    if _plain(file, budget) != LEGACY_MAGIC:
        raise Refused("is no file of torch.save")
    _plain(file, budget)
    _plain(file, budget)
    known: dict[str, Tensor] = {}

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if key not in known:
            size = array_bytes((count,), dtype.itemsize)
            if size > budget.file_bytes:
                raise Refused(f"is damaged: a storage claims {size} bytes")
            budget.take(size, "a storage")
            known[key] = torch.empty(count, dtype=dtype)
        return known[key]

    content = pickles.run(_TensorUnpickler(file, budget, storage))
    for key in _plain(file, budget):
        flat = known[str(key)]
        (count,) = struct.unpack("<q", file.read(8))
        if count != len(flat):
            raise Refused(f"is damaged: a storage holds {count} values where {len(flat)} were named")
        size = len(flat) * flat.element_size()
        pieces = (file.read(min(BLOCK, size - at)) for at in range(0, size, BLOCK))
        flat.view(torch.uint8)[:] = _filled(pieces, size)
    return content


def _plain(file: BinaryIO, budget: Budget) -> Any:
    return pickles.load(file, budget, arrays=False)
