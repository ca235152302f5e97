"""A camera that is faster than real time, and a model that sees while it is light: long live runs without waiting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ptrack.bench.beacon import pictures
from ptrack.models.base import StepOutput
from ptrack.models.baselines import PointsState, StaticModel
from ptrack.video.frames import Frame, FrameSource, ReadOptions, SourceInfo

SIZE, RATE = (120, 160), 30.0


class Simulated(FrameSource):
    """A moving texture that is covered for two seconds of every minute, so that points are lost."""

    def __init__(self, frames: int) -> None:
        super().__init__(ReadOptions())
        self.frames = frames
        self.info = SourceInfo(name="simulated", kind="video", width=SIZE[1], height=SIZE[0], fps=RATE)

    def __iter__(self) -> Iterator[Frame]:
        picture, dark = pictures(SIZE), np.zeros((*SIZE, 3), np.uint8)
        for i in range(self.frames):
            yield Frame(dark if i % 1800 > 1740 else picture(i), i, i / RATE)

    def reversed(self, stop: int) -> Iterator[Frame]:
        """Refuse, as a camera."""
        raise NotImplementedError


class Watchful(StaticModel):
    """Points that stay where they are and are seen while it is light: quick, and they come and go."""

    def encode(self, frames: Tensor) -> Sequence[float]:
        """(B, H, W, 3) uint8 -> B brightnesses."""
        return [float(f[::8, ::8].float().mean()) for f in frames]

    def step(self, state: PointsState, features: float) -> tuple[PointsState, StepOutput]:
        """Return the same positions again, unseen in the dark."""
        seen = torch.full((len(state.xy),), float(features > 20))
        return state, StepOutput(state.xy, seen, seen)
