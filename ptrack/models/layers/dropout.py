"""Random numbers of training that belong to a clip: how a batch is shared out over processes changes none of them.

While :func:`by_clip` is in effect, clip number ``i`` of a step gets the same random numbers whether it shares its batch
with others or not. They come from a seed that torch's CPU generator gives at every call, the same in all processes, and
from the clip's number. Elsewhere these functions are torch's own.

Letters: B clips, R rows, B x (R / B), h heads, Q queries, K keys, d channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MIX = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: neighbouring numbers get seeds far from each other
_numbers: list[Sequence[int]] = []  # clip numbers of the batch, innermost last; autograd's threads read it, too


@contextmanager
def by_clip(numbers: Sequence[int]) -> Iterator[None]:
    """Draw random numbers clip by clip.

    Args:
        numbers: of the B clips of the batch, in its order. The rows of every tensor are those of the first clip, then
            those of the second, and so on.
    """
    _numbers.append(numbers)
    try:
        yield
    finally:
        _numbers.pop()


def dropout(x: Tensor, share: float, training: bool) -> Tensor:
    """Set a ``share`` of the values of (R, ...) to zero and scale the others up, if ``training``."""
    if not training or share == 0.0:
        return x
    if not _numbers:
        return F.dropout(x, share)
    return x * _drawn(x, lambda part, generator: part.bernoulli_(1 - share, generator=generator)).div_(1 - share)


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, share: float) -> Tensor:
    """Scaled dot-product attention of (R, h, Q, d) with (R, h, K, d), a ``share`` of its weights dropped.

    Args:
        q: queries.
        k: keys.
        v: values.
        seen: (R or 1, 1, Q or 1, K) bool, True = key seen, at least one of each row; None: all are.
        share: of the weights; 0 outside of training.
    """
    if share == 0.0 or not _numbers:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=share)
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    return torch.matmul(dropout(scores.softmax(-1), share, True).to(v.dtype), v)


def chosen(shape: Sequence[int], share: float, device: torch.device) -> Tensor:
    """Return a bool tensor of a shape (R, ...), True with probability ``share``."""
    values = torch.empty(*shape, device=device)
    if not _numbers:
        return values.uniform_() < share
    return _drawn(values, lambda part, generator: part.uniform_(generator=generator)) < share


class Dropout(nn.Module):
    """:func:`dropout` as a layer."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of (R, ...) in training."""
        return dropout(x, self.share, self.training)


def _drawn(like: Tensor, draw: Callable[[Tensor, torch.Generator], object]) -> Tensor:
    """Return a tensor of the shape of (R, ...) into which ``draw`` wrote, the rows of each clip with its own generator.

    One product with it then drops the whole batch: activations and their gradients are never divided by clip, and the
    state of torch's own generators is neither read nor put back (5 KB each time, 230 times in Track-On2's step of six
    frames).
    """
    numbers = _numbers[-1]
    seed = int(torch.randint(2**62, ()))
    noise = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    generator = torch.Generator(like.device)
    for number, part in zip(numbers, noise.chunk(len(numbers)), strict=True):
        generator.manual_seed((seed + number * _MIX) % 2**63)
        draw(part, generator)
    return noise
