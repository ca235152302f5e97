"""What ``--init-from`` means: weights of any model that can be trained further, and the network they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ptrack.config import to_mapping
from ptrack.errors import CheckpointError, did_you_mean
from ptrack.models import saved, zoo
from ptrack.models.hub import fetch
from ptrack.models.nano import weights as nano
from ptrack.models.offline import weights as transformer
from ptrack.models.online.load import PUBLISHED, with_transformer
from ptrack.models.online.weights import read_checkpoint
from ptrack.training.state import read


@dataclass(frozen=True)
class StartWeights:
    """Weights to start from, and the network they belong to."""

    model: str  # nano, transformer or track-on2
    arch: dict[str, Any]
    state: Mapping[str, Tensor]


def read_source(name: str) -> StartWeights:
    """Return what ``--init-from`` means: a weights file, a training checkpoint, or a model name of ``ptrack models``.

    Raises:
        CheckpointError: missing, damaged, or of a model that cannot be trained further.
    """
    path = Path(name)
    if not path.is_file():
        return _of_zoo(name)
    if path.suffix == ".pth":
        run = read(path)
        return StartWeights(
            run.config["model"].removesuffix("-encoder"), dict(run.config["arch"]), run.ema or run.model
        )
    format = saved.read_format(path) if path.suffix == ".safetensors" else ""
    if format == transformer.FORMAT:
        config, state = transformer.read_weights(path)
        return StartWeights("transformer", to_mapping(config), state)
    if format == nano.FORMAT:
        config, state = nano.read_weights(path)
        return StartWeights("nano", to_mapping(config), state)
    return _track_on2(path)


def _of_zoo(name: str) -> StartWeights:
    """Return the weights of a model that comes with them."""
    if name not in zoo.models():
        raise CheckpointError(f"--init-from {name}: there is no such file or model.{did_you_mean(name, zoo.models())}")
    if name == "nano":
        config, state = nano.packaged()
        return StartWeights("nano", to_mapping(config), state)
    if name not in PUBLISHED:
        raise CheckpointError(f"--init-from {name}: this model has no weights that can be trained further.")
    repo, file, backbone = PUBLISHED[name]
    return _track_on2(fetch(repo, file), backbone)


def _track_on2(path: Path, backbone: str | None = None) -> StartWeights:
    checkpoint = with_transformer(read_checkpoint(path, backbone=backbone))
    return StartWeights("track-on2", to_mapping(checkpoint.config), checkpoint.state)
