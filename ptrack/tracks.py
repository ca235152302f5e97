"""Queries and Tracks: the two data types that everything passes."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ptrack import geometry
from ptrack.errors import QueryError, TracksError, count
from ptrack.tensors import as_numpy
from ptrack.tracks_show import paths_svg

if TYPE_CHECKING:
    from torch import Tensor

    from ptrack.figure import ShownFigure

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
        points: (N, 3) numbers or a tensor, rows ``(t, x, y)``; also (1, N, 3). ``t`` is the position among the frames
            that are tracked (0 is the first), ``x`` and ``y`` raster pixels of the displayed frame. Kept as a float32
            copy.
        ids: N unique names, kept as text; 0, 1, 2, ... by default.

    Raises:
        QueryError: wrong shape, not numeric, NaN or infinite, negative or fractional ``t``, ids not unique.
    """

    points: np.ndarray  # (N, 3) float32, rows (t, x, y)
    ids: np.ndarray  # (N,) unicode, unique

    def __init__(
        self, points: np.ndarray | Tensor | Sequence[Sequence[float]], ids: Iterable[Any] | None = None
    ) -> None:
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
            array = np.array(as_numpy(points), dtype=np.float64)  # always a copy: the caller's array is never changed
        except (TypeError, ValueError) as error:
            raise QueryError("Query points must be numbers in rows of (t, x, y).") from error
        if array.size == 0:
            array = array.reshape(0, 3)
        if array.ndim == 3 and len(array) == 1:
            array = array[0]  # a batch of one
        if array.ndim != 2 or array.shape[1] != 3:
            more = "; put the frame t where each point is, such as 0, before x and y" if array.shape[-1] == 2 else ""
            raise QueryError(f"Query points must have the shape (N, 3), rows (t, x, y), not {array.shape}{more}.")
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
            "tracks": (t, n, 2),
            "confidence": (t, n),
            "queries": (n, 3),
            "ids": (n,),
            "frame_index": (t,),
            "pts_seconds": (t,),
        }
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
        chosen = {name: getattr(self, name)[:, index] for name in ("tracks", "visibility", "confidence")}
        return replace(self, **chosen, queries=self.queries[index], ids=self.ids[index])

    __iter__ = None  # with ``__getitem__`` alone, Python would count through ids "0", "1", ...

    def __getitem__(self, ids: Any) -> Tracks:
        """Return the tracks of one id, of several in the given order, or of the points where (N,) bool is true.

        Raises:
            TracksError: an id does not exist, a bool array has another length, or a slice, which could mean frames.
        """
        if isinstance(ids, slice):
            raise TracksError("tracks[...] takes ids or a bool per point; slices of frames are taken of the arrays.")
        if isinstance(ids, str | int | np.integer) and not isinstance(ids, bool | np.bool_):
            return self.select([ids])
        array = np.asarray(ids)
        if array.dtype != bool:
            return self.select(array.ravel().tolist())
        if array.shape != (self.num_points,):
            raise TracksError(f"There are {array.size} bools for {self.num_points} points; give one per point.")
        return self.select(self.ids[array])

    def __contains__(self, name: Any) -> bool:
        """Return whether there is a point with this id."""
        return str(name) in self.ids.tolist()

    def at(self, t: int | None = None, *, seconds: float | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return positions (N, 2), visibility (N,) and confidence (N,) of one frame, as ``Tracker.step`` gives them.

        Args:
            t: position among the tracked frames, as in queries.
            seconds: instead of ``t``: a time; the frame nearest to it is taken.

        Raises:
            TracksError: there is no such frame, or both or neither are given.
        """
        if (t is None) == (seconds is None):
            raise TracksError("Give either t, a frame, or seconds.")
        if not self.num_frames:
            raise TracksError("These tracks hold no frame.")
        if t is None:
            t = int(np.abs(self.pts_seconds - float(seconds or 0)).argmin())
        if not 0 <= t < self.num_frames:
            raise TracksError(f"There is no frame {t}; these tracks hold the frames 0 to {self.num_frames - 1}.")
        return self.tracks[t].copy(), self.visibility[t].copy(), self.confidence[t].copy()

    @classmethod
    def concatenate(cls, parts: Sequence[Tracks]) -> Tracks:
        """Join the points of tracks over the same frames; ids that are not unique are numbered anew.

        Raises:
            TracksError: nothing to join, or parts of other frames, times or another frame size.
        """
        if not parts:
            raise TracksError("There are no tracks to join.")
        first = parts[0]
        for part in parts[1:]:
            same = np.array_equal(part.frame_index, first.frame_index)
            if not same or not np.allclose(part.pts_seconds, first.pts_seconds):
                raise TracksError("Only tracks of the same frames can be joined; track all points in one range.")
            if (part.info.width, part.info.height) != (first.info.width, first.info.height):
                raise TracksError("Only tracks of the same frame size can be joined.")
        names = [str(i) for part in parts for i in part.ids]
        models = dict.fromkeys(part.info.model for part in parts if part.info.model)
        warnings = dict.fromkeys(line for part in parts for line in part.info.warnings)
        columns = ("tracks", "visibility", "confidence")
        return replace(
            first,
            **{name: np.concatenate([getattr(p, name) for p in parts], axis=1) for name in columns},
            queries=np.concatenate([p.queries for p in parts]),
            ids=_ids(names if len(set(names)) == len(names) else None, len(names)),
            info=replace(first.info, model=", ".join(models), warnings=tuple(warnings), settings=""),
        )

    def plot(self) -> ShownFigure:
        """Return a figure of x, y, speed and visibility over time, which notebooks show; ``plot().savefig("a.png")``.

        Raises:
            TracksError: matplotlib is not installed.
        """
        try:
            plots = importlib.import_module("ptrack.viz.plots")  # by name: a data type must not depend on its pictures
            return plots.tracks_figure(self)
        except ImportError as error:
            raise TracksError("plot() needs matplotlib, which is not installed: pip install matplotlib") from error

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame``: frame, time_s, id, x, y, visibility, confidence, visible; a row per point.

        Raises:
            TracksError: pandas is not installed.
        """
        try:
            pd = importlib.import_module("pandas")
        except ImportError as error:
            raise TracksError("to_pandas() needs pandas, which is not installed: pip install pandas") from error
        t, n = self.num_frames, self.num_points
        return pd.DataFrame(
            {
                "frame": np.repeat(self.frame_index, n),
                "time_s": np.repeat(self.pts_seconds, n),
                "id": np.tile(self.ids.astype(object), t),
                "x": self.tracks[..., 0].ravel(),
                "y": self.tracks[..., 1].ravel(),
                "visibility": self.visibility.ravel(),
                "confidence": self.confidence.ravel(),
                "visible": self.visible.ravel(),
            }
        )

    def _frame_size(self) -> str:
        known = min(self.info.width, self.info.height) > 0
        return f"{self.info.width}x{self.info.height} px" if known else "frame size unknown"

    def _visible_share(self) -> str:
        return f"{self.visible.mean():.0%} visible" if self.visible.size else "nothing to see"

    def __repr__(self) -> str:
        info = self.info
        parts = [
            f"{count(self.num_frames, 'frame')} x {count(self.num_points, 'point')}",
            self._frame_size(),
            f"{info.fps:g} fps" if info.fps else "",
            f"source={info.source!r}" if info.source else "",
            f"model={info.model!r}" if info.model else "",
            self._visible_share(),
        ]
        return f"Tracks({', '.join(part for part in parts if part)})"

    def _repr_html_(self) -> str:
        """Return a table of what the tracks hold, and the paths of up to 200 points as a picture."""
        info, names = self.info, [str(i) for i in self.ids[:8]]
        rows = {
            "frames": f"{self.num_frames}" + (f", {info.fps:g} per second" if info.fps else ""),
            "points": ", ".join(names) + (f", ... ({self.num_points})" if self.num_points > len(names) else ""),
            "picture": self._frame_size(),
            "source": info.source,
            "model": info.model,
            "visible": self._visible_share().removesuffix(" visible"),
            "remarks": " ".join(info.warnings),
        }
        left = "style='text-align:left'"
        cells = (f"<tr><th {left}>{k}</th><td {left}>{escape(v)}</td></tr>" for k, v in rows.items() if v)
        picture = paths_svg(self.tracks, self.visible, info.width, info.height)
        return f"<div><strong>Tracks</strong><table>{''.join(cells)}</table>{picture}</div>"
