"""Weights of nano on disk, and how the zoo builds it from them.

A file holds what training changes. It holds the EfficientNet-Lite0 only if that was trained, too; that of ImageNet lies
in the package already.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ptrack.errors import CheckpointError, ModelError, did_you_mean
from ptrack.fileio import sha256_of
from ptrack.geometry import Size
from ptrack.models import saved
from ptrack.models.backbones.lite0 import Lite0
from ptrack.models.backbones.lite0 import packaged_weights as packaged_backbone
from ptrack.models.entry import LoadedModel, LoadRequest
from ptrack.models.nano.config import NanoConfig
from ptrack.models.nano.consensus import Consensus
from ptrack.models.nano.model import Nano

FORMAT = "ptrack-nano-1"  # in the metadata of the safetensors files
SHIPPED = "nano.safetensors"
BACKBONE = "backbone."  # key prefix of what is not stored if it is that of the package


class Quality(NamedTuple):
    """What ``--quality`` chooses."""

    sizes: tuple[Size, ...]  # (H, W) of the inputs; of several, the positions on which they agree
    iterations: int  # of the refinement


# Measured in docs/nano.md.
QUALITIES = {
    "fast": Quality(((256, 352),), 1),
    "default": Quality(((432, 576),), 2),
    "best": Quality(((432, 576), (480, 640), (576, 768)), 2),
}


def untrained(config: NanoConfig) -> Nano:
    """Return the network before training: the patch matcher.

    The projection is that of the packaged principal components of the taps, if the sizes agree, else random.
    """
    with _packaged("nano_init.safetensors") as path:
        components = saved.read(path)[1]["components"].float()
    fits = config.dim <= len(components)
    return Nano(config, packaged_backbone(), components[: config.dim] if fits else None)


def _packaged(name: str) -> AbstractContextManager[Path]:
    return resources.as_file(resources.files("ptrack.models") / "weights" / name)


def save_weights(path: Path | str, model: Nano) -> None:
    """Write safetensors in float16 with the configuration inside; the file appears when whole.

    Raises:
        OutputError: it cannot be written.
    """
    every = not _of_the_package(model.backbone)
    state = {k: v.half() for k, v in model.state_dict().items() if every or not k.startswith(BACKBONE)}
    saved.write(path, FORMAT, model.config, state)


def _of_the_package(backbone: Lite0) -> bool:
    """Return whether nothing was trained in it."""
    kept = Lite0(packaged_backbone(), fine=True).state_dict()
    return all(torch.equal(value.cpu(), kept[name]) for name, value in backbone.state_dict().items())


def read_weights(path: Path | str) -> tuple[NanoConfig, dict[str, Tensor]]:
    """Read ``best.safetensors``, or the weights in a training checkpoint (``latest.pth``, ``best.pth``).

    Raises:
        CheckpointError: missing, damaged, or of another model.
    """
    path = Path(path)
    if path.suffix == ".pth":
        return saved.read_training(path, ("nano", "nano-encoder"), NanoConfig, "nano")
    if not path.is_file():
        raise CheckpointError(f"{path} cannot be read: there is no such file.")
    metadata, state = saved.read(path)
    config = saved.configuration(metadata, FORMAT, NanoConfig, str(path))
    return config, {key: value.float() for key, value in state.items()}


def whole(model: Nano, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state`` with the backbone, if the file left it out, as the model has it."""
    return {k: v for k, v in model.state_dict().items() if k.startswith(BACKBONE)} | dict(state)


def fill(model: Nano, state: Mapping[str, Tensor], where: str) -> None:
    """Load what the file holds; a backbone that it leaves out stays.

    Raises:
        CheckpointError: keys or shapes do not fit.
    """
    saved.fill(model, whole(model, state), where)


def packaged() -> tuple[NanoConfig, dict[str, Tensor]]:
    """Return the shipped weights."""
    with _packaged(SHIPPED) as path:
        return read_weights(path)


def at_quality(config: NanoConfig, quality: str) -> tuple[NanoConfig, ...]:
    """Return the configurations of ``fast``, ``default`` or ``best``, one per size.

    Raises:
        ModelError: there is no such quality.
    """
    if quality not in QUALITIES:
        raise ModelError(
            f"quality must be one of {', '.join(QUALITIES)}, not '{quality}'.{did_you_mean(quality, QUALITIES)}"
        )
    sizes, iterations = QUALITIES[quality]
    return tuple(replace(config, input_size=size, iterations=iterations) for size in sizes)


def build(request: LoadRequest) -> LoadedModel:
    """Build the tracker for ``ptrack.load("nano", quality="fast")``, with the shipped weights or a checkpoint's."""
    path = request.checkpoint
    with nullcontext(path) if path is not None else _packaged(SHIPPED) as file:
        config, state = read_weights(file)
        digest = sha256_of(file)
    members = [untrained(c).eval() for c in at_quality(config, request.options.get("quality", "default"))]
    for member in members:
        fill(member, state, str(path or "nano"))
    model = (members[0] if len(members) == 1 else Consensus(members)).to(request.device)
    return LoadedModel(model=model, weights_sha256=digest)
