"""The recorded outputs of the official Track-On2 program, and its weights rebuilt from their names."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import torch

from tests.parity.track_on2 import fill

DATA = Path(__file__).parent / "track_on2"
BACKBONES = ("dinov2_s", "dinov3_s_plus")
NAMES = {"dinov2_s": "track-on2-dinov2", "dinov3_s_plus": "track-on2-dinov3"}


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


def group(name: str, prefix: str) -> dict[str, np.ndarray]:
    """The arrays ``prefix/...`` of a file, prefix taken off."""
    return {k.removeprefix(prefix + "/"): v for k, v in load(name).items() if k.startswith(prefix + "/")}


def manifest(backbone: str) -> dict:
    return json.loads((DATA / f"manifest_{backbone}.json").read_text())


@functools.cache
def weights(backbone: str, size: str) -> dict[str, torch.Tensor]:
    """The official state dict of a backbone at the model size "tiny" (64x96) or "small" (384x512). Do not change it."""
    shapes = {name: tuple(shape) for name, shape, *_ in manifest(backbone)["keys"]}
    if size == "tiny":
        shapes["backbone.pos_embedding"] = (1, 256, 16, 24)
    return {k: torch.from_numpy(np.asarray(v)) for k, v in fill.fill_state_dict(shapes).items()}
