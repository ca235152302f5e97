"""Preparing a trained model for inference: batch norms folded, linear steps joined, position tables computed once.

Results stay equal up to rounding. A folded model can neither be trained nor saved; checkpoints are written from the
model as loaded.

Letters: B images, E encoder width, D output width, P8 tokens of stride 8, S tokens of all strides.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ptrack.models.backbones.adapter import VitAdapter
from ptrack.models.layers.attention import MultiHead
from ptrack.models.layers.deformable import DeformableAttention
from ptrack.models.layers.linear import ConvReLU, linear, pack, pack_layers
from ptrack.models.online.backbone import Backbone


def folded(backbone: nn.Module) -> nn.Module:
    """Return the inference form of a ``Backbone`` in evaluation mode, whose encoder it takes over and changes."""
    assert isinstance(backbone, Backbone)
    if isinstance(backbone.encoder, VitAdapter):
        positions = [p.permute(0, 2, 3, 1).flatten(1, 2) for p in backbone.positions()]
        return FoldedAdapter(backbone, positions)
    fold_convolutions(backbone.encoder)
    return backbone


def fold_convolutions(module: nn.Module) -> None:
    """Fold every batch norm that directly follows a convolution among a module's children; fuse ReLUs in sequences."""
    last: tuple[str, nn.Conv2d] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and last is not None:
            setattr(module, last[0], fuse_conv_bn_eval(last[1], child))
            # timm's combined layers also activate
            setattr(module, name, getattr(child, "act", nn.Identity()))
        elif isinstance(child, nn.ReLU) and isinstance(module, nn.Sequential) and last is not None:
            setattr(module, last[0], ConvReLU(cast(nn.Conv2d, getattr(module, last[0]))))
            setattr(module, name, nn.Identity())
            last = None
        elif isinstance(child, nn.Conv2d):
            last = (name, child)
            continue
        else:
            fold_convolutions(child)
            last = None


def pack_model(model: nn.Module) -> None:
    """Lay out the weights of a folded model's products for a CPU, as copies beside the originals."""
    pack_layers(model)
    for part in model.modules():
        if isinstance(part, MultiHead | DeformableAttention):
            part.pack()
        elif isinstance(part, FoldedAdapter):
            pack(part.up_weight, part.stem_weight, *part.weights)


def _after_norm(weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weights of a linear layer (D, E) that includes the batch norm before it."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    return weight * scale, bias + weight @ shift


class FoldedAdapter(nn.Module):
    """ViT-Adapter, its last batch norms, the projections and the position embedding, with the linear steps joined.

    At stride 4 the map ``projection(norm(up(c8) + fc1(stem)))`` is linear in the stride-8 tokens and the 64-channel
    stem: 2.8 instead of 6.6 GFLOP at 384x512.
    """

    offsets: Tensor  # (1, S, D)

    def __init__(self, backbone: Backbone, positions: list[Tensor]) -> None:
        super().__init__()
        adapter = cast(VitAdapter, backbone.encoder)
        fold_convolutions(adapter.spm)
        self.adapter: VitAdapter = adapter
        norms = [cast(nn.BatchNorm2d, getattr(adapter, f"norm{i}")) for i in (1, 2, 3, 4)]
        layers = [cast(nn.Linear, layer[0]) for layer in backbone.projections]  # type: ignore[index]
        merged = [_after_norm(p.weight, p.bias, n) for p, n in zip(layers, norms, strict=True)]
        self.weights = nn.ParameterList([w for w, _ in merged[1:]])
        finest, bias = merged[0]
        up, fc1 = adapter.up, adapter.spm.fc1
        # (E, E, 2, 2) -> rows (di, dj, D) over the columns E of the token at stride 8.
        self.up_weight = nn.Parameter(torch.einsum("do,eoij->ijde", finest, up.weight).flatten(0, 2))
        self.stem_weight = nn.Parameter(finest @ fc1.weight[:, :, 0, 0])
        assert up.bias is not None
        assert fc1.bias is not None
        biases = [bias + finest @ (up.bias + fc1.bias), *(b for _, b in merged[1:])]
        offsets = torch.cat([p + b for p, b in zip(positions, biases, strict=True)], dim=1)
        self.register_buffer("offsets", offsets.contiguous(), persistent=False)
        for name in ("up", "norm1", "norm2", "norm3", "norm4"):
            setattr(adapter, name, None)
        adapter.spm.fc1 = None  # type: ignore[assignment]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in 0..255 -> tokens (B, S, D) of all strides, finest first."""
        stem, maps = self.adapter.interact(images)
        coarse = [m.permute(0, 2, 3, 1) for m in maps]  # (B, h, w, E)
        finest = linear(stem.permute(0, 2, 3, 1), self.stem_weight)  # (B, 2h, 2w, D)
        B, h, w, _ = coarse[0].shape
        raised = linear(coarse[0], self.up_weight).view(B, h, w, 2, 2, -1)
        finest.view(B, h, 2, w, 2, -1).add_(raised.permute(0, 1, 3, 2, 4, 5))
        levels = [finest, *(linear(c, weight) for c, weight in zip(coarse, self.weights, strict=True))]
        tokens = torch.empty_like(
            self.offsets.expand(B, -1, -1), dtype=finest.dtype, memory_format=torch.contiguous_format
        )
        start = 0
        for level in levels:
            part = slice(start, start + level.shape[1] * level.shape[2])
            torch.add(level.flatten(1, 2), self.offsets[:, part], out=tokens[:, part])
            start = part.stop
        return tokens
