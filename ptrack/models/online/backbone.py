"""From images to the D-wide tokens that Track-On2 reads: any encoder, one projection per stride, learnt positions.

Letters: B images, H W their size, D output width, S tokens of all strides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptrack.models.layers.linear import Linear


class Backbone(nn.Module):
    """Encoder, projection to D channels, and a learnt position embedding of the finest map, shared by all strides."""

    def __init__(self, encoder: Any, dim: int, input_size: tuple[int, int], strides: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.projections = nn.ModuleList([nn.Sequential(Linear(c, dim)) for c in encoder.channels])  # type: ignore[union-attr]
        h, w = (n // strides[0] for n in input_size)
        self.pos_embedding = nn.Parameter(torch.empty(1, dim, h, w))
        nn.init.trunc_normal_(self.pos_embedding, std=0.02)
        self.strides = tuple(strides)

    def positions(self) -> list[Tensor]:
        """The position embedding at every stride, (1, D, H/s, W/s); coarser ones by bilinear sampling, no antialias."""
        finest = self.pos_embedding
        scales = [self.strides[0] / s for s in self.strides[1:]]
        return [finest, *(F.interpolate(finest, scale_factor=f, mode="bilinear") for f in scales)]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in 0..255 -> tokens (B, S, D) of all strides, finest first, each row by row."""
        levels = []
        for x, project, position in zip(self.encoder(images), self.projections, self.positions(), strict=True):
            tokens = project(x.permute(0, 2, 3, 1).flatten(1, 2))
            levels.append(tokens + position.permute(0, 2, 3, 1).flatten(1, 2))
        return torch.cat(levels, dim=1)
