"""Reading pickles of NumPy arrays without running what else they may ask for."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ptrack.errors import DataError

_CORE = ("numpy.core", "numpy._core")
_ALLOWED = (
    {(f"{core}.multiarray", name) for core in _CORE for name in ("_reconstruct", "scalar")}
    | {(f"{core}.numeric", "_frombuffer") for core in _CORE}
    | {("numpy", name) for name in ("ndarray", "dtype", "bytes_", "str_", "bool_", "float32", "float64", "int64")}
    | {("builtins", name) for name in ("list", "dict", "tuple", "set", "frozenset", "bytearray", "complex")}
    | {("__builtin__", name) for name in ("list", "dict", "tuple", "set", "frozenset", "bytearray", "complex")}
    | {("collections", "OrderedDict")}
)


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """Stand in for ``_codecs.encode``, which protocol 2 uses for bytes; only that encoding is admitted."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"the encoding '{encoding}'")
    return text.encode("latin1")


class _Restricted(pickle.Unpickler):
    """Admits NumPy arrays, scalars and plain containers; every other name is refused before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"'{module}.{name}'")
        if module.startswith("numpy.core"):  # the old path warns or is absent in newer NumPy
            module = module.replace("numpy.core", "numpy._core") if hasattr(np, "_core") else module
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("objects outside of the file")


def load_stream(file: BinaryIO, where: Path | str) -> Any:
    """Read one pickle from an open binary file; ``where`` names it in errors.

    Raises:
        DataError: it holds anything but NumPy arrays and plain containers (nothing of it was executed), or is damaged.
    """
    try:
        return _Restricted(file).load()
    except pickle.UnpicklingError as error:
        text = str(error)
        if text.startswith(("'", "the encoding", "objects")):
            raise DataError(
                f"{where} asks for {text}; ptrack refuses pickles that hold more than NumPy arrays and plain "
                "containers. Nothing of it was executed; use only files from a source you trust."
            ) from error
        raise DataError(f"{where} is damaged or no pickle ({text}).") from error
    except Exception as error:  # a damaged pickle can raise almost anything
        raise DataError(f"{where} is damaged or no pickle ({type(error).__name__}: {error}).") from error


def load_pickle(path: Path | str) -> Any:
    """Read a pickle file.

    Raises:
        DataError: it is missing, refused (see ``load_stream``) or damaged.
    """
    try:
        with open(path, "rb") as file:
            return load_stream(file, path)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}.") from error


def load_npy(path: Path | str) -> Any:
    """Read a ``.npy`` file; an array of objects goes through the restricted reader, a 0-d one gives its object.

    Raises:
        DataError: it is missing, refused or damaged.
    """
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = reader(file)
            if not dtype.hasobject:
                file.seek(0)
                return np.lib.format.read_array(file, allow_pickle=False)
            value = load_stream(file, path)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged or no .npy file ({error}).") from error
    array = np.asarray(value, dtype=object)
    return array.item() if shape == () and array.shape == () else value
