"""The offline transformer and its losses: position (Huber), visibility, confidence (BCE), and unique matches.

Letters: B clips, T frames, S frames of a window, N points, L levels, I refinement iterations, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ptrack.data.samples import TrainingBatch
from ptrack.errors import ConfigError
from ptrack.models.offline import weights
from ptrack.models.offline.model import PointTransformer, WindowOutputs, plan_windows, random_windows
from ptrack.models.offline.streaming import StreamingTransformer
from ptrack.training import losses
from ptrack.training.config import TrainConfig, arch_of
from ptrack.training.losses import Counts, Targets, Terms, cell_index, masked_sum
from ptrack.training.systems.base import PredictedTracks, System

LITE = "lite0"  # the backbone whose weights come with the package

REFINED_DECAY = 0.8  # weight of an iteration relative to the next one
HUBER = 1.0  # pixels of the 256-pixel scale from which the position error counts linearly
HIDDEN_WEIGHT = 0.2  # of position errors on frames where the point is hidden but its place is known
CONFIDENT = 8.0  # pixels of the 256-pixel scale: nearer than this is "right"
POSITION_SCALE = 0.1  # brings the position term to the size of the two classification terms
MATCH_WEIGHT = 0.1  # of the matching term, a cross-entropy that begins at 2 to 5
MATCH_TEMPERATURE = 0.07  # of cosines in the matching term


def build(config: TrainConfig) -> TransformerSystem:
    """Return the offline transformer, its backbone filled with ImageNet weights if ``pretrained``.

    Raises:
        ConfigError: no ``pretrained``, but a backbone that is never trained.
        CheckpointError: the weights are not there and cannot be fetched.
    """
    model = PointTransformer(arch_of(config))
    if model.config.backbone == LITE and not config.pretrained:
        raise ConfigError(f"The backbone {LITE} always has its packaged ImageNet weights; leave out --no-pretrained.")
    if config.pretrained and config.init_from is None:
        model.pyramid.load_imagenet()
    return TransformerSystem(model)


class TransformerSystem(System[PointTransformer]):
    """The offline transformer."""

    def __init__(self, model: PointTransformer) -> None:
        super().__init__(model, model.config.input_size, model.config.threshold)

    def forward(self, batch: TrainingBatch, targets: Targets, counts: Counts, seed: int) -> Terms:
        """Half of the steps use the plan of inference, half a random one (see ``random_windows``)."""
        T, window = batch.frames.shape[1], self.model.config.window
        generator = torch.Generator().manual_seed(seed)
        plain = bool(torch.rand((), generator=generator) < 0.5)
        plan = plan_windows(T, window) if plain else random_windows(T, window, generator)
        out = self.model(batch.frames, batch.queries, windows=plan)
        summed = losses.sum_terms(window_terms(part, targets, counts, self.size) for part in out.windows)
        total = {name: value / len(plan) for name, value in summed.items()}
        own = [t[:, :, t.shape[2] // 2] for t in out.points.templates]  # the cell of the query itself
        total["matching"] = matching_term(out.maps, own, targets, counts, self.size)
        return total

    @torch.no_grad()
    def predict(self, batch: TrainingBatch) -> PredictedTracks:
        """Track with overlapping windows."""
        out = self.model(batch.frames, batch.queries)
        return PredictedTracks(out.xy.float(), out.visibility.float())

    @torch.no_grad()
    def attention(self, batch: TrainingBatch) -> WindowOutputs:
        """Return the first window with its attention maps."""
        return self.model(batch.frames, batch.queries, attention=True).windows[0]

    def tracker(self) -> StreamingTransformer:
        """Return the model behind a window that slides one frame at a time."""
        return StreamingTransformer(self.model, next(self.parameters()).device)

    def export(self, path: Path) -> None:
        """Write ``best.safetensors``."""
        weights.save_weights(path, self.model)


def window_terms(out: WindowOutputs, targets: Targets, counts: Counts, size: tuple[int, int]) -> Terms:
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


def matching_term(
    maps: Sequence[Tensor], templates: Sequence[Tensor], targets: Targets, counts: Counts, size: tuple[int, int]
) -> Tensor:
    """Return the matching term: a query's feature must fit the cell the point is in better than all others of a frame.

    Positions alone teach features slowly, through corrections that first have to be learnt; this teaches them from
    the first step on, as the correlation losses of Track-On2 do. Mean over the levels, visible points only.

    Args:
        maps: L x (B, T, h, w, C) unit features.
        templates: L x (B, N, C) unit features of the queries.
        targets: of the clips.
        counts: of everything the term is averaged over.
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
