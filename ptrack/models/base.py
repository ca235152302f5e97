"""What every tracking model offers to the streaming loop, and nothing more.

An online model sees one frame at a time. All it remembers is in a state: a dataclass whose fields are tensors, plain
numbers or nested such dataclasses, passed in and returned, so that a run can be saved, resumed and inspected.

Letters: B frames in one encoder call, N points, H W pixels of the frame as given, h w of the model's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a model returns about its N points in one frame."""

    xy: Tensor  # (N, 2) float32, raster pixels of the frame as given
    visibility: Tensor  # (N,) float32 probability in [0, 1]
    confidence: Tensor  # (N,) float32 probability in [0, 1] that the position is right


@runtime_checkable
class OnlineModel(Protocol):
    """The calls of an online point tracker. Features and state are opaque to the caller."""

    name: str  # as in ``ptrack models``
    threshold: float  # visibility probability from which a point counts as visible
    support_grid: int  # points per side of an extra grid that is tracked along and gives context; 0: none

    @property
    def memory(self) -> int | None:
        """Frames remembered per point, where their number can be chosen; else None."""
        ...

    @property
    def encode_batch(self) -> int:
        """Frames per ``encode`` call that pay off on this device; results do not depend on it."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights and the state live."""
        ...

    def encode(self, frames: Tensor) -> Sequence[Any]:
        """Turn (B, H, W, 3) uint8 RGB frames into B per-frame features; independent of any state."""
        ...

    def init_state(self) -> Any:
        """Return the state of a tracker without points."""
        ...

    def add(self, state: Any, features: Any, xy: Tensor) -> Any:
        """Return the state with (N_new, 2) points, in pixels of this frame, appended after the present ones."""
        ...

    def keep(self, state: Any, index: Tensor) -> Any:
        """Return the state with only the points of ``index`` (K,) int64, in that order."""
        ...

    def step(self, state: Any, features: Any) -> tuple[Any, StepOutput]:
        """Track all points of the state into this frame. Points added on this frame are tracked too."""
        ...


@runtime_checkable
class ReservesSlots(Protocol):
    """What a model also offers whose points must all take part from the first frame on, also those that join later.

    Such a model sees every frame from the first one on, and every known point has a slot there.
    """

    reserve: int  # slots to keep for points that nobody knows yet

    def reserve_slots(self, state: Any, slots: int) -> Any:
        """Return the state with so many more slots; ``add`` fills them first."""
        ...


@runtime_checkable
class EncodesAhead(Protocol):
    """What a model also offers that gains when frames are encoded beside the step, with half of the threads each."""

    @property
    def encodes_ahead(self) -> range:
        """The numbers of points with which it does on this device; empty: with none."""
        ...


@runtime_checkable
class Configured(Protocol):
    """What a model also offers whose network is decided by a configuration, which a run records."""

    config: Any  # a dataclass, else nothing is recorded


@runtime_checkable
class OwnFrameSize(Protocol):
    """What a model also offers that was published with frames of another size than TAP-Vid's."""

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) of the frames that it is evaluated on."""
        ...
