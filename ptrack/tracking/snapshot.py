"""Running trackers on disk: state dataclasses as plain tensors and containers, which the safe loader accepts."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptrack.errors import TracksError
from ptrack.fileio import atomic_path
from ptrack.untrusted import torch_files

HOME = "ptrack."  # only dataclasses of modules below it are built
CLASS = "__class__"
ARRAY = "__array__"


def pack(value: Any) -> Any:
    """Turn dataclasses, tensors, arrays and plain containers into what ``torch.load(weights_only=True)`` reads."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: pack(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {CLASS: f"{type(value).__module__}:{type(value).__qualname__}", **fields}
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "U":
            return {ARRAY: value.tolist()}
        return {ARRAY: torch.from_numpy(value.copy())}
    if isinstance(value, dict):
        return {k: pack(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(pack(v) for v in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a tracker state cannot hold a {type(value).__name__}")


def unpack(value: Any, device: torch.device) -> Any:
    """Invert ``pack``; tensors go to ``device``. Only dataclasses of ptrack itself are built."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict) and ARRAY in value:
        inner = value[ARRAY]
        return inner.numpy().copy() if isinstance(inner, torch.Tensor) else np.asarray(inner, dtype=np.str_)
    if isinstance(value, dict) and CLASS in value:
        module, _, name = value[CLASS].partition(":")
        if not module.startswith(HOME) or module.endswith("__main__"):
            raise TracksError(f"The saved tracker state names the foreign class {value[CLASS]}; it is damaged.")
        cls = getattr(importlib.import_module(module), name)
        if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
            raise TracksError(f"The saved tracker state names {value[CLASS]}, which is no state; it is damaged.")
        if {f.name for f in dataclasses.fields(cls)} != value.keys() - {CLASS}:
            raise TracksError("The saved tracker state is of another version of ptrack; use --overwrite to start anew.")
        made = cls.__new__(cls)
        for key, item in value.items():
            if key != CLASS:
                object.__setattr__(made, key, unpack(item, device))
        return made
    if isinstance(value, dict):
        return {k: unpack(v, device) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(unpack(v, device) for v in value)
    return value


def save_snapshot(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` (packed) atomically; raises OutputError or, from torch, RuntimeError if the disk is full."""
    with atomic_path(path) as temporary:
        torch.save(pack(content), temporary)


def load_snapshot(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what ``save_snapshot`` wrote.

    Raises:
        TracksError: the file is missing, damaged, or was written by a version whose states are others.
    """
    try:
        return unpack(torch_files.load(path), device)
    except TracksError as error:
        raise TracksError(f"{path} cannot be continued. {error}") from error
    except Exception as error:  # whatever a damaged file provokes in the loader
        raise TracksError(
            f"{path} cannot be read, so the run cannot be continued; use --overwrite to start anew."
        ) from error
