"""Pickles and ``.npy`` files of datasets, through the restricted reader of ``ptrack.untrusted.pickles``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ptrack.errors import DataError
from ptrack.untrusted import Budget, npz, pickles
from ptrack.untrusted.limits import check_file, reading


def load_pickle(path: Path | str) -> Any:
    """Read a pickle file of NumPy arrays, which may be read-only, and plain containers.

    Raises:
        DataError: it is missing, damaged, or asks for anything else (nothing of it was executed).
    """
    check_file(path, DataError, "pickle")
    with reading(path, DataError, "a pickle"), open(path, "rb") as file:
        return pickles.load(file, Budget.of(path))


def load_npy(path: Path | str) -> Any:
    """Read a ``.npy`` file; an array of objects goes through the restricted reader, a 0-d one gives its object.

    Raises:
        DataError: it is missing, refused or damaged.
    """
    check_file(path, DataError, ".npy file")
    with reading(path, DataError, "a NumPy array"), open(path, "rb") as file:
        shape, _, dtype = npz.header(file)
        if not dtype.hasobject:
            file.seek(0)
            npz.check_npy(file, Budget(os.fstat(file.fileno()).st_size))
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
        value = pickles.load(file, Budget.of(path))
        array = np.asarray(value, dtype=object)
        return array.item() if shape == () and array.shape == () else value
