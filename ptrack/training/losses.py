"""What the losses of all models share: targets, their masks, and sums exact over any split of a batch.

Every term is ``sum(mask * value) / count``. The counts depend on the targets alone, so they are known before the
forward pass: :func:`count` of all parts of a batch (micro-batches, processes) is summed first, each part then divides
by the total, and parts add up to exactly the loss of the whole batch. The terms themselves stand beside their models in
``ptrack.training.systems``.

Letters: B clips, T frames, N points.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

Terms = dict[str, Tensor]  # name -> scalar; their plain sum is the loss


@dataclass(frozen=True)
class Targets:
    """What a clip's tracks should be, in pixels of the model's input."""

    xy: Tensor  # (B, T, N, 2) float32; finite where `valid`
    visible: Tensor  # (B, T, N) bool
    valid: Tensor  # (B, T, N) bool: the coordinate carries information (padding and gaps do not)
    query_time: Tensor  # (B, N) int64

    def masks(self, *, query_frame: bool = False) -> tuple[Tensor, Tensor]:
        """Return ``(time, point)`` masks, both (B, T, N) bool: supervised at all, and supervised in position.

        ``query_frame`` includes the frame of the query itself, which Track-On2 leaves out.
        """
        t = torch.arange(self.xy.shape[1], device=self.xy.device)[None, :, None]
        start = self.query_time[:, None, :]
        time = (t >= start if query_frame else t > start) & self.valid
        return time, time & self.visible


@dataclass(frozen=True)
class Counts:
    """How many entries each kind of term is averaged over; sums over parts of a batch are plain sums."""

    time: Tensor  # scalar float32
    point: Tensor  # scalar float32

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.time + other.time, self.point + other.point)


def count(targets: Targets) -> Counts:
    """Count the supervised entries of some clips (the query frame itself is left out)."""
    time, point = targets.masks()
    return Counts(time.sum().float(), point.sum().float())


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum in float32 where ``mask``; whatever stands elsewhere plays no part."""
    return torch.where(mask, values.float(), torch.zeros((), device=values.device)).sum()


def cell_index(xy: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Return the row-major cell (...,) int64 of points (..., 2); points outside ``size`` (H, W) get cell 0.

    ``xy`` may hold NaN, which counts as outside.
    """
    h, w = size
    inside = (xy[..., 0] >= 0) & (xy[..., 0] < w) & (xy[..., 1] >= 0) & (xy[..., 1] < h)
    cell = torch.where(inside[..., None], xy, torch.zeros_like(xy)).div(stride).floor().long()
    return cell[..., 1] * (w // stride) + cell[..., 0]


def add_terms(total: Terms, terms: Terms) -> Terms:
    """Return the sums of two sets of terms; a missing name counts as 0."""
    return total | {name: total[name] + value if name in total else value for name, value in terms.items()}


def sum_terms(parts: Iterable[Terms]) -> Terms:
    """Return the sums of many sets of terms."""
    return reduce(add_terms, parts, {})
