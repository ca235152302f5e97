"""Multi-scale deformable attention (Deformable-DETR, arXiv 2010.04159) in plain PyTorch, as Track-On2 uses it.

Letters: B batch, N queries, K reference points per query, h heads, L levels, P points per level, S tokens of all
levels (row by row, level after level), D channels, d = D / h.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptrack.models.layers.attention import PostNormBlock
from ptrack.models.layers.dropout import dropout as drop_out
from ptrack.models.layers.linear import Linear, is_inference, linear, linear_add, pack

SPARSE = 5.0  # rows sampled per token up to which tokens are sampled before they are projected
SAFE_EXPONENT = 60.0  # float32's exponentials end at 88; what is left holds the sum of 64 entries many times over
Shapes = tuple[tuple[int, int], ...]  # (height, width) of each level


@dataclass(frozen=True)
class _Entries:
    """What is constant about every sample of a query, each (h * L * P,) float32."""

    width: Tensor  # of its level, in cells
    height: Tensor
    last_x: Tensor  # number of the last column
    last_y: Tensor
    start: Tensor  # row of the level's first token, for its head, in the table of values
    stride: Tensor  # rows of that table from a cell to the one below


@functools.lru_cache(maxsize=64)
def _levels(shapes: Shapes, heads: int, points: int, device: torch.device) -> _Entries:
    """Size and place of the level of each entry.

    Written out for every entry of a query, float32: adding a vector to rows is 5 to 12 times as fast on a CPU as adding
    a number per level to the few points of that level.
    """
    with torch.inference_mode(False):  # cached: must stay usable in training
        sizes = torch.tensor(shapes, dtype=torch.float32, device=device)
        counts = sizes.prod(1)
        start = (counts.cumsum(0) - counts) * heads + torch.arange(heads, device=device)[:, None]  # (h, L)
        per_level = (sizes[:, 1].expand(heads, -1), sizes[:, 0].expand(heads, -1), start)
        width, height, start = (a.float().repeat_interleave(points, dim=1).flatten() for a in per_level)
        return _Entries(width, height, width - 1, height - 1, start, width * heads)


def sample_bags(values: Tensor, shapes: Shapes, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of bilinear samples as one gather: every (query, head) is a bag of L * P * 4 weighted rows.

    Args:
        values: (B, S, h, d) float32, contiguous.
        shapes: level sizes.
        x: (B, R, h, L, P) float32 positions in cells of their level; 0 is the CENTRE of the first cell.
        y: as ``x``.
        weight: (B, R, h, L, P) float32.

    Returns:
        (B, R, h * d). Outside a map its value is 0. On a CPU 6-8 times as fast as ``grid_sample`` per level.
    """
    B, S, h, d = values.shape
    R = x.shape[1]
    index, scale = _bags(shapes, S, x, y, weight)
    entries = index.shape[-1]
    if torch.compiler.is_exporting():  # graphs of other programs have no bags: rows are gathered, then summed
        seen = values.reshape(B * S * h, d).index_select(0, index.flatten()).view(B * R * h, entries, d)
        return torch.bmm(scale.view(B * R * h, 1, entries), seen).view(B, R, h * d)
    return F.embedding_bag(
        index.view(B * R * h, entries),
        values.reshape(B * S * h, d),
        mode="sum",
        per_sample_weights=scale.view(B * R * h, entries),
    ).view(B, R, h * d)


def _bags(shapes: Shapes, S: int, x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the table (B * S * h, d) and their weights, (B, R * h, 4 * L * P) each; see :func:`sample_bags`."""
    B, R, h = x.shape[:3]
    e = _levels(shapes, h, x.shape[4], x.device)
    x, y, weight = x.flatten(2), y.flatten(2), weight.flatten(2)  # (B, R, h * L * P)
    columns = [(torch.add(e.start, cell, alpha=h), wx) for cell, wx in _neighbours(x, e.last_x)]
    rows = [(cell * e.stride, wy * weight) for cell, wy in _neighbours(y, e.last_y)]
    # Float32 holds whole numbers to 2^24 exactly; B * S * h rows of a table stay far below.
    index = torch.stack([(a + c).unflatten(2, (h, -1)) for a, _ in rows for c, _ in columns], dim=-2)
    scale = torch.stack([(a * c).unflatten(2, (h, -1)) for _, a in rows for _, c in columns], dim=-2)
    kind = torch.int32 if B * S * h < 2**31 else torch.int64
    entries = 4 * x.shape[2] // h
    index = index.to(kind).view(B, R * h, entries)
    if B > 1:
        index = index + torch.arange(B, device=x.device, dtype=kind)[:, None, None] * (S * h)
    return index, scale.view(B, R * h, entries)


def _neighbours(place: Tensor, last: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The two cells around each place along one axis, moved onto the map, and their shares: 0 where it was moved."""
    low = place.detach().floor().nan_to_num_(0.0)  # NaN must not become an index
    part, high = place - low, low + 1
    first, second = low.clamp(min=0).minimum(last), high.clamp(min=0).minimum(last)
    return [(first, (1 - part) * (first == low)), (second, part * (second == high))]


def _softmax(logits: Tensor, heads: int) -> Tensor:
    """Softmax of (..., h * E) within the E entries of each head.

    Rows of few entries take PyTorch 1 ms per 100 000 numbers on a CPU, 6 times as long as exponentials and a product
    that adds them up, which need no maximum as long as no exponential comes near the ends of float32.
    """
    if is_inference(logits) and logits.numel() and bool(logits.abs().amax() < SAFE_EXPONENT):
        powers = logits.exp()
        return powers.div_(powers @ _same_head(heads, logits.shape[-1] // heads))
    return logits.unflatten(-1, (heads, -1)).softmax(-1).flatten(-2)


@functools.lru_cache(maxsize=64)
def _same_head(heads: int, entries: int) -> Tensor:
    """(h * E, h * E) float32 on the CPU: 1 where row and column belong to the same head."""
    with torch.inference_mode(False):
        return torch.eye(heads).repeat_interleave(entries, 0).repeat_interleave(entries, 1)


def sample_tokens(tokens: Tensor, project: nn.Linear, shapes: Shapes, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """:func:`sample_bags` of the values that ``project`` makes of (B, S, D) tokens, projecting only what is sampled.

    Both are linear, so that the sum comes first. Every row is h times as long: for few queries.
    """
    B, S, D = tokens.shape
    h = x.shape[2]
    single = [a.flatten(1, 2).unsqueeze(2) for a in (x, y, weight)]  # (B, R * h, 1, L, P): every head is a query
    index, scale = _bags(shapes, S, *single)
    seen = F.embedding_bag(
        index.flatten(0, 1), tokens.reshape(B * S, D), mode="sum", per_sample_weights=scale.flatten(0, 1)
    )
    core = torch.einsum("rhc,hdc->rhd", seen.view(-1, h, D), project.weight.unflatten(0, (h, -1)))
    core = core + scale.sum(-1).view(-1, h, 1) * project.bias.view(h, -1)  # outside the maps there is no bias either
    return core.reshape(B, x.shape[1], D)


def sample_grids(values: Tensor, shapes: Shapes, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """The same as :func:`sample_bags` through ``grid_sample``, level by level: faster on GPUs."""
    B, _, h, d = values.shape
    R = x.shape[1]
    total: Tensor | None = None
    for level, (part, (H, W)) in enumerate(zip(values.split([a * b for a, b in shapes], 1), shapes, strict=True)):
        image = part.permute(0, 2, 3, 1).reshape(B * h, d, H, W)
        grid = torch.stack([(2 * x[:, :, :, level] + 1) / W - 1, (2 * y[:, :, :, level] + 1) / H - 1], dim=-1)
        grid = grid.transpose(1, 2).flatten(0, 1)  # (B h, R, P, 2)
        seen = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        seen = (seen * weight[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)  # (B h, d, R)
        total = seen if total is None else total + seen
    assert total is not None
    return total.view(B, h * d, R).transpose(1, 2)


class DeformableAttention(nn.Module):
    """Attention to a few learnt positions around a reference point on every level.

    The module ADDS ITS QUERY to the result, as the operator that the published weights were trained with does, and
    drops out only the attention's part.
    """

    def __init__(self, dim: int, heads: int, levels: int, points: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.heads, self.levels, self.points, self.dropout = heads, levels, points, dropout
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = Linear(dim, dim)
        self.output_proj = Linear(dim, dim)
        self._planning: tuple[Tensor, Tensor] | None = None  # see ``pack``
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with fixed rays: head a looks along the angle 2 pi a / h, point p at p + 1 cells; equal weights."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angle = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        ray = torch.stack([angle.cos(), angle.sin()], -1)
        ray = (ray / ray.abs().amax(-1, keepdim=True))[:, None, None]
        reach = torch.arange(1, self.points + 1, dtype=torch.float32)[:, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((ray * reach).expand(-1, self.levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def values(self, tokens: Tensor) -> Tensor:
        """Project (B, S, D) tokens to the (B, S, h, d) values that :meth:`forward` samples."""
        return self.value_proj(tokens).unflatten(-1, (self.heads, -1))

    def few(self, queries: int, tokens: Tensor) -> bool:
        """Whether ``queries`` sample so little of (B, S, D) tokens that projecting all of them costs more."""
        entries = 4 * self.heads * self.levels * self.points
        return is_inference(tokens) and queries * entries <= SPARSE * tokens.shape[1]

    def pack(self) -> None:
        """Join and lay out the weights of :meth:`_plan` for inference on a CPU; they must not change any more."""
        self._planning = self._joined()
        pack(self._planning[0])

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._planning = None  # of another device or number type from now on
        return super()._apply(*args, **kwargs)

    def _joined(self) -> tuple[Tensor, Tensor]:
        """One product for offsets and weights, x and y apart, so that what follows works on contiguous blocks.

        An offset of 0 means the reference point, which lies half a cell before the cell's number.
        """
        weight, bias = self.sampling_offsets.weight, self.sampling_offsets.bias - 0.5
        w = torch.cat([weight[0::2], weight[1::2], self.attention_weights.weight])
        return w, torch.cat([bias[0::2], bias[1::2], self.attention_weights.bias])

    def _plan(self, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Offsets along x and y in cells, less a half, and softmax weights, each (B, N, k, h * L * P) float32."""
        packed = None if torch.compiler.is_compiling() else self._planning
        with torch.autocast(query.device.type, enabled=False):  # positions keep their full precision
            dx, dy, logits = linear(query.float(), *(packed or self._joined())).chunk(3, dim=-1)
            return dx, dy, _softmax(logits, self.heads)

    def forward(self, query: Tensor, reference: Tensor, values: Tensor, shapes: Shapes) -> Tensor:
        """Sample around the reference points and add the query.

        Args:
            query: (B, N, k, D); k is K, or 1 where all K reference points of a query share its token.
            reference: (B or 1, N, K, 1 or L, 2) positions (x, y) in [0, 1] of the image, not clamped here.
            values: from :meth:`values`, or the (B, S, D) tokens themselves, see :func:`sample_tokens`.
            shapes: (height, width) of each level.

        Returns:
            (B, N, K, D) ``query + attention``.
        """
        dx, dy, share = self._plan(query)
        e = _levels(shapes, self.heads, self.points, query.device)
        reference = reference.float()
        if reference.shape[-2] > 1:  # one per level: (B, N, K, h * L * P, 2)
            reference = reference.repeat_interleave(self.points, -2).repeat(1, 1, 1, self.heads, 1)
        # (B, N, K, h * L * P)
        x, y = torch.addcmul(dx, reference[..., 0], e.width), torch.addcmul(dy, reference[..., 1], e.height)
        B, N, K = x.shape[:3]
        entries = (self.heads, self.levels, self.points)
        parts = [a.flatten(1, 2).unflatten(-1, entries) for a in (x, y, share.expand_as(x))]
        if values.ndim == 3:
            core = sample_tokens(values, self.value_proj, shapes, *parts)
        else:
            sample = sample_bags if values.device.type == "cpu" else sample_grids
            core = sample(values.float(), shapes, *parts).to(values.dtype)
        core = core.view(B, N, K, -1)
        if self.training:
            return query + drop_out(self.output_proj(core), self.dropout, True)
        return linear_add(core, self.output_proj.weight, self.output_proj.bias, query)


class DeformableBlock(PostNormBlock):
    """Deformable attention with residual, LayerNorm and feed-forward (post-norm)."""

    mha: DeformableAttention

    def __init__(self, dim: int, heads: int, levels: int, points: int, hidden: int, dropout: float = 0.1) -> None:
        super().__init__(DeformableAttention(dim, heads, levels, points, dropout), dim, hidden, dropout)

    def forward(self, query: Tensor, reference: Tensor, values: Tensor, shapes: Shapes) -> Tensor:
        """As :meth:`DeformableAttention.forward`; the query counts twice in the sum before the first LayerNorm."""
        return self.finish(query, self.mha(query, reference, values, shapes))


def cell_centres(shapes: Sequence[tuple[int, int]], device: torch.device | str | None = None) -> Tensor:
    """Reference points of all cells of the maps, row by row, map after map: (S, 2) float32 (x, y) in [0, 1]."""
    parts = []
    for h, w in shapes:
        y = (torch.arange(h, device=device, dtype=torch.float32) + 0.5) / h
        x = (torch.arange(w, device=device, dtype=torch.float32) + 0.5) / w
        parts.append(torch.stack([x.expand(h, w), y[:, None].expand(h, w)], -1).flatten(0, 1))
    return torch.cat(parts)
