"""How the picture moved since the last frame, near any place: where to look for points that are not seen.

It depends on the two frames alone, never on the points that are tracked.

Letters: B clips, G places of the grid, N points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ptrack.geometry import grid_points
from ptrack.models.layers.windows import constant

SIDE = 6  # places along each side of the picture
WIDTH = 1.25  # standard deviation of a place's say, in spacings of the grid
RETURNED = 0.5  # cells: a place that is found back with this error has 0.6 of its say
FAR_SAY = 1e-6  # of the nearest places where none has a say: far outside, or nothing could be followed


@lru_cache(maxsize=16)
def grid(size: tuple[int, int], device: torch.device) -> Tensor:
    """Return (G, 2) whole cells spread over a map of ``size`` (h, w), row by row."""
    with torch.inference_mode(False):
        return (torch.from_numpy(grid_points(SIDE, size)) - 0.5).round().to(device)


@dataclass(frozen=True, slots=True)
class Drift:
    """Motion from the previous frame to this one at a grid of places."""

    place: Tensor  # (G, 2) cells
    move: Tensor  # (B, G, 2) cells
    say: Tensor  # (B, G) how far each is to be believed, 0..1
    size: tuple[int, int]  # (h, w) of the map

    def at(self, clip: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
        """Return the motion (N, 2) around (N, 2) cells, in cells, and how far to believe it (N,), 0..1.

        The mean of the grid's motions, nearer and surer places counting more; ``clip`` (N,) int64.
        """
        spacing = constant((self.size[1] / SIDE, self.size[0] / SIDE), xy.device)
        apart = ((xy[:, None] - self.place) / spacing).square().sum(-1)
        near, say = -apart / (2 * WIDTH**2), self.say[clip]
        # Logarithms: far outside, all weights would vanish.
        weight = torch.logaddexp(near + say.clamp(min=1e-12).log(), math.log(FAR_SAY) - apart.sqrt()).softmax(1)
        return (weight[..., None] * self.move[clip]).sum(1), (near.softmax(1) * say).sum(1)


def say(score: Tensor, returned: Tensor) -> Tensor:
    """Turn scores and the errors of the way back, in cells, into how far a place is to be believed."""
    return score.clamp(min=0) ** 4 * torch.exp(-returned.square() / (2 * RETURNED**2))
