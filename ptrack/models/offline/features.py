"""An image network turned into a pyramid of normalised feature maps, one set per frame, channels last.

Letters: F frames, L levels (strides 4, 8, 16, 32), h w cells of a level, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import ResNet, resnet18, resnet34, resnet50
from torchvision.models import ResNet18_Weights as W18
from torchvision.models import ResNet34_Weights as W34
from torchvision.models import ResNet50_Weights as W50
from torchvision.ops.misc import FrozenBatchNorm2d

from ptrack.errors import CheckpointError
from ptrack.models.backbones.lite0 import TAPS, Lite0, packaged_weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0, 1]
STRIDES = (4, 8, 16, 32)

_RESNETS = {
    "resnet18": (resnet18, W18.IMAGENET1K_V1, (64, 128, 256, 512)),
    "resnet34": (resnet34, W34.IMAGENET1K_V1, (64, 128, 256, 512)),
    "resnet50": (resnet50, W50.IMAGENET1K_V2, (256, 512, 1024, 2048)),
}
LITE = "lite0"
BACKBONES = (*_RESNETS, LITE)


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(32, channels)


# Frozen: ImageNet's statistics, constant. Group: for training from scratch. With both, the features of a frame depend
# on that frame alone, whatever else is in the batch or on the other processes, in training as in tracking.
_NORMS: dict[str, Callable[..., nn.Module]] = {"frozen": FrozenBatchNorm2d, "group": _group_norm}
NORMS = tuple(_NORMS)


LEAST = 1e-2  # length below which a cell is not stretched to 1: in a plain frame, rounding errors are all there is


def _centred(maps: Tensor) -> Tensor:
    """Take the mean over each frame off (F, C, h, w), and scale every cell to length 1; plain frames become 0."""
    maps = maps.float()
    return F.normalize(maps - maps.mean((2, 3), keepdim=True), dim=1, eps=LEAST)


class Pyramid(nn.Module):
    """Maps of an image network, merged top-down (arXiv 1612.03144) into maps of equal width.

    Every map is centred over its frame and every cell L2-normalised, so that products of cells are cosines and
    unlike places have a product of about 0. Uncentred, the cells of one frame share most of their direction (cosines of
    0.6 on average, spread 0.1), and a correlation says little about where a point is.
    """

    def __init__(self, widths: Sequence[int], dim: int) -> None:
        super().__init__()
        # No bias: centring takes it off again, and its gradient would be rounding errors that Adam scales up.
        self.laterals = nn.ModuleList(nn.Conv2d(width, dim, 1, bias=False) for width in widths)

    def forward(self, frames: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Return L maps (F, h, w, C) float32 for frames (F, H, W, 3) RGB in 0..255, stretched to ``size`` (H, W)."""
        x = frames.permute(0, 3, 1, 2).float()
        if x.shape[-2:] != size:
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
        maps = [lateral(m) for lateral, m in zip(self.laterals, self.taps(x), strict=True)]
        for i in range(len(maps) - 1, 0, -1):
            up = F.interpolate(maps[i], size=maps[i - 1].shape[-2:], mode="bilinear", align_corners=False)
            maps[i - 1] = maps[i - 1] + up
        return [_centred(m).permute(0, 2, 3, 1).contiguous() for m in maps]

    def taps(self, x: Tensor) -> list[Tensor]:
        """Return the network's L maps (F, width, h, w) for images (F, 3, H, W) RGB in 0..255."""
        raise NotImplementedError

    def load_imagenet(self, backbone: str) -> None:
        """Fill the network with ImageNet weights."""
        raise NotImplementedError


class LitePyramid(Pyramid):
    """The packaged EfficientNet-Lite0, whose ImageNet weights stay fixed; the finest maps' mean is the fourth level.

    Needs no download, and a training step costs half as much as with a ResNet-18.
    """

    def __init__(self, dim: int, levels: int = len(STRIDES)) -> None:
        widths = [*TAPS.values(), TAPS[4]][:levels]
        super().__init__(widths, dim)
        self.net = Lite0(packaged_weights())

    @torch.no_grad()
    def taps(self, x: Tensor) -> list[Tensor]:
        """Return centred maps, whose scale is the same on all levels."""
        maps = self.net((x - 127.0) / 128.0)
        maps.append(F.avg_pool2d(maps[-1], 2))
        return [_centred(m) * math.sqrt(m.shape[1]) for m in maps[: len(self.laterals)]]

    def load_imagenet(self, backbone: str) -> None:
        """Do nothing: the weights are there from the start."""


class ResNetPyramid(Pyramid):
    """ResNet stages at strides 4-32."""

    def __init__(self, backbone: str, norm: str, dim: int, levels: int = len(STRIDES)) -> None:
        build, _, widths = _RESNETS[backbone]
        super().__init__(widths[:levels], dim)
        net: ResNet = build(weights=None, norm_layer=_NORMS[norm])
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.stages = nn.ModuleList([net.layer1, net.layer2, net.layer3, net.layer4][:levels])
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * 255.0, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1) * 255.0, persistent=False)

    def taps(self, x: Tensor) -> list[Tensor]:
        """Return the outputs of the stages."""
        x = self.stem(((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def load_imagenet(self, backbone: str) -> None:
        """Fill stem and stages with torchvision's ImageNet weights, downloading them once.

        Raises:
            CheckpointError: they are neither in torch's cache nor can they be fetched.
        """
        state = imagenet_weights(backbone)
        renamed = {}
        for key, value in state.items():
            if key.startswith("fc.") or key.endswith("num_batches_tracked"):
                continue
            head, _, rest = key.partition(".")
            where = {"conv1": "stem.0", "bn1": "stem.1"}.get(head) or f"stages.{int(head.removeprefix('layer')) - 1}"
            if where.startswith("stages") and int(where[-1]) >= len(self.stages):
                continue
            renamed[f"{where}.{rest}"] = value
        missing, unexpected = self.load_state_dict(renamed, strict=False)
        lost = [k for k in missing if not k.startswith("laterals.")]
        if lost or [k for k in unexpected if "running_" not in k]:
            raise CheckpointError(
                f"The ImageNet weights of {backbone} do not fit: {', '.join((lost + unexpected)[:5])}."
            )


def build_pyramid(backbone: str, norm: str, dim: int, levels: int) -> Pyramid:
    """Return the pyramid of a backbone; ``norm`` matters to ResNets alone."""
    return LitePyramid(dim, levels) if backbone == LITE else ResNetPyramid(backbone, norm, dim, levels)


def imagenet_weights(backbone: str) -> dict[str, Tensor]:
    """Return torchvision's ImageNet state dict of a ResNet from torch's cache, or download it.

    Raises:
        CheckpointError: offline without cache, or the cached file is damaged; says which file belongs where.
    """
    weights = _RESNETS[backbone][1]
    where = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[1]
    try:
        return dict(torch.hub.load_state_dict_from_url(weights.url, progress=False, check_hash=True, weights_only=True))
    except OSError as error:
        raise CheckpointError(
            f"The ImageNet weights of {backbone} cannot be downloaded ({error}). Fetch {weights.url} elsewhere and put "
            f"it at {where}, or train from scratch with --no-pretrained."
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"{where} is damaged ({type(error).__name__}); delete it and start again.") from error
