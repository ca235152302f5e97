"""What all networks trained on ImageNet share: the statistics that their input is normalised by."""

from __future__ import annotations

from torch import Tensor

from ptrack.models.layers.windows import constant

MEAN = (0.485, 0.456, 0.406)  # RGB in 0..1
STD = (0.229, 0.224, 0.225)


def normalised(images: Tensor) -> Tensor:
    """Return (B, 3, H, W) RGB in 0..255 as ImageNet's networks take it."""
    mean, std = (constant(v, images.device).view(3, 1, 1) * 255 for v in (MEAN, STD))
    return (images - mean) / std
