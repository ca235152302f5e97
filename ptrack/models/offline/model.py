"""The offline tracker: a feature pyramid, and a transformer that refines whole tracks over a window of frames.

Read top-down: features → templates → for each window: a few weight-shared iterations of (correlate around the estimate
→ attend over time and over points → correct). Iterative refinement with local correlation follows PIPs
(arXiv 2204.04153); joint tracking of points and overlapping windows follow CoTracker (arXiv 2307.07635); comparing
patch with patch follows LocoTrack (arXiv 2407.15420).

Letters: B clips, T frames, S frames of a window, N points, L levels, h w cells of a level, C channels, W = (2r+1)²
places of the local window, K = 9 cells of a template, I iterations. Coordinates inside are pixels of the model input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ptrack import geometry
from ptrack.config import check_bounds
from ptrack.errors import ConfigError
from ptrack.models.backbones.resnet import NORMS
from ptrack.models.layers.attention import SelfAttention
from ptrack.models.layers.dropout import Dropout
from ptrack.models.offline.features import PYRAMID_BACKBONES, STRIDES, Pyramid
from ptrack.models.offline.sampling import best_place, gather_bilinear, local_correlation

TEMPLATE = 3  # cells per side of a template
CORRELATION_BYTES = 64 << 20  # of feature rows read at once while tracking
SHARPNESS = 40.0  # initial factor of the cosines in a soft argmax over a window; learnt, one per level
PRODUCT_GAIN = 3.0  # products of centred features spread by about 0.3; this gives the first layer about 1
FREQUENCIES = 8  # octaves of the position code; the finest has a period of 4 px in a 256-pixel image


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Everything that fixes the shape and the arithmetic of the offline tracker."""

    backbone: str = "resnet18"  # resnet18, resnet34, resnet50, or lite0 with packaged weights that stay fixed
    norm: str = "frozen"  # of a ResNet: "frozen" ImageNet statistics, "group" for training from scratch
    input_size: tuple[int, int] = (256, 256)  # (H, W) every frame is stretched to, multiples of 32
    levels: int = 4  # feature maps, at strides 4, 8, 16, 32; fewer are quicker and see less far
    window: int = 8  # frames refined together
    dim: int = 256  # width of features and tokens
    heads: int = 8  # attention heads
    layers: int = 4  # transformer layers
    dropout: float = 0.1  # probability, in attention and feed-forward
    radius: int = 3  # of the local correlation window, in cells of each level
    iterations: int = 4  # weight-shared refinements; 1 is a plain transformer
    threshold: float = 0.5  # visibility probability from which a point counts as visible

    def __post_init__(self) -> None:
        if self.backbone not in PYRAMID_BACKBONES:
            raise ConfigError(f"backbone must be one of {', '.join(PYRAMID_BACKBONES)}, not '{self.backbone}'.")
        if self.norm not in NORMS:
            raise ConfigError(f"norm must be one of {', '.join(NORMS)}, not '{self.norm}'.")
        if len(self.input_size) != 2 or any(s < 32 or s % 32 for s in self.input_size):
            raise ConfigError(f"input_size must be two multiples of 32, not {self.input_size}.")
        if self.dim % self.heads or self.dim % 32:
            raise ConfigError(f"dim ({self.dim}) must be a multiple of 32 and of heads ({self.heads}).")
        check_bounds(self, "dropout", least=0, below=1)
        check_bounds(self, "levels", least=1, most=len(STRIDES))
        check_bounds(self, "window", least=2)
        check_bounds(self, "layers", "radius", "iterations", least=1)


@dataclass(frozen=True)
class QueryTemplates:
    """What stays the same about points in all windows."""

    templates: tuple[Tensor, ...]  # L x (B, N, K, C), 3x3 cells around the query
    time: Tensor  # (B, N) int64 query frame, counted like the window's frames
    xy: Tensor  # (B, N, 2) query position


class Estimate(NamedTuple):
    """What is estimated of the points in the frames of one window."""

    xy: Tensor  # (B, S, N, 2)
    visibility: Tensor  # (B, S, N) logit
    confidence: Tensor  # (B, S, N) logit

    def span(self, start: int, stop: int) -> Estimate:
        """Return the frames ``start .. stop``."""
        return Estimate(*(v[:, start:stop] for v in self))

    def extended(self, frames: int) -> Estimate:
        """Return the estimate with its last frame repeated up to ``frames`` frames."""
        more = frames - self.xy.shape[1]
        return Estimate(*(torch.cat([v, v[:, -1:].expand(-1, more, *v.shape[2:])], 1) for v in self))


@dataclass(frozen=True)
class AttentionMaps:
    """AttentionMaps probabilities of the last iteration, mean over heads."""

    time: Tensor  # (layers, B, N, S, S), rows are the asking frames
    points: Tensor  # (layers, B, S, N, N), rows are the asking points


@dataclass(frozen=True)
class WindowOutputs:
    """All iterations of one window: what the training loss needs."""

    start: int  # first frame of the window in the clip
    xy: Tensor  # (I, B, S, N, 2) pixels of the model's input
    visibility_logit: Tensor  # (I, B, S, N)
    confidence_logit: Tensor  # (I, B, S, N)
    attention: AttentionMaps | None = None


@dataclass(frozen=True)
class ClipOutputs:
    """Tracks of whole clips. Before a point's query frame the values mean nothing."""

    xy: Tensor  # (B, T, N, 2) pixels of the frames as given
    visibility: Tensor  # (B, T, N) probability
    confidence: Tensor  # (B, T, N) probability that the position is within 8 px at the 256-pixel scale
    windows: tuple[WindowOutputs, ...]
    maps: tuple[Tensor, ...]  # L x (B, T, h, w, C) features, of which the training loss asks that matches be unique
    points: QueryTemplates


def plan_windows(frames: int, window: int) -> list[tuple[int, int]]:
    """Return ``(start, stop)`` of windows that overlap by half; the last one ends with the clip."""
    if frames <= window:
        return [(0, frames)]
    step = max(1, window // 2)
    starts = [*range(0, frames - window, step), frames - window]
    return [(start, start + window) for start in starts]


def random_windows(frames: int, window: int, generator: torch.Generator) -> list[tuple[int, int]]:
    """Return a random plan for training: a first window of any length, then slides that may lose the query frame.

    A tracker that follows a stream meets windows of every length, and windows whose first estimates were carried over;
    clips as short as one window would teach neither.
    """

    def pick(low: int, high: int) -> int:
        return int(torch.randint(low, max(low, high) + 1, (), generator=generator))

    stop = pick(min(2, frames), min(window, frames))
    plan = [(0, stop)]
    while stop < frames:
        before, stop = stop, min(frames, stop + pick(max(1, window // 4), max(1, window // 2)))
        plan.append((pick(max(0, stop - window), before - 1), stop))
    return plan


class PointTransformer(nn.Module):
    """The offline point tracker."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.pyramid = Pyramid(config.backbone, config.norm, dim, config.levels)
        self.strides = STRIDES[: config.levels]
        places, narrow = (2 * config.radius + 1) ** 2, dim // config.levels
        self.correlation = nn.Sequential(
            nn.Linear(places * TEMPLATE**2, dim // 2), nn.GELU(), nn.Linear(dim // 2, narrow)
        )
        code = 2 * (2 * FREQUENCIES + 1)
        self.log_sharpness = nn.Parameter(torch.full((config.levels,), math.log(SHARPNESS)))
        self.embed = nn.Linear((narrow + 3) * config.levels + dim + 3 * code + 4, dim)
        self.blocks = nn.ModuleList(TransformerBlock(dim, config.heads, config.dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(dim)
        # Offset x y in stride-4 cells, visibility logit, confidence logit, and how far to follow each level's match.
        self.head = nn.Linear(dim, 4 + config.levels)
        nn.init.zeros_(self.head.weight)  # untrained, a point stays where it is
        nn.init.zeros_(self.head.bias)

    def forward(
        self,
        frames: Tensor,
        queries: Tensor,
        *,
        windows: Sequence[tuple[int, int]] | None = None,
        iterations: int | None = None,
        attention: bool = False,
    ) -> ClipOutputs:
        """Track points through clips.

        Args:
            frames: (B, T, H, W, 3) RGB in 0..255, any number type.
            queries: (B, N, 3) rows (t, x, y), pixels of the frames as given.
            windows: ``(start, stop)`` of each window, in order, without gaps; :func:`plan_windows` by default.
            iterations: refinements per window, the configured number by default.
            attention: also return the attention maps of every window.
        """
        B, T, H, W, _ = frames.shape
        maps = self.encode(frames.flatten(0, 1))
        maps = [m.unflatten(0, (B, T)) for m in maps]
        points = self.points(maps, queries[..., 0].long(), geometry.rescale(queries[..., 1:], (H, W), self.size))
        done: list[WindowOutputs] = []
        estimate = self.start_of(points)
        for start, stop in windows or plan_windows(T, self.config.window):
            estimate = estimate.extended(max(stop, estimate.xy.shape[1]))
            out = self.refine(
                [m[:, start:stop] for m in maps], points, estimate.span(start, stop), start, iterations, attention
            )
            done.append(out)
            estimate = self._with_window(estimate, out, stop)
        xy = geometry.rescale(estimate.xy, self.size, (H, W))
        seen, sure = estimate.visibility.sigmoid(), estimate.confidence.sigmoid()
        return ClipOutputs(xy, seen, sure, tuple(done), tuple(maps), points)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the model's input."""
        return self.config.input_size

    def encode(self, frames: Tensor) -> list[Tensor]:
        """Return L feature maps (F, h, w, C) of frames (F, H, W, 3)."""
        return self.pyramid(frames, self.size)

    def points(self, maps: Sequence[Tensor], time: Tensor, xy: Tensor) -> QueryTemplates:
        """Take the templates of queries: ``maps`` L x (B, T, h, w, C), ``time`` (B, N), ``xy`` (B, N, 2)."""
        side = torch.arange(TEMPLATE, device=xy.device) - TEMPLATE // 2
        offsets = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1).flatten(0, 1)  # (K, 2)
        templates = []
        for level, stride in zip(maps, self.strides, strict=True):
            cells = (xy / stride - 0.5)[:, :, None] + offsets
            templates.append(gather_bilinear(level, time[..., None].expand(cells.shape[:-1]), cells))
        return QueryTemplates(tuple(templates), time, xy)

    def start_of(self, points: QueryTemplates) -> Estimate:
        """Return the first estimate, one frame long: every point at its query position, visible."""
        nothing = torch.zeros_like(points.xy[:, None, :, 0])
        return Estimate(points.xy[:, None], nothing, nothing)

    def refine(
        self,
        maps: Sequence[Tensor],
        points: QueryTemplates,
        estimate: Estimate,
        start: int = 0,
        iterations: int | None = None,
        attention: bool = False,
    ) -> WindowOutputs:
        """Improve the estimates of one window, ``iterations`` times.

        Args:
            maps: L x (B, S, h, w, C), features of the window's frames.
            points: the queries; their ``time`` is counted like ``start``.
            estimate: of the window's frames so far.
            start: number of the window's first frame.
            iterations: the configured number by default.
            attention: also return attention maps.
        """
        S = estimate.xy.shape[1]
        age = (
            torch.arange(start, start + S, device=estimate.xy.device)[None, :, None] - points.time[:, None]
        )  # (B, S, N)
        active, own = age >= 0, age == 0
        results: list[Estimate] = []
        seen = None
        count = iterations or self.config.iterations
        for i in range(count):
            estimate, seen = self._iteration(maps, points, estimate, active, own, attention and i == count - 1)
            results.append(estimate)
            estimate = Estimate(*(v.detach() for v in estimate))
        return WindowOutputs(start, *(torch.stack(values) for values in zip(*results, strict=True)), attention=seen)

    def _iteration(
        self,
        maps: Sequence[Tensor],
        points: QueryTemplates,
        estimate: Estimate,
        active: Tensor,
        own: Tensor,
        attention: bool,
    ) -> tuple[Estimate, AttentionMaps | None]:
        """One refinement. ``active`` and ``own`` (B, S, N): the point exists yet; this is its query frame."""
        tokens, matches = self._tokens(maps, points, estimate, own)
        x = self.embed(tokens)
        x = x + time_code(x.shape[1], x.shape[-1], x.device)[None, :, None]
        over_time, over_points = [], []
        for block in self.blocks:
            x, in_time, in_points = block(x, active, attention)
            over_time.append(in_time)
            over_points.append(in_points)
        change = self.head(self.norm(x)).float()
        xy = estimate.xy + STRIDES[0] * change[..., :2] + (change[..., 4:, None] * matches).sum(-2)
        h, w = self.size
        xy = torch.minimum(xy.clamp(min=-float(max(h, w))), xy.new_tensor([2.0 * w, 2.0 * h]))
        xy = torch.where((active & ~own)[..., None], xy, points.xy[:, None])
        maps_seen = AttentionMaps(torch.stack(over_time), torch.stack(over_points)) if attention else None
        return Estimate(xy, change[..., 2], change[..., 3]), maps_seen

    def _tokens(
        self, maps: Sequence[Tensor], points: QueryTemplates, estimate: Estimate, own: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what the transformer reads about each point and frame, (B, S, N, channels), and :meth:`_correlate`'s
        matches (B, S, N, L, 2).
        """
        xy = estimate.xy
        B, S, N, _ = xy.shape
        codes, matches = self._correlate(maps, points.templates, xy)
        h, w = self.size
        unit = xy / xy.new_tensor([w, h])
        step = unit[:, 1:] - unit[:, :-1]
        still = torch.zeros_like(unit[:, :1])
        feature = points.templates[0][:, :, TEMPLATE**2 // 2]  # (B, N, C), the point's own cell
        flags = torch.stack(
            [estimate.visibility.sigmoid(), estimate.confidence.sigmoid(), own.float(), torch.ones_like(own).float()],
            -1,
        )
        parts = [
            codes,
            feature[:, None].expand(B, S, N, -1),
            position_code(unit - 0.5),
            position_code(torch.cat([still, step], 1)),
            position_code(torch.cat([step, still], 1)),
            flags,
        ]
        return torch.cat(parts, -1), matches

    def _correlate(self, maps: Sequence[Tensor], templates: Sequence[Tensor], xy: Tensor) -> tuple[Tensor, Tensor]:
        """Compare templates with the surroundings of ``xy`` (B, S, N, 2) on all levels.

        Chunks of points bound the memory to ``CORRELATION_BYTES`` where no gradient is kept.

        Returns:
            (B, S, N, channels) codes of the correlations, and (B, S, N, L, 2) the way in pixels to each level's match.
        """
        B, S, N, _ = xy.shape
        rows = (2 * self.config.radius + 2) ** 2 * B * S * self.config.dim * 4
        chunk = N if torch.is_grad_enabled() else max(1, min(N, CORRELATION_BYTES // rows))
        parts = []
        for i in range(0, N, chunk):
            part = slice(i, i + chunk)
            parts.append(self._correlate_at(maps, [t[:, part] for t in templates], xy[:, :, part]))
        codes, matches = zip(*parts, strict=True)
        return torch.cat(codes, 2), torch.cat(matches, 2)

    def _correlate_at(self, maps: Sequence[Tensor], templates: Sequence[Tensor], xy: Tensor) -> tuple[Tensor, Tensor]:
        """Do :meth:`_correlate` for points that go through at once."""
        radius = self.config.radius
        codes, matches = [], []
        for level, template, stride, sharp in zip(maps, templates, self.strides, self.log_sharpness.exp(), strict=True):
            products = local_correlation(level, template, xy / stride - 0.5, radius)
            place, score = best_place(products, radius, sharp)
            codes += [self.correlation(PRODUCT_GAIN * products), place / radius, score]
            matches.append(stride * place)
        return torch.cat(codes, -1), torch.stack(matches, -2)

    @staticmethod
    def _with_window(estimate: Estimate, out: WindowOutputs, stop: int) -> Estimate:
        """Return the estimate with the window's last iteration written into it, without gradient."""

        pairs = zip(estimate, (out.xy, out.visibility_logit, out.confidence_logit), strict=True)
        return Estimate(*(torch.cat([old[:, : out.start], new[-1].detach(), old[:, stop:]], 1) for old, new in pairs))


class TransformerBlock(nn.Module):
    """Pre-norm transformer layer: attention over the frames of a point, over the points of a frame, feed-forward."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.over_time = SelfAttention(dim, heads, dropout)
        self.over_points = SelfAttention(dim, heads, dropout)
        self.feed = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), Dropout(dropout), nn.Linear(4 * dim, dim), Dropout(dropout)
        )

    def forward(self, x: Tensor, active: Tensor, attention: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the tokens (B, S, N, C) and, if wanted, attention over time (B, N, S, S) and points (B, S, N, N)."""
        y, in_time = self.over_time(self.norms[0](x).transpose(1, 2), active.transpose(1, 2), attention)
        x = x + y.transpose(1, 2)
        y, in_points = self.over_points(self.norms[1](x), active, attention)
        x = x + y
        return x + self.feed(self.norms[2](x)), in_time, in_points


def time_code(frames: int, dim: int, device: torch.device) -> Tensor:
    """Return the sinusoidal code (frames, dim) of a window's frames, counted backwards from the newest."""
    back = torch.arange(frames - 1, -1, -1, device=device).float()
    rate = torch.exp(torch.arange(0, dim, 2, device=device).float() * (-math.log(100.0) / dim))
    angle = back[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], -1)


def position_code(unit: Tensor) -> Tensor:
    """Return values (..., 2) of about [-1, 1] with sines and cosines of 8 octaves: (..., 34)."""
    rate = math.pi * 2.0 ** torch.arange(FREQUENCIES, device=unit.device).float()
    angle = (unit[..., None] * rate).flatten(-2)
    return torch.cat([unit, angle.sin(), angle.cos()], -1)
