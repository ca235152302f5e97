"""DINOv2 and DINOv3 vision transformers: timm's layers, with the position handling that Track-On2's weights expect.

Differences from timm's own forward: DINOv2's position embedding is resized bicubically WITHOUT antialiasing, DINOv3's
rotary table is computed in float32 from ``100 ** (-i / 16)``, and the final LayerNorm is never applied.

Letters: B images, P patches, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptrack.models.layers.attention import join_heads
from ptrack.models.layers.linear import linear

Grid = tuple[int, int]  # patches along (height, width)


@dataclass(frozen=True, kw_only=True)
class VitSpec:
    """One of the pretrained transformers."""

    timm: str  # architecture name in timm
    weights: str  # timm's name of the pretrained weights
    patch: int  # pixels
    width: int  # channels
    upsample: float  # scale of the transformer's input in Track-On2
    rotary: bool  # DINOv3
    licence: str


VITS = {
    "dinov2_s": VitSpec(
        timm="vit_small_patch14_dinov2", weights="vit_small_patch14_dinov2.lvd142m",
        patch=14, width=384, upsample=1.0, rotary=False, licence="Apache-2.0",
    ),
    "dinov2_b": VitSpec(
        timm="vit_base_patch14_dinov2", weights="vit_base_patch14_dinov2.lvd142m",
        patch=14, width=768, upsample=1.0, rotary=False, licence="Apache-2.0",
    ),
    # The "_qkvb" definitions carry the query and value biases of the original files (zero in the released weights).
    "dinov3_s": VitSpec(
        timm="vit_small_patch16_dinov3_qkvb", weights="vit_small_patch16_dinov3.lvd1689m",
        patch=16, width=384, upsample=1.143, rotary=True, licence="DINOv3 License",
    ),
    "dinov3_s_plus": VitSpec(
        timm="vit_small_plus_patch16_dinov3_qkvb", weights="vit_small_plus_patch16_dinov3.lvd1689m",
        patch=16, width=384, upsample=1.143, rotary=True, licence="DINOv3 License",
    ),
    "dinov3_b": VitSpec(
        timm="vit_base_patch16_dinov3_qkvb", weights="vit_base_patch16_dinov3.lvd1689m",
        patch=16, width=768, upsample=1.143, rotary=True, licence="DINOv3 License",
    ),
}  # fmt: skip


def rotary_table(grid: Grid, head_dim: int, *, scale: float = 1.0, device: torch.device | None = None) -> Tensor:
    """Return DINOv3's rotary table as (P, 2 * head_dim) float32: the sines, then the cosines of every channel.

    ``scale`` multiplies all coordinates, which lie in [-1, 1] along both axes (used in training only).
    """
    quarter = head_dim // 4
    frequency = 100.0 ** -(torch.arange(quarter, dtype=torch.float32, device=device) / quarter)
    axes = [2 * (torch.arange(n, dtype=torch.float32, device=device) + 0.5) / n - 1 for n in grid]
    y, x = torch.meshgrid(*axes, indexing="ij")
    yx = torch.stack([y, x], -1).flatten(0, 1) * scale  # (P, 2)
    angle = (2 * math.pi * yx[:, :, None] * frequency).flatten(1).tile(2)  # (P, head_dim)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def rotate(x: Tensor, table: Tensor, prefix: int) -> Tensor:
    """Rotate the patch tokens of (B, h, prefix + P, d) queries or keys by a :func:`rotary_table`."""
    sin, cos = table.chunk(2, dim=-1)
    half = x.shape[-1] // 2
    sin = torch.cat([-sin[:, :half], sin[:, half:]], dim=-1)
    patches = x[:, :, prefix:]
    swapped = torch.cat([patches[..., half:], patches[..., :half]], dim=-1)
    turned = torch.addcmul(patches * cos, swapped, sin).to(x.dtype)
    return torch.cat([x[:, :, :prefix], turned], dim=2)


def resize_positions(positions: Tensor, grid: Grid) -> Tensor:
    """Resize DINOv2's (1, 1 + G * G, C) embedding: the class entry (1, 1, C) and the patches' (1, P, C), joined."""
    side = math.isqrt(positions.shape[1] - 1)
    table = positions[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    table = F.interpolate(table, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], table.flatten(2).transpose(1, 2)], dim=1)


class Vit(nn.Module):
    """A frozen DINO transformer whose blocks are run in groups by the adapter."""

    def __init__(self, name: str) -> None:
        """Build ``VITS[name]`` without weights: nothing is downloaded."""
        import timm

        super().__init__()
        spec = VITS[name]
        model: Any = timm.create_model(spec.timm, pretrained=False, num_classes=0)
        self.spec = spec
        self.patch_proj: nn.Conv2d = model.patch_embed.proj
        self.cls_token: nn.Parameter = model.cls_token
        self.reg_token: nn.Parameter | None = model.reg_token
        self.pos_embed: nn.Parameter | None = None if spec.rotary else model.pos_embed
        self.blocks: Any = model.blocks
        self.norm = model.norm  # in the official files, never applied
        self.heads: int = model.blocks[0].attn.num_heads
        self.prefix: int = 1 if self.reg_token is None else 1 + self.reg_token.shape[1]
        self.requires_grad_(False)
        self._tables: dict[tuple, Tensor] = {}  # position tables by grid, device and type; dropped when weights change

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        self._tables.clear()
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, *args, **kwargs):
        self._tables.clear()
        return super()._apply(*args, **kwargs)

    def _table(self, grid: Grid) -> Tensor:
        """The added (DINOv2) or rotary (DINOv3) table of a token grid, computed once per grid."""
        key = (grid, self.cls_token.device, self.cls_token.dtype)
        if key not in self._tables:
            with torch.inference_mode(False), torch.no_grad():  # cached: must stay usable in training
                self._tables[key] = (
                    rotary_table(grid, self.spec.width // self.heads, device=self.cls_token.device)
                    if self.pos_embed is None
                    else resize_positions(self.pos_embed, grid)
                )
        return self._tables[key]

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Turn (B, 3, H, W) normalised images into (B, prefix + P, C) tokens and the rotary table, if any.

        In training DINOv3's table gets one random log-uniform scale in [1/2, 2] per call, as in its own training.
        """
        x = self.patch_proj(images)
        grid = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)
        parts = [self.cls_token] if self.reg_token is None else [self.cls_token, self.reg_token]
        x = torch.cat([part.expand(len(x), -1, -1) for part in parts] + [x], dim=1)
        if self.pos_embed is not None:
            return x + self._table(grid), None
        if self.training:
            scale = float(2.0 ** (2 * torch.rand(()) - 1))
            return x, rotary_table(grid, self.spec.width // self.heads, scale=scale, device=x.device)
        return x, self._table(grid)

    def run(self, x: Tensor, first: int, last: int, rope: Tensor | None) -> Tensor:
        """Apply blocks ``first`` .. ``last - 1`` to (B, prefix + P, C) tokens."""
        for block in self.blocks[first:last]:
            x = self._block(block, x, rope)
        return x

    def _block(self, block: Any, x: Tensor, rope: Tensor | None) -> Tensor:
        """timm's block with fused layers: attention and feed-forward, each behind a LayerNorm, scaled and added."""
        attn, mlp = block.attn, block.mlp
        y = linear(block.norm1(x), attn.qkv.weight, self._qkv_bias(attn))
        q, k, v = y.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if rope is not None:
            q, k = rotate(q, rope, self.prefix), rotate(k, rope, self.prefix)
        y = join_heads(F.scaled_dot_product_attention(q, k, v))
        y = linear(y, attn.proj.weight, attn.proj.bias)
        x = torch.addcmul(x, y, block.gamma_1 if self.spec.rotary else block.ls1.gamma)
        y = block.norm2(x)
        if hasattr(mlp, "fc1_g"):
            y = F.silu(linear(y, mlp.fc1_g.weight, mlp.fc1_g.bias)) * linear(y, mlp.fc1_x.weight, mlp.fc1_x.bias)
        else:
            y = linear(y, mlp.fc1.weight, mlp.fc1.bias, "gelu")
        y = linear(y, mlp.fc2.weight, mlp.fc2.bias)
        return torch.addcmul(x, y, block.gamma_2 if self.spec.rotary else block.ls2.gamma)

    @staticmethod
    def _qkv_bias(attn: Any) -> Tensor:
        """DINOv3 stores the query and value biases separately and has none for the keys."""
        q = getattr(attn, "q_bias", None)
        return attn.qkv.bias if q is None else torch.cat([q, torch.zeros_like(q), attn.v_bias])
