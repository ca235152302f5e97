"""Weights of Track-On2 in memory, checked against the architecture that they are for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ptrack.errors import CheckpointError
from ptrack.models import saved
from ptrack.models.backbones.vit import VITS
from ptrack.models.online.config import OnlineConfig
from ptrack.models.online.model import TrackOn2

VIT = "backbone.encoder.vit."  # before the names of the frozen transformer's tensors

State = dict[str, Tensor]


@dataclass(frozen=True)
class OnlineCheckpoint:
    """Weights and what they are for."""

    config: OnlineConfig
    state: State  # our names; float32 on the CPU
    has_vit: bool  # the frozen DINO transformer is among them


def checked(config: OnlineConfig, state: State, where: str) -> OnlineCheckpoint:
    """Compare names and shapes with the architecture; a wholly absent transformer is allowed."""
    expected = expected_shapes(config)
    has_vit = any(key.startswith(VIT) for key in state)
    if not has_vit:
        expected = {k: v for k, v in expected.items() if not k.startswith(VIT)}
    if text := saved.differences(expected, state):
        raise CheckpointError(f"{where} does not fit Track-On2 with the backbone {config.backbone}: {text}.")
    return OnlineCheckpoint(config, state, has_vit or config.backbone not in VITS)


def expected_shapes(config: OnlineConfig) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every tensor of the model, without allocating it."""
    with torch.device("meta"):
        model = TrackOn2(config)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}
