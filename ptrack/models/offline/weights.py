"""Weights of the offline transformer on disk, and how the zoo builds it from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ptrack.config import from_mapping, to_mapping
from ptrack.errors import CheckpointError, ConfigError
from ptrack.fileio import atomic_path, sha256_of
from ptrack.models.offline.model import PointTransformer, TransformerConfig

if TYPE_CHECKING:
    from ptrack.models.zoo import LoadedModel, LoadRequest

FORMAT = "ptrack-transformer-1"  # in the metadata of the safetensors files


def save_weights(path: Path | str, model: PointTransformer) -> None:
    """Write safetensors with the configuration inside; the file appears when whole.

    Raises:
        OutputError: it cannot be written.
    """
    from safetensors.torch import save_file

    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"format": FORMAT, "config": json.dumps(to_mapping(model.config))})


def read_weights(path: Path | str) -> tuple[TransformerConfig, dict[str, Tensor]]:
    """Read ``best.safetensors``, or the weights in a training checkpoint (``latest.pth``, ``best.pth``).

    Raises:
        CheckpointError: missing, damaged, or of another model.
    """
    path = Path(path)
    if path.suffix == ".pth":
        return _from_training(path)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({error}).") from error
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "unknown")
        raise CheckpointError(f"{path} has the format '{found}', not '{FORMAT}'; it belongs to another model.")
    try:
        return from_mapping(TransformerConfig, json.loads(metadata["config"]), str(path)), state
    except (ConfigError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: its configuration cannot be used ({error}).") from error


def _from_training(path: Path) -> tuple[TransformerConfig, dict[str, Tensor]]:
    import torch

    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"{path} is missing, damaged or not a checkpoint ({type(error).__name__}).") from error
    config = saved.get("config") if isinstance(saved, dict) else None
    if not isinstance(config, dict) or config.get("model") != "transformer":
        raise CheckpointError(f"{path} is no training checkpoint of the transformer.")
    return from_mapping(TransformerConfig, config["arch"], str(path)), dict(saved.get("ema") or saved["model"])


def load_weights(path: Path | str) -> PointTransformer:
    """Return the model of a file, in evaluation mode.

    Raises:
        CheckpointError: the file cannot be used, or its tensors do not fit its configuration.
    """
    config, state = read_weights(path)
    model = PointTransformer(config)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: the weights do not fit ({str(error).splitlines()[-1].strip()}).") from error
    return model.eval()


def build(request: LoadRequest) -> LoadedModel:
    """Build the tracker for ``ptrack.load("transformer", checkpoint=FILE)``."""
    from ptrack.models.offline.streaming import StreamingTransformer
    from ptrack.models.zoo import LoadedModel

    if request.checkpoint is None:
        raise CheckpointError(
            "The transformer has no published weights: train them (ptrack train) and give --checkpoint."
        )
    model = load_weights(request.checkpoint)
    tracker = StreamingTransformer(model, request.device, iterations=request.options.get("iterations"))
    return LoadedModel(model=tracker, weights_sha256=sha256_of(request.checkpoint))
