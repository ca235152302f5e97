"""EfficientNet-Lite0 up to stride 16, for inference: batch norms folded, channels-last, plain convolutions.

Source: "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (arXiv 1905.11946), the Lite variant
(no squeeze-and-excitation, ReLU6). Weights: packaged, see ``ptrack/models/weights/NOTICE``.

Letters: B batch, H W input pixels, multiples of 16.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any, cast

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from ptrack.models.layers.linear import CONVOLVE, convolve, is_inference

BN_EPS = 1e-3
DEPTHS = (1, 2, 2, 3, 3)  # blocks per stage
STRIDES = (1, 2, 2, 2, 1)  # stride of the first block of each stage
TAPS = {1: 24, 2: 40, 4: 112}  # stage -> channels, at strides 4, 8 and 16
FINE = 16  # channels of stage 0, at stride 2
WIDTHS: dict[int, int] = {4: TAPS[1], 8: TAPS[2], 16: TAPS[4], 32: TAPS[4]}  # stride -> channels of an encoder's map
# oneDNN's convolution with bias and ReLU6 applied while a result is in a register, as PyTorch's compiler calls it. At
# 576x432 on one core the network takes 31 ms by it and 38 without: a 1x1 convolution of one frame is else a product of
# matrices with a layout copied before and after, and ReLU6 another pass.
FUSED = CONVOLVE is not None
EXPANDED = 6 << 20  # bytes of a block's widest map that are held at a time; the first would take 19 MB at 512x384


def packaged_weights() -> dict[str, Tensor]:
    """Return the packaged ImageNet weights, float32, with timm's key names (batch norms not folded)."""
    return {k: v.float() for k, v in load(_packaged_bytes()).items()}


def packaged_sha256() -> str:
    """Return the SHA-256 of the packaged weights file."""
    return hashlib.sha256(_packaged_bytes()).hexdigest()


def _packaged_bytes() -> bytes:
    return (resources.files("ptrack.models") / "weights" / "lite0_imagenet.safetensors").read_bytes()


def is_fused(x: Tensor) -> bool:
    """Return whether ``FUSED`` can be used."""
    return FUSED and is_inference(x)


class Conv(nn.Module):
    """A convolution with its batch norm folded in and TensorFlow's "same" padding.

    At stride 2 on an even size, "same" pads one more pixel at the right and bottom than at the left and top. The extra
    is folded into a kernel with a zero first row and column, so that no padded copy of the map is made.
    """

    def __init__(self, weight: Tensor, norm: tuple[Tensor, Tensor, Tensor, Tensor], stride: int, act: bool) -> None:
        super().__init__()
        gain, shift, mean, var = norm
        scale = gain / torch.sqrt(var + BN_EPS)
        weight = weight * scale[:, None, None, None]
        if stride == 2:
            weight = F.pad(weight, (1, 0, 1, 0))
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.bias = nn.Parameter(shift - mean * scale, requires_grad=False)
        self.stride, self.padding, self.act = stride, weight.shape[-1] // 2 - (stride != 1), act
        self.groups = weight.shape[0] if weight.shape[1] == 1 else 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/stride, W/stride)."""
        if not is_fused(x):
            return self.part(x, slice(None))
        stride, padding, act = [self.stride] * 2, [self.padding] * 2, "relu6" if self.act else "none"
        return convolve(x, self.weight, self.bias, stride, padding, [1, 1], self.groups, act)

    def part(self, x: Tensor, channels: slice) -> Tensor:
        """Return some of the channels; a depthwise convolution takes no others."""
        weight = self.weight[channels]
        groups = len(weight) if self.groups > 1 else 1
        y = F.conv2d(x, weight, self.bias[channels], self.stride, self.padding, 1, groups)
        return y.clamp_(0, 6) if self.act else y


class Inverted(nn.Sequential):
    """Expansion, depthwise convolution, projection.

    What happens to one expanded channel does not depend on the others until they are summed: where no gradient is
    needed and convolutions are not fused, as many of them are worked on at a time as fit into ``EXPANDED``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/stride, W/stride)."""
        expand, depthwise, project = (cast(Conv, layer) for layer in self)
        channels = len(expand.weight)
        parts = -(-channels * 4 * x[:, 0].numel() // EXPANDED)
        whole = is_fused(x) or torch.is_grad_enabled() or torch.compiler.is_exporting()
        if parts == 1 or whole or x.device.type != "cpu":
            return super().forward(x)
        size = -(-channels // parts // 16) * 16  # whole vectors

        def share(first: int, bias: Tensor | None) -> Tensor:
            part = slice(first, first + size)
            return F.conv2d(depthwise.part(expand.part(x, part), part), project.weight[:, part], bias)

        total = share(0, project.bias)
        for first in range(size, channels, size):
            total.add_(share(first, None))
        return total


class Lite0(nn.Module):
    """The frozen feature extractor.

    Args:
        weights: tensors named as in timm's ``tf_efficientnet_lite0``, up to ``blocks.4``.
        fine: return the map of stride 2 first, too.
    """

    def __init__(self, weights: dict[str, Tensor], *, fine: bool = False) -> None:
        super().__init__()
        self.taps = {0: FINE, **TAPS} if fine else TAPS

        def conv(name: str, norm: str, stride: int = 1, act: bool = True) -> Conv:
            gain, shift, mean, var = (weights[f"{norm}.{p}"] for p in ("weight", "bias", "running_mean", "running_var"))
            return Conv(weights[f"{name}.weight"], (gain, shift, mean, var), stride, act)

        self.stem = conv("conv_stem", "bn1", 2)
        self.stages = nn.ModuleList()
        for s, depth in enumerate(DEPTHS):
            blocks = nn.ModuleList()
            for b in range(depth):
                p, stride = f"blocks.{s}.{b}", STRIDES[s] if b == 0 else 1
                if s == 0:
                    layers = [conv(f"{p}.conv_dw", f"{p}.bn1"), conv(f"{p}.conv_pw", f"{p}.bn2", act=False)]
                else:
                    layers = [
                        conv(f"{p}.conv_pw", f"{p}.bn1"),
                        conv(f"{p}.conv_dw", f"{p}.bn2", stride),
                        conv(f"{p}.conv_pwl", f"{p}.bn3", act=False),
                    ]
                blocks.append((nn.Sequential if s == 0 else Inverted)(*layers))
            self.stages.append(blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps at strides 4, 8 and 16: (B, 24, H/4, W/4), (B, 40, H/8, W/8), (B, 112, H/16, W/16).

        With ``fine``, (B, 16, H/2, W/2) comes first.

        ``x`` is (B, 3, H, W) RGB, ``(value * 255 - 127) / 128`` for values in 0..1.
        """
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        taps = []
        stages: Any = self.stages
        for s, blocks in enumerate(stages):
            for b, block in enumerate(blocks):
                y = block(x)
                x = y.add_(x) if b > 0 else y
            if s in self.taps:
                taps.append(x)
        return taps


class Lite0Encoder(nn.Module):
    """Lite0 with its packaged ImageNet weights, which stay fixed, as a pyramid of strides 4, 8, 16 and 32.

    The network ends at stride 16: the map of stride 32 is the mean of 2x2 of its cells.
    """

    def __init__(self, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides, self.channels = tuple(strides), lite0_channels(strides)
        self.net = Lite0(packaged_weights())

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) RGB in 0..255 -> one map (B, C, H/s, W/s) per stride s."""
        maps: dict[int, Tensor] = dict(zip(WIDTHS, self.net(normalised(images)), strict=False))
        if 32 in self.strides:
            maps[32] = F.avg_pool2d(maps[16], 2)
        return [maps[s] for s in self.strides]


def lite0_channels(strides: Sequence[int]) -> tuple[int, ...]:
    """Return the channels of an encoder's maps at ``strides``."""
    return tuple(WIDTHS[s] for s in strides)


def normalised(images: Tensor) -> Tensor:
    """Return RGB in 0..255 as the network takes it; not by ImageNet's statistics, as its training did."""
    return (images.float() - 127) / 128


def stretched(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W, 3) RGB in 0..255 -> (B, 3, h, w) as the network takes it, resized to ``size`` (h, w) if it differs."""
    x = frames.permute(0, 3, 1, 2)
    if torch.compiler.is_exporting():
        x = _resized_bytes(x, size)
    elif tuple(x.shape[2:]) != tuple(size):
        if x.dtype == torch.uint8 and x.device.type != "cpu":  # bytes can be resized on CPUs alone, the fastest there
            x = F.interpolate(x.float(), size, mode="bilinear", antialias=True).round()
        else:
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
    return normalised(x)


def _resized_bytes(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, 3, H, W) bytes of any size to ``size`` (h, w), to the last bit as PyTorch does, by products alone.

    For exported graphs. PyTorch resizes bytes along the width, then along the height, with weights of 15 bits, and
    rounds after each; one grey value of difference in 2 % of the pixels moves some points by more than a pixel.
    """
    for axis, target in ((3, size[1]), (2, size[0])):
        weights, unit = _byte_weights(x.shape[axis], target)
        total = x.float() @ weights.T if axis == 3 else weights @ x.float()
        x = ((total + unit / 2) / unit).floor().clamp(0, 255)
    return x


def _byte_weights(source: int, target: int) -> tuple[Tensor, Tensor]:
    """Return whole weights (target, source) of antialiased bilinear resizing, and what stands for 1."""
    scale = torch.full((), source, dtype=torch.float64) / target
    centre = (torch.arange(target, dtype=torch.float64) + 0.5) * scale
    place = torch.arange(source, dtype=torch.float64) + 0.5
    share = (1 - (place - centre[:, None]).abs() / scale.clamp(min=1)).clamp(min=0)
    share = share / share.sum(1, keepdim=True)
    unit = torch.exp2(((2**15 - 0.5) / share.max()).log2().ceil() - 1)
    return (share * unit + 0.5).floor().float(), unit.float()


def joined(taps: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Put maps side by side at the size of the first, each normalised and weighted: (B, h, w, C), unit length."""
    h, w = taps[0].shape[-2:]

    def level(tap: Tensor, weight: float) -> Tensor:
        unit = F.normalize(tap, dim=1) * weight
        up = unit if unit.shape[-2:] == (h, w) else F.interpolate(unit, (h, w), mode="bilinear")
        return up.permute(0, 2, 3, 1)

    if torch.compiler.is_exporting() or any(tap.requires_grad for tap in taps):
        return F.normalize(torch.cat([level(*pair) for pair in zip(taps, weights, strict=True)], dim=-1), dim=-1)
    # Level by level into one map, divided in place: at 512x384 encoding takes 19 MB at most, else 22.
    widths = [tap.shape[1] for tap in taps]
    whole = taps[0].new_empty(len(taps[0]), h, w, sum(widths))
    for part, tap, weight in zip(whole.split(widths, dim=-1), taps, weights, strict=True):
        part.copy_(level(tap, weight))
    return whole.div_(whole.norm(dim=-1, keepdim=True).clamp_(min=1e-12))
