"""Pickles that anybody may have made: plain containers and NumPy arrays, nothing else, and nothing of it is run.

A pickle is a program for a machine of its own, which can call whatever it names. Names other than those below are
refused before they are imported, and each of these is a stand-in that checks what it is given: NumPy's own readers of
its pickles trust shapes, types and flags, and reserve memory by them.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import numpy as np

from ptrack.untrusted.limits import Budget, Refused, array_bytes, check_values

DTYPES = re.compile(r"[<>|=]?([?biufcSUVO])(\d{0,6})")  # types without fields, as NumPy writes them
MOST_VALUES = 50_000_000  # beside the numbers in arrays
READ_BYTES = 16 << 20  # what a pickle claims to follow is read in steps of this
_CORE = ("numpy.core", "numpy._core")


class _Patient:
    """A binary file whose reads take no more memory than there are bytes, whatever length is asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.readline = file.readline

    def read(self, size: int) -> bytes:
        parts = []
        while size > 0:
            part = self._file.read(min(size, READ_BYTES))
            if not part:
                raise EOFError("it ends too early")
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readinto(self, buffer: bytearray) -> int:
        data = self.read(len(buffer))
        buffer[:] = data
        return len(data)


def _ndarray(*_: Any) -> None:
    """Stand for ``numpy.ndarray``, which pickles only name as an argument of ``_reconstruct``."""
    raise pickle.UnpicklingError("'numpy.ndarray' called")


def _dtype(code: Any, align: Any = False, copy: Any = True) -> np.dtype:
    text = code.decode("latin1") if isinstance(code, bytes) else code
    if not isinstance(text, str) or not DTYPES.fullmatch(text):
        raise pickle.UnpicklingError(f"the type {str(code)[:40]!r}")
    return np.dtype(text)


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
    if kind is not _ndarray or shape != (0,):
        raise pickle.UnpicklingError("an array of another kind")
    return np.ndarray((0,), np.dtype("b"))


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """Stand in for ``_codecs.encode``, which protocol 2 uses for bytes; only that encoding is admitted."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"the encoding '{encoding}'")
    return text.encode("latin1")


class ArrayUnpickler(pickle._Unpickler):
    """Python's own unpickler in Python, restricted.

    Args:
        file: an open binary file.
        budget: bytes that the values may take beside the file's own.
        arrays: also admit NumPy arrays, scalars and the names of containers; False for plain literals.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]
    memo: dict[int, Any]
    read: Callable[[int], bytes]

    def __init__(self, file: BinaryIO, budget: Budget, *, arrays: bool = True) -> None:
        super().__init__(_Patient(file))
        self._budget = budget
        self._names: dict[tuple[str, str], Any] = self._admitted() if arrays else {}

    def _admitted(self) -> dict[tuple[str, str], Any]:
        names: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): _ndarray,
            ("numpy", "dtype"): _dtype,
            ("_codecs", "encode"): self._sized(_latin1),
            ("collections", "OrderedDict"): self._sized(dict),
        }
        for core in _CORE:
            names[f"{core}.multiarray", "_reconstruct"] = _reconstruct
            names[f"{core}.multiarray", "scalar"] = self._scalar
            names[f"{core}.numeric", "_frombuffer"] = self._frombuffer
        for kind in ("bool_", "float32", "float64", "int64"):
            names["numpy", kind] = getattr(np, kind)
        for kind in (list, dict, tuple, set, frozenset):
            for module in ("builtins", "__builtin__"):
                names[module, kind.__name__] = self._sized(kind)
        for module in ("builtins", "__builtin__"):
            names[module, "bytearray"] = self._sized(_bytearray)
            names[module, "bytes"] = self._sized(_bytes)
            names[module, "complex"] = complex
        return names

    def _sized(self, make: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``make`` with what it makes booked: a small pickle can ask for a copy again and again."""

        def made(*values: Any) -> Any:
            value = make(*values)
            self._budget.take(8 * len(value), "values")
            return value

        return made

    def _scalar(self, dtype: Any, data: Any = b"") -> Any:
        data = data.encode("latin1") if isinstance(data, str) else data
        if not isinstance(dtype, np.dtype) or dtype.hasobject or len(data) != dtype.itemsize:
            raise pickle.UnpicklingError("a number of another kind")
        return np.frombuffer(data, dtype)[0]

    def _frombuffer(self, data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
        if not isinstance(dtype, np.dtype) or dtype.hasobject or order not in ("C", "F"):
            raise pickle.UnpicklingError("an array of another kind")
        return np.frombuffer(data, dtype).reshape(shape, order=order)

    def find_class(self, module: str, name: str, /) -> Any:
        """Return the stand-in of an admitted name."""
        if (module, name) not in self._names:
            raise pickle.UnpicklingError(f"'{f'{module}.{name}'[:80]}'")
        return self._names[module, name]

    def persistent_load(self, pid: Any, /) -> Any:
        """Refuse what lies outside of the file."""
        raise pickle.UnpicklingError("objects outside of the file")

    def load_build(self) -> None:
        """Fill the array or turn the type on the stack as a state asks; nothing else has one."""
        state = self.stack.pop()
        value = self.stack[-1]
        if isinstance(value, np.ndarray):
            new: Any = self._filled(state)
        elif isinstance(value, np.dtype):
            new = _turned(value, state)
        else:
            raise pickle.UnpicklingError("objects with a state of their own")
        self.stack[-1] = new
        for key, known in self.memo.items():
            if known is value:
                self.memo[key] = new

    dispatch[pickle.BUILD[0]] = load_build

    def load_bytearray8(self) -> None:
        """Read before memory is taken; Python's own takes what the length claims."""
        length = int.from_bytes(self.read(8), "little")
        self.stack.append(bytearray(self.read(length)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def _filled(self, state: Any) -> np.ndarray:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array of another kind")
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, np.dtype) or not isinstance(shape, tuple):
            raise pickle.UnpicklingError("an array of another kind")
        size = array_bytes(shape, dtype.itemsize)
        self._budget.take(size, "an array")
        order: Any = "F" if fortran else "C"
        if dtype.hasobject:
            if not isinstance(data, list) or 8 * len(data) != size:
                raise ValueError("an array has another number of values than its shape")
            flat = np.empty(len(data), object)
            for i, value in enumerate(data):
                flat[i] = value
            return flat.reshape(shape, order=order)
        data = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(data, dtype).reshape(shape, order=order)


def _bytearray(*values: Any) -> bytearray:
    if len(values) > 1 and isinstance(values[0], str):
        return bytearray(_latin1(*values))
    if values and not isinstance(values[0], bytes):
        raise pickle.UnpicklingError("a bytearray of another kind")
    return bytearray(*values)


def _bytes(*values: Any) -> bytes:
    return bytes(_bytearray(*values))


def _turned(dtype: np.dtype, state: Any) -> np.dtype:
    """Return a type with the byte order of its state; fields and shapes in it are refused."""
    if not isinstance(state, tuple) or len(state) != 8 or any(part is not None for part in state[2:5]):
        raise pickle.UnpicklingError("structured arrays")
    if state[1] not in ("<", ">", "|", "=") or state[5] not in (-1, dtype.itemsize):
        raise pickle.UnpicklingError("an array of another kind")
    return dtype if state[1] == "|" else dtype.newbyteorder(state[1])


class Foreign(Refused):
    """A pickle asks for something that is not plain data. Nothing of it was run.

    Args:
        wanted: what it asks for, in words such as "'os.system'".
        admitted: what it may hold, in words.
    """

    def __init__(self, wanted: str, admitted: str) -> None:
        self.wanted = wanted
        super().__init__(
            f"asks for {wanted}; ptrack refuses pickles that hold more than {admitted}. "
            "Nothing of it was executed; use only files from a source you trust"
        )


def load(file: BinaryIO, budget: Budget, *, arrays: bool = True) -> Any:
    """Read one pickle.

    Args:
        file: an open binary file.
        budget: what the values may take in memory, see ``Budget``.
        arrays: admit NumPy arrays, scalars and containers by name; False for plain literals.

    Raises:
        Foreign: it asks for anything else, which was not run.
        Refused: it asks for too much memory.
        Exception: it is damaged.
    """
    admitted = "NumPy arrays and plain containers" if arrays else "plain text and numbers"
    value = run(ArrayUnpickler(file, budget, arrays=arrays), admitted)
    check_values(value, MOST_VALUES)
    return value


def run(unpickler: ArrayUnpickler, admitted: str = "tensors and plain containers") -> Any:
    """Return what an unpickler reads; raises as ``load``."""
    try:
        return unpickler.load()
    except pickle.UnpicklingError as error:
        words = str(error)
        if not words.startswith(("'", "the ", "an ", "a ", "objects", "structured")):
            raise
        raise Foreign(words, admitted) from error
