"""Encoders by name: any of them turns images into one map per stride.

``encoder(images)`` takes (B, 3, H, W) RGB in 0..255 and returns maps (B, C, H/s, W/s), finest first; ``channels`` are
their widths. Nothing is downloaded here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ptrack.errors import ConfigError, did_you_mean
from ptrack.models.backbones.adapter import VitAdapter
from ptrack.models.backbones.lite0 import Lite0Encoder
from ptrack.models.backbones.resnet import RESNETS, ResNetEncoder
from ptrack.models.backbones.vit import VITS
from ptrack.models.backbones.vit_weights import fetch_vit, vit_from_any

LITE = "lite0"
BACKBONES = (*VITS, *RESNETS, LITE)


def check_backbone(name: str) -> None:
    """Raise ConfigError for an unknown backbone, naming the nearest one."""
    if name not in BACKBONES:
        raise ConfigError(
            f"There is no backbone '{name}'.{did_you_mean(name, BACKBONES)} Known: {', '.join(BACKBONES)}."
        )


def build_encoder(name: str, strides: Sequence[int], upsample: float = 1.0, *, checkpoint: bool = False) -> nn.Module:
    """Return an encoder.

    Args:
        name: of ``BACKBONES``.
        strides: of its maps; a DINO has all four.
        upsample: scale of the image that a DINO sees.
        checkpoint: recompute a DINO's stages in the backward pass.

    Raises:
        ConfigError: unknown name, or strides that the encoder does not have.
    """
    check_backbone(name)
    if name in VITS:
        if tuple(strides) != VitAdapter.strides:
            raise ConfigError(f"The backbone {name} has the strides 4, 8, 16, 32, not {tuple(strides)}.")
        return VitAdapter(name, upsample, checkpoint=checkpoint)
    return Lite0Encoder(strides) if name == LITE else ResNetEncoder(name, strides)


def load_published(encoder: Any, name: str) -> None:
    """Fill an encoder with the published weights of its network.

    Raises:
        CheckpointError: they are not here and cannot be fetched; names which file belongs where.
    """
    if name in VITS:
        encoder.vit.load_state_dict(vit_from_any(fetch_vit(name), name))
    elif name != LITE:  # which has its packaged weights from the start
        encoder.load_imagenet()
