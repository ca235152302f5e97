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
    return _clipwise(lambda part: F.dropout(part, share), x)


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, share: float) -> Tensor:
    """Scaled dot-product attention of (R, h, Q, d) with (R, h, K, d), a ``share`` of its weights dropped.

    Args:
        q: queries.
        k: keys.
        v: values.
        seen: (R or 1, 1, Q or 1, K) bool, True = key seen; None: all are.
        share: of the weights; 0 outside of training.
    """
    if share == 0.0:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)

    def one(*parts: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*parts, dropout_p=share)

    return _clipwise(one, q, k, v, *([] if seen is None else [seen]))


def chosen(shape: Sequence[int], share: float, device: torch.device) -> Tensor:
    """Return a bool tensor of a shape (R, ...), True with probability ``share``."""
    return _clipwise(lambda part: torch.rand_like(part) < share, torch.empty(*shape, device=device))


class Dropout(nn.Module):
    """:func:`dropout` as a layer."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of (R, ...) in training."""
        return dropout(x, self.share, self.training)


def _clipwise(draw: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Call ``draw`` for the rows of one clip after the other, each with that clip's random numbers.

    Tensors with fewer rows than the first one are handed over whole. Split, not sliced: the gradients of slices are as
    many tensors of the full size, filled with zeros and added up (Track-On2's training step: 3 % of the time).
    """
    rows, generator = len(tensors[0]), _generator(tensors[0].device)
    if not _numbers or generator is None:
        return draw(*tensors)
    numbers = _numbers[-1]
    seed = int(torch.randint(2**62, ()))
    before = generator.get_state()
    results = []
    try:
        for number, parts in zip(numbers, _parts(tensors, rows, len(numbers)), strict=True):
            generator.manual_seed((seed + number * _MIX) % 2**63)
            results.append(draw(*parts))
    finally:
        generator.set_state(before)
    return results[0] if len(results) == 1 else torch.cat(results)


def _parts(tensors: Sequence[Tensor], rows: int, clips: int) -> Sequence[Sequence[Tensor]]:
    """Divide tensors of ``rows`` rows by clip: for each clip its part of every tensor."""
    if clips == 1:
        return [tensors]
    return list(zip(*(t.split(rows // clips) if len(t) == rows else [t] * clips for t in tensors), strict=True))


def _generator(device: torch.device) -> torch.Generator | None:
    """Return what torch's own random functions draw from on a device, None where it cannot be had."""
    if device.type == "cpu":
        return torch.default_generator
    if device.type == "cuda":
        return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    return None
