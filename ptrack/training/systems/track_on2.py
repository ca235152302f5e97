"""Track-On2 and its seven losses (arXiv 2509.19115).

Letters: B clips, T frames, N points, P correlation cells, K candidates, L offset layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ptrack import geometry
from ptrack.data.samples import TrainingBatch
from ptrack.models.backbones.encoders import load_published
from ptrack.models.online import weights
from ptrack.models.online.model import OnlineOutputs, TrackOn2
from ptrack.training import losses
from ptrack.training.config import TrainConfig, arch_of
from ptrack.training.losses import Counts, Targets, Terms, cell_index, masked_sum
from ptrack.training.systems.base import PredictedTracks, System

TEMPERATURE = 0.05  # of the correlation logits, Track-On2
PATCH_WEIGHT = 3.0  # lambda_patch_cls, Track-On2
OFFSET_CLAMP = 8.0  # model pixels: a larger L1 error means the patch is wrong, and the offset cannot mend that
UNCERTAIN = 12.0  # model pixels: a patch farther than this from the truth counts as uncertain

POINT_TERMS = ("L_p", "L_p2", "L_o", "L_topk_rank")  # averaged over visible points after their query frame


class CorrelationOutputs(Protocol):
    """A frame's outputs in training, all fields of them filled; pixels are those of the model's input."""

    c1: Tensor  # (B, N, P) first correlation
    c2: Tensor  # (B, N, P) second correlation
    offsets: Tensor  # (B, L, N, 2) offset of every layer
    visibility_logit: Tensor  # (B, N)
    uncertainty_logit: Tensor  # (B, N)
    patch: Tensor  # (B, N, 2) centre of the best cell of c2
    candidate_uncertainty: Tensor  # (B, N, K) logit
    candidate_score: Tensor  # (B, N, K) logit
    candidate_patch: Tensor  # (B, N, K, 2)


def build(config: TrainConfig) -> TrackOn2System:
    """Return Track-On2, its backbone filled with published weights if ``pretrained``.

    Raises:
        CheckpointError: the weights are not there and cannot be fetched.
    """
    model = TrackOn2(arch_of(config), checkpoint=config.checkpoint)
    if config.pretrained and config.init_from is None:
        load_published(model.backbone.encoder, model.config.backbone)
    return TrackOn2System(model, checkpoint=config.checkpoint)


class TrackOn2System(System[TrackOn2]):
    """Track-On2.

    Args:
        model: the network.
        checkpoint: recompute every frame in the backward pass; the correlation maps of a clip never exist at once.
    """

    def __init__(self, model: TrackOn2, checkpoint: bool = True) -> None:
        super().__init__(model, model.config.input_size, model.threshold)
        self.checkpoint = checkpoint

    def forward(self, batch: TrainingBatch, targets: Targets, counts: Counts, seed: int) -> Terms:
        """All seven losses, frame by frame."""
        stride = self.model.config.strides[0]

        def reduce(t: int, out: OnlineOutputs) -> Terms:
            return frame_terms(cast(CorrelationOutputs, out), targets, t, counts, self.size, stride)

        return losses.sum_terms(self.model(batch.frames, batch.queries, reduce, checkpoint=self.checkpoint))

    @torch.no_grad()
    def predict(self, batch: TrainingBatch) -> PredictedTracks:
        """Track frame by frame, as in a stream, without a support grid."""

        def reduce(_: int, out: OnlineOutputs) -> tuple[Tensor, Tensor]:
            return out.xy, out.visibility_logit.sigmoid()

        frames = self.model(batch.frames, batch.queries, reduce)
        xy = torch.stack([f[0] for f in frames], dim=1).float()
        visibility = torch.stack([f[1] for f in frames], dim=1)
        return PredictedTracks(geometry.rescale(xy, self.size, batch.size), visibility)

    def tracker(self) -> TrackOn2:
        """Return the model itself."""
        return self.model

    def export(self, path: Path) -> None:
        """Write ``best.safetensors``."""
        weights.save_checkpoint(path, weights.checkpoint_of(self.model))


# ---- losses ----------------------------------------------------------------------------------------------------------


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


def frame_terms(
    out: CorrelationOutputs, targets: Targets, t: int, counts: Counts, size: tuple[int, int], stride: int = 4
) -> Terms:
    """Return the seven loss terms of frame ``t``; summed over the frames they are the terms of the clips.

    Computing them frame by frame keeps the correlation maps of a whole clip (0.9 GB each at the published setting)
    from ever being needed at once.

    Args:
        out: the model's outputs for this frame.
        targets: of the whole clips.
        t: frame number in the clips.
        counts: of everything the terms are averaged over (see ``ptrack.training.losses``).
        size: (H, W) of the model's input.
        stride: pixels per correlation cell.
    """
    time, point = (mask[:, t] for mask in targets.masks())
    visible = targets.visible[:, t]
    xy = torch.where(targets.valid[:, t, :, None], targets.xy[:, t], torch.zeros_like(targets.xy[:, t]))
    cell = cell_index(xy, size, stride)
    k = out.candidate_score.shape[-1]
    wide = (*time.shape, k)
    seen, judged = visible[..., None].expand(wide), time[..., None].expand(wide)
    candidate = uncertainty_loss(out.candidate_uncertainty, out.candidate_patch, xy[:, :, None], seen, judged)
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
