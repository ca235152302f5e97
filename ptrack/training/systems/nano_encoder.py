"""The encoder of nano: a point's patch should differ from every other place of another frame.

The batches are pairs of frames, of rendered clips and of photos with themselves (``ptrack.training.pool``). The loss is
the cross-entropy of the true place in the second frame among all places, through the network's own features and scores.

Letters: B pairs, P points of a pair, S cells of a patch, h w cells of the map.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ptrack.data.samples import TrainingBatch
from ptrack.errors import ModelError
from ptrack.models.layers.windows import PATCH, patch_scores, patches
from ptrack.models.nano.model import Nano
from ptrack.models.nano.state import STRIDE
from ptrack.models.nano.weights import untrained
from ptrack.training.config import TrainConfig, arch_of
from ptrack.training.losses import Counts, Targets, Terms
from ptrack.training.systems.nano import NanoSystem


def build(config: TrainConfig) -> NanoEncoderSystem:
    """Return nano with nothing but its encoder to train."""
    return NanoEncoderSystem(untrained(arch_of(config)), config.backbone_share)


class NanoEncoderSystem(NanoSystem):
    """nano of which the encoder is trained, and nothing else.

    Args:
        model: the network.
        backbone_share: learning rate of the convolutions as a share of the projection's; 0 leaves them as they are.
    """

    capturable = False  # it is a large kernel or two, which the host launches in time

    def __init__(self, model: Nano, backbone_share: float) -> None:
        super().__init__(model)
        if model.projection is None:
            raise ModelError("This network compares the taps of the encoder as they are; it has no encoder to train.")
        model.requires_grad_(False)
        self.projection = model.projection.requires_grad_(True)
        model.backbone.requires_grad_(backbone_share > 0)
        self.backbone_share = backbone_share

    def forward(self, batch: TrainingBatch, targets: Targets, counts: Counts, seed: int) -> Terms:
        """The matching loss of pairs of frames (B, 2)."""
        logits = matching_logits(self.model, batch.frames, targets.xy[:, 0])
        _, point = targets.masks()
        entropy = place_entropy(logits, targets.xy[:, 1] / STRIDE - 0.5)
        return {"matching": (entropy * point[:, 1]).sum() / counts.point.clamp(min=1.0)}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the projection, and the backbone with its share of the learning rate."""
        groups = [{"params": [self.projection], "share": 1.0}]
        if self.backbone_share:
            groups.append({"params": list(self.model.backbone.parameters()), "share": self.backbone_share})
        return groups


def matching_logits(model: Nano, frames: Tensor, xy: Tensor) -> Tensor:
    """Compare patches of the first frames with all places of the second ones.

    Args:
        model: the network.
        frames: (B, 2, H, W, 3).
        xy: (B, P, 2) pixels of the model's input in the first frame.

    Returns:
        (B, P, h, w) logits.
    """
    b, p = xy.shape[:2]
    map = model.features(frames.flatten(0, 1)).inner
    first, second = map[0::2].contiguous(), map[1::2]
    clip = torch.arange(b, device=map.device).repeat_interleave(p)
    cells = (xy / STRIDE - 0.5).flatten(0, 1).clamp(0, map.shape[2] - 1)
    template = patches(first, clip, cells).view(b, p, len(PATCH), -1)
    padded = F.pad(second, (0, 0, 1, 1, 1, 1))
    return patch_scores(padded, template, model.matcher.weights) / model.config.temperature


def place_entropy(logits: Tensor, cells: Tensor) -> Tensor:
    """Return the cross-entropy (B, P) of places (B, P, 2) between four cells each, given logits (B, P, h, w)."""
    h, w = logits.shape[2:]
    log_p = logits.flatten(2).log_softmax(2)
    inside = torch.minimum(cells.clamp(min=0), cells.new_tensor([w - 1.001, h - 1.001]))
    low = inside.floor()
    part = inside - low
    total = torch.zeros_like(part[..., 0])
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (part[..., 0] if dx else 1 - part[..., 0]) * (part[..., 1] if dy else 1 - part[..., 1])
            place = (low[..., 1] + dy).long() * w + (low[..., 0] + dx).long()
            total = total - weight * log_p.gather(2, place[..., None])[..., 0]
    return total
