"""Reading feature maps at fractional positions. Maps are channels last, so one cell is one contiguous row.

Positions are in cells, (x, y), with 0 at the CENTRE of the first cell: pixel / stride - 0.5. Outside the map is zero.

Letters: B clips, T frames, S frames of a window, N points, h w cells, C channels, K template cells.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def _rows(maps: Tensor, time: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the row numbers in ``maps`` (B, T, h, w, C) flattened, and which of them lie on the map."""
    B, T, h, w, _ = maps.shape
    clip = torch.arange(B, device=maps.device).view(B, *[1] * (x.dim() - 1))
    on = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    return ((clip * T + time) * h + y.clamp(0, h - 1)) * w + x.clamp(0, w - 1), on


def gather_bilinear(maps: Tensor, time: Tensor, cells: Tensor) -> Tensor:
    """Sample ``maps`` (B, T, h, w, C) in frames ``time`` (B, ...) int64 at ``cells`` (B, ..., 2): (B, ..., C)."""
    low = cells.floor()
    fraction = cells - low
    x0, y0 = low.long().unbind(-1)
    flat = maps.flatten(0, 3)
    total = torch.zeros((), device=maps.device)
    for dy in (0, 1):
        for dx in (0, 1):
            row, on = _rows(maps, time, x0 + dx, y0 + dy)
            weight = (fraction[..., 0] if dx else 1 - fraction[..., 0]) * (
                fraction[..., 1] if dy else 1 - fraction[..., 1]
            )
            total = total + flat.index_select(0, row.flatten()).view(*row.shape, -1) * (weight * on)[..., None]
    return total


def local_correlation(maps: Tensor, templates: Tensor, cells: Tensor, radius: int) -> Tensor:
    """Compare templates with the surroundings of the current estimates.

    All places of a window share one fractional offset, so products are taken at the (2r+2)² whole cells and then
    interpolated: 64 rows are read for r = 3, where sampling the features themselves would read 196.

    Args:
        maps: (B, S, h, w, C).
        templates: (B, N, K, C).
        cells: (B, S, N, 2) window centres.
        radius: r, in cells.

    Returns:
        (B, S, N, (2r+1)² * K) products.
    """
    B, S, N, _ = cells.shape
    side = 2 * radius + 2
    low = cells.detach().floor()
    fx, fy = (cells - low)[..., None, None, None].unbind(-4)  # (B, S, N, 1, 1, 1)
    x0, y0 = low.long().transpose(1, 2).unbind(-1)  # (B, N, S)
    steps = torch.arange(side, device=cells.device) - radius
    x = (x0[..., None, None] + steps).expand(B, N, S, side, side)
    y = (y0[..., None, None] + steps[:, None]).expand(B, N, S, side, side)
    row, on = _rows(maps, torch.arange(S, device=cells.device).view(1, 1, S, 1, 1), x, y)
    near = maps.flatten(0, 3).index_select(0, row.flatten()).view(B, N, S * side * side, -1)
    product = near @ templates.transpose(-1, -2)  # (B, N, S * side², K)
    product = product.view(B, N, S, side, side, -1) * on[..., None]
    product = product.transpose(1, 2).float()
    rows = product[..., :-1, :, :] * (1 - fy) + product[..., 1:, :, :] * fy
    both = rows[..., :-1, :] * (1 - fx) + rows[..., 1:, :] * fx
    return both.flatten(-3)


def best_place(products: Tensor, radius: int, sharpness: Tensor) -> tuple[Tensor, Tensor]:
    """Read off local correlations where the template fits best: a soft argmax, as in TAPIR (arXiv 2306.08637).

    A place's score is the mean product of the template's cells with the cells they would lie on; cells beyond the
    window are left out.

    Args:
        products: (B, S, N, (2r+1)² * K) of :func:`local_correlation`, K = 9 or another square of an odd number.
        radius: r, in cells.
        sharpness: scalar above 0; scores are multiplied by it before the softmax.

    Returns:
        (B, S, N, 2) place relative to the window's centre, in cells, and (B, S, N, 1) the score there.
    """
    side = 2 * radius + 1
    windows = products.unflatten(-1, (side, side, -1))
    score = _aligned(windows) / _aligned(torch.ones_like(windows[:1, :1, :1]))  # (B, S, N, side, side)
    share = (score * sharpness).flatten(-2).softmax(-1).view_as(score)
    steps = torch.arange(side, device=products.device, dtype=products.dtype) - radius
    place = torch.stack([(share.sum(-2) * steps).sum(-1), (share.sum(-1) * steps).sum(-1)], -1)
    return place, (share * score).sum((-2, -1))[..., None]


def _aligned(windows: Tensor) -> Tensor:
    """Sum products (..., side, side, K) over the template's cells, each at the place where it would lie."""
    side, cells = windows.shape[-2], math.isqrt(windows.shape[-1])
    m = cells // 2
    padded = F.pad(windows, (0, 0, m, m, m, m))
    total = torch.zeros((), device=windows.device)
    for k in range(cells**2):
        dy, dx = divmod(k, cells)
        total = total + padded[..., dy : dy + side, dx : dx + side, k]
    return total
