"""The systems by the name of their model in a training configuration: one file each, a model with its losses."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ptrack.training.systems.base import PredictedTracks, System

if TYPE_CHECKING:
    from ptrack.training.config import TrainConfig

__all__ = ["PredictedTracks", "System", "build"]

BUILDERS = {  # model -> "module:function" of ``(TrainConfig) -> System``
    "nano": "ptrack.training.systems.nano:build",
    "nano-encoder": "ptrack.training.systems.nano_encoder:build",
    "transformer": "ptrack.training.systems.transformer:build",
    "track-on2": "ptrack.training.systems.track_on2:build",
}


def build(config: TrainConfig) -> System:
    """Return the untrained system of a configuration (its initialisation uses torch's global generator).

    Raises:
        ConfigError: a choice that the model does not have.
        CheckpointError: published weights are not there and cannot be fetched.
    """
    module, _, function = BUILDERS[config.model].partition(":")
    return getattr(importlib.import_module(module), function)(config)
