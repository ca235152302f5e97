"""From images to the D-wide feature maps that the tracker reads: any encoder, one projection per stride.

Letters: B images, D output width, L strides, E encoder widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptrack.errors import ConfigError, did_you_mean
from ptrack.models.backbones.adapter import VitAdapter
from ptrack.models.backbones.vit import VITS
from ptrack.models.layers.linear import Linear

RESNETS = ("resnet18", "resnet34", "resnet50")
LITE = "efficientnet_lite0"
BACKBONES = (*VITS, *RESNETS, LITE)


def check_backbone(name: str) -> None:
    """Raise ConfigError for an unknown backbone, naming the nearest one."""
    if name not in BACKBONES:
        raise ConfigError(
            f"There is no backbone '{name}'.{did_you_mean(name, BACKBONES)} Known: {', '.join(BACKBONES)}."
        )


class ResNetPyramid(nn.Module):
    """A torchvision ResNet (arXiv 1512.03385) as a pyramid of strides 4, 8, 16 and 32."""

    def __init__(self, name: str, strides: Sequence[int]) -> None:
        import torchvision

        super().__init__()
        net: Any = getattr(torchvision.models, name)(weights=None)
        self.strides = tuple(strides)
        depth = {4: 1, 8: 2, 16: 3, 32: 4}[max(strides)]
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.layers = nn.ModuleList([net.layer1, net.layer2, net.layer3, net.layer4][:depth])
        wide = 4 if name == "resnet50" else 1
        self.channels = tuple(16 * s * wide for s in self.strides)  # 64, 128, 256, 512 for strides 4 .. 32

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised images -> one map per stride."""
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        maps = []
        for stride, layer in zip((4, 8, 16, 32), self.layers, strict=False):
            x = layer(x)
            if stride in self.strides:
                maps.append(x)
        return maps


class LitePyramid(nn.Module):
    """timm's EfficientNet-Lite0 (arXiv 1905.11946) as a pyramid of strides 4, 8, 16 and 32."""

    def __init__(self, strides: Sequence[int]) -> None:
        import timm

        super().__init__()
        self.strides = tuple(strides)
        out = [{4: 1, 8: 2, 16: 3, 32: 4}[s] for s in self.strides]
        self.net: Any = timm.create_model(
            "tf_efficientnet_lite0", pretrained=False, features_only=True, out_indices=tuple(out)
        )
        self.channels = tuple(self.net.feature_info.channels())

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised images -> one map per stride."""
        return self.net(images.contiguous(memory_format=torch.channels_last))


def build_encoder(name: str, strides: Sequence[int], upsample: float, *, checkpoint: bool = False) -> nn.Module:
    """Return an encoder with ``channels`` and ``forward(images) -> maps``. Nothing is downloaded.

    Raises:
        ConfigError: unknown name, or strides that the encoder does not have.
    """
    check_backbone(name)
    if name in VITS:
        if tuple(strides) != VitAdapter.strides:
            raise ConfigError(f"The backbone {name} has the strides 4, 8, 16, 32, not {tuple(strides)}.")
        return VitAdapter(name, upsample, checkpoint=checkpoint)
    return LitePyramid(strides) if name == LITE else ResNetPyramid(name, strides)


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
        """(B, 3, H, W) normalised images -> tokens (B, S, D) of all strides, finest first, each row by row."""
        levels = []
        for x, project, position in zip(self.encoder(images), self.projections, self.positions(), strict=True):
            tokens = project(x.permute(0, 2, 3, 1).flatten(1, 2))
            levels.append(tokens + position.permute(0, 2, 3, 1).flatten(1, 2))
        return torch.cat(levels, dim=1)
