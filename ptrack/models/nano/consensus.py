"""Several sizes of one network at once, and where they agree: ``--quality best``.

A small input finds points by what is around them, a large one places them more precisely and loses more of them. Each
member follows every point on its own; the position is that on which the surest agree. Members learn nothing from each
other: doubted points that were also searched for where the others had them were lost more often (see the notebook,
docs/experiments/nano.md).

Letters: B frames, N points, K members, H W pixels of a frame as given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import register_dataclass

from ptrack.geometry import Size
from ptrack.models.base import StepOutput
from ptrack.models.nano.model import Nano
from ptrack.models.nano.state import NanoFeatures, NanoState

NEAR = 3 / 256  # sides of the picture within which two positions agree
LEAST = 0.05  # added to the confidences that weight positions, which may all be 0


@dataclass(frozen=True, slots=True)
class ConsensusFeatures:
    """What every member sees of one frame."""

    members: tuple[NanoFeatures, ...]


@dataclass(frozen=True, slots=True)
class ConsensusState:
    """What every member remembers."""

    members: tuple[NanoState, ...]


for _class in (ConsensusFeatures, ConsensusState):
    register_dataclass(_class)


class Consensus(nn.Module):
    """Members of the same weights and other sizes. Implements ``ptrack.models.base.OnlineModel``.

    Args:
        members: K of them, on one device.
    """

    support_grid = 0
    memory = None

    def __init__(self, members: Sequence[Nano]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.nanos = tuple(members)
        self.name, self.threshold = members[0].name, members[0].threshold

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.nanos[0].device

    @property
    def encode_batch(self) -> int:
        """As for one member."""
        return self.nanos[0].encode_batch

    @property
    def encodes_ahead(self) -> range:
        """The mean of the members': they encode and step one after the other."""
        ranges = [nano.encodes_ahead for nano in self.nanos]
        first, end = (sum(ends) // len(ranges) for ends in zip(*((r.start, r.stop) for r in ranges), strict=True))
        return range(first, end)

    def encode(self, frames: Tensor) -> Sequence[ConsensusFeatures]:
        """Turn (B, H, W, 3) uint8 RGB frames into B per-frame features."""
        each = [nano.encode(frames) for nano in self.nanos]
        return [ConsensusFeatures(features) for features in zip(*each, strict=True)]

    def init_state(self) -> ConsensusState:
        """Return a state without points."""
        return ConsensusState(tuple(nano.init_state() for nano in self.nanos))

    def add(self, state: ConsensusState, features: ConsensusFeatures, xy: Tensor) -> ConsensusState:
        """Append (N, 2) points given in pixels of this frame."""
        parts = zip(self.nanos, state.members, features.members, strict=True)
        return ConsensusState(tuple(nano.add(member, seen, xy) for nano, member, seen in parts))

    def keep(self, state: ConsensusState, index: Tensor) -> ConsensusState:
        """Keep the points of ``index``."""
        parts = zip(self.nanos, state.members, strict=True)
        return ConsensusState(tuple(nano.keep(member, index) for nano, member in parts))

    def step(self, state: ConsensusState, features: ConsensusFeatures) -> tuple[ConsensusState, StepOutput]:
        """Find every point in this frame."""
        parts = zip(self.nanos, state.members, features.members, strict=True)
        states, outputs = zip(*(nano.step(member, seen) for nano, member, seen in parts), strict=True)
        return ConsensusState(states), agreed(outputs, features.members[0].size)


def agreed(outputs: Sequence[StepOutput], size: Size) -> StepOutput:
    """Return the positions on which the surest of K outputs agree.

    "Right" is the mean of all. So is one half of "visible"; the other is the mean of those whose positions were taken:
    a member that lost the point and calls it hidden says little of where the others have it.

    Args:
        outputs: of K members for the same N points.
        size: (H, W) of the frame.
    """
    xy, visible, sure = (
        torch.stack([getattr(out, name) for out in outputs]) for name in ("xy", "visibility", "confidence")
    )
    share = xy / xy.new_tensor([size[1], size[0]])
    near = (share[:, None] - share).norm(dim=-1) < NEAR  # (K, K, N)
    best = (near * sure).sum(1).argmax(0)  # (N,)
    taken = near[best, :, torch.arange(len(best), device=xy.device)].T  # (K, N)
    weight = taken * (sure + LEAST)
    place = (weight[..., None] * xy).sum(0) / weight.sum(0)[:, None]
    agreeing = (taken * visible).sum(0) / taken.sum(0)
    return StepOutput(place, (agreeing + visible.mean(0)) / 2, sure.mean(0))
