"""Windows and patches of feature maps around points: what the patch matchers are built from.

Letters: B maps, N points, h w cells, C channels, K templates, S = 9 cells of a 3x3 patch, V side of a window.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 2900  # cells of windows compared at a time on a CPU, those of 8 points at 19 x 19: 1.1 MB of 96 channels
PATCH = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))


@lru_cache(maxsize=256)
def constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return numbers as a tensor that is made once per device: on a GPU, making one would wait for the host."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


@lru_cache(maxsize=64)
def counted(count: int, device: torch.device) -> Tensor:
    """Return 0, 1, ..., ``count`` - 1 as int64, made once per device."""
    with torch.inference_mode(False):
        return torch.arange(count, device=device)


def bordered(map: Tensor, border: int) -> Tensor:
    """Repeat the border cells of a map (B, h, w, C): (B, h + 2 border, w + 2 border, C)."""
    return F.pad(map.permute(0, 3, 1, 2), (border,) * 4, mode="replicate").permute(0, 2, 3, 1).contiguous()


def window(map: Tensor, clip: Tensor, origin: Tensor, side: int) -> Tensor:
    """Copy the (N, side, side, C) cells whose upper-left one is ``origin`` (N, 2) int64; border cells repeat.

    Args:
        map: (B, h, w, C).
        clip: (N,) int64, which of the B maps.
        origin: (x, y), may lie outside.
        side: cells.
    """
    B, h, w, C = map.shape
    places = origin[:, :, None] + counted(side, map.device)
    last = constant((w - 1, h - 1), map.device, torch.int64)
    x, y = torch.minimum(places.clamp(min=0), last[:, None]).unbind(1)
    rows = (y * w)[:, :, None] + x[:, None]
    if B > 1:
        rows = rows + (clip * (h * w))[:, None, None]
    cells = map.reshape(B * h * w, C)
    if map.device.type == "cpu" and (not torch.is_grad_enabled() or rows.numel() < len(cells)):
        # The same copy in two thirds of the time; with gradients only where few cells are read: of many, adding up the
        # gradients takes longer.
        return F.embedding(rows, cells)
    return cells.index_select(0, rows.reshape(-1)).view(len(origin), side, side, C)


def bilinear_window(map: Tensor, clip: Tensor, centre: Tensor, reach: int, border: int = 0) -> Tensor:
    """Sample (N, V, V, C) with V = 2 ``reach`` + 1, spaced one cell, around ``centre`` (N, 2) in cells.

    ``border``: cells by which the map was widened on every side, see :func:`bordered`; centres count without them.
    """
    h, w = map.shape[1] - 2 * border, map.shape[2] - 2 * border
    centre = torch.minimum(centre.clamp(min=0), constant((w - 1, h - 1), centre.device))
    low = centre.floor()
    part = (centre - low)[:, :, None, None, None]
    cells = window(map, clip, low.long() + (border - reach), 2 * reach + 2)
    rows = torch.lerp(cells[:, :-1], cells[:, 1:], part[:, 1])
    return torch.lerp(rows[:, :, :-1], rows[:, :, 1:], part[:, 0])


def patches(map: Tensor, clip: Tensor, centre: Tensor, border: int = 0) -> Tensor:
    """Sample 3x3 patches (N, S, C), each cell of unit length; ``border`` as in :func:`bilinear_window`."""
    return F.normalize(bilinear_window(map, clip, centre, 1, border).flatten(1, 2), dim=-1)


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
    weighted = (templates * weights[:, None]).flatten(1, 2)
    cosines = torch.bmm(weighted, cells.flatten(1, 2).transpose(1, 2))
    return _laid_over(cosines.view(n, templates.shape[1], 9, outer, outer))


def patch_scores_in_tiles(map: Tensor, first: Tensor, side: int, template: Tensor, weights: Tensor) -> Tensor:
    """Do what :func:`patch_scores` does with windows that lie within the map, few points at a time; for CPUs.

    The windows of few points stay in a core's cache, and a row of a window is copied at once: for 256 windows of 19 x
    19 cells of 96 channels, 4.4 ms on one core instead of 6.1 with 64 of them at a time.

    Args:
        map: (B, h, w, C), contiguous.
        first: (N,) int64, the windows' upper-left cells, counted through all B maps row by row.
        side: V + 2.
        template: (N, S, C).
        weights: (S,) sum 1.

    Returns:
        (N, V, V).
    """
    (n, cells, channels), width, count = template.shape, map.shape[2], max(1, TILE // side**2)
    rows = map.as_strided((map.shape[:3].numel() - side + 1, side * channels), (channels, 1))
    index = (first[:, None] + counted(side, map.device) * width).flatten()
    weighted = template * weights[:, None]
    cosines, held = template.new_empty(n, cells, side * side), template.new_empty(count * side, side * channels)
    for i in range(0, n, count):
        part = slice(i, i + count)
        here = torch.index_select(rows, 0, index[i * side : (i + count) * side], out=held[: (n - i) * side])
        torch.bmm(weighted[part], here.view(-1, side * side, channels).transpose(1, 2), out=cosines[part])
    return _laid_over(cosines.view(n, 1, cells, side, side))[:, 0]


def _laid_over(cosines: Tensor) -> Tensor:
    """Add up what the nine cells of a patch have at every place: (N, K, 9, V + 2, V + 2) -> (N, K, V, V)."""
    side = cosines.shape[-1] - 2
    return added([cosines[:, :, s, 1 + dy : 1 + dy + side, 1 + dx : 1 + dx + side] for s, (dy, dx) in enumerate(PATCH)])


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
    # Every row of the patch with every piece of a row of the window, then shifted and added: a window of patches is
    # never made, and a row is one long vector.
    pieces = cells.unfold(2, p, 1).transpose(-1, -2).reshape(n, outer * side, p * channels)
    single = torch.bmm(template.reshape(n, k * p, p * channels), pieces.transpose(1, 2)).view(n, k, p, outer, side)
    dots = added([single[:, :, s, s : s + side] for s in range(p)])
    energy = F.avg_pool2d(cells.norm(dim=-1).square()[:, None], p, 1) * p * p
    wanted = template.flatten(2).square().sum(-1)[..., None, None]
    return dots * (energy * wanted).clamp(min=1e-12).rsqrt()
