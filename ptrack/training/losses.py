"""The training losses of both trackers: per-point terms, their masks, and sums exact over any split of a batch.

Every term is ``sum(mask * value) / count``. The counts depend on the targets alone, so they are known before the
forward pass: :func:`count` of all parts of a batch (micro-batches, processes) is summed first, each part then divides
by the total, and parts add up to exactly the loss of the whole batch.

Letters: B clips, T frames, N points, P correlation cells, K candidates, L offset layers, I refinement iterations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.05  # of the correlation logits, Track-On2
PATCH_WEIGHT = 3.0  # lambda_patch_cls, Track-On2
OFFSET_CLAMP = 8.0  # model pixels: a larger L1 error means the patch is wrong, and the offset cannot mend that
UNCERTAIN = 12.0  # model pixels: a patch farther than this from the truth counts as uncertain

POINT_TERMS = ("L_p", "L_p2", "L_o", "L_topk_rank")  # averaged over visible points after their query frame
TIME_TERMS = ("L_vis", "L_u", "L_topk_u")  # averaged over all points after their query frame
TERMS = ("L_p", "L_p2", "L_vis", "L_o", "L_u", "L_topk_u", "L_topk_rank")

Terms = dict[str, Tensor]  # name -> scalar; their plain sum is the loss


@dataclass(frozen=True)
class Targets:
    """What a clip's tracks should be, in pixels of the model's input."""

    xy: Tensor  # (B, T, N, 2) float32; finite where `valid`
    visible: Tensor  # (B, T, N) bool
    valid: Tensor  # (B, T, N) bool: the coordinate carries information (padding and gaps do not)
    query_time: Tensor  # (B, N) int64

    def masks(self, *, query_frame: bool = False) -> tuple[Tensor, Tensor]:
        """Return ``(time, point)`` masks, both (B, T, N) bool: supervised at all, and supervised in position.

        ``query_frame`` includes the frame of the query itself, which Track-On2 leaves out.
        """
        t = torch.arange(self.xy.shape[1], device=self.xy.device)[None, :, None]
        start = self.query_time[:, None, :]
        time = (t >= start if query_frame else t > start) & self.valid
        return time, time & self.visible


@dataclass(frozen=True)
class Counts:
    """How many entries each kind of term is averaged over; sums over parts of a batch are plain sums."""

    time: Tensor  # scalar float32
    point: Tensor  # scalar float32

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.time + other.time, self.point + other.point)


def count(targets: Targets) -> Counts:
    """Count the supervised entries of some clips (the query frame itself is left out)."""
    time, point = targets.masks()
    return Counts(time.sum().float(), point.sum().float())


class FrameOutputs(Protocol):
    """What Track-On2 says about one frame in training (arXiv 2509.19115); pixels are those of the model's input."""

    c1: Tensor  # (B, N, P) first correlation
    c2: Tensor  # (B, N, P) second correlation
    offsets: Tensor  # (B, L, N, 2) offset of every layer
    visibility_logit: Tensor  # (B, N)
    uncertainty_logit: Tensor  # (B, N)
    patch: Tensor  # (B, N, 2) centre of the best cell of c2
    candidate_uncertainty: Tensor  # (B, N, K) logit
    candidate_score: Tensor  # (B, N, K) logit
    candidate_patch: Tensor  # (B, N, K, 2)


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum in float32 where ``mask``; whatever stands elsewhere plays no part."""
    return torch.where(mask, values.float(), torch.zeros((), device=values.device)).sum()


def cell_index(xy: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Return the row-major cell (...,) int64 of points (..., 2); points outside ``size`` (H, W) get cell 0.

    ``xy`` may hold NaN, which counts as outside.
    """
    h, w = size
    inside = (xy[..., 0] >= 0) & (xy[..., 0] < w) & (xy[..., 1] >= 0) & (xy[..., 1] < h)
    cell = torch.where(inside[..., None], xy, torch.zeros_like(xy)).div(stride).floor().long()
    return cell[..., 1] * (w // stride) + cell[..., 0]


def patch_loss(correlation: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Summed, weighted cross-entropy over the cells: ``correlation`` (B, N, P), ``target`` and ``mask`` (B, N)."""
    logits = correlation.float().flatten(0, 1) / TEMPERATURE
    entropy = F.cross_entropy(logits, target.flatten(), reduction="none")
    return PATCH_WEIGHT * masked_sum(entropy, mask.flatten())


def uncertainty_loss(logit: Tensor, patch: Tensor, xy: Tensor, visible: Tensor, mask: Tensor) -> Tensor:
    """Summed BCE against "the patch is farther than 12 px, or hidden". All (...,) but patch and xy (..., 2)."""
    label = (torch.linalg.vector_norm(patch - xy, dim=-1) > UNCERTAIN) | ~visible
    return masked_sum(F.binary_cross_entropy_with_logits(logit.float(), label.float(), reduction="none"), mask)


def offset_loss(offsets: Tensor, patch: Tensor, xy: Tensor, mask: Tensor) -> Tensor:
    """Summed L1 error (x and y added) of the offsets (B, L, N, 2), clamped to [0, 8] px, averaged over the L layers."""
    error = (offsets.float() - (xy - patch)[:, None]).abs().sum(-1).clamp(0, OFFSET_CLAMP)
    return masked_sum(error, mask[:, None].expand_as(error)) / offsets.shape[1]


def ranking_loss(score: Tensor, candidates: Tensor, xy: Tensor, mask: Tensor) -> Tensor:
    """Summed cross-entropy over the K candidates, target = the one nearest to the truth."""
    distance = torch.linalg.vector_norm(candidates - xy[:, :, None], dim=-1)  # (B, N, K)
    entropy = F.cross_entropy(score.float().flatten(0, 1), distance.argmin(-1).flatten(), reduction="none")
    return masked_sum(entropy, mask.flatten())


def track_on2_frame(
    out: FrameOutputs, targets: Targets, t: int, counts: Counts, size: tuple[int, int], stride: int = 4
) -> Terms:
    """Return the seven loss terms of frame ``t``; summed over the frames they are the terms of the clips.

    Computing them frame by frame keeps the correlation maps of a whole clip (0.9 GB each at the published setting)
    from ever being needed at once.

    Args:
        out: the model's outputs for this frame.
        targets: of the whole clips.
        t: frame number in the clips.
        counts: of everything the terms are averaged over (see the module's head).
        size: (H, W) of the model's input.
        stride: pixels per correlation cell.
    """
    time, point = (mask[:, t] for mask in targets.masks())
    visible = targets.visible[:, t]
    xy = torch.where(targets.valid[:, t, :, None], targets.xy[:, t], torch.zeros_like(targets.xy[:, t]))
    cell = cell_index(xy, size, stride)
    k = out.candidate_score.shape[-1]
    wide = (*time.shape, k)
    candidate = uncertainty_loss(
        out.candidate_uncertainty, out.candidate_patch, xy[:, :, None],
        visible[..., None].expand(wide), time[..., None].expand(wide),
    )  # fmt: skip
    visibility = F.binary_cross_entropy_with_logits(out.visibility_logit.float(), visible.float(), reduction="none")
    sums = {
        "L_p": patch_loss(out.c1, cell, point),
        "L_p2": patch_loss(out.c2, cell, point),
        "L_vis": masked_sum(visibility, time),
        "L_o": offset_loss(out.offsets, out.patch, xy, point),
        "L_u": uncertainty_loss(out.uncertainty_logit, out.patch, xy, visible, time),
        "L_topk_u": candidate / k,
        "L_topk_rank": ranking_loss(out.candidate_score, out.candidate_patch, xy, point),
    }
    return {name: value / per(counts, name) for name, value in sums.items()}


def per(counts: Counts, name: str) -> Tensor:
    """Return the divisor of a term; at least 1, so that a batch with nothing to supervise has loss 0 and not NaN."""
    return (counts.point if name in POINT_TERMS else counts.time).clamp(min=1.0)


def add_terms(total: Terms, terms: Terms) -> Terms:
    """Return the sums of two sets of terms; a missing name counts as 0."""
    return {name: total[name] + terms[name] if name in total else terms[name] for name in terms} | {
        name: value for name, value in total.items() if name not in terms
    }


# ---- the offline transformer -----------------------------------------------------------------------------------------

REFINED_DECAY = 0.8  # weight of an iteration relative to the next one
HUBER = 1.0  # pixels of the 256-pixel scale from which the position error counts linearly
HIDDEN_WEIGHT = 0.2  # of position errors on frames where the point is hidden but its place is known
CONFIDENT = 8.0  # pixels of the 256-pixel scale: nearer than this is "right"
POSITION_SCALE = 0.1  # brings the position term to the size of the two classification terms
MATCH_WEIGHT = 0.1  # of the matching term, a cross-entropy that begins at 2 to 5
MATCH_TEMPERATURE = 0.07  # of cosines in the matching term


class WindowOutputs(Protocol):
    """What the offline transformer says about the frames ``start .. start + S`` of B clips, for every iteration."""

    start: int
    xy: Tensor  # (I, B, S, N, 2) pixels of the model's input
    visibility_logit: Tensor  # (I, B, S, N)
    confidence_logit: Tensor  # (I, B, S, N)


def transformer_window(out: WindowOutputs, targets: Targets, counts: Counts, size: tuple[int, int]) -> Terms:
    """Return the three loss terms of one window: position (Huber), visibility and confidence (BCE).

    Iteration i of I has the weight ``0.8 ** (I - 1 - i)``, normalised to sum 1. Position errors are measured at the
    256-pixel scale, so the balance of the terms does not depend on the input size.
    """
    span = slice(out.start, out.start + out.xy.shape[2])
    time = targets.masks()[0][:, span]
    xy = torch.where(targets.valid[:, span, :, None], targets.xy[:, span], torch.zeros_like(targets.xy[:, span]))
    scale = out.xy.new_tensor([256.0 / size[1], 256.0 / size[0]])
    error = ((out.xy.float() - xy) * scale).norm(dim=-1)  # (I, B, S, N)
    huber = F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=HUBER)
    place = torch.where(targets.visible[:, span], 1.0, HIDDEN_WEIGHT) * huber * POSITION_SCALE
    seen = targets.visible[:, span].float().expand_as(out.visibility_logit)
    near = (error.detach() < CONFIDENT).float()
    weight = REFINED_DECAY ** torch.arange(error.shape[0] - 1, -1, -1, device=error.device).float()
    weight = (weight / weight.sum())[:, None, None, None]
    everywhere = time.expand_as(error)
    values = {
        "position": place,
        "visibility": F.binary_cross_entropy_with_logits(out.visibility_logit.float(), seen, reduction="none"),
        "confidence": F.binary_cross_entropy_with_logits(out.confidence_logit.float(), near, reduction="none"),
    }
    return {k: masked_sum(weight * v, everywhere) / counts.time.clamp(min=1.0) for k, v in values.items()}


def transformer_matching(
    maps: Sequence[Tensor], templates: Sequence[Tensor], targets: Targets, counts: Counts, size: tuple[int, int]
) -> Tensor:
    """Return the matching term: a query's feature must fit the cell the point is in better than all others of a frame.

    Positions alone teach features slowly, through corrections that first have to be learnt; this teaches them from
    the first step on, as the correlation losses of Track-On2 do. Mean over the levels, visible points only.

    Args:
        maps: L x (B, T, h, w, C) unit features.
        templates: L x (B, N, C) unit features of the queries.
        targets: of the clips.
        counts: see the module's head.
        size: (H, W) of the model's input.
    """
    point = targets.masks()[1]
    xy = torch.where(point[..., None], targets.xy, torch.zeros_like(targets.xy))
    total = torch.zeros((), device=xy.device)
    for level, template in zip(maps, templates, strict=True):
        cosine = torch.einsum("bthwc,bnc->btnhw", level, template).float().flatten(3)  # (B, T, N, P)
        cell = cell_index(xy, size, size[1] // level.shape[3])
        entropy = F.cross_entropy(cosine.flatten(0, 2) / MATCH_TEMPERATURE, cell.flatten(), reduction="none")
        total = total + masked_sum(entropy, point.flatten())
    return MATCH_WEIGHT / len(maps) * total / counts.point.clamp(min=1.0)
