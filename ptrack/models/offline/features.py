"""An image network turned into a pyramid of normalised feature maps, one set per frame, channels last.

Letters: F frames, L levels (strides 4, 8, 16, 32), h w cells of a level, C channels.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from ptrack.models.backbones.encoders import LITE
from ptrack.models.backbones.lite0 import Lite0Encoder, lite0_channels
from ptrack.models.backbones.resnet import RESNETS, ResNetEncoder, resnet_channels

STRIDES = (4, 8, 16, 32)
PYRAMID_BACKBONES = (*RESNETS, LITE)
SHORTEST = 1e-2  # length below which a cell is not scaled to 1: in a plain frame, rounding errors are all there is


def _centred(maps: Tensor) -> Tensor:
    """Take the mean over each frame off (F, C, h, w), and scale every cell to length 1; plain frames become 0."""
    maps = maps.float()
    return F.normalize(maps - maps.mean((2, 3), keepdim=True), dim=1, eps=SHORTEST)


class Pyramid(nn.Module):
    """Maps of an image network, merged top-down (arXiv 1612.03144) into maps of equal width.

    Every map is centred over its frame and every cell L2-normalised, so that products of cells are cosines and
    unlike places have a product of about 0. Uncentred, the cells of one frame share most of their direction (cosines of
    0.6 on average, spread 0.1), and a correlation gives little evidence of where a point is.

    Args:
        backbone: a ResNet, or "lite0": the packaged EfficientNet-Lite0, whose ImageNet weights stay fixed. It needs no
            download, and a training step costs half as much as with a ResNet-18.
        norm: of a ResNet, "frozen" or "group".
        dim: C.
        levels: L.
    """

    def __init__(self, backbone: str, norm: str, dim: int, levels: int = len(STRIDES)) -> None:
        super().__init__()
        strides = STRIDES[:levels]
        self.fixed = backbone == LITE
        widths = lite0_channels(strides) if self.fixed else resnet_channels(backbone, strides)
        # No bias: centring takes it off again, and its gradient would be rounding errors that Adam scales up.
        self.laterals = nn.ModuleList(nn.Conv2d(width, dim, 1, bias=False) for width in widths)
        self.encoder = Lite0Encoder(strides) if self.fixed else ResNetEncoder(backbone, strides, norm)

    def forward(self, frames: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Return L maps (F, h, w, C) float32 for frames (F, H, W, 3) RGB in 0..255, stretched to ``size`` (H, W)."""
        x = frames.permute(0, 3, 1, 2).float()
        if x.shape[-2:] != size:
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
        maps = [lateral(m) for lateral, m in zip(self.laterals, self._encoded(x), strict=True)]
        for i in range(len(maps) - 1, 0, -1):
            up = F.interpolate(maps[i], size=maps[i - 1].shape[-2:], mode="bilinear", align_corners=False)
            maps[i - 1] = maps[i - 1] + up
        return [_centred(m).permute(0, 2, 3, 1).contiguous() for m in maps]

    def _encoded(self, images: Tensor) -> list[Tensor]:
        maps = self.encoder(images)
        # Nothing in front of the laterals learns to bring fixed maps to one scale.
        return [_centred(m) * math.sqrt(m.shape[1]) for m in maps] if self.fixed else maps

    def load_imagenet(self) -> None:
        """Fill a ResNet with ImageNet weights, downloading them once; "lite0" has them from the start.

        Raises:
            CheckpointError: they are neither in torch's cache nor can they be fetched.
        """
        if isinstance(self.encoder, ResNetEncoder):
            self.encoder.load_imagenet()
