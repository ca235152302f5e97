"""Queries and Tracks: the two data types that everything passes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ptrack import geometry
from ptrack.errors import QueryError, TracksError

SCHEMA_VERSION = 1


def _ids(ids: Iterable[Any] | None, count: int) -> np.ndarray:
    """Return ids as an array of text; 0, 1, 2, ... when none are given."""
    if ids is None:
        return np.asarray([str(i) for i in range(count)], dtype=np.str_)
    array = np.asarray([str(i) for i in ids], dtype=np.str_)
    if array.shape != (count,):
        raise QueryError(f"There are {len(array)} ids for {count} points; give one id per point or none.")
    return array


@dataclass(frozen=True, init=False)
class Queries:
    """Points to track.

    Args:
        points: (N, 3) numbers, rows ``(t, x, y)``. ``t`` is the position among the frames that are tracked (0 is the
            first), ``x`` and ``y`` raster pixels of the displayed frame. Kept as a float32 copy.
        ids: N unique names, kept as text; 0, 1, 2, ... by default.

    Raises:
        QueryError: wrong shape, not numeric, NaN or infinite, negative or fractional ``t``, ids not unique.
    """

    points: np.ndarray  # (N, 3) float32, rows (t, x, y)
    ids: np.ndarray  # (N,) unicode, unique

    def __init__(self, points: np.ndarray | Sequence[Sequence[float]], ids: Iterable[Any] | None = None) -> None:
        checked = self._checked(points)
        checked.flags.writeable = False
        names = _ids(ids, len(checked))
        unique, counts = np.unique(names, return_counts=True)
        if (counts > 1).any():
            raise QueryError(f"The id '{unique[counts > 1][0]}' is used more than once; ids must be unique.")
        object.__setattr__(self, "points", checked)
        object.__setattr__(self, "ids", names)

    @staticmethod
    def _checked(points: Any) -> np.ndarray:
        try:
            array = np.array(points, dtype=np.float64)  # always a copy: the caller's array is never changed
        except (TypeError, ValueError) as error:
            raise QueryError("Query points must be numbers in rows of (t, x, y).") from error
        if array.size == 0:
            array = array.reshape(0, 3)
        if array.ndim != 2 or array.shape[1] != 3:
            raise QueryError(f"Query points must have the shape (N, 3), rows (t, x, y), not {array.shape}.")
        bad = ~np.isfinite(array).all(axis=1)
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            row = ", ".join(f"{v:g}" for v in array[i])
            raise QueryError(f"Query {i} is ({row}); NaN and infinite values cannot be tracked.")
        t = array[:, 0]
        wrong = (t < 0) | (t != np.floor(t))
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            raise QueryError(f"Query {i} starts at frame {t[i]:g}; t must be a whole number from 0 upwards.")
        return array.astype(np.float32)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def t(self) -> np.ndarray:
        """(N,) int64 start frames."""
        return self.points[:, 0].astype(np.int64)

    @property
    def xy(self) -> np.ndarray:
        """(N, 2) float32 positions in their start frames."""
        return self.points[:, 1:]

    def check_inside(self, size: geometry.Size) -> None:
        """Raise QueryError naming the first point outside the frame of size (H, W); its border counts as inside."""
        outside = ~geometry.inside(self.xy, size)
        if outside.any():
            i = int(np.flatnonzero(outside)[0])
            x, y = self.xy[i]
            more = f" (and {int(outside.sum()) - 1} more)" if outside.sum() > 1 else ""
            raise QueryError(
                f"Query {self.ids[i]} at x={x:g}, y={y:g}{more} lies outside the {size[1]}x{size[0]} frame; "
                f"x must be in 0..{size[1]} and y in 0..{size[0]}."
            )

    @classmethod
    def grid(cls, n: int, size: geometry.Size, t: int = 0) -> Queries:
        """Return an ``n`` x ``n`` grid of points over a frame of size (H, W), starting at frame ``t``.

        Raises:
            QueryError: ``n`` is smaller than 1.
        """
        if n < 1:
            raise QueryError(f"A grid needs at least 1 point per side, not {n}.")
        xy = geometry.grid_points(n, size)
        return cls(np.column_stack([np.full(len(xy), t, np.float32), xy]))

    @classmethod
    def concatenate(cls, parts: Sequence[Queries]) -> Queries:
        """Join several sets; ids stay where they are unique over all sets and are numbered anew otherwise."""
        if not parts:
            return cls(np.zeros((0, 3), np.float32))
        ids = [i for part in parts for i in part.ids]
        return cls(np.concatenate([p.points for p in parts]), ids if len(set(ids)) == len(ids) else None)


@dataclass(frozen=True, kw_only=True)
class TracksInfo:
    """Where tracks come from. Stored as attributes of every file format."""

    schema_version: int = SCHEMA_VERSION
    ptrack_version: str = ""  # version that wrote the tracks
    model: str = ""  # model name as in ``ptrack models``
    weights_sha256: str = ""  # of the weights file
    source: str = ""  # file or camera name as given
    source_sha256: str = ""  # of the source's bytes, "" if it has no fixed content
    width: int = 0  # pixels of the displayed frame; all coordinates refer to it
    height: int = 0
    rotation: int = 0  # degrees of display rotation that were applied when reading
    fps: float = 0.0  # average frames per second, 0 if unknown
    threshold: float = 0.5  # visibility probability from which a point counts as visible
    truncated: bool = False  # the source ended early because of damage
    warnings: tuple[str, ...] = ()  # sentences about the run, e.g. queries that start after the last frame
    settings: str = ""  # JSON of all that decided the tracks, see ``ptrack.tracking.partial``


@dataclass(frozen=True, eq=False)
class Tracks:
    """Tracked points: T frames, N points. Coordinates are raster pixels of the displayed frame.

    Before a point's query frame (unless tracked backwards) and on undecodable frames its position is NaN and its
    visibility and confidence are 0. On the query frame the position is the query's own, exactly.
    """

    tracks: np.ndarray  # (T, N, 2) float32, (x, y)
    visibility: np.ndarray  # (T, N) float32 probability in [0, 1]
    confidence: np.ndarray  # (T, N) float32 probability in [0, 1] that the position is right
    queries: np.ndarray  # (N, 3) float32, rows (t, x, y)
    ids: np.ndarray  # (N,) unicode
    frame_index: np.ndarray  # (T,) int64, frame number in the source
    pts_seconds: np.ndarray  # (T,) float64, presentation time
    info: TracksInfo = field(default_factory=TracksInfo)

    def __post_init__(self) -> None:
        t, n = self.visibility.shape if self.visibility.ndim == 2 else (-1, -1)
        wanted = {
            "tracks": (t, n, 2), "confidence": (t, n), "queries": (n, 3), "ids": (n,),
            "frame_index": (t,), "pts_seconds": (t,),
        }  # fmt: skip
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise TracksError(f"'{name}' has the shape {getattr(self, name).shape} where {shape} was expected.")

    @property
    def visible(self) -> np.ndarray:
        """(T, N) bool: visibility probability at or above the model's threshold."""
        return self.visibility >= self.info.threshold

    @property
    def num_frames(self) -> int:
        """T."""
        return self.tracks.shape[0]

    @property
    def num_points(self) -> int:
        """N."""
        return self.tracks.shape[1]

    def select(self, ids: Iterable[Any]) -> Tracks:
        """Return the tracks of some ids, in the given order. Raises TracksError for an unknown id."""
        where = {name: i for i, name in enumerate(self.ids)}
        try:
            index = np.asarray([where[str(i)] for i in ids], dtype=np.int64)
        except KeyError as error:
            raise TracksError(f"There is no point with the id {error}.") from None
        return replace(
            self,
            tracks=self.tracks[:, index],
            visibility=self.visibility[:, index],
            confidence=self.confidence[:, index],
            queries=self.queries[index],
            ids=self.ids[index],
        )
