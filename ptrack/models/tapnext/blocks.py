"""The block of TAPNext: first along time, every token for itself, then across the tokens of a frame.

The part along time is a gated linear recurrence (RG-LRU of arXiv 2402.19427) behind a short convolution, then a gated
feed-forward part; the part across tokens is a plain ViT block. Parameters have the names of the published files.

Number types: matrix products of the projections, the feed-forward parts and the attention run in the type of their
weights (bfloat16 on GPUs); the tokens between them, norms, convolution, gates and recurrence are float32 always. Decays
in bfloat16 alone would move the logits more than everything else together.

Letters: F frames of one call, P tokens of a frame, C channels, h diagonal blocks of the gates, d = C / h, W frames of
the convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptrack.models.layers.attention import MultiHead
from ptrack.models.tapnext.config import TapNextConfig
from ptrack.models.tapnext.state import BlockState

EPS = 1e-6  # of every norm inside the blocks
DECAY = -8.0  # scale of the recurrence's logarithmic decay


class RmsNorm(nn.Module):
    """Root-mean-square norm whose stored scale is an offset from 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return F.rms_norm(x, self.scale.shape, 1 + self.scale, EPS)


class TimeConv(nn.Module):
    """A causal convolution along time, channel by channel."""

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(frames, width))  # the last row multiplies the current frame
        self.b = nn.Parameter(torch.zeros(width))

    def forward(self, u: Tensor, before: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(F, P, C) inputs and the W - 1 before them -> (F, P, C) outputs and the last W - 1 inputs."""
        frames = [*before, *u.unbind(0)]
        outputs = []
        for t in range(len(u)):
            mixed = torch.addcmul(self.b, frames[t], self.w[0])
            for k in range(1, len(self.w)):
                mixed.addcmul_(frames[t + k], self.w[k])
            outputs.append(mixed)
        return _stacked(outputs), tuple(frames[len(u) :])


class BlockDiagonal(nn.Module):
    """A linear layer whose matrix has ``blocks`` square blocks on its diagonal."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        side = width // blocks
        self.w = nn.Parameter(torch.zeros(blocks, side, side))  # input channel first
        self.b = nn.Parameter(torch.zeros(blocks, side))

    def forward(self, x: Tensor) -> Tensor:
        """(F, P, C) -> (F, P, C)."""
        y = torch.einsum("fphi,hij->fphj", x.unflatten(-1, self.b.shape), self.w)
        return y.add_(self.b).flatten(-2)


class Recurrence(nn.Module):
    """The real-gated linear recurrent unit: ``h = a * h + sqrt(1 - a^2) * gate * x``, its decay ``a`` gated, too."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.a_param = nn.Parameter(torch.zeros(width))
        self.input_gate = BlockDiagonal(width, blocks)
        self.a_gate = BlockDiagonal(width, blocks)

    def forward(self, x: Tensor, h: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """(F, P, C) inputs and the (P, C) state -> (F, P, C) outputs and the state after them.

        Args:
            x: inputs.
            h: the last output, zeros for tokens that have none.
            seen: (F, P, 1) 1, or 0 where a token is in its first frame: there the root is 1.
        """
        log_a = torch.sigmoid(self.a_gate(x)) * (DECAY * F.softplus(self.a_param))
        root = torch.sqrt(1 - torch.exp(2 * log_a) * seen)
        driven = torch.sigmoid(self.input_gate(x)) * x * root
        outputs = []
        for decay, drive in zip(log_a.exp().unbind(0), driven.unbind(0), strict=True):
            h = torch.addcmul(drive, decay, h)
            outputs.append(h)
        return _stacked(outputs), h


class TimeMixing(nn.Module):
    """Recurrence behind a convolution, and a gate beside both."""

    def __init__(self, c: TapNextConfig) -> None:
        super().__init__()
        self.linear_y = nn.Linear(c.width, c.width)
        self.linear_x = nn.Linear(c.width, c.width)
        self.linear_out = nn.Linear(c.width, c.width)
        self.conv_1d = TimeConv(c.width, c.conv_width)
        self.rg_lru = Recurrence(c.width, c.heads)

    def forward(self, x: Tensor, state: BlockState, seen: Tensor) -> tuple[Tensor, BlockState]:
        """(F, P, C) -> (F, P, C) and the state after these frames; ``seen`` as in :class:`Recurrence`."""
        x = x.to(self.linear_y.weight.dtype)
        gate = F.gelu(self.linear_y(x), approximate="tanh")
        mixed, inputs = self.conv_1d(self.linear_x(x).float(), state.inputs)
        h, hidden = self.rg_lru(mixed, state.hidden, seen)
        return self.linear_out(gate * h.to(gate.dtype)), BlockState(hidden, inputs)


class Expansion(nn.Module):
    """The two wide branches of the gated feed-forward part."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, width, hidden))  # the gated branch first; input channel first
        self.b = nn.Parameter(torch.zeros(2, 1, 1, hidden))

    def forward(self, x: Tensor) -> Tensor:
        """(F, P, C) -> (F, P, hidden)."""
        rows = x.flatten(0, 1).to(self.w.dtype)
        # In place, as a bias inside the product is first copied to all rows: 5 % of a step on a CPU.
        gate, wide = (torch.mm(rows, w).add_(b.view(-1)) for w, b in zip(self.w, self.b, strict=True))
        return wide.mul_(F.gelu(gate, approximate="tanh")).unflatten(0, x.shape[:2])


class GatedMlp(nn.Module):
    """A gated feed-forward part."""

    def __init__(self, c: TapNextConfig) -> None:
        super().__init__()
        self.ffw_up = Expansion(c.width, c.hidden)
        self.ffw_down = nn.Linear(c.hidden, c.width)

    def forward(self, x: Tensor) -> Tensor:
        """(F, P, C) -> (F, P, C)."""
        return self.ffw_down(self.ffw_up(x))


class TimeBlock(nn.Module):
    """The part along time: what a token remembers of itself."""

    def __init__(self, c: TapNextConfig) -> None:
        super().__init__()
        self.temporal_pre_norm = RmsNorm(c.width)
        self.recurrent_block = TimeMixing(c)
        self.channel_pre_norm = RmsNorm(c.width)
        self.mlp_block = GatedMlp(c)

    def forward(self, x: Tensor, state: BlockState, seen: Tensor) -> tuple[Tensor, BlockState]:
        """(F, P, C) -> (F, P, C) and the state after these frames."""
        mixed, state = self.recurrent_block(self.temporal_pre_norm(x), state, seen)
        x = x + mixed
        return x + self.mlp_block(self.channel_pre_norm(x)), state


class SpaceBlock(nn.Module):
    """The part across the tokens of a frame, where image and points see each other: a ViT block, pre-norm."""

    def __init__(self, c: TapNextConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(c.width, eps=EPS)
        self.self_attention = MultiHead(c.width, c.heads)
        self.ln_2 = nn.LayerNorm(c.width, eps=EPS)
        # Two names of the published files lie between which others had dropout.
        self.mlp = nn.Sequential(nn.Linear(c.width, c.hidden), nn.GELU(), nn.Identity(), nn.Linear(c.hidden, c.width))

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """(F, P, C) -> (F, P - first, C): the tokens before ``first`` are looked at and not renewed."""
        x = x[:, first:] + self.attend(self.ln_1(x), first)
        return x + self.mlp(self.ln_2(x).to(self.mlp[0].weight.dtype))

    def attend(self, x: Tensor, first: int = 0) -> Tensor:
        """Let the (F, P, C) normed tokens from ``first`` on look at all: (F, P - first, C)."""
        mha = self.self_attention
        x = x.to(mha.in_proj_weight.dtype)
        if first == 0:
            q, k, v = mha.project(x, 0, 3)
        else:
            (q,), (k, v) = mha.project(x[:, first:], 0, 1), mha.project(x, 1, 3)
        return mha.attend(q, k, v)


class Block(nn.Module):
    """Along time, then across tokens."""

    def __init__(self, c: TapNextConfig) -> None:
        super().__init__()
        self.ssm_block = TimeBlock(c)
        self.vit_block = SpaceBlock(c)

    def forward(self, x: Tensor, state: BlockState, seen: Tensor, first: int = 0) -> tuple[Tensor, BlockState]:
        """(F, P, C) -> (F, P - first, C) and the state after these frames."""
        x, state = self.ssm_block(x, state, seen)
        return self.vit_block(x, first), state


def _stacked(frames: list[Tensor]) -> Tensor:
    """Stack (P, C) tensors to (F, P, C); one alone is not copied."""
    return frames[0][None] if len(frames) == 1 else torch.stack(frames)
