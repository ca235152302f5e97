"""The tracker: a model, its state, and the points that come and go. One frame in, one row out.

Letters: N points in order of addition, H W pixels of the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ptrack import geometry
from ptrack.errors import ModelError, QueryError
from ptrack.models.base import OnlineModel
from ptrack.tracks import Queries, Tracks

if TYPE_CHECKING:
    from ptrack.video import FrameSource

WAITING = -1  # slot of a point that has not joined the model yet


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
    model: Any = None  # the model's own state
    points: Any = None  # (N, 3) float32 rows (t, x, y)
    ids: Any = None  # (N,) unicode
    slots: Any = None  # (N,) int64 place in the model's state, or WAITING
    used: int = 0  # slots in use in the model, support points included
    support: bool = False  # the support grid has been added
    next_id: int = 0  # the smallest number not yet given as an id


def _fresh(size: tuple[int, int] | None) -> TrackerState:
    return TrackerState(
        size=size, points=np.zeros((0, 3), np.float32), ids=np.zeros(0, np.str_), slots=np.zeros(0, np.int64)
    )


class Tracker:
    """Tracks points through a stream of frames in constant memory.

    Streaming::

        tracker.reset()
        tracker.add([[x, y], ...])
        positions, visibility, confidence = tracker.step(frame)

    Whole videos: ``tracker.track(frames_or_path, queries)``.

    Args:
        model: an online model.
        support_grid: points per side of an extra grid added on the first frame, tracked along and never returned;
            it gives the model context. Default: what the model wants.
        weights_sha256: of the weights file, recorded in the tracks.
    """

    def __init__(self, model: OnlineModel, *, support_grid: int | None = None, weights_sha256: str = "") -> None:
        if support_grid is not None and support_grid < 0:
            raise ModelError(f"support_grid is {support_grid}; give the number of points per side, 0 for none.")
        self.model = model
        self.support_grid = int(getattr(model, "support_grid", 0)) if support_grid is None else support_grid
        self.weights_sha256 = weights_sha256
        self.outside_allowed = False  # benchmarks query hidden points that may lie outside the frame
        self.state = _fresh(None)

    def __repr__(self) -> str:
        return f"Tracker({self.model.name}, {self.model.device}, {len(self.ids)} points, frame {self.state.frame})"

    @property
    def ids(self) -> np.ndarray:
        """(N,) ids in the order of the rows that ``step`` returns."""
        return self.state.ids

    def reset(self, size: tuple[int, int] | None = None) -> None:
        """Forget all points and frames.

        Args:
            size: (H, W) that queries and results refer to; by default that of the first frame. Frames of another size
                are the same picture, reduced.
        """
        self.state = _fresh(size)

    def add(self, queries: Queries | np.ndarray | Iterable[Any], ids: Iterable[Any] | None = None) -> np.ndarray:
        """Add points; they join on their frame ``t``, counted from 0 at the reset.

        Args:
            queries: ``Queries``, (N, 3) rows (t, x, y), or (N, 2) rows (x, y) that join on the next frame.
            ids: N names; by default those of ``Queries``, or the next free numbers.

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
        if s.size is not None and not self.outside_allowed:
            new.check_inside(s.size)
        names = new.ids if named else np.asarray([str(s.next_id + i) for i in range(len(new))], dtype=np.str_)
        taken = set(s.ids) & set(names)
        if taken:
            raise QueryError(f"The id '{min(taken)}' is already in use; ids must be unique.")
        s.points = np.concatenate([s.points, new.points])
        s.ids = np.concatenate([s.ids, names])
        s.slots = np.concatenate([s.slots, np.full(len(new), WAITING)])
        s.next_id = max([s.next_id, *(int(i) + 1 for i in names if i.isdecimal())])
        return names

    def _queries(self, queries: Any, ids: Iterable[Any] | None) -> Queries:
        if isinstance(queries, Queries):
            return queries if ids is None else Queries(queries.points, ids)
        array = np.asarray(queries if isinstance(queries, np.ndarray) else list(queries))
        if array.ndim == 2 and array.shape[1] == 2:
            array = np.column_stack([np.full(len(array), self.state.frame), array])
        return Queries(array, ids)

    def remove(self, ids: Iterable[Any]) -> None:
        """Stop tracking some points; the others go on as they were. Raises QueryError for an unknown id."""
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
        s.points, s.ids, s.slots = s.points[stay], s.ids[stay], s.slots[stay]

    def step(self, frame: np.ndarray | torch.Tensor | None) -> StepResult:
        """Track all points into the next frame.

        Args:
            frame: (H, W, 3) uint8 RGB, or None for a frame that is missing: time passes, positions are NaN.

        Returns:
            Positions, visibility and confidence of all points in order of addition.

        Raises:
            QueryError: a point that joins now lies outside the frame.
            ModelError: the frame is not (H, W, 3) uint8.
        """
        if frame is None:
            return self.step_features(None, (0, 0))
        tensor = as_frame(frame)
        if not self.needs_features():
            return self.step_features(None, (tensor.shape[0], tensor.shape[1]))
        with torch.inference_mode():
            features = self.model.encode(tensor[None])[0]
        return self.step_features(features, (tensor.shape[0], tensor.shape[1]))

    def needs_features(self, ahead: int = 0) -> bool:
        """Return whether the frame ``ahead`` frames from now has any point to track."""
        s = self.state
        return s.used > 0 or self._support_joins() or bool((s.points[:, 0] <= s.frame + ahead).any())

    def _support_joins(self) -> bool:
        """The support grid joins on the first frame once there is any point, even one that starts later."""
        return self.support_grid > 0 and not self.state.support and len(self.state.ids) > 0

    def step_features(self, features: Any, size: tuple[int, int]) -> StepResult:
        """Like ``step``, for a frame that ``model.encode`` has seen already; ``size`` is its (H, W).

        ``features=None``: the frame is missing, or no point needs it.
        """
        s = self.state
        n = len(s.ids)
        positions = np.full((n, 2), np.nan, np.float32)
        visibility, confidence = np.zeros(n, np.float32), np.zeros(n, np.float32)
        starting = (s.slots == WAITING) & (s.points[:, 0] <= s.frame)
        if s.size is None and size != (0, 0):
            s.size = size
        if features is not None and (starting.any() or s.used or self._support_joins()):
            with torch.inference_mode():
                self._join(features, size, starting)
                s.model, out = self.model.step(s.model, features)
            at = s.slots != WAITING
            index = s.slots[at]
            positions[at] = geometry.rescale(out.xy.float().cpu().numpy()[index], size, s.size or size)
            visibility[at] = out.visibility.float().cpu().numpy()[index]
            confidence[at] = out.confidence.float().cpu().numpy()[index]
            # The query is the truth on its own frame, whatever the model says there.
            first = starting & (s.points[:, 0] == s.frame)
            positions[first], visibility[first], confidence[first] = s.points[first, 1:], 1, 1
        s.frame += 1
        return StepResult(positions, visibility, confidence)

    def _join(self, features: Any, size: tuple[int, int], starting: np.ndarray) -> None:
        """Hand the points that start now, and once the support grid behind them, to the model."""
        s = self.state
        if s.model is None:
            s.model = self.model.init_state()
        if starting.any():
            new = Queries(s.points[starting], s.ids[starting])
            if not self.outside_allowed:
                new.check_inside(s.size or size)
            s.slots[starting] = s.used + np.arange(len(new))
            self._give(features, geometry.rescale(new.xy, s.size or size, size))
        if self._support_joins():
            self._give(features, geometry.support_points(self.support_grid, size))
            s.support = True

    def _give(self, features: Any, xy: np.ndarray) -> None:
        points = torch.from_numpy(np.ascontiguousarray(xy)).to(self.model.device)
        self.state.model = self.model.add(self.state.model, features, points)
        self.state.used += len(xy)

    def track(
        self,
        source: FrameSource | str | np.ndarray | Iterable[np.ndarray],
        queries: Queries | np.ndarray | None = None,
        *,
        grid: int = 16,
        backward: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Tracks:
        """Track points through a whole source and return everything in memory.

        Args:
            source: a file, folder, camera, (T, H, W, 3) uint8 array, iterator of frames, or an open ``FrameSource``.
            queries: ``Queries`` or (N, 3) rows (t, x, y); None for a uniform ``grid`` x ``grid`` on the first frame.
            grid: points per side when ``queries`` is None.
            backward: also track from each query back to the first frame (the source is read a second time).
            progress: called with the number of finished frames.

        Raises:
            InputError, QueryError: see ``ptrack.video.open_source`` and ``Queries``.
        """
        from ptrack.tracking.stream import track_in_memory

        return track_in_memory(self, source, queries, grid=grid, backward=backward, progress=progress)


def as_frame(frame: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Return a frame as a (H, W, 3) uint8 tensor without copying; raises ModelError for anything else."""
    if isinstance(frame, np.ndarray):
        frame = torch.from_numpy(frame if frame.flags.writeable and frame.flags.c_contiguous else frame.copy())
    if not isinstance(frame, torch.Tensor) or frame.dtype != torch.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        what = f"{tuple(frame.shape)} {frame.dtype}" if isinstance(frame, torch.Tensor) else type(frame).__name__
        raise ModelError(f"A frame must be (H, W, 3) uint8 RGB, not {what}.")
    return frame
