"""The recorded outputs of the official TAPNext program, and its weights rebuilt from their names."""

from __future__ import annotations

import functools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from ptrack.models.tapnext.config import TapNextConfig
from ptrack.models.tapnext.weights import expected_shapes
from tests.parity.tapnext import fill as fill_rules

DATA = Path(__file__).parent
TINY = TapNextConfig(
    input_size=48, raster=32, width=32, depth=3, heads=4, hidden=48, head_hidden=16, window=6, radius=4.0
)  # the raster is smaller than the frames: the position embedding is resampled

# 194 million weights take 6 s to make, the recorded clips another 10 minutes to run through the whole network.
whole_network = pytest.mark.skipif(
    not os.environ.get("PTRACK_WHOLE_NETWORK"), reason="the whole network: set PTRACK_WHOLE_NETWORK=1"
)


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


def manifest() -> dict:
    return json.loads((DATA / "manifest_torch.json").read_text())


def fill(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Weights by name; two threads make them."""
    make = fill_rules.fill_array
    with ThreadPoolExecutor(2) as pool:
        arrays = pool.map(lambda item: make(*item), shapes.items())
        return {name: torch.from_numpy(array) for name, array in zip(shapes, arrays, strict=True)}


@functools.cache
def tiny() -> dict[str, torch.Tensor]:
    return fill(expected_shapes(TINY))


@functools.cache
def whole() -> dict[str, torch.Tensor]:
    return fill({name: tuple(shape) for name, shape, *_ in manifest()["keys"] if name != "query_pos_embed"})


def video(frames: int = 5, size: tuple[int, int] = (40, 56), seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (frames, *size, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
