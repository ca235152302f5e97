"""Pseudo-random values by name: what the fill rules of the parity fixtures share. Needs NumPy only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np


def normal(name: str, shape: Sequence[int]) -> np.ndarray:
    """Standard normal numbers, float64, that depend on the name and the shape alone."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, dtype=np.float64)


def digest_of(arrays: Mapping[str, np.ndarray], names: Iterable[str]) -> str:
    """sha256 over key names and little-endian float32 bytes, keys sorted."""
    h = hashlib.sha256()
    for name in sorted(names):
        h.update(name.encode() + b"\0")
        h.update(np.ascontiguousarray(np.asarray(arrays[name]), dtype="<f4").tobytes())
    return h.hexdigest()
