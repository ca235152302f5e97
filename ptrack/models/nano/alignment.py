"""Alignment: a patch of the previous frame aligned with this one at the source's own resolution.

The map's cells are 4 model pixels wide, 6 to 7 pixels of an 854x480 video; what moved by a fraction of one is measured
here. Lucas and Kanade's method (IJCAI 1981), inverse compositional (Baker and Matthews, IJCV 2004), translation only,
the patches' means taken off. Its cost depends on the number of points alone, never on the size of the frame.

Letters: B clips, N points, H W pixels of a frame as given, h w of its samples that are aligned, V side of a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ptrack import geometry
from ptrack.models.nano.matcher import by_points

HALF = 8  # half side of the patch, in samples
SIGMA = HALF / 1.5  # of its Gaussian weights
STEPS = 3  # of the iteration; 5 give no better tracks on the ten labelled clips
MARGIN = 7  # samples around the guess that the iteration may move
FINEST = 854 * 480  # pixels: of larger frames every second one or fewer is kept, so that a patch shows the same things
TEXTURE = 1e-4  # smaller eigenvalue of the mean structure tensor, grey values 0..1, from which a patch can be aligned
SINGULAR = 1e-8  # keeps the inverse of a flat patch finite


class Alignment(NamedTuple):
    """Where patches were found."""

    xy: Tensor  # (N, 2) pixels
    textured: Tensor  # (N,) bool, the patch has enough texture in both directions


@torch.no_grad()
def grey_frames(frames: Tensor) -> Tensor:
    """(B, H, W, 3) RGB, uint8 or floating point in 0..255 -> what is aligned: (B, h, w) grey values, 0..1.

    Exported graphs keep every pixel, and read some of them: their frames may have any size.
    """
    spacing = 1 if torch.compiler.is_exporting() else _spacing(frames.shape[1:3])
    red, green, blue = frames[:, spacing // 2 :: spacing, spacing // 2 :: spacing].unbind(-1)
    return (red.float() + green + blue) * (1 / (3 * 255))


def _spacing(size: Sequence[int]) -> int:
    """Return every how many pixels of frames of ``size`` (H, W) one is kept."""
    return max(1, round((size[0] * size[1] / FINEST) ** 0.5))


@torch.no_grad()
def align(before: Tensor, after: Tensor, clip: Tensor, start: Tensor, guess: Tensor, size: geometry.Size) -> Alignment:
    """Find the patches around ``start`` of one frame in the next one.

    Args:
        before: (B, h, w) from :func:`grey_frames`.
        after: of the next frames, the same.
        clip: (N,) int64.
        start: (N, 2) raster pixels in the frame before.
        guess: (N, 2) raster pixels in the next one, at most ``MARGIN`` samples from which the patch is looked for.
        size: (H, W) of the frames as given.
    """
    spacing, first = _samples(size)
    start, guess = ((xy - first) / spacing for xy in (start, guess))

    def aligned(part: slice) -> Tensor:
        return _aligned(before, after, clip[part], start[part], guess[part], spacing)

    result = by_points(aligned, start.shape[0], start.device)
    return Alignment(result[:, :2] * spacing + first, result[:, 2] > TEXTURE)


@torch.no_grad()
def texture(grey: Tensor, clip: Tensor, xy: Tensor, size: geometry.Size) -> Tensor:
    """Return the texture, as ``TEXTURE`` has it, of the patches around (N, 2) raster pixels: (N,)."""
    spacing, first = _samples(size)

    def textures(part: slice) -> Tensor:
        return _solver(_sampled(grey, clip[part], (xy[part] - first) / spacing, HALF + 1, spacing))[1]

    return by_points(textures, xy.shape[0], xy.device)[:, 0]


def _samples(size: geometry.Size) -> tuple[int | Tensor, float | Tensor]:
    """Return the spacing of the samples of frames of ``size`` (H, W), and the raster pixel of the first one."""
    spacing = _open_spacing(size) if torch.compiler.is_exporting() else _spacing(size)
    return spacing, spacing // 2 + 0.5


def _open_spacing(size: geometry.Size) -> Tensor:
    """Return :func:`_spacing` of a size that is not known yet, as a tensor."""
    return (torch.full((), size[0] * size[1], dtype=torch.float32) / FINEST).sqrt().round().clamp(min=1).long()


def _aligned(
    before: Tensor, after: Tensor, clip: Tensor, start: Tensor, guess: Tensor, spacing: int | Tensor
) -> Tensor:
    """Return (N, 3): the position and the texture; positions in samples, whose centres are at whole numbers."""
    wide = _sampled(before, clip, start, HALF + 1, spacing)
    template = wide[:, 1:-1, 1:-1].flatten(1)
    solver, texture = _solver(wide)
    wanted = torch.bmm(solver, template[..., None])[..., 0]
    moved = torch.zeros_like(guess)  # samples from the guess
    for _ in range(STEPS):
        seen = _sampled(after, clip, guess + moved, HALF, spacing).flatten(1)
        moved = (moved - torch.bmm(solver, seen[..., None])[..., 0] + wanted).clamp(-MARGIN, MARGIN)
    return torch.cat([guess + moved, texture], dim=1)


def _solver(wide: Tensor) -> tuple[Tensor, Tensor]:
    """Return what turns differences of grey values into motion, from patches (N, V + 2, V + 2) one sample wider.

    Returns:
        (N, 2, V²): times a difference, the motion of least squares; and (N, 1) the texture.
    """
    weight = _weights(wide.device)
    gx = ((wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2]) / 2).flatten(1)
    gy = ((wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]) / 2).flatten(1)
    a, b, c, mean_x, mean_y = (F.linear(x, weight) for x in (gx * gx, gx * gy, gy * gy, gx, gy))
    texture = (a + c) / 2 - ((a - c).square() / 4 + b.square()).sqrt()
    # The gradients without their means: the mean of a difference, a change of light, then moves nothing.
    x, y = weight * (gx - mean_x), weight * (gy - mean_y)
    determinant = a * c - b * b + SINGULAR
    return torch.stack([c * x - b * y, a * y - b * x], dim=1) / determinant[..., None], texture


@lru_cache(maxsize=8)
def _weights(device: torch.device) -> Tensor:
    """(1, V²) Gaussian, sum 1."""
    with torch.inference_mode(False):
        axis = torch.arange(-HALF, HALF + 1, dtype=torch.float32, device=device).square()
        weight = torch.exp(-(axis[:, None] + axis) / (2 * SIGMA**2))
        return (weight / weight.sum()).view(1, -1)


@lru_cache(maxsize=8)
def _square(half: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """(3, 2 V²): (x, y, 1) times this are the samples around (x, y), -1..1 across frames of ``size`` (h, w)."""
    with torch.inference_mode(False):
        axis = torch.arange(-half, half + 1, dtype=torch.float32, device=device)
        scale = torch.tensor([2 / max(1, size[1] - 1), 2 / max(1, size[0] - 1)], device=device)
        around = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1) * scale - 1
        middle = torch.diag(scale).repeat(1, around[..., 0].numel())
        return torch.cat([middle, around.view(1, -1)])


def _sampled(grey: Tensor, clip: Tensor, centre: Tensor, half: int, spacing: int | Tensor) -> Tensor:
    """Sample (N, V, V) in frames (B, h, w) around (N, 2) samples of their clips; the border is repeated."""
    if isinstance(spacing, Tensor):
        return _gathered(grey, clip, centre, half, spacing)
    b, h, w = grey.shape
    square = _square(half, (h, w), centre.device)
    at = torch.addmm(square[2], centre, square[:2])  # a product: adding pairs to pairs takes four times as long
    n, side = len(centre), 2 * half + 1
    options = {"padding_mode": "border", "align_corners": True}
    if b == 1:
        return F.grid_sample(grey[:, None], at.view(1, n, side * side, 2), **options).view(n, side, side)
    which = (clip * (2 / (b - 1)) - 1).view(-1, 1, 1, 1).expand(n, side, side, 1)
    whole = torch.cat([at.view(n, side, side, 2), which], dim=-1).view(1, n, side * side, 1, 3)
    return F.grid_sample(grey[None, None], whole, **options).view(n, side, side)


def _gathered(grey: Tensor, clip: Tensor, centre: Tensor, half: int, spacing: Tensor) -> Tensor:
    """The same in frames (B, H, W) of which every ``spacing``-th pixel counts, by rows and columns: for graphs."""
    H, W = grey.shape[1:]
    low = centre.floor()
    part = (centre - low)[:, :, None, None]
    step = torch.arange(-half, half + 2, device=grey.device)

    def pixels(axis: int, length: int) -> Tensor:
        last = torch.div(length - 1 - spacing // 2, spacing, rounding_mode="floor")
        return torch.minimum((low[:, axis : axis + 1].long() + step).clamp(min=0), last) * spacing + spacing // 2

    x, y = pixels(0, W), pixels(1, H)
    index = (clip[:, None, None] * H + y[:, :, None]) * W + x[:, None, :]
    cells = grey.flatten().index_select(0, index.flatten()).view(index.shape)
    rows = torch.lerp(cells[:, :-1], cells[:, 1:], part[:, 1])
    return torch.lerp(rows[:, :, :-1], rows[:, :, 1:], part[:, 0])
