"""Weights of the offline transformer on disk, and how the zoo builds it from them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ptrack.errors import CheckpointError
from ptrack.fileio import sha256_of
from ptrack.models import saved
from ptrack.models.entry import LoadedModel, LoadRequest
from ptrack.models.offline.model import PointTransformer, TransformerConfig

FORMAT = "ptrack-transformer-1"  # in the metadata of the safetensors files


def save_weights(path: Path | str, model: PointTransformer) -> None:
    """Write safetensors with the configuration inside; the file appears when whole.

    Raises:
        OutputError: it cannot be written.
    """
    saved.write(path, FORMAT, model.config, model.state_dict())


def read_weights(path: Path | str) -> tuple[TransformerConfig, dict[str, Tensor]]:
    """Read ``best.safetensors``, or the weights in a training checkpoint (``latest.pth``, ``best.pth``).

    Raises:
        CheckpointError: missing, damaged, or of another model.
    """
    if Path(path).suffix == ".pth":
        return saved.read_training(path, ("transformer",), TransformerConfig, "the transformer")
    metadata, state = saved.read(path)
    return saved.configuration(metadata, FORMAT, TransformerConfig, str(path)), state


def load_weights(path: Path | str) -> PointTransformer:
    """Return the model of a file, in evaluation mode.

    Raises:
        CheckpointError: the file cannot be used, or its tensors do not fit its configuration.
    """
    config, state = read_weights(path)
    with torch.device("meta"):  # shapes without memory: the configuration of a file may claim any size
        expected = {key: tuple(value.shape) for key, value in PointTransformer(config).state_dict().items()}
    if wrong := saved.differences(expected, state):
        raise CheckpointError(f"{path}: the weights do not fit ({wrong}).")
    model = PointTransformer(config)
    saved.fill(model, state, str(path))
    return model.eval()


def build(request: LoadRequest) -> LoadedModel:
    """Build the tracker for ``ptrack.load("transformer", checkpoint=FILE)``."""
    from ptrack.models.offline.streaming import StreamingTransformer

    if request.checkpoint is None:
        raise CheckpointError(
            "The transformer has no published weights: train some (ptrack train) and give their file as the checkpoint."
        )
    model = load_weights(request.checkpoint)
    tracker = StreamingTransformer(model, request.device, iterations=request.options.get("iterations"))
    return LoadedModel(model=tracker, weights_sha256=sha256_of(request.checkpoint))
