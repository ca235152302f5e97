"""TAPNext written down formula by formula, one frame at a time and without any thought of speed.

A second implementation that shares nothing with ``ptrack.models.tapnext``: a dictionary of weights under the published
names goes in. Tests compare against it where nothing was recorded, and ``scripts/tapnext_ratio.py`` times it.

Letters: N points, n image tokens, P = n + N, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def table(raster: int, width: int) -> Tensor:
    """The fixed table of query positions, (raster, raster, width) rows by columns."""
    m = width // 4
    omega = 10000.0 ** (-torch.arange(m, dtype=torch.float64) / (m - 1))
    place = torch.arange(raster, dtype=torch.float64)[:, None] * omega
    x = torch.cat([place.sin(), place.cos()], 1)[None].expand(raster, -1, -1)
    y = torch.cat([place.sin(), place.cos()], 1)[:, None].expand(-1, raster, -1)
    return torch.cat([x, y], -1).float()


class Plain:
    """The network on one clip. ``fused``: attention by PyTorch's fused operator instead of its formula."""

    def __init__(
        self, weights: Weights, *, heads: int, input_size: int = 256, window: int = 20, fused: bool = False
    ) -> None:
        self.w, self.heads, self.window, self.fused = weights, heads, window, fused
        self.depth = 1 + max(int(k.split(".")[1]) for k in weights if k.startswith("blocks."))
        self.patch = weights["lin_proj.weight"].shape[-1]
        self.bins = weights["coordinate_head.6.weight"].shape[0] // 2
        self.width = weights["mask_token"].numel()
        embedding, grid = weights["image_pos_emb"][0], input_size // self.patch
        native = self.bins // self.patch
        if grid != native:
            square = embedding.T.reshape(1, self.width, native, native)
            embedding = F.interpolate(square, size=(grid, grid), mode="bicubic")[0].reshape(self.width, -1).T
        self.pos, self.table = embedding, table(self.bins, self.width)
        self.state: list[tuple[Tensor, Tensor]] | None = None
        self.step = 0

    def image(self, frame: Tensor) -> Tensor:
        """(H, W, 3) uint8 of the input size -> (n, C)."""
        v = frame.float().permute(2, 0, 1)[None] / 127.5 - 1
        x = F.conv2d(v, self.w["lin_proj.weight"], self.w["lin_proj.bias"], stride=self.patch)
        return x[0].flatten(1).T + self.pos

    def points(self, queries: Tensor) -> Tensor:
        """(N, 3) rows (t, x, y) in the raster -> the tokens of the present frame."""
        grid = (2 * queries[:, 1:] / self.bins - 1)[None, :, None]
        here = F.grid_sample(self.table.permute(2, 0, 1)[None], grid, align_corners=False)[0, :, :, 0].T
        d = queries[:, :1] - self.step
        shown = torch.where(d == 0, self.w["point_query_token"].view(-1) + here, self.w["mask_token"].view(-1))
        return torch.where(d > 0, self.w["unknown_token"].view(-1), shown)

    def rms(self, x: Tensor, key: str) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + self.w[key + ".scale"])

    def linear(self, x: Tensor, key: str) -> Tensor:
        return F.linear(x, self.w[key + ".weight"], self.w[key + ".bias"])

    def norm(self, x: Tensor, key: str, eps: float) -> Tensor:
        return F.layer_norm(x, (x.shape[-1],), self.w[key + ".weight"], self.w[key + ".bias"], eps)

    def gate(self, c: Tensor, key: str) -> Tensor:
        blocks = c.unflatten(-1, (self.heads, -1))
        return torch.sigmoid(torch.einsum("pki,kij->pkj", blocks, self.w[key + ".w"]) + self.w[key + ".b"]).flatten(1)

    def along_time(self, x: Tensor, i: int) -> tuple[Tensor, tuple[Tensor, Tensor], dict[str, Tensor]]:
        key = f"blocks.{i}.ssm_block."
        r = self.rms(x, key + "temporal_pre_norm")
        y = self.linear(r, key + "recurrent_block.linear_y")
        u = self.linear(r, key + "recurrent_block.linear_x")
        w = self.w[key + "recurrent_block.conv_1d.w"]
        before = torch.zeros(len(x), len(w) - 1, x.shape[1]) if self.state is None else self.state[i][1]
        inputs = torch.cat([before, u[:, None]], 1)
        c = (inputs * w).sum(1) + self.w[key + "recurrent_block.conv_1d.b"]
        lru = key + "recurrent_block.rg_lru."
        gx, ga = self.gate(c, lru + "input_gate"), self.gate(c, lru + "a_gate")
        log_a = -8 * ga * F.softplus(self.w[lru + "a_param"])
        h = gx * c
        if self.state is not None:
            h = torch.exp(log_a) * self.state[i][0] + torch.sqrt(1 - torch.exp(2 * log_a)) * h
        out = self.linear(h * F.gelu(y, approximate="tanh"), key + "recurrent_block.linear_out")
        x = x + out
        m = self.rms(x, key + "channel_pre_norm")
        up, bias = self.w[key + "mlp_block.ffw_up.w"], self.w[key + "mlp_block.ffw_up.b"]
        wide = F.gelu(m @ up[0] + bias[0, 0], approximate="tanh") * (m @ up[1] + bias[1, 0])
        x = x + self.linear(wide, key + "mlp_block.ffw_down")
        seen = {"rms1": r, "linear_y": y, "linear_x": u, "conv": c, "lru": h, "recurrent_out": out}
        return x, (h, inputs[:, 1:]), seen

    def across(self, x: Tensor, i: int) -> tuple[Tensor, Tensor]:
        key = f"blocks.{i}.vit_block."
        y = self.norm(x, key + "ln_1", 1e-6)
        qkv = F.linear(y, self.w[key + "self_attention.in_proj_weight"], self.w[key + "self_attention.in_proj_bias"])
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(0, 1) for part in qkv.chunk(3, -1))
        if self.fused:
            a = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        else:
            a = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v
        a = self.linear(a.transpose(0, 1).flatten(1), key + "self_attention.out_proj")
        x = x + a
        y = self.norm(x, key + "ln_2", 1e-6)
        return x + self.linear(F.gelu(self.linear(y, key + "mlp.0")), key + "mlp.3"), a

    def head(self, x: Tensor, key: str) -> Tensor:
        for linear, norm in ((0, 1), (3, 4)):
            x = F.gelu(self.norm(self.linear(x, f"{key}.{linear}"), f"{key}.{norm}", 1e-5))
        return self.linear(x, f"{key}.6")

    @torch.inference_mode()
    def frame(self, frame: Tensor, queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Next frame: positions (N, 2) as (x, y) in the raster, coordinate logits (N, 2 * bins), visibility logits."""
        x = torch.cat([self.image(frame), self.points(queries)])
        state = []
        for i in range(self.depth):
            x, after, _ = self.along_time(x, i)
            state.append(after)
            x, _ = self.across(x, i)
        self.state, self.step = state, self.step + 1
        x = self.norm(x, "encoder_norm", 1e-5)[len(x) - len(queries) :]
        logits = self.head(x, "coordinate_head")
        yx = torch.stack([self.soft(part) for part in logits.chunk(2, -1)], -1)
        return yx.flip(-1), logits, self.head(x, "visible_head")[:, 0]

    def soft(self, logits: Tensor) -> Tensor:
        bins = torch.arange(self.bins)
        p = torch.softmax(0.5 * logits, -1) * ((bins - logits.argmax(-1, keepdim=True)).abs() <= self.window)
        return (p / p.sum(-1, keepdim=True) * bins).sum(-1) + 0.5
