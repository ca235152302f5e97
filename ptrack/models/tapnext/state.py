"""What a running TAPNext remembers: per token a recurrent state and the last inputs of the convolution along time.

Tokens are those of the image first, then one slot per point. A slot is either a point's or reserved for one that joins
later; reserved slots take part like points whose query has not come yet.

Letters: L blocks, P tokens, n of them of the image, N = P - n slots, C channels, W frames of the convolution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ptrack.models.tapnext.config import TapNextConfig

NEVER = 1 << 40  # frames until the query of a reserved slot


@dataclass(frozen=True, slots=True)
class BlockState:
    """What one block remembers. Float32 whatever the arithmetic's number type."""

    hidden: Tensor  # (P, C) the recurrence's output in the last frame
    inputs: tuple[Tensor, ...]  # W - 1 of (P, C): the convolution's last inputs, oldest first

    @classmethod
    def blank(cls, tokens: int, config: TapNextConfig, device: torch.device) -> BlockState:
        """Return the state before the first frame."""
        hidden, *inputs = (torch.zeros(tokens, config.width, device=device) for _ in range(config.conv_width))
        return cls(hidden, tuple(inputs))

    def grown(self, rows: int) -> BlockState:
        """Return it with ``rows`` more tokens that have seen nothing."""
        zero = self.hidden.new_zeros(rows, self.hidden.shape[1])
        return BlockState(torch.cat([self.hidden, zero]), tuple(torch.cat([x, zero]) for x in self.inputs))

    def rows(self, index: Tensor) -> BlockState:
        """Return it for the tokens ``index`` alone."""
        return BlockState(self.hidden[index], tuple(x[index] for x in self.inputs))


@dataclass(frozen=True, slots=True)
class State:
    """Everything between two frames. Nothing writes into it: an earlier state stays good to go back to."""

    blocks: tuple[BlockState, ...]  # L
    seen: Tensor  # (P, 1) float32: 1 where the token has been through a frame, else 0
    query: Tensor  # (N, C) the token that a point shows once, in its first frame; zeros in reserved slots
    delay: Tensor  # (N,) int64 frames until that; negative afterwards, ``NEVER`` or near it in reserved slots
    count: int = 0  # slots that are points; the others follow them
    frames: int = 0  # seen so far

    @classmethod
    def empty(cls, config: TapNextConfig, device: torch.device) -> State:
        """Return the state of a tracker without points, before its first frame."""
        return cls(
            blocks=tuple(BlockState.blank(config.image_tokens, config, device) for _ in range(config.depth)),
            seen=torch.zeros(config.image_tokens, 1, device=device),
            query=torch.zeros(0, config.width, device=device),
            delay=torch.zeros(0, dtype=torch.int64, device=device),
        )

    @property
    def slots(self) -> int:
        """N, points and reserved slots."""
        return len(self.delay)

    @property
    def image_tokens(self) -> int:
        """n, tokens of the image."""
        return len(self.seen) - self.slots

    def reserved(self, slots: int) -> State:
        """Return it with ``slots`` more reserved slots."""
        if slots < 1:
            return self
        return replace(
            self,
            blocks=tuple(block.grown(slots) for block in self.blocks),
            seen=torch.cat([self.seen, self.seen.new_zeros(slots, 1)]),
            query=torch.cat([self.query, self.query.new_zeros(slots, self.query.shape[1])]),
            delay=torch.cat([self.delay, self.delay.new_full((slots,), NEVER)]),
        )

    def joined(self, query: Tensor, delay: Tensor) -> State:
        """Return it with points in the first reserved slots, or in new ones where these run out.

        Args:
            query: (K, C) their query tokens.
            delay: (K,) int64 frames until they show them, 0 for the next one.
        """
        new = slice(self.count, self.count + len(query))
        state = self.reserved(new.stop - self.slots)
        queries, delays = state.query.clone(), state.delay.clone()
        queries[new], delays[new] = query, delay
        return replace(state, query=queries, delay=delays, count=new.stop)

    def keep(self, index: Tensor) -> State:
        """Return it with only the points ``index`` (K,) int64, in that order, and all reserved slots."""
        n, device = self.image_tokens, index.device
        slots = torch.cat([index, torch.arange(self.count, self.slots, device=device)])
        rows = torch.cat([torch.arange(n, device=device), n + slots])
        return State(
            blocks=tuple(block.rows(rows) for block in self.blocks),
            seen=self.seen[rows],
            query=self.query[slots],
            delay=self.delay[slots],
            count=len(index),
            frames=self.frames,
        )

    def after(self, blocks: tuple[BlockState, ...], frames: int) -> State:
        """Return the state after ``frames`` more frames, which left the ``blocks`` behind."""
        return replace(
            self,
            blocks=blocks,
            seen=torch.ones_like(self.seen),
            delay=self.delay - frames,
            frames=self.frames + frames,
        )
