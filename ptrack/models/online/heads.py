"""The parts of Track-On2 around its decoder: feature fusion, correlation, re-ranking, offset and visibility head.

Letters: B clips, N points, D channels, L levels, S tokens of all levels, P cells of the finest, K candidates.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptrack.models.layers.attention import AttentionBlock
from ptrack.models.layers.deformable import DeformableBlock, Shapes
from ptrack.models.layers.linear import Linear, is_inference, linear
from ptrack.models.layers.winograd import WinogradConv
from ptrack.models.online.config import OnlineConfig

GROUPS = 32  # of the group norms


class FeaturePyramid(nn.Module):
    """Top-down fusion of all levels into the finest (FPN, arXiv 1612.03144)."""

    def __init__(self, dim: int, strides: Sequence[int]) -> None:
        super().__init__()
        for stride in strides[1:]:
            lateral = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.GroupNorm(GROUPS, dim), nn.ReLU(inplace=True))
            self.add_module(f"lateral{stride}", lateral)
        self.strides = tuple(strides)
        self.output = nn.Sequential(
            nn.Conv2d(dim, dim, 3, 1, 1), nn.GroupNorm(GROUPS, dim), nn.ReLU(inplace=True), nn.Conv2d(dim, dim, 3, 1, 1)
        )

    def use_winograd(self, size: tuple[int, int]) -> None:
        """Compute the 3x3 convolutions on the finest map, of ``size`` (h, w), with a quarter of the products."""
        for i, layer in enumerate(self.output):
            if isinstance(layer, nn.Conv2d) and WinogradConv.fits(layer, size):
                self.output[i] = WinogradConv(layer)

    def forward(self, levels: Sequence[Tensor], shapes: Shapes) -> Tensor:
        """Token lists (B, P_l, D), finest first -> fused tokens (B, P, D) of the finest level."""
        maps = [x.unflatten(1, shape).permute(0, 3, 1, 2) for x, shape in zip(levels, shapes, strict=True)]
        fused: Tensor | None = None
        for stride, x in zip(self.strides[:0:-1], maps[:0:-1], strict=True):
            lateral = getattr(self, f"lateral{stride}")(x)
            fused = lateral if fused is None else _add_doubled(lateral, fused)
        finest = maps[0] if fused is None else _add_doubled(maps[0], fused)
        return self.output(finest).permute(0, 2, 3, 1).flatten(1, 2)


def _add_doubled(fine: Tensor, coarse: Tensor) -> Tensor:
    """Sum of (B, D, 2h, 2w) and (B, D, h, w), every cell of which counts for four: its copy is never written."""
    h, w = coarse.shape[2:]
    cells = fine.unflatten(3, (w, 2)).unflatten(2, (h, 2))
    return (cells + coarse[:, :, :, None, :, None]).flatten(4, 5).flatten(2, 3)


def correlation_volume(levels: Sequence[Tensor], shapes: Shapes, weight: Tensor) -> Tensor:
    """Sum of the L2-normalised levels, each resized to the finest: (B, P, D) float32.

    Resizing and the weighting of levels are linear, so a query's product with this volume equals the weighted sum of
    its cosine maps on all levels. ``weight`` (L,).
    """
    scaled = [_scaled(x.float(), w) for x, w in zip(levels, weight, strict=True)]
    size = shapes[0]
    if is_inference(scaled[0]):
        total = scaled[0]
        for x, shape in zip(scaled[1:], shapes[1:], strict=True):
            _add_resized(total, x, shape, size)
        return total
    total = scaled[0]
    for x, shape in zip(scaled[1:], shapes[1:], strict=True):
        image = x.unflatten(1, shape).permute(0, 3, 1, 2)
        total = total + F.interpolate(image, size=size, mode="bilinear").permute(0, 2, 3, 1).flatten(1, 2)
    return total


def _scaled(x: Tensor, weight: Tensor) -> Tensor:
    """Unit vectors of (B, P, D), times a number."""
    return x * (weight / x.norm(dim=-1, keepdim=True).clamp_min(1e-12))


def _add_resized(total: Tensor, x: Tensor, shape: tuple[int, int], size: tuple[int, int]) -> None:
    """Add (B, h * w, D) tokens of ``shape``, resized bilinearly, to (B, H * W, D) of ``size``, in place.

    As two products with the weights of rows and columns: a third of the time of PyTorch's resizing and a sum.
    """
    rows, columns = (_resizing(n, m) for n, m in zip(shape, size, strict=True))
    for image, result in zip(x.view(-1, shape[0], shape[1] * x.shape[-1]), total.unflatten(1, size), strict=True):
        tall = torch.mm(rows, image).view(size[0], shape[1], -1)
        torch.baddbmm(result, columns.expand(size[0], -1, -1), tall, out=result)


@functools.lru_cache(maxsize=64)
def _resizing(cells: int, wanted: int) -> Tensor:
    """Weights (wanted, cells) float32 of a bilinear resizing along one axis, on the CPU."""
    with torch.inference_mode(False):
        return F.interpolate(torch.eye(cells)[None], size=wanted, mode="linear")[0].T.contiguous()


def cell_to_xy(index: Tensor, width: int, stride: int) -> Tensor:
    """Centres (..., 2) float32 in model pixels of row-major cells (...,) of a map ``width`` cells wide."""
    column, row = index % width, torch.div(index, width, rounding_mode="floor")
    return torch.stack([column, row], dim=-1) * float(stride) + stride / 2


def _groups(cells: int) -> int:
    """A divisor of ``cells`` near its square root: how many groups a row is searched in."""
    return next(g for g in range(math.isqrt(cells), 0, -1) if cells % g == 0)


def best_cell(correlation: Tensor) -> Tensor:
    """Arg-max of each row of (..., P), the first one on ties: (...,) int64. Two short searches instead of one."""
    parts = correlation.unflatten(-1, (_groups(correlation.shape[-1]), -1))
    group = parts.amax(-1).argmax(-1, keepdim=True)
    inside = parts.gather(-2, group[..., None].expand(*group.shape, parts.shape[-1])).squeeze(-2).argmax(-1)
    return group.squeeze(-1) * parts.shape[-1] + inside


def best_cells(correlation: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and cells, (..., k) each, of the k largest entries of each row of (..., P), best first.

    The k best lie in the k groups with the largest maxima; about 10 times as fast as one search over all of P.
    """
    groups = _groups(correlation.shape[-1])
    if k >= groups:
        return correlation.topk(k, dim=-1)  # type: ignore[return-value]
    parts = correlation.unflatten(-1, (groups, -1))
    size = parts.shape[-1]
    group = parts.amax(-1).topk(k, dim=-1).indices  # (..., k)
    pool = parts.gather(-2, group[..., None].expand(*group.shape, size)).flatten(-2)
    values, place = pool.topk(k, dim=-1)
    return values, group.gather(-1, place // size) * size + place % size


class Reranking(nn.Module):
    """Looks at the K best cells of the first correlation once more and folds what it sees into the query."""

    def __init__(self, config: OnlineConfig) -> None:
        super().__init__()
        c = config
        self.local_decoder = nn.ModuleList([_deformable(c) for _ in range(c.rerank_layers)])
        self.fusion = AttentionBlock(c.dim, c.heads, c.hidden, c.dropout)
        self.fusion_layer = Linear(2 * c.dim, c.dim)
        self.final_projection_layer = Linear(2 * c.dim, c.dim)
        self.certainty_layer = nn.Linear(c.dim, 1)
        self.score_layer = nn.Linear(c.dim, 1)

    def forward(self, q: Tensor, candidates: Tensor, values: Sequence[Tensor], shapes: Shapes) -> tuple[Tensor, Tensor]:
        """Re-rank.

        Args:
            q: (B, N, D).
            candidates: (B, N, K, 2) positions in [0, 1] of the image.
            values: of each deformable layer, see :meth:`DeformableAttention.values`.
            shapes: level sizes.

        Returns:
            The new query (B, N, D) and what was seen at each candidate (B, N, K, D).
        """
        seen = q[:, :, None]  # all candidates start from the same token: the first layer plans once per query
        for block, value in zip(self.local_decoder, values, strict=True):
            seen = block(seen, candidates[:, :, :, None], value, shapes)
        candidate, own = self.fusion_layer.weight.chunk(2, dim=1)  # [seen; q] without writing q K times
        seen = linear(seen, candidate) + linear(q, own, self.fusion_layer.bias)[:, :, None]
        rows = seen.flatten(0, 1)
        summary = self.fusion.forward_one(q.flatten(0, 1), rows, rows).view_as(q)
        return self.final_projection_layer(torch.cat([summary, q], dim=-1)), seen


class PredictionHead(nn.Module):
    """Offset from the best cell's centre, visibility and uncertainty."""

    def __init__(self, config: OnlineConfig) -> None:
        super().__init__()
        c = config
        self.offset_transformer = nn.ModuleList([_deformable(c) for _ in range(c.head_layers)])
        self.offset_layer = nn.Sequential(nn.LayerNorm(c.dim), nn.Linear(c.dim, 2))
        self.vis_layer = nn.Sequential(nn.Linear(c.dim, c.dim), nn.ReLU(inplace=True), nn.Linear(c.dim, 1))
        self.unc_layer = nn.Sequential(nn.Linear(c.dim, c.dim), nn.ReLU(inplace=True), nn.Linear(c.dim, 1))
        self.reach = float(c.strides[0])  # model pixels

    def offsets(self, q: Tensor, patch: Tensor, values: Sequence[Tensor], shapes: Shapes, *, every: bool) -> Tensor:
        """Offsets (B, layers, N, 2) in model pixels, of every layer or (B, 1, N, 2) of the last, which counts.

        ``patch`` (B, N, 2) is the cell's centre in [0, 1] of the image.
        """
        found, token = [], q[:, :, None]
        for block, value in zip(self.offset_transformer, values, strict=True):
            token = block(token, patch[:, :, None, None], value, shapes)
            found.append(token[:, :, 0])
        with torch.autocast(q.device.type, enabled=False):
            outputs = [self.offset_layer(t.float()) for t in (found if every else found[-1:])]
        return self.reach * torch.tanh(torch.stack(outputs, dim=1))


def _deformable(c: OnlineConfig) -> DeformableBlock:
    return DeformableBlock(c.dim, c.heads, len(c.strides), c.points, c.hidden, c.dropout)
