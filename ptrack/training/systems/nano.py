"""nano and its losses.

Position: cross-entropy over the cells of the search window, and a Huber loss of the position after the search and
after every refinement, later ones weighted more (RAFT, arXiv 2003.12039). Visibility and confidence: binary
cross-entropy. Frames before and of a point's query play no part.

Letters: B clips, T frames, N points of all clips together, V side of the search window, I refinement iterations.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ptrack import geometry
from ptrack.data.samples import TrainingBatch
from ptrack.models.layers.windows import constant
from ptrack.models.nano import weights
from ptrack.models.nano.model import Nano, NanoOutputs
from ptrack.models.nano.state import STRIDE
from ptrack.training import losses
from ptrack.training.config import TrainConfig, arch_of
from ptrack.training.losses import Counts, Targets, Terms, masked_sum
from ptrack.training.systems.base import PredictedTracks, System

ENCODER = ("backbone.", "projection")  # what the tensors of the encoder are called

SEARCH_WEIGHT = 0.5
DECAY = 0.8  # weight of a position relative to the next one
HUBER = 0.5  # model pixels, where the position loss turns from quadratic to linear
HIDDEN_WEIGHT = 0.2  # of positions of hidden points near the frame
FAR_WEIGHT, FAR = 0.05, 24.0  # of positions farther off than this many model pixels: lost, refinement cannot mend it
MARGIN = 16.0  # model pixels around the frame in which hidden points are still asked for
VISIBILITY_WEIGHT = 8.0  # position's gradients are some 20 times larger: at 1, visibility hardly learns
CONFIDENCE_WEIGHT = 4.0
RIGHT = 6.0  # model pixels: a position nearer than this is right


def build(config: TrainConfig) -> NanoSystem:
    """Return nano as it is before training: the patch matcher."""
    encoder = None if config.encoder_from is None else Path(config.encoder_from)
    return NanoSystem(weights.untrained(arch_of(config)), encoder)


class NanoSystem(System[Nano]):
    """nano on features that do not change, or that another run trains.

    Args:
        model: the network.
        encoder_from: weights of nano whose encoder is taken over whenever the file changes.
    """

    capturable = True

    def __init__(self, model: Nano, encoder_from: Path | None = None) -> None:
        super().__init__(model, model.config.input_size, model.config.threshold)
        model.backbone.requires_grad_(False)
        self.encoder_from = encoder_from
        self._taken_at = 0.0  # modification time of the file that was taken over

    def forward(self, batch: TrainingBatch, targets: Targets, counts: Counts, seed: int) -> Terms:
        """All terms, frame by frame."""

        def reduce(t: int, out: NanoOutputs) -> Terms:
            return frame_terms(out, targets, t, counts, self.size)

        return losses.sum_terms(self.model(batch.frames, batch.queries, reduce))

    @torch.no_grad()
    def predict(self, batch: TrainingBatch) -> PredictedTracks:
        """Track frame by frame, as in a stream."""

        def reduce(_: int, out: NanoOutputs) -> tuple[Tensor, Tensor]:
            return out.shown, out.visible

        frames = self.model(batch.frames, batch.queries, reduce)
        xy = torch.stack([f[0].view(len(batch.frames), -1, 2) for f in frames], dim=1)
        xy = geometry.rescale((xy + 0.5) * STRIDE, self.size, batch.size)
        return PredictedTracks(xy, torch.stack([f[1].view(len(batch.frames), -1) for f in frames], dim=1))

    def tracker(self) -> Nano:
        """Return the model itself."""
        return self.model

    def export(self, path: Path) -> None:
        """Write ``best.safetensors``."""
        weights.save_weights(path, self.model)

    def start_from(self, state: Mapping[str, Tensor], where: str) -> None:
        """Load weights to start from; a file without the packaged encoder leaves it as it is."""
        super().start_from(weights.whole(self.model, state), where)

    def renewed(self) -> Mapping[str, Tensor]:
        """Return the encoder of ``encoder_from`` if that file is new."""
        file = self.encoder_from
        if file is None or not file.exists() or file.stat().st_mtime == self._taken_at:
            return {}
        self._taken_at = file.stat().st_mtime
        state = weights.read_weights(file)[1]
        return {name: value for name, value in state.items() if name.startswith(ENCODER)}


def frame_terms(out: NanoOutputs, targets: Targets, t: int, counts: Counts, size: tuple[int, int]) -> Terms:
    """Return the four terms of frame ``t``; summed over the frames they are the terms of the clips.

    Args:
        out: the model's outputs for this frame.
        targets: of the whole clips.
        t: frame number.
        counts: of everything the terms are averaged over.
        size: (H, W) of the model's input.
    """
    time, _ = targets.masks()
    on, xy, visible = time[:, t].flatten(), targets.xy[:, t].flatten(0, 1), targets.visible[:, t].flatten()
    xy = torch.where(on[:, None], xy, torch.zeros((), device=xy.device))
    cell = xy / STRIDE - 0.5
    error = (out.xy - cell) * STRIDE  # (I + 1, N, 2)
    off = error.detach().norm(dim=-1)
    near = ((xy > -MARGIN) & (xy < constant((size[1] + MARGIN, size[0] + MARGIN), xy.device))).all(-1)
    weight = torch.where(visible, 1.0, HIDDEN_WEIGHT * near.float())
    huber = 2 * F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=HUBER).sum(-1)
    later = DECAY ** torch.arange(len(error) - 1, -1, -1, device=xy.device, dtype=torch.float32)
    position = torch.where(off > FAR, FAR_WEIGHT, 1.0) * weight * huber * later[:, None]
    visibility = F.binary_cross_entropy_with_logits(out.visibility_logit.float(), visible.float(), reduction="none")
    right = (off[-1] < RIGHT).float()
    confidence = F.binary_cross_entropy_with_logits(out.confidence_logit.float(), right, reduction="none")
    everything = counts.time.clamp(min=1)
    return {
        "search": SEARCH_WEIGHT * search_loss(out, cell, on & visible) / everything,
        "position": masked_sum(position, on.expand_as(position)) / everything,
        "visibility": VISIBILITY_WEIGHT * masked_sum(visibility, on) / everything,
        "confidence": CONFIDENCE_WEIGHT * masked_sum(confidence, on) / everything,
    }


def search_loss(out: NanoOutputs, cell: Tensor, mask: Tensor) -> Tensor:
    """Summed cross-entropy over the window's cells of points whose true (N, 2) ``cell`` lies in it and on the map."""
    side = out.logits.shape[-1]
    place = (cell - out.origin).round().long()
    within = ((place >= 0) & (place < side)).all(-1)
    place = place.clamp(0, side - 1)
    index = place[:, 1] * side + place[:, 0]
    logits = out.logits.flatten(1)
    on_map = torch.isfinite(logits.gather(1, index[:, None])[:, 0])
    entropy = F.cross_entropy(logits.clamp(min=-1e4), index, reduction="none")
    return masked_sum(entropy, mask & within & on_map)
