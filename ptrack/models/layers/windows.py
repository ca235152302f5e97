"""Windows and patches of feature maps around points: what the patch matchers are built from.

Letters: B maps, N points, h w cells, C channels, K templates, S = 9 cells of a 3x3 patch, V side of a window.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))


@lru_cache(maxsize=256)
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return numbers as a float32 tensor that is made once per device: on a GPU, making one would wait for the host."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device)


def window(map: Tensor, clip: Tensor, origin: Tensor, side: int) -> Tensor:
    """Copy the (N, side, side, C) cells whose upper-left one is ``origin`` (N, 2) int64; border cells repeat.

    Args:
        map: (B, h, w, C).
        clip: (N,) int64, which of the B maps.
        origin: (x, y), may lie outside.
        side: cells.
    """
    B, h, w, C = map.shape
    step = torch.arange(side, device=map.device)
    xs = (origin[:, :1] + step).clamp(0, w - 1)
    ys = (origin[:, 1:] + step).clamp(0, h - 1)
    rows = (clip[:, None, None] * h + ys[:, :, None]) * w + xs[:, None, :]
    cells = map.reshape(B * h * w, C)
    if map.device.type == "cpu" and not torch.is_grad_enabled():
        return F.embedding(rows, cells)  # the same copy in two thirds of the time
    return cells.index_select(0, rows.reshape(-1)).view(len(origin), side, side, C)


def bilinear_window(map: Tensor, clip: Tensor, centre: Tensor, reach: int) -> Tensor:
    """Sample (N, V, V, C) with V = 2 ``reach`` + 1, spaced one cell, around ``centre`` (N, 2) in cells."""
    h, w = map.shape[1:3]
    centre = torch.minimum(centre.clamp(min=0), constant((w - 1, h - 1), centre.device))
    low = centre.floor()
    part = (centre - low)[:, :, None, None, None]
    cells = window(map, clip, low.long() - reach, 2 * reach + 2)
    rows = torch.lerp(cells[:, :-1], cells[:, 1:], part[:, 1])
    return torch.lerp(rows[:, :, :-1], rows[:, :, 1:], part[:, 0])


def patches(map: Tensor, clip: Tensor, centre: Tensor) -> Tensor:
    """Sample 3x3 patches (N, S, C), each cell of unit length."""
    return F.normalize(bilinear_window(map, clip, centre, 1).flatten(1, 2), dim=-1)


def patch_scores(cells: Tensor, templates: Tensor, weights: Tensor) -> Tensor:
    """Lay 3x3 templates over every place of a window; the weighted sum of the nine cosines.

    Args:
        cells: (N, V + 2, V + 2, C) unit vectors.
        templates: (N, K, S, C) unit vectors.
        weights: (S,) sum 1.

    Returns:
        (N, K, V, V).
    """
    n, outer = cells.shape[:2]
    k, side = templates.shape[1], outer - 2
    weighted = (templates * weights[:, None]).flatten(1, 2)
    cosines = torch.bmm(weighted, cells.flatten(1, 2).transpose(1, 2)).view(n, k, 9, outer, outer)
    shifted = [cosines[:, :, s, 1 + dy : 1 + dy + side, 1 + dx : 1 + dx + side] for s, (dy, dx) in enumerate(PATCH)]
    return added(shifted)


def added(parts: list[Tensor]) -> Tensor:
    """Return the sum of at least two tensors of one shape; in place where no gradient is kept."""
    total = parts[0] + parts[1]
    for part in parts[2:]:
        total = total + part if torch.is_grad_enabled() else total.add_(part)
    return total


def inside(origin: Tensor, side: int, size: tuple[int, int]) -> Tensor:
    """Return which (N, side, side) cells of a window lie on a map of ``size`` (h, w)."""
    step = torch.arange(side, device=origin.device)
    x, y = origin[:, :1] + step, origin[:, 1:] + step
    return ((y >= 0) & (y < size[0]))[:, :, None] & ((x >= 0) & (x < size[1]))[:, None, :]


def soft_argmax(logits: Tensor) -> Tensor:
    """(N, V, V) -> (N, 2) expected (x, y) over the 5x5 cells around the best one."""
    side = logits.shape[-1]
    best = logits.flatten(1).argmax(1)
    by, bx = best // side, best % side
    axis = torch.arange(side, device=logits.device)
    near = ((axis - by[:, None]).abs() <= 2)[:, :, None] & ((axis - bx[:, None]).abs() <= 2)[:, None, :]
    p = logits.masked_fill(~near, float("-inf")).flatten(1).softmax(1).view(-1, side, side)
    return torch.stack([(p.sum(1) * axis).sum(1), (p.sum(2) * axis).sum(1)], dim=1)


def peak(scores: Tensor) -> Tensor:
    """(N, V, V) -> (N, 2) the (x, y) of the best cell, moved to the top of the parabolas through its neighbours.

    A steep soft-argmax stays near whole cells: a motion of 0.25 cells comes out as 0.04, here as 0.14.
    """
    side = scores.shape[-1]
    padded = F.pad(scores, (1, 1, 1, 1), value=float("-inf"))
    best = scores.flatten(1).argmax(1)
    n, y, x = torch.arange(scores.shape[0], device=scores.device), best // side + 1, best % side + 1
    top = padded[n, y, x]

    def part(before: Tensor, after: Tensor) -> Tensor:
        bend = 2 * top - before - after  # infinite at the border: no part
        return torch.where(bend.isfinite() & (bend > 0), (after - before) / (2 * bend), 0.0)

    dx = part(padded[n, y, x - 1], padded[n, y, x + 1])
    dy = part(padded[n, y - 1, x], padded[n, y + 1, x])
    return torch.stack([x - 1 + dx, y - 1 + dy], dim=1)


def patch_ncc(cells: Tensor, template: Tensor, reach: int) -> Tensor:
    """Cosine of a patch with the patches of a window, each patch one long vector.

    Args:
        cells: (N, V, V, C).
        template: (N, K, P, P, C).
        reach: half side of the displacements.

    Returns:
        (N, K, 2 reach + 1, 2 reach + 1).
    """
    n, k, p, _, channels = template.shape
    outer, side = cells.shape[1], 2 * reach + 1
    # Every cell of the patch with every cell of the window, then shifted and added: a window of patches is never made.
    single = torch.bmm(
        template.reshape(n, k * p * p, channels), cells.reshape(n, outer * outer, channels).transpose(1, 2)
    )
    single = single.view(n, k, p * p, outer, outer)
    dots = added([single[:, :, s, s // p : s // p + side, s % p : s % p + side] for s in range(p * p)])
    energy = F.avg_pool2d(cells.square().sum(-1)[:, None], p, 1) * p * p
    wanted = template.flatten(2).square().sum(-1)[..., None, None]
    return dots * (energy * wanted).clamp(min=1e-12).rsqrt()
