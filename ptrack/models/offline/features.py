"""A ResNet turned into a pyramid of normalised feature maps, one set per frame, channels last.

Letters: F frames, L levels (strides 4, 8, 16, 32), h w cells of a level, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
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

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0, 1]
STRIDES = (4, 8, 16, 32)

_RESNETS = {
    "resnet18": (resnet18, W18.IMAGENET1K_V1, (64, 128, 256, 512)),
    "resnet34": (resnet34, W34.IMAGENET1K_V1, (64, 128, 256, 512)),
    "resnet50": (resnet50, W50.IMAGENET1K_V2, (256, 512, 1024, 2048)),
}
BACKBONES = tuple(_RESNETS)


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(32, channels)


# Frozen: ImageNet's statistics, constant. Group: for training from scratch. With both, the features of a frame depend
# on that frame alone, whatever else is in the batch or on the other processes, in training as in tracking.
_NORMS: dict[str, Callable[..., nn.Module]] = {"frozen": FrozenBatchNorm2d, "group": _group_norm}
NORMS = tuple(_NORMS)


class ResNetPyramid(nn.Module):
    """ResNet stages at strides 4-32, merged top-down (arXiv 1612.03144) into maps of equal width.

    Every cell is L2-normalised, so that products of cells are cosines.
    """

    def __init__(self, backbone: str, norm: str, dim: int, levels: int = len(STRIDES)) -> None:
        super().__init__()
        build, _, widths = _RESNETS[backbone]
        net: ResNet = build(weights=None, norm_layer=_NORMS[norm])
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.stages = nn.ModuleList([net.layer1, net.layer2, net.layer3, net.layer4][:levels])
        self.laterals = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in widths[:levels])
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * 255.0, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1) * 255.0, persistent=False)

    def forward(self, frames: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Return L maps (F, h, w, C) float32 for frames (F, H, W, 3) RGB in 0..255, stretched to ``size`` (H, W)."""
        x = frames.permute(0, 3, 1, 2).float()
        if x.shape[-2:] != size:
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
        x = self.stem(((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last))
        maps = []
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            x = stage(x)
            maps.append(lateral(x))
        for i in range(len(maps) - 1, 0, -1):
            up = F.interpolate(maps[i], size=maps[i - 1].shape[-2:], mode="bilinear", align_corners=False)
            maps[i - 1] = maps[i - 1] + up
        return [F.normalize(m.float().permute(0, 2, 3, 1), dim=-1).contiguous() for m in maps]

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
