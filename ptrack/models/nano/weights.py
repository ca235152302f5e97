"""Weights of nano on disk, and how the zoo builds it from them.

A file holds what training changes; the frozen EfficientNet-Lite0 lies in the package already.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ptrack.config import from_mapping, to_mapping
from ptrack.errors import CheckpointError, ConfigError, ModelError, did_you_mean
from ptrack.fileio import atomic_path, sha256_of
from ptrack.models.backbones.lite0 import packaged_weights as packaged_backbone
from ptrack.models.nano.config import NanoConfig
from ptrack.models.nano.model import Nano

if TYPE_CHECKING:
    from ptrack.models.zoo import LoadedModel, LoadRequest

FORMAT = "ptrack-nano-1"  # in the metadata of the safetensors files
FROZEN = "backbone."  # key prefix of what is not stored

# Input size (H, W) and refinement iterations of --quality; measured in docs/nano.md.
QUALITIES: dict[str, tuple[tuple[int, int], int]] = {
    "fast": ((256, 352), 1),
    "default": ((384, 512), 2),
    "best": ((480, 640), 2),
}


def untrained(config: NanoConfig) -> Nano:
    """Return the network before training: the patch matcher.

    The projection is that of the packaged principal components of the taps, if the sizes agree, else random.
    """
    from safetensors.torch import load

    components = load(_packaged("nano_init.safetensors"))["components"].float()
    fits = config.dim <= len(components)
    return Nano(config, packaged_backbone(), components[: config.dim] if fits else None)


def _packaged(name: str) -> bytes:
    return (resources.files("ptrack.models") / "weights" / name).read_bytes()


def save_weights(path: Path | str, model: Nano) -> None:
    """Write safetensors in float16 with the configuration inside; the file appears when whole.

    Raises:
        OutputError: it cannot be written.
    """
    from safetensors.torch import save_file

    state = {
        k: v.detach().cpu().half().contiguous().clone()
        for k, v in model.state_dict().items()
        if not k.startswith(FROZEN)
    }
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"format": FORMAT, "config": json.dumps(to_mapping(model.config))})


def read_weights(path: Path | str) -> tuple[NanoConfig, dict[str, Tensor]]:
    """Read ``best.safetensors``, or the weights in a training checkpoint (``latest.pth``, ``best.pth``).

    Raises:
        CheckpointError: missing, damaged, or of another model.
    """
    path = Path(path)
    if path.suffix == ".pth":
        return _from_training(path)
    try:
        return _parse(path.read_bytes(), str(path))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error}).") from error


def _parse(data: bytes, where: str) -> tuple[NanoConfig, dict[str, Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        state = {key: value.float() for key, value in load(data).items()}
    except (SafetensorError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{where} is damaged or not a checkpoint ({error}).") from error
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "unknown")
        raise CheckpointError(f"{where} has the format '{found}', not '{FORMAT}'; it belongs to another model.")
    try:
        return from_mapping(NanoConfig, json.loads(metadata["config"]), where), state
    except (ConfigError, KeyError, ValueError) as error:
        raise CheckpointError(f"{where}: its configuration cannot be used ({error}).") from error


def _from_training(path: Path) -> tuple[NanoConfig, dict[str, Tensor]]:
    import torch

    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"{path} is missing, damaged or not a checkpoint ({type(error).__name__}).") from error
    config = saved.get("config") if isinstance(saved, dict) else None
    if not isinstance(config, dict) or config.get("model") != "nano":
        raise CheckpointError(f"{path} is no training checkpoint of nano.")
    return from_mapping(NanoConfig, config["arch"], str(path)), dict(saved.get("ema") or saved["model"])


def fill(model: Nano, state: Mapping[str, Tensor], where: str) -> None:
    """Load what training changes; the frozen part stays.

    Raises:
        CheckpointError: keys or shapes do not fit.
    """
    own = {k: v for k, v in model.state_dict().items() if k.startswith(FROZEN)}
    try:
        model.load_state_dict({**own, **state})
    except RuntimeError as error:
        raise CheckpointError(f"{where}: the weights do not fit ({str(error).splitlines()[-1].strip()}).") from error


def packaged() -> tuple[NanoConfig, dict[str, Tensor]]:
    """Return the shipped weights."""
    return _parse(_packaged("nano.safetensors"), "the packaged nano.safetensors")


def at_quality(config: NanoConfig, quality: str) -> NanoConfig:
    """Return the configuration of ``fast``, ``default`` or ``best``.

    Raises:
        ModelError: there is no such quality.
    """
    if quality not in QUALITIES:
        raise ModelError(
            f"--quality must be one of {', '.join(QUALITIES)}, not '{quality}'.{did_you_mean(quality, QUALITIES)}"
        )
    size, iterations = QUALITIES[quality]
    return replace(config, input_size=size, iterations=iterations)


def build(request: LoadRequest) -> LoadedModel:
    """Build the tracker for ``ptrack.load("nano", quality="fast")``, with the shipped weights or a checkpoint's."""
    from ptrack.models.zoo import LoadedModel

    path = request.checkpoint
    config, state = packaged() if path is None else read_weights(path)
    model = untrained(at_quality(config, request.options.get("quality", "default")))
    fill(model, state, "nano" if path is None else str(path))
    digest = hashlib.sha256(_packaged("nano.safetensors")).hexdigest() if path is None else sha256_of(path)
    return LoadedModel(model=model.eval().to(request.device), weights_sha256=digest)
