"""ResNet (arXiv 1512.03385) as a pyramid of strides 4, 8, 16 and 32, and its ImageNet weights of torchvision.

Letters: B images, H W their size, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.ops.misc import FrozenBatchNorm2d

from ptrack.errors import CheckpointError
from ptrack.models.backbones.imagenet import normalised

STAGES = {4: 1, 8: 2, 16: 3, 32: 4}  # stride -> stages up to it


# torchvision's networks: their best ImageNet weights, and the channels of a stage's output by those inside its blocks.
RESNETS = {"resnet18": ("IMAGENET1K_V1", 1), "resnet34": ("IMAGENET1K_V1", 1), "resnet50": ("IMAGENET1K_V2", 4)}


# Batch: trained along, folded for inference. Frozen: ImageNet's statistics, constant. Group: for training from
# scratch. With the last two, the features of a frame depend on that frame alone, in training as in tracking.
_NORMS: dict[str, Callable[..., nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "frozen": FrozenBatchNorm2d,
    "group": partial(nn.GroupNorm, 32),
}
NORMS = ("frozen", "group")  # of the offline tracker


class ResNetEncoder(nn.Module):
    """Stem and stages.

    Args:
        name: of ``RESNETS``.
        strides: of the maps that are returned, among 4, 8, 16 and 32, in ascending order.
        norm: "batch", "frozen" or "group".
    """

    def __init__(self, name: str, strides: Sequence[int], norm: str = "batch") -> None:
        super().__init__()
        net: Any = get_model(name, weights=None, norm_layer=_NORMS[norm])
        self.name, self.strides = name, tuple(strides)
        self.channels = resnet_channels(name, strides)
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        stages = [net.layer1, net.layer2, net.layer3, net.layer4]
        self.stages = nn.ModuleList(stages[: STAGES[max(strides)]])

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) RGB in 0..255 -> one map (B, C, H/s, W/s) per stride s."""
        x = self.stem(normalised(images).contiguous(memory_format=torch.channels_last))
        maps = []
        for stride, stage in zip(STAGES, self.stages, strict=False):
            x = stage(x)
            if stride in self.strides:
                maps.append(x)
        return maps

    def load_imagenet(self) -> None:
        """Fill stem and stages with torchvision's ImageNet weights, downloading them once.

        Raises:
            CheckpointError: they are neither in torch's cache nor can they be fetched, or they do not fit.
        """
        renamed = {}
        for key, value in imagenet_weights(self.name).items():
            head, _, rest = key.partition(".")
            if head == "fc":
                continue
            where = {"conv1": "stem.0", "bn1": "stem.1"}.get(head) or f"stages.{int(head.removeprefix('layer')) - 1}"
            if where.startswith("stem") or int(where[-1]) < len(self.stages):
                renamed[f"{where}.{rest}"] = value
        missing, unexpected = self.load_state_dict(renamed, strict=False)
        # Group norms have no statistics, frozen ones count nothing.
        unexpected = [k for k in unexpected if "running_" not in k and not k.endswith("num_batches_tracked")]
        if missing or unexpected:
            names = ", ".join((missing + unexpected)[:5])
            raise CheckpointError(f"The ImageNet weights of {self.name} do not fit: {names}.")


def resnet_channels(name: str, strides: Sequence[int]) -> tuple[int, ...]:
    """Return the channels of the maps at ``strides``: 64, 128, 256, 512 times the network's expansion."""
    return tuple(16 * s * RESNETS[name][1] for s in strides)


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """Return torchvision's ImageNet state dict of a ResNet from torch's cache, or download it.

    Raises:
        CheckpointError: offline without cache, or the cached file is damaged; names which file belongs where.
    """
    url = get_model_weights(name)[RESNETS[name][0]].url
    where = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    try:
        return dict(torch.hub.load_state_dict_from_url(url, progress=False, check_hash=True, weights_only=True))
    except OSError as error:
        raise CheckpointError(
            f"The ImageNet weights of {name} cannot be downloaded ({error}). Fetch {url} elsewhere and put "
            f"it at {where}, use --backbone lite0, whose weights come with the package, or train from scratch with "
            "--no-pretrained."
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"{where} is damaged ({type(error).__name__}); delete it and start again.") from error
