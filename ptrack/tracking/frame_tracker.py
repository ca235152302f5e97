"""A model, its state, and the points that come and go: one frame in, one row out. ``Tracker`` adds whole sources.

Letters: N points in order of addition, H W pixels of the frame.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
import torch

from ptrack import geometry
from ptrack.errors import ModelError, QueryError
from ptrack.models.base import OnlineModel, ReservesSlots
from ptrack.tensors import as_numpy
from ptrack.tracks import Queries
from ptrack.video.arrays import as_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

WAITING = -1  # slot of a point that has not joined the model yet
QueryRows: TypeAlias = "Queries | np.ndarray | torch.Tensor | Sequence[Sequence[float]]"  # (N, 3) rows (t, x, y)
Picture: TypeAlias = "np.ndarray | torch.Tensor | Image"
_Method = TypeVar("_Method", bound=Callable[..., Any])


class StepResult(NamedTuple):
    """One row of tracks, points in order of addition."""

    positions: np.ndarray  # (N, 2) float32 raster pixels; NaN for points that have not started
    visibility: np.ndarray  # (N,) float32 probability in [0, 1]
    confidence: np.ndarray  # (N,) float32 probability in [0, 1] that the position is right


@dataclass
class TrackerState:
    """All that changes while tracking. Saved and restored by ``ptrack.tracking.snapshot``."""

    frame: int = 0  # frames seen since the reset
    size: tuple[int, int] | None = None  # (H, W) that queries and results refer to
    frame_size: tuple[int, int] | None = None  # (H, W) of the frames themselves, once there was one
    model: object | None = None  # the model's own state
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32))  # (N, 3) rows (t, x, y)
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.str_))  # (N,) unicode
    slots: np.ndarray = field(
        default_factory=lambda: np.zeros(0, np.int64)
    )  # (N,) place in the model's state, or WAITING
    unchecked: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # (N,) must be found inside when they join
    used: int = 0  # slots in use in the model, support points included
    support: bool = False  # the support grid has been added
    next_id: int = 0  # the smallest number not yet given as an id


def locked(method: _Method) -> _Method:
    """Let one thread at a time into the tracker."""

    @functools.wraps(method)
    def alone(self: FrameTracker, *args: Any, **kwargs: Any) -> Any:
        with self.lock:
            return method(self, *args, **kwargs)

    return cast(_Method, alone)


class FrameTracker:
    """Tracks points through a stream of frames in constant memory; ``reset``, ``add`` points, then ``step``.

    Calls from several threads take turns; hold ``lock`` over calls that belong together.
    Its arguments are those of ``ptrack.Tracker``.
    """

    def __init__(
        self,
        model: OnlineModel,
        *,
        support_grid: int | None = None,
        weights_sha256: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if support_grid is not None and support_grid < 0:
            raise ModelError(f"support_grid is {support_grid}; give the number of points per side, 0 for none.")
        self.model = model
        self.support_grid = model.support_grid if support_grid is None else support_grid
        self.weights_sha256 = weights_sha256
        self.options = dict(options or {})
        self.lock = threading.RLock()
        self.state = TrackerState()

    def __repr__(self) -> str:
        return f"Tracker({self.model.name}, {self.model.device}, {len(self.ids)} points, frame {self.state.frame})"

    @property
    def ids(self) -> np.ndarray:
        """(N,) ids in the order of the rows that ``step`` returns."""
        return self.state.ids

    @locked
    def reset(self, size: tuple[int, int] | None = None) -> None:
        """Forget all points and frames.

        Args:
            size: (H, W) that queries and results refer to; by default that of the first frame. Frames of another size
                are the same picture, reduced.
        """
        self.state = TrackerState(size=size)

    @locked
    def add(
        self,
        queries: QueryRows | Iterable[Any],
        ids: Iterable[Any] | None = None,
        *,
        check_inside: bool = True,
    ) -> np.ndarray:
        """Add points; they join on their frame ``t``, counted from 0 at the reset.

        Args:
            queries: ``Queries``, (N, 3) rows (t, x, y), or (N, 2) rows (x, y) that join on the next frame.
            ids: N names; by default those of ``Queries``, or the next free numbers.
            check_inside: refuse points outside the frame. Benchmarks query hidden points that lie there.

        Returns:
            (N,) the ids given.

        Raises:
            QueryError: malformed points, a ``t`` that has passed, an id in use, a point outside the frame.
        """
        s = self.state
        named = isinstance(queries, Queries) or ids is not None
        new = self._queries(queries, ids)
        if (new.t < s.frame).any():
            i = int(np.flatnonzero(new.t < s.frame)[0])
            raise QueryError(
                f"Query {new.ids[i]} starts at frame {new.t[i]}, but the tracker is at frame {s.frame} already."
            )
        if s.size is not None and check_inside:
            new.check_inside(s.size)
        names = new.ids if named else np.asarray([str(s.next_id + i) for i in range(len(new))], dtype=np.str_)
        taken = set(s.ids) & set(names)
        if taken:
            raise QueryError(f"The id '{min(taken)}' is already in use; ids must be unique.")
        s.points = np.concatenate([s.points, new.points])
        s.ids = np.concatenate([s.ids, names])
        s.slots = np.concatenate([s.slots, np.full(len(new), WAITING)])
        s.unchecked = np.concatenate([s.unchecked, np.full(len(new), check_inside and s.size is None)])
        s.next_id = max([s.next_id, *(int(i) + 1 for i in names if i.isdecimal())])
        return names

    def _queries(self, queries: Any, ids: Iterable[Any] | None) -> Queries:
        if isinstance(queries, Queries):
            return queries if ids is None else Queries(queries.points, ids)
        rows = as_numpy(queries)
        array = np.asarray(rows if isinstance(rows, np.ndarray) else list(rows))
        if array.ndim == 2 and array.shape[1] == 2:
            array = np.column_stack([np.full(len(array), self.state.frame), array])
        return Queries(array, ids)

    @locked
    def remove(self, ids: Iterable[Any]) -> None:
        """Stop tracking some points; raises QueryError for an unknown id.

        The others go on; where a model's points see each other (Track-On2, TAPNext), their tracks may change.
        """
        s = self.state
        gone = {str(i) for i in ids}
        unknown = gone - set(s.ids)
        if unknown:
            raise QueryError(f"There is no point with the id '{min(unknown)}' to remove.")
        stay = np.asarray([i not in gone for i in s.ids], dtype=bool)
        leaving = set(s.slots[~stay & (s.slots != WAITING)].tolist())
        if leaving:
            keep = [slot for slot in range(s.used) if slot not in leaving]
            with torch.inference_mode():
                s.model = self.model.keep(s.model, torch.tensor(keep, dtype=torch.int64))
            moved = np.full(s.used, WAITING)
            moved[keep] = np.arange(len(keep))
            s.slots = np.where(s.slots == WAITING, WAITING, moved[s.slots])
            s.used = len(keep)
        s.points, s.ids, s.slots, s.unchecked = s.points[stay], s.ids[stay], s.slots[stay], s.unchecked[stay]

    @locked
    def step(self, frame: Picture | None) -> StepResult:
        """Track all points into the next frame.

        Args:
            frame: (H, W, 3) uint8 RGB, or another picture that ``ptrack.open_source`` takes as one of its frames; None
                for a frame that is missing: time passes, positions are NaN.

        Returns:
            Positions, visibility and confidence of all points in order of addition.

        Raises:
            QueryError: a point that joins now lies outside the frame.
            InputError: the frame is no picture, or its numbers are not those of one.
            ModelError: the frame is of another size than those before it.
        """
        if frame is None:
            return self.step_features(None, None)
        tensor = as_frame(frame)
        size = (tensor.shape[0], tensor.shape[1])
        self._check_size(size)
        if not self.needs_features():
            return self.step_features(None, size)
        with torch.inference_mode():
            features = self.model.encode(tensor[None])[0]
        return self.step_features(features, size)

    def _check_size(self, size: tuple[int, int]) -> None:
        """Refuse a frame that cannot be the next one: a model's state belongs to one size of frames."""
        (h, w), s = size, self.state
        if s.frame_size is not None and size != s.frame_size:
            raise ModelError(
                f"Frame {s.frame} is {w}x{h}, but the frames before it are {s.frame_size[1]}x{s.frame_size[0]}; "
                "resize it, or call reset() where another video begins."
            )
        if s.frame_size is None and s.size is not None and abs(w * s.size[0] - h * s.size[1]) > sum(s.size):
            raise ModelError(
                f"A {w}x{h} frame is not the {s.size[1]}x{s.size[0]} picture reduced, as reset(size=(height, width)) "
                "announced; its sides have another ratio."
            )

    def needs_features(self, ahead: int = 0) -> bool:
        """Return whether the frame ``ahead`` frames from now has any point to track."""
        s = self.state
        waited_for = bool((s.points[:, 0] <= s.frame + ahead).any())
        return s.used > 0 or waited_for or self._support_joins() or self._sees_all()

    def _sees_all(self) -> bool:
        """Whether the model needs every frame because later points take part as well: see ``ReservesSlots``."""
        if not isinstance(self.model, ReservesSlots):
            return False
        return self.state.model is not None or len(self.state.ids) > 0 or self.model.reserve > 0

    def _support_joins(self) -> bool:
        """The support grid joins on the first frame once there is any point, even one that starts later."""
        return self.support_grid > 0 and not self.state.support and len(self.state.ids) > 0

    @locked
    def step_features(self, features: Any, size: tuple[int, int] | None) -> StepResult:
        """Like ``step``, for a frame that ``model.encode`` has seen already; ``size`` is its (H, W), None if missing.

        ``features=None``: the frame is missing, or no point needs it.
        """
        s = self.state
        if size is not None:
            self._check_size(size)
            s.frame_size, s.size = size, s.size or size
        n = len(s.ids)
        positions = np.full((n, 2), np.nan, np.float32)
        visibility, confidence = np.zeros(n, np.float32), np.zeros(n, np.float32)
        starting = (s.slots == WAITING) & (s.points[:, 0] <= s.frame)
        needed = bool(starting.any()) or s.used > 0 or self._support_joins() or self._sees_all()
        if features is not None and size is not None and needed:
            with torch.inference_mode():
                self._join(features, size, starting)
                s.model, out = self.model.step(s.model, features)
            at = s.slots != WAITING
            index = s.slots[at]
            positions[at] = geometry.rescale(out.xy.float().cpu().numpy()[index], size, s.size or size)
            visibility[at] = out.visibility.float().cpu().numpy()[index]
            confidence[at] = out.confidence.float().cpu().numpy()[index]
            # The query is the truth on its own frame, whatever the model predicts there.
            first = starting & (s.points[:, 0] == s.frame)
            positions[first], visibility[first], confidence[first] = s.points[first, 1:], 1, 1
        s.frame += 1
        return StepResult(positions, visibility, confidence)

    def _join(self, features: Any, size: tuple[int, int], starting: np.ndarray) -> None:
        """Hand the points that start now, and once the support grid behind them, to the model."""
        s = self.state
        first = s.model is None
        if first:
            s.model = self.model.init_state()
        if starting.any():
            late = starting & s.unchecked
            if late.any():
                Queries(s.points[late], s.ids[late]).check_inside(s.size or size)
            s.slots[starting] = s.used + np.arange(int(starting.sum()))
            self._give(features, geometry.rescale(s.points[starting, 1:], s.size or size, size))
        if self._support_joins():
            self._give(features, geometry.support_points(self.support_grid, size))
            s.support = True
        if first and isinstance(self.model, ReservesSlots):
            later = int((s.slots == WAITING).sum())
            s.model = self.model.reserve_slots(s.model, later + self.model.reserve)

    def _give(self, features: Any, xy: np.ndarray) -> None:
        points = torch.from_numpy(np.ascontiguousarray(xy)).to(self.model.device)
        self.state.model = self.model.add(self.state.model, features, points)
        self.state.used += len(xy)


def as_frame(frame: Picture) -> torch.Tensor:
    """Return a frame as a (H, W, 3) uint8 tensor, without copying where it is one; InputError for no picture."""
    if isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.flags.writeable and frame.flags.c_contiguous:
        tensor = torch.from_numpy(frame)
    elif isinstance(frame, torch.Tensor):
        tensor = frame
    else:
        return torch.from_numpy(as_rgb(frame, "The frame").copy())
    if tensor.dtype == torch.uint8 and tensor.ndim == 3 and tensor.shape[2] == 3:
        return tensor
    return torch.from_numpy(as_rgb(frame, "The frame").copy())
