"""Comparing 3x3 patches with the cells of a window, some points at a time: what search, motion and judgement share.

Maps that are searched have their border cells repeated b times, so that no window leaves them.

Letters: B clips, N points, n of them at a time, h w cells of a map, b more on every side, C channels of a map, S = 9
cells of a patch, V side of a window.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ptrack.models.layers.linear import is_inference
from ptrack.models.layers.windows import PATCH, constant, inside, patch_scores, patch_scores_in_tiles, window

CHUNK = 128  # points worked on at a time on a CPU when no gradient is needed: bounds the windows to 5 MB
GPU_CHUNK = 2048  # on a GPU: bounds the largest windows to 1 GB


class PatchMatcher(nn.Module):
    """Scores of patches at every place of a window: a Gaussian-weighted sum of the nine cosines.

    Args:
        sigma: of the Gaussian, in cells.
        border: b.
    """

    weights: Tensor  # (S,) sum 1

    def __init__(self, sigma: float, border: int) -> None:
        super().__init__()
        self.border = border
        offsets = torch.tensor(PATCH, dtype=torch.float32)
        gauss = torch.exp(-offsets.square().sum(1) / (2 * sigma**2))
        self.register_buffer("weights", gauss / gauss.sum(), persistent=False)

    def scores(self, patch: Tensor, map: Tensor, clip: Tensor, centre: Tensor, radius: int) -> Tensor:
        """Compare (n, S, C) patches with the cells around (n, 2) int64 of their clip's map: (n, V, V).

        ``map`` (B, h + 2b, w + 2b, C), ``clip`` (n,) int64.
        """
        side = 2 * radius + 3
        origin = centre + (self.border - radius - 1)
        if not is_inference(map):
            return patch_scores(window(map, clip, origin, side), patch[:, None], self.weights)[:, 0]
        x, y = origin.unbind(1)
        first = (clip * map.shape[1] + y) * map.shape[2] + x
        return patch_scores_in_tiles(map, first, side, patch, self.weights)

    def size(self, map: Tensor) -> tuple[int, int]:
        """Return (h, w) of a map with borders."""
        return map.shape[1] - 2 * self.border, map.shape[2] - 2 * self.border

    def search(self, patch: Tensor, map: Tensor, clip: Tensor, centre: Tensor, radius: int) -> tuple[Tensor, Tensor]:
        """Return the scores (N, V, V), -inf outside the map, and the windows' upper-left cells (N, 2)."""
        origin, side = centre - radius, 2 * radius + 1

        def scored(part: slice) -> Tensor:
            scores = self.scores(patch[part], map, clip[part], centre[part], radius)
            return scores.masked_fill(~inside(origin[part], side, self.size(map)), float("-inf"))

        return by_points(scored, origin.shape[0], map.device), origin

    def agreement(self, patch: Tensor, other: Tensor) -> Tensor:
        """Return the (N,) scores of (N, S, C) patches laid over each other."""
        return torch.einsum("nsc,nsc,s->n", patch, other, self.weights)


def by_points(work: Callable[[slice], Tensor], count: int, device: torch.device) -> Tensor:
    """Call ``work`` with slices of ``count`` points and join what it returns.

    In one piece where gradients are kept, and in exported graphs, whose number of points is open.
    """
    chunk = CHUNK if device.type == "cpu" else GPU_CHUNK
    if torch.is_grad_enabled() or torch.compiler.is_exporting() or count <= chunk:
        return work(slice(None))
    return torch.cat([work(slice(i, i + chunk)) for i in range(0, count, chunk)])


def nobody(points: Tensor) -> bool:
    """Return whether there are no points; never in exported graphs, whose number of points is open."""
    return not torch.compiler.is_exporting() and len(points) == 0


def nearest_cell(xy: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (N, 2) int64, the cells of a map of ``size`` (h, w) nearest to ``xy``: windows never miss the map.

    That of NaN, as of a network whose training diverges, is the first one.
    """
    h, w = size
    return torch.minimum(xy.round().clamp(min=0), constant((w - 1, h - 1), xy.device)).nan_to_num(0.0).long()
