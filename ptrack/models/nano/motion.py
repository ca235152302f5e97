"""How the picture moved since the last frame, near any place: where to look for points that are not seen.

It depends on the two frames alone, never on the points that are tracked.

Letters: B clips, G places of the grid, N points, h w cells of a map, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ptrack.geometry import grid_points
from ptrack.models.layers.windows import constant, patches, peak
from ptrack.models.nano.matcher import PatchMatcher
from ptrack.models.nano.state import NanoFeatures

SIDE = 6  # places along each side of the picture
WIDTH = 1.25  # standard deviation of a place's weight, in spacings of the grid
RETURNED = 0.5  # cells: a place that is found back with this error has 0.6 of its trust
BESIDE = 2  # cells from the best match at which the next best tells how unique it is
LEAST_TRUST = 1e-6  # of the nearest places where none can be trusted: far outside, or nothing could be followed


@dataclass(frozen=True, slots=True)
class PointMotion:
    """How the picture moved around N points."""

    shift: Tensor  # (N, 2) cells
    trust: Tensor  # (N,) 0..1

    @classmethod
    def still(cls, xy: Tensor) -> PointMotion:
        """Return no motion, which nobody may trust, for points at (N, 2)."""
        return cls(torch.zeros_like(xy), torch.zeros_like(xy[:, 0]))


@dataclass(frozen=True, slots=True)
class PictureMotion:
    """Motion from the previous frame to this one at a grid of places."""

    place: Tensor  # (G, 2) cells
    shift: Tensor  # (B, G, 2) cells
    trust: Tensor  # (B, G) 0..1
    unique: Tensor  # (B, G) by how much its match is better than those ``BESIDE`` cells from it
    size: tuple[int, int]  # (h, w) of the map

    def near(self, clip: Tensor, xy: Tensor) -> PointMotion:
        """Return the motion around (N, 2) cells of clips (N,): the mean of the grid's, near and sure places first."""
        return self._near(clip, xy, self.trust)

    def near_unique(self, clip: Tensor, xy: Tensor) -> PointMotion:
        """The same, unique places first: those on plain surfaces seem to move where they do not."""
        return self._near(clip, xy, self.trust * self.unique)

    def _near(self, clip: Tensor, xy: Tensor, trusted: Tensor) -> PointMotion:
        spacing = constant((self.size[1] / SIDE, self.size[0] / SIDE), xy.device)
        distance = ((xy[:, None] - self.place) / spacing).square().sum(-1)
        nearness, trust = -distance / (2 * WIDTH**2), trusted[clip]
        # Logarithms: far outside, all weights would vanish.
        sure = nearness + trust.clamp(min=1e-12).log()
        weight = torch.logaddexp(sure, math.log(LEAST_TRUST) - distance.sqrt()).softmax(1)
        return PointMotion((weight[..., None] * self.shift[clip]).sum(1), (nearness.softmax(1) * trust).sum(1))


@lru_cache(maxsize=16)
def grid(size: tuple[int, int], device: torch.device) -> Tensor:
    """Return (G, 2) whole cells spread over a map of ``size`` (h, w), row by row."""
    with torch.inference_mode(False):
        return (torch.from_numpy(grid_points(SIDE, size)) - 0.5).round().to(device)


def trust_of(score: Tensor, returned: Tensor) -> Tensor:
    """Turn scores and the errors of the way back, in cells, into trust, 0..1."""
    return score.clamp(min=0) ** 4 * torch.exp(-returned.square() / (2 * RETURNED**2))


def uniqueness(scores: Tensor) -> Tensor:
    """Return by how much the best of (N, V, V) scores is better than the best ``BESIDE`` cells from it: (N,)."""
    side, flat = scores.shape[-1] + 2 * BESIDE, F.pad(scores, (BESIDE,) * 4, value=float("-inf")).flatten(1)
    best = flat.argmax(1, keepdim=True)
    reach = range(-BESIDE, BESIDE + 1)
    ring = tuple(float(y * side + x) for y in reach for x in reach if max(abs(x), abs(y)) == BESIDE)
    beside = best + constant(ring, scores.device).long()
    return flat.gather(1, best)[:, 0] - flat.gather(1, beside).amax(1)


@torch.no_grad()
def picture_motion(
    matcher: PatchMatcher, previous: Tensor, frame: NanoFeatures, radius: int, back_radius: int
) -> PictureMotion:
    """Follow a grid of places from the previous frames to these, and back.

    Args:
        matcher: compares.
        previous: map of the B frames before.
        frame: features of these frames.
        radius: of the search, in cells.
        back_radius: of the search back.
    """
    b, size = len(previous), frame.cells
    place = grid(size, previous.device)
    clip = torch.arange(b, device=previous.device).repeat_interleave(len(place))
    start = place.repeat(b, 1)
    cells = start.long()
    patch = patches(previous, clip, start, matcher.border)
    scores, origin = matcher.search(patch, frame.map, clip, cells, radius)
    there = origin + peak(scores)
    back_scores, origin = matcher.search(frame.patches(clip, there), previous, clip, cells, back_radius)
    back = origin + peak(back_scores)
    trust = trust_of(scores.flatten(1).amax(1), (back - start).norm(dim=1))
    shift = ((there - start) + (there - back)) / 2  # both ways: what still pictures seem to move cancels out
    unique = uniqueness(scores) if frame.has_grey else torch.ones_like(trust)
    return PictureMotion(place, shift.view(b, -1, 2), trust.view(b, -1), unique.view(b, -1), size)
