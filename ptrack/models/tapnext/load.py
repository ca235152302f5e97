"""``ptrack.load("tapnextpp")``: published or converted weights to a ready online model."""

from __future__ import annotations

import torch
from torch import nn

from ptrack.errors import ModelError
from ptrack.fileio import sha256_of
from ptrack.models.entry import LoadedModel, LoadRequest
from ptrack.models.hub import fetch_address
from ptrack.models.tapnext.config import TapNextConfig
from ptrack.models.tapnext.model import TapNext
from ptrack.models.tapnext.weights import SIZES, build_model, read_checkpoint

BASE = "https://storage.googleapis.com"


def build(request: LoadRequest) -> LoadedModel:
    """Build TAPNext or TAPNext++; see ``ptrack.models.zoo``.

    Options: ``reserve`` (slots that a stream keeps for points which join later, 0), ``threshold`` (visibility
    probability from which a point counts as visible, 0.5).

    Raises:
        CheckpointError: weights missing, damaged, or of another network.
        ModelError: an option is out of its range.
    """
    entry = request.entry
    reserve, threshold = request.options.get("reserve", 0), request.options.get("threshold")
    if isinstance(reserve, bool) or not isinstance(reserve, int) or reserve < 0:
        raise ModelError(f"reserve is {reserve!r}; it must be a whole number of points, 0 for none.")
    if threshold is not None and not 0 < threshold < 1:
        raise ModelError(f"threshold is {threshold!r}; it must lie between 0 and 1.")
    path = request.checkpoint or fetch_address(f"{BASE}/{entry.file}", sha256=entry.sha256)
    model = build_model(read_checkpoint(path, model=entry.name)).to(request.device)
    model.reserve = reserve
    model.threshold = model.threshold if threshold is None else float(threshold)
    model.set_dtype(request.dtype)
    return LoadedModel(model=model, weights_sha256=sha256_of(path))


def untrained(request: LoadRequest) -> LoadedModel:
    """Build a published network with small random weights, for measuring speed; nothing is downloaded."""
    name, device = request.entry.name, request.device
    with torch.device("meta"):
        model = TapNext(TapNextConfig(input_size=SIZES[name]))
    model = model.to_empty(device=device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.02)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.reset_parameters()
    model.set_tables()
    model.name = name
    model.set_dtype(request.dtype)
    return LoadedModel(model=model.eval().requires_grad_(False))
