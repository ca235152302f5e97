"""What a model must offer to be exported: two modules of tensors alone, and where its state starts.

The encoder turns a frame into features. The step takes the frame, its features, points that join on it and the state,
and returns where all points are and the new state. Both are traced with frames of any size and any number of points.

Letters: N points of the state, M points that join, H W pixels of a frame, S remembered frames.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ptrack.errors import ModelError
from ptrack.models.entry import LoadedModel, ModelEntry

ADAPTERS = {"ptrack.models.nano": "ptrack.deploy.nano", "ptrack.models.online": "ptrack.deploy.track_on2"}
OUTPUTS = ("xy", "visibility", "confidence")  # of the step, before the new state
ANY: dict[str, int] = {"N": 0, "M": 0, "H": 16, "W": 16, "S": 0}  # axes whose length is open, and their least length

Axes = tuple[int | str, ...]  # the length of every axis, or the name of an open one


@dataclass(frozen=True, kw_only=True)
class GraphTensor:
    """One tensor that the encoder returns, or one of the state."""

    name: str
    axes: Axes
    example: Tensor
    first: str = ""  # "frame" or the feature that stands for it on the first frame; "": no points, nothing remembered
    most: int | None = None  # of axis S: the caller keeps so many of the newest, which are last


@dataclass(frozen=True, kw_only=True)
class Graphs:
    """A model ready to be traced."""

    encoder: nn.Module  # (1, H, W, 3) uint8 -> features
    step: nn.Module  # frame, features, (M, 2) pixels, state -> (N + M, 2), (N + M,), (N + M,), state
    frame: Tensor  # (1, H, W, 3) uint8, an example
    features: tuple[GraphTensor, ...]
    state: tuple[GraphTensor, ...]


def adapter_of(entry: ModelEntry) -> str:
    """Return the module that can take a model apart.

    Raises:
        ModelError: there is none.
    """
    package = entry.builder.rpartition(".")[0]
    if package not in ADAPTERS:
        raise ModelError(
            f"The model '{entry.name}' cannot be exported; nano, matching and those of Track-On2 can (track-on2, "
            "track-on2-dinov2, track-on2-dinov3, track-on-r)."
        )
    return ADAPTERS[package]


def graphs_of(entry: ModelEntry, loaded: LoadedModel) -> Graphs:
    """Take a loaded model apart; see :func:`adapter_of`."""
    make: Callable[[Any], Graphs] = importlib.import_module(adapter_of(entry)).graphs
    with torch.no_grad():
        return make(loaded.model)
