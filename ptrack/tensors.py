"""Torch tensors as NumPy arrays, for code that must not import torch."""

from __future__ import annotations

from typing import Any

import numpy as np


def is_tensor(value: Any) -> bool:
    """Return whether ``value`` is a torch tensor, by what it can do."""
    return hasattr(value, "detach") and hasattr(value, "cpu")


def dtype_name(dtype: object) -> str:
    """Return "float32" of ``torch.float32``, and a name as it is."""
    return str(dtype).removeprefix("torch.")


def as_numpy(value: Any) -> Any:
    """Return a tensor as an array, wherever it lies and whether it has a gradient; anything else as it is.

    On the CPU nothing is copied. bfloat16, which NumPy lacks, becomes float32.
    """
    if not is_tensor(value):
        return value
    tensor = value.detach().cpu()
    return np.asarray(tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor)
