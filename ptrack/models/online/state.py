"""What a running online tracker remembers: a ring of the last M query tokens of every point.

Letters: B batch (1 when streaming), C rows held in the buffers, N <= C points, M ring slots, S of them in use,
D channels, E = 3 D.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

SMALLEST = 16  # rows of the first buffer; it grows by doubling
PROJECTED = 2048  # rows up to which projections are kept: 216 KiB each at M = 72, 432 MiB in all


@dataclass(frozen=True, slots=True)
class MemoryWindow:
    """The remembered tokens that a step looks at, in the ring's own order."""

    tokens: Tensor  # (B, N, S, D)
    age: Tensor  # (S,) int64, 0 = previous frame
    ignore: Tensor | None  # (B, N, S) bool, True = nothing remembered there; None = all S are filled
    projected: Tensor | None = None  # (B, N, S, E), see ``OnlineState``


@dataclass(frozen=True, slots=True)
class OnlineState:
    """Points and their memory. Rows beyond ``count`` are room to grow.

    The ring is written in place: a state that was passed to ``step`` shares its buffers with the one returned. Call
    :meth:`clone` to keep a point to go back to.
    """

    init: Tensor  # (B, C, D) feature at each query point, sampled once
    slots: Tensor  # (B, C, M, D) query tokens of the last M frames, as a ring
    filled: Tensor  # (B, C) int64 frames remembered, at most M
    count: int = 0  # N, points in use
    cursor: int = 0  # ring slot that is written next
    longest: int = 0  # at least the largest ``filled`` of the points in use
    shortest: int = 0  # at most the smallest ``filled`` of the points in use
    # (B, C, M, E) or None: queries, keys and values that memory attention's first round makes of ``slots``, without
    # the time embedding, which changes with every frame, and without biases. Kept where that saves time.
    projected: Tensor | None = None

    @classmethod
    def empty(
        cls,
        memory: int,
        dim: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        projected: bool = False,
    ) -> OnlineState:
        """Return the state of a tracker without points, that keeps projections of up to ``PROJECTED`` rows or none."""
        return cls(
            projected=torch.zeros(1, 0, memory, 3 * dim, device=device, dtype=dtype) if projected else None,
            init=torch.zeros(1, 0, dim, device=device, dtype=dtype),
            slots=torch.zeros(1, 0, memory, dim, device=device, dtype=dtype),
            filled=torch.zeros(1, 0, device=device, dtype=torch.int64),
        )

    @property
    def memory(self) -> int:
        """M, ring slots per point."""
        return self.slots.shape[2]

    @property
    def capacity(self) -> int:
        """C, rows held."""
        return self.init.shape[1]

    def clone(self) -> OnlineState:
        """Return a copy that shares nothing."""
        projected = None if self.projected is None else self.projected.clone()
        own = {"init": self.init.clone(), "slots": self.slots.clone(), "filled": self.filled.clone()}
        return replace(self, **own, projected=projected)

    def add(self, init: Tensor) -> OnlineState:
        """Append points with the initial features (1, N_new, D), doubling the buffers when they are full."""
        if self.count == 0:
            state = replace(self, cursor=0, longest=0)._grown(init.shape[1])
        else:
            state = self._grown(self.count + init.shape[1])
        new = slice(self.count, self.count + init.shape[1])
        state.init[:, new] = init
        state.filled[:, new] = 0
        return replace(state, count=new.stop, shortest=0)

    def _grown(self, needed: int) -> OnlineState:
        if needed <= self.capacity:
            return self
        rows = max(2 * self.capacity, needed, SMALLEST)

        def grow(x: Tensor) -> Tensor:
            y = x.new_zeros(x.shape[0], rows, *x.shape[2:])
            y[:, : self.count] = x[:, : self.count]
            return y

        projected = None if self.projected is None or rows > PROJECTED else grow(self.projected)
        grown = {"init": grow(self.init), "slots": grow(self.slots), "filled": grow(self.filled)}
        return replace(self, **grown, projected=projected)

    def keep(self, index: Tensor) -> OnlineState:
        """Return the state of the points ``index`` (K,) int64 alone, in that order, in buffers of their own."""
        n = len(index)
        like, kept = self.init, self.projected is not None
        state = OnlineState.empty(self.memory, like.shape[-1], like.device, like.dtype, projected=kept)._grown(n)
        state.init[:, :n] = self.init[:, index]
        state.slots[:, :n] = self.slots[:, index]
        state.filled[:, :n] = self.filled[:, index]
        if self.projected is not None and state.projected is not None:
            state.projected[:, :n] = self.projected[:, index]
        return replace(state, count=n, cursor=self.cursor, longest=self.longest, shortest=self.shortest)

    def whole(self) -> OnlineState:
        """Return the state with every row of its buffers counted as a point: the same shapes until they grow."""
        return replace(self, count=self.capacity, longest=self.memory, shortest=0)

    def used(self) -> Tensor:
        """(C,) bool: the rows that are points."""
        return torch.arange(self.capacity, device=self.init.device) < self.count

    def window(self, *, whole: bool = False) -> MemoryWindow:
        """Return the slots to attend to: those that no point has filled are left out, unless ``whole``.

        Leaving them out changes nothing but the time it takes: they would be masked.
        """
        M, n = self.memory, self.count
        start = (self.cursor - self.longest) % M if self.longest < M else 0
        part = slice(start, start + self.longest)
        if whole or part.stop > M:
            part = slice(0, M)
        used = torch.arange(part.start, part.stop, device=self.slots.device)
        age = (self.cursor - 1 - used) % M
        tokens = self.slots[:, :n, part]
        projected = None if self.projected is None else self.projected[:, :n, part]
        ignore = None if self.shortest >= tokens.shape[2] else age >= self.filled[:, :n, None]
        return MemoryWindow(tokens, age, ignore, projected)

    def remember(self, tokens: Tensor, active: Tensor | None = None, *, projected: Tensor | None = None) -> OnlineState:
        """Return the state with this frame's tokens (B, N, D) as the newest slot.

        Where gradients are recorded, new buffers are made instead of writing into the ring.

        Args:
            tokens: what is remembered.
            active: (B, N) bool; rows that are not yet tracked forget what was written.
            projected: (B, N, E) of the tokens; without them the state keeps projections no longer.
        """
        M, n = self.memory, self.count
        longest, shortest = min(self.longest + 1, M), min(self.shortest + 1, M)
        if torch.is_grad_enabled():
            ordered = self.slots[:, :n].roll(-self.cursor, dims=2) if self.cursor else self.slots[:, :n]
            slots = torch.cat([ordered[:, :, 1:], tokens[:, :, None]], dim=2)  # the oldest slot falls out
            step = torch.ones_like(self.filled) if active is None else active.long()
            filled = ((self.filled + step) * (step > 0)).clamp(max=M)
            return replace(self, slots=slots, filled=filled, cursor=0, longest=longest, shortest=0, projected=None)
        self.slots[:, :n, self.cursor] = tokens
        filled = (self.filled[:, :n] + 1).clamp(max=M)
        self.filled[:, :n] = filled if active is None else filled * active
        shortest = shortest if active is None else 0
        after = replace(self, cursor=(self.cursor + 1) % M, longest=longest, shortest=shortest)
        if self.projected is None or projected is None:
            return replace(after, projected=None)
        self.projected[:, :n, self.cursor] = projected
        return after

    def repeat_newest(self) -> OnlineState:
        """Fill all slots of all rows with the newest one, in place, and return the state: to measure full memories."""
        newest = (self.cursor - 1) % self.memory
        for buffer in (self.slots, self.projected):
            if buffer is not None:
                buffer[:] = buffer[:, :, newest, None].clone()
        self.filled[:] = self.memory
        return replace(self, longest=self.memory, shortest=self.memory)
