"""ViT-Adapter (arXiv 2205.08534) as in Track-On2: a convolution branch that trades features with a frozen DINO.

The transformer sees 1/14 or 1/16 of the resolution; a small convolution network (the spatial prior) sees all of it.
Four times, the prior's features are injected into the transformer's tokens before three blocks and extracted again
after them.

Letters: B images, P transformer patches, S tokens of the strides 8, 16 and 32, E transformer width, D output width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ptrack.models.backbones.imagenet import normalised
from ptrack.models.backbones.vit import Vit
from ptrack.models.layers.deformable import DeformableAttention, Shapes, cell_centres
from ptrack.models.layers.linear import Linear, linear_add

NORM_EPS = 1e-6  # of the adapter's own LayerNorms
STAGES = ((0, 3), (3, 6), (6, 9), (9, 12))  # transformer blocks of the four interactions
STRIDES = (4, 8, 16, 32)


def _conv(cin: int, cout: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]


class SpatialPrior(nn.Module):
    """Convolutions that keep the detail which patches lose."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(3, 64, 2), *_conv(64, 64, 1), *_conv(64, 64, 1), nn.MaxPool2d(3, 2, 1))
        self.conv2 = nn.Sequential(*_conv(64, 128, 2))
        self.conv3 = nn.Sequential(*_conv(128, 256, 2))
        self.conv4 = nn.Sequential(*_conv(256, 256, 2))
        self.fc1 = nn.Conv2d(64, width, 1)
        self.fc2 = nn.Conv2d(128, width, 1)
        self.fc3 = nn.Conv2d(256, width, 1)
        self.fc4 = nn.Conv2d(256, width, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) -> the 64-channel stride-4 map (before ``fc1``) and the E-channel maps of strides 8, 16, 32."""
        x4 = self.stem(images.contiguous(memory_format=torch.channels_last))
        x8 = self.conv2(x4)
        x16 = self.conv3(x8)
        return x4, [self.fc2(x8), self.fc3(x16), self.fc4(self.conv4(x16))]


class _DepthwiseConv(nn.Module):
    """A depth-wise 3x3 convolution over the three maps that a token list holds, with the same weights."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, 1, 1, groups=dim)

    def forward(self, tokens: Tensor, shapes: Shapes) -> Tensor:
        parts = []
        for part, (h, w) in zip(tokens.split([h * w for h, w in shapes], dim=1), shapes, strict=True):
            image = part.unflatten(1, (h, w)).permute(0, 3, 1, 2)
            parts.append(self.dwconv(image).flatten(2).transpose(1, 2))
        return torch.cat(parts, dim=1)


class _ConvFeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, width // 4)
        self.dwconv = _DepthwiseConv(width // 4)
        self.fc2 = Linear(width // 4, width)

    def forward(self, tokens: Tensor, shapes: Shapes, residual: Tensor) -> Tensor:
        hidden = F.gelu(self.dwconv(self.fc1(tokens), shapes))
        return linear_add(hidden, self.fc2.weight, self.fc2.bias, residual)


class Injector(nn.Module):
    """Patch tokens look at the prior's three maps; ``gamma`` starts at 0, so that training starts from plain DINO."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(width))
        self.query_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.feat_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = DeformableAttention(width, heads, levels=3)

    def forward(self, x: Tensor, reference: Tensor, c: Tensor, shapes: Shapes) -> Tensor:
        """Patch tokens (B, P, E), their reference points (1, P, 1, 1, 2), prior tokens (B, S, E) -> (B, P, E)."""
        values = self.attn.values(self.feat_norm(c))
        seen = self.attn(self.query_norm(x)[:, :, None], reference, values, shapes)[:, :, 0]
        return x + self.gamma * seen


class Extractor(nn.Module):
    """The prior's tokens look at the patch tokens, then at their neighbours."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.feat_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = DeformableAttention(width, heads, levels=1)
        self.ffn = _ConvFeedForward(width)
        self.ffn_norm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, c: Tensor, reference: Tensor, x: Tensor, grid: Shapes, shapes: Shapes) -> Tensor:
        """Prior tokens (B, S, E), their reference points (1, S, 1, 1, 2), patch tokens (B, P, E) -> (B, S, E)."""
        values = self.attn.values(self.feat_norm(x))
        c = c + self.attn(self.query_norm(c)[:, :, None], reference, values, grid)[:, :, 0]
        return self.ffn(self.ffn_norm(c), shapes, c)


class Interaction(nn.Module):
    """Inject, run transformer blocks (done by the caller), extract."""

    def __init__(self, width: int, heads: int, extra: int) -> None:
        super().__init__()
        self.injector = Injector(width, heads)
        self.extractor = Extractor(width, heads)
        self.extra_extractors = nn.ModuleList([Extractor(width, heads) for _ in range(extra)]) if extra else None

    def extractors(self) -> list[nn.Module]:
        """The extractor and, in the last stage, the two extra ones."""
        return [self.extractor, *(self.extra_extractors or ())]


class VitAdapter(nn.Module):
    """Pyramid of strides 4, 8, 16 and 32 from a frozen DINO and a trained adapter."""

    strides = STRIDES

    def __init__(self, name: str, upsample: float, *, checkpoint: bool = False) -> None:
        super().__init__()
        self.vit = Vit(name)
        width, heads = self.vit.spec.width, self.vit.heads
        self.upsample, self.checkpoint = upsample, checkpoint
        self.level_embed = nn.Parameter(torch.randn(3, width))
        self.spm = SpatialPrior(width)
        self.interactions = nn.ModuleList([Interaction(width, heads, 2 * (i == 3)) for i in range(4)])
        self.up = nn.ConvTranspose2d(width, width, 2, 2)
        self.norm1 = nn.BatchNorm2d(width)
        self.norm2 = nn.BatchNorm2d(width)
        self.norm3 = nn.BatchNorm2d(width)
        self.norm4 = nn.BatchNorm2d(width)
        self.channels = (width,) * 4
        for part in (self.spm, self.interactions, self.up):
            part.apply(_initialise)

    def vit_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The transformer's input size (H, W) for images of ``size``: scaled, then cut to whole patches."""
        p = self.vit.spec.patch
        h, w = (int(n * self.upsample) // p * p for n in size)
        return h, w

    def interact(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Everything before the last linear steps: the 64-channel stride-4 map and E-channel maps of strides 8-32."""
        images = normalised(images)
        size = (images.shape[2], images.shape[3])
        small = self.vit_size(size)
        vit_images = images if small == size else F.interpolate(images, size=small, mode="bilinear")
        stem, maps = self.spm(images)
        shapes = tuple((m.shape[2], m.shape[3]) for m in maps)
        c = [m.flatten(2).transpose(1, 2) + e for m, e in zip(maps, self.level_embed, strict=True)]
        tokens, rope = self.vit.embed(vit_images)
        c = self._stages(torch.cat(c, dim=1), tokens, rope, shapes, small)
        parts = c.split([h * w for h, w in shapes], dim=1)
        return stem, [p.unflatten(1, s).permute(0, 3, 1, 2) for p, s in zip(parts, shapes, strict=True)]

    def _stages(self, c: Tensor, tokens: Tensor, rope: Tensor | None, shapes: Shapes, small: tuple[int, int]) -> Tensor:
        patch, prefix = self.vit.spec.patch, self.vit.prefix
        grid: Shapes = ((small[0] // patch, small[1] // patch),)
        patch_points = cell_centres(grid, c.device)[None, :, None, None]
        prior_points = cell_centres(shapes, c.device)[None, :, None, None]

        def stage(interaction: Any, first: int, last: int, c: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
            x = interaction.injector(tokens[:, prefix:], patch_points, c, shapes)
            tokens = self.vit.run(torch.cat([tokens[:, :prefix], x], dim=1), first, last, rope)
            for extractor in interaction.extractors():
                c = extractor(c, prior_points, tokens[:, prefix:], grid, shapes)
            return c, tokens

        for interaction, (first, last) in zip(self.interactions, STAGES, strict=True):
            if self.checkpoint and torch.is_grad_enabled():
                c, tokens = checkpoint(stage, interaction, first, last, c, tokens, use_reentrant=False)
            else:
                c, tokens = stage(interaction, first, last, c, tokens)
        return c

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) RGB in 0..255, H and W multiples of 32 -> maps (B, E, H/s, W/s) for s = 4, 8, 16, 32."""
        stem, (c8, c16, c32) = self.interact(images)
        c4 = self.up(c8) + self.spm.fc1(stem)
        norms = (self.norm1, self.norm2, self.norm3, self.norm4)
        return [norm(c) for norm, c in zip(norms, (c4, c8, c16, c32), strict=True)]


def _initialise(module: nn.Module) -> None:
    """Track-On2's initial values; the deformable layers set their own (they come last in their constructors)."""
    if isinstance(module, DeformableAttention):
        module.reset_parameters()  # ``apply`` visits children first: this undoes the Linear rule for its layers
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
