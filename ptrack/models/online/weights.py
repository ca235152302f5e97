"""Weights of Track-On2 on disk: safetensors with the configuration inside, training checkpoints and published files.

Names of tensors are those of ``TrackOn2.state_dict()``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ptrack.fileio import sha256_of
from ptrack.models import saved
from ptrack.models.backbones.vit_weights import vit_from_any
from ptrack.models.online.checkpoint import VIT, OnlineCheckpoint, checked
from ptrack.models.online.config import OnlineConfig
from ptrack.models.online.model import TrackOn2
from ptrack.models.online.official import from_official

FORMAT = "ptrack-online-1"  # in the metadata of our safetensors files


def read_checkpoint(path: Path | str, *, backbone: str | None = None) -> OnlineCheckpoint:
    """Read a published ``.pt`` file, a checkpoint of ``ptrack train``, or a safetensors file of ours.

    Nothing in the file is ever executed.

    Args:
        path: the file.
        backbone: the architecture to assume where a published file leaves it open (those without the transformer).

    Raises:
        CheckpointError: not readable, not such a file, or made for another architecture.
    """
    path = Path(path)
    if saved.is_pickle(path):
        content = saved.load_pickle(path)
        if saved.is_training(content):
            config, state = saved.trained_weights(content, saved.ONLINE, OnlineConfig, "Track-On2", str(path))
            return checked(config, state, str(path))
        return from_official(saved.unwrapped(content, str(path)), backbone=backbone, where=str(path))
    return _read_safetensors(path, backbone)


def _read_safetensors(path: Path, backbone: str | None) -> OnlineCheckpoint:
    metadata, state = saved.read(path, saved.ADVICE)
    if "config" not in metadata:
        return from_official(saved.unwrapped(state, str(path)), backbone=backbone, where=str(path))
    config = saved.configuration(metadata, FORMAT, OnlineConfig, str(path))
    return checked(config, state, str(path))


def save_checkpoint(path: Path | str, checkpoint: OnlineCheckpoint, **notes: str) -> None:
    """Write safetensors with the configuration and some text ``notes`` in its metadata; the file appears when whole.

    Raises:
        OutputError: the file cannot be written.
    """
    saved.write(path, FORMAT, checkpoint.config, checkpoint.state, **notes)


def convert(source: Path | str, target: Path | str, *, backbone: str | None = None, overwrite: bool = False) -> dict:
    """Write the weights of ``source`` as safetensors and return what they are.

    Raises:
        CheckpointError: ``source`` cannot be used.
        OutputError: ``target`` exists, has another suffix, or cannot be written.
    """
    target = saved.check_target(target, overwrite=overwrite)
    checkpoint = read_checkpoint(source, backbone=backbone)
    save_checkpoint(target, checkpoint, source_sha256=sha256_of(source))
    c = checkpoint.config
    return {
        "backbone": c.backbone,
        "tensors": len(checkpoint.state),
        "transformer": checkpoint.has_vit,
        "memory": c.memory,
    }


def build_model(checkpoint: OnlineCheckpoint, *, memory: int | None = None, name: str = "track-on2") -> TrackOn2:
    """Build the model of a checkpoint in evaluation mode, with its memory set to ``memory`` frames afterwards.

    A transformer that is missing from the checkpoint keeps random weights: see :func:`add_vit`.
    """
    model = TrackOn2(checkpoint.config, name=name)
    model.load_state_dict(checkpoint.state, strict=False)
    if memory is not None:
        model.set_memory(memory)
    return model.eval()


def checkpoint_of(model: TrackOn2) -> OnlineCheckpoint:
    """Return the weights and configuration of a model (whose memory is as trained) for saving."""
    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    return OnlineCheckpoint(model.config, state, any(key.startswith(VIT) for key in state))


def add_vit(
    checkpoint: OnlineCheckpoint, weights: Mapping[str, Tensor], where: str = "the DINO weights"
) -> OnlineCheckpoint:
    """Return the checkpoint with its transformer from a separate file (Hugging Face, timm or original names).

    Raises:
        CheckpointError: the weights are of another transformer.
    """
    vit = vit_from_any(weights, checkpoint.config.backbone)
    rest = {k: v for k, v in checkpoint.state.items() if not k.startswith(VIT)}
    return checked(checkpoint.config, rest | {VIT + k: v for k, v in vit.items()}, where)
