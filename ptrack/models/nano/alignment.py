"""Alignment: a patch of the previous frame aligned with this one at the source's own resolution.

The map's cells are 4 model pixels wide, 6 to 7 pixels of an 854x480 video; what moved by a fraction of one is measured
here. Lucas and Kanade's method (IJCAI 1981), inverse compositional (Baker and Matthews, IJCV 2004), translation only,
the patches' means taken off. Its cost depends on the number of points alone, never on the size of the frame.

Letters: B clips, N points, H W pixels of a frame, V side of a patch.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ptrack.models.layers.windows import constant
from ptrack.models.nano.matcher import by_points

HALF = 8  # half side of the patch, in samples
SIGMA = HALF / 1.5  # of its Gaussian weights
STEPS = 5  # of the iteration
MARGIN = 7  # samples around the guess that the iteration may move
FINEST = 854 * 480  # pixels: of larger frames every second one or fewer are read, so that a patch shows the same things
TEXTURE = 1e-4  # smaller eigenvalue of the mean structure tensor, grey values 0..1, from which a patch can be aligned
SINGULAR = 1e-8  # keeps the inverse of a flat patch finite


class Alignment(NamedTuple):
    """Where patches were found."""

    xy: Tensor  # (N, 2) pixels
    textured: Tensor  # (N,) bool, the patch has enough texture in both directions


@torch.no_grad()
def align(before: Tensor, after: Tensor, clip: Tensor, start: Tensor, guess: Tensor) -> Alignment:
    """Find the patches around ``start`` of one frame in the next one.

    Args:
        before: (B, H, W, 3) RGB, uint8 or floating point in 0..255.
        after: the next frames, the same.
        clip: (N,) int64.
        start: (N, 2) raster pixels in ``before``.
        guess: (N, 2) raster pixels in ``after``, at most ``MARGIN`` samples from which the patch is looked for.
    """
    spacing = max(1, round((before.shape[1] * before.shape[2] / FINEST) ** 0.5))

    def aligned(part: slice) -> Tensor:
        return _aligned(before, after, clip[part], start[part], guess[part], spacing)

    result = by_points(aligned, len(start), start.device)
    return Alignment(result[:, :2], result[:, 2] > TEXTURE)


def _aligned(before: Tensor, after: Tensor, clip: Tensor, start: Tensor, guess: Tensor, spacing: int) -> Tensor:
    """Return (N, 3): the position and the texture."""
    weight = _weights(start.device)
    grey, part = _window(before, clip, start, HALF + 1, spacing)
    rows = torch.lerp(grey[:, :-1], grey[:, 1:], part[:, 1, None, None])
    wide = torch.lerp(rows[:, :, :-1], rows[:, :, 1:], part[:, 0, None, None])
    gx = (wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2]) / 2
    gy = (wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]) / 2
    template = wide[:, 1:-1, 1:-1]
    a, b, c = (_mean(weight, x) for x in (gx * gx, gx * gy, gy * gy))
    texture = (a + c) / 2 - ((a - c).square() / 4 + b.square()).sqrt()
    determinant = a * c - b * b + SINGULAR
    grey, part = _window(after, clip, guess, HALF + MARGIN, spacing)
    moved = torch.zeros_like(guess)  # samples from the guess
    for _ in range(STEPS):
        difference = _sampled(grey, part + moved) - template
        difference = difference - _mean(weight, difference)[:, None, None]
        ex, ey = _mean(weight, gx * difference), _mean(weight, gy * difference)
        step = torch.stack([c * ex - b * ey, a * ey - b * ex], dim=1) / determinant[:, None]
        moved = (moved - step).clamp(-MARGIN, MARGIN)
    return torch.cat([guess + spacing * moved, texture[:, None]], dim=1)


@lru_cache(maxsize=8)
def _weights(device: torch.device) -> Tensor:
    """(V, V) Gaussian, sum 1."""
    with torch.inference_mode(False):
        axis = torch.arange(-HALF, HALF + 1, dtype=torch.float32, device=device).square()
        weight = torch.exp(-(axis[:, None] + axis) / (2 * SIGMA**2))
        return weight / weight.sum()


def _mean(weight: Tensor, x: Tensor) -> Tensor:
    return (weight * x).sum((1, 2))


def _window(frames: Tensor, clip: Tensor, centre: Tensor, half: int, spacing: int) -> tuple[Tensor, Tensor]:
    """Read the grey values around (N, 2) raster pixels, every ``spacing``-th pixel; the border is repeated.

    Returns:
        (N, 2 half + 2, 2 half + 2) values, 0..1; and (N, 2) how far the centre lies behind the middle one, in samples.
    """
    B, H, W, _ = frames.shape
    at = torch.minimum((centre - 0.5).clamp(min=0), constant((W - 1.0, H - 1.0), centre.device))
    low = at.floor()
    step = torch.arange(-half, half + 2, device=centre.device) * spacing
    x = (low[:, :1].long() + step).clamp(0, W - 1)
    y = (low[:, 1:].long() + step).clamp(0, H - 1)
    index = (clip[:, None, None] * H + y[:, :, None]) * W + x[:, None, :]
    pixels = frames.reshape(B * H * W, 3).index_select(0, index.flatten())
    return (pixels.float().sum(1) / (3 * 255)).view(index.shape), (at - low) / spacing


def _sampled(grey: Tensor, moved: Tensor) -> Tensor:
    """Sample (N, V, V) in the middle of windows (N, U, U), ``moved`` (N, 2) samples from their middle one."""
    last = grey.shape[1] - 1
    axis = torch.arange(-HALF, HALF + 1, device=grey.device, dtype=grey.dtype) + (last - 1) / 2
    x, y = ((axis + moved[:, i : i + 1]) * (2 / last) - 1 for i in (0, 1))
    n, side = len(grey), len(axis)
    grid = torch.stack([x[:, None].expand(n, side, side), y[:, :, None].expand(n, side, side)], dim=-1)
    return F.grid_sample(grey[:, None], grid, padding_mode="border", align_corners=True)[:, 0]
