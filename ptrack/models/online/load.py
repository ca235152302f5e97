"""``ptrack.load("track-on2-...")``: published or own weights to a ready online model."""

from __future__ import annotations

from pathlib import Path

import torch

from ptrack.errors import CheckpointError, ModelError
from ptrack.fileio import sha256_of
from ptrack.models.backbones.vit import VITS
from ptrack.models.entry import LoadedModel, LoadRequest
from ptrack.models.hub import fetch
from ptrack.models.online.checkpoint import OnlineCheckpoint
from ptrack.models.online.config import DINOV2, DINOV3
from ptrack.models.online.model import TrackOn2
from ptrack.models.online.weights import add_vit, build_model, read_checkpoint
from ptrack.models.saved import read_tensors

MEMORY = 72  # remembered frames at inference, as in the published evaluations except DAVIS (24)

# name -> (repository, file, transformer)
PUBLISHED = {
    "track-on2-dinov2": ("gorkaydemir/track_on2", "trackon2_dinov2_checkpoint.pt", "dinov2_s"),
    "track-on2-dinov3": ("gorkaydemir/track_on2", "trackon2_dinov3_checkpoint.pt", "dinov3_s_plus"),
    "track-on-r": ("gorkaydemir/track_on_r", "track_on_r.pt", "dinov3_s_plus"),
}


def build(request: LoadRequest) -> LoadedModel:
    """Build a published online model, or ``track-on2`` with the weights of a file; see ``ptrack.models.zoo``.

    Options: ``memory`` (frames remembered per point; 72, for ``track-on2`` as trained), ``vit_checkpoint`` (a file with
    the frozen transformer where the checkpoint has none), ``compile`` (compiled inference, for GPUs).

    Raises:
        CheckpointError: weights missing, damaged, or of another architecture.
        ModelError: an option is out of its range.
    """
    name = request.entry.name
    repo, filename, backbone = PUBLISHED.get(name, ("", "", None))
    memory = request.options.get("memory", MEMORY if repo else None)
    if memory is not None and (isinstance(memory, bool) or not isinstance(memory, int) or memory < 1):
        raise ModelError(f"memory is {memory!r}; it must be a whole number of frames, at least 1.")
    if request.checkpoint is None and not repo:
        raise CheckpointError(
            f"'{name}' stands for weights of your own: give them with --checkpoint FILE. Published ones are called "
            f"{', '.join(PUBLISHED)}."
        )
    path = request.checkpoint or fetch(repo, filename)
    checkpoint = read_checkpoint(path, backbone=backbone)
    if checkpoint.config.backbone != backbone and request.checkpoint is None:
        raise CheckpointError(f"{path} holds a {checkpoint.config.backbone} model where {name} has {backbone}.")
    checkpoint = with_transformer(checkpoint, request.options.get("vit_checkpoint"))
    model = build_model(checkpoint, memory=memory, name=name).to(request.device)
    model.set_dtype(request.dtype)
    model.fold()
    if request.options.get("compile"):
        model.compile_steps()
    return LoadedModel(model=model, weights_sha256=sha256_of(path))


def untrained(request: LoadRequest) -> LoadedModel:
    """Build a published network with random weights, for measuring its speed; nothing is downloaded."""
    name = request.entry.name
    config = DINOV3 if PUBLISHED[name][2] == DINOV3.backbone else DINOV2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TrackOn2(config, memory=request.options.get("memory", MEMORY), name=name).eval().to(request.device)
    model.set_dtype(request.dtype)
    model.fold()
    return LoadedModel(model=model.compile_steps() if request.options.get("compile") else model)


def with_transformer(checkpoint: OnlineCheckpoint, file: Path | str | None = None) -> OnlineCheckpoint:
    """Return the checkpoint with its frozen DINO: its own, that of ``file``, or timm's from the hub.

    Raises:
        CheckpointError: the file does not fit, or nothing can be downloaded.
    """
    if file is not None:
        return add_vit(checkpoint, read_tensors(file), str(file))
    if checkpoint.has_vit:
        return checkpoint
    repo = f"timm/{VITS[checkpoint.config.backbone].weights}"
    path = fetch(repo, "model.safetensors", option="vit_checkpoint")
    return add_vit(checkpoint, read_tensors(path), str(path))
