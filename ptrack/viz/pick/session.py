"""What happens behind the page: queries are checked, tracked row by row in a thread, corrected, undone and saved.

Letters: T frames, N points.
"""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptrack.errors import PTrackError, QueryError
from ptrack.fileio import atomic_path, check_writable
from ptrack.tracks import Queries, Tracks
from ptrack.tracks_io import concatenate_rows, format_of, save_tracks
from ptrack.video import PrefetchedFrames, ReadOptions, open_source
from ptrack.viz.pick.frames import FrameStore

if TYPE_CHECKING:
    from ptrack.tracking.tracker import Tracker

ROWS_AT_ONCE = 64  # rows per answer to the page, so that it draws while it reads
FIELDS = ("tracks", "visibility", "confidence")


@dataclass(frozen=True)
class Correction:
    """A point put right by hand on a later frame."""

    id: str
    t: int
    x: float
    y: float


@dataclass
class Job:
    """One run of the tracker: all points from the start, or one corrected point from its frame on."""

    number: int
    ids: list[str]
    start: int  # source frame of the first row
    rows: list[tuple[Any, ...]] = field(default_factory=list)  # (positions, visibility, confidence, index, pts)
    running: bool = True
    error: str = ""


class PickSession:
    """The state of one picking session; every public method may be called from any thread.

    Args:
        video: path of a file or image folder.
        make_tracker: builds the tracker; called once, when tracking starts first.
        tracks_out: where the tracks go (.h5, .npz, .csv or .json).
        queries_out: where the queries go (CSV with t, x, y, id, colour).
        overwrite: replace existing files.

    Raises:
        InputError, OutputError, TracksError: the video cannot be read, an output exists or has a wrong ending.
    """

    def __init__(
        self,
        video: Path | str,
        make_tracker: Callable[[], Tracker],
        tracks_out: Path | str,
        queries_out: Path | str,
        *,
        overwrite: bool = False,
    ) -> None:
        format_of(tracks_out)
        self.tracks_out = check_writable(tracks_out, overwrite=overwrite)
        self.queries_out = check_writable(queries_out, overwrite=overwrite)
        self.video = str(video)
        self.frames = FrameStore(self.video)
        self.saved: list[Path] = []
        self.tracks: Tracks | None = None
        self.corrections: list[Correction] = []
        self._make_tracker, self._tracker = make_tracker, None
        self._queries = Queries(np.zeros((0, 3)))
        self._colours: list[str] = []
        self._before: list[tuple[Tracks, list[Correction]]] = []  # what was before each correction, for undo
        self._job = Job(0, [], 0, running=False)
        self._news = threading.Condition()
        self._cancel = False
        self._thread: threading.Thread | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the displayed frame."""
        return self.frames.info.height, self.frames.info.width

    def about(self) -> dict[str, Any]:
        """Return what the page needs at its start."""
        info = self.frames.info
        return {
            "name": Path(info.name).name, "width": info.width, "height": info.height, "fps": info.fps or 25.0,
            "frames": self.frames.count, "complete": self.frames.complete,
            "expected": max(self.frames.count, info.expected_frames or 0),
            "tracksOut": str(self.tracks_out), "queriesOut": str(self.queries_out),
        }  # fmt: skip

    # -- tracking

    def start(self, points: Sequence[dict[str, Any]]) -> int:
        """Track all points from their frames on; returns the job's number.

        Args:
            points: dicts with ``id``, ``t``, ``x``, ``y`` and, if wanted, ``colour`` (#rrggbb).

        Raises:
            QueryError: a malformed point, one outside the frame, an id used twice, or no point at all.
        """
        queries, colours = parse_points(points)
        queries.check_inside(self.size)
        self.stop()
        self._queries, self._colours = queries, colours
        self.corrections, self._before, self.tracks = [], [], None
        return self._run(queries, 0, self._finish)

    def correct(self, name: str, t: int, x: float, y: float) -> int:
        """Put point ``name`` at (x, y) on source frame ``t`` and track it anew from there; returns the job's number.

        Only that point changes, up to its next later correction; before ``t`` it stays as it was.

        Raises:
            QueryError: nothing is tracked yet, tracking still runs, or the place is unknown or outside the frame.
        """
        tracks = self.tracks
        if tracks is None or self._job.running:
            raise QueryError("Points can be corrected when tracking has finished.")
        if name not in tracks.ids.tolist() or t not in tracks.frame_index.tolist():
            raise QueryError(f"There is no point '{name}' on frame {t}.")
        made = Correction(name, int(t), float(x), float(y))
        query = Queries(np.asarray([[0, x, y]]), [name])
        query.check_inside(self.size)
        return self._run(query, int(t), lambda job: self._merge(job, made))

    def undo(self) -> dict[str, Any]:
        """Take the last correction back and return that point's column as ``column`` does.

        Raises:
            QueryError: there is none, or tracking runs.
        """
        if self._job.running or not self._before:
            raise QueryError("There is no correction to take back.")
        name = self.corrections[-1].id  # the newest one is always the last
        self.tracks, self.corrections = self._before.pop()
        return self.column(name)

    def column(self, name: str) -> dict[str, Any]:
        """Return ``{"id", "rows": [[frame, x, y, visible, confidence], ...]}`` of one point."""
        assert self.tracks is not None
        n = self.tracks.ids.tolist().index(name)
        t = self.tracks
        cells = zip(t.frame_index, t.tracks[:, n], t.visibility[:, n], t.confidence[:, n], strict=True)
        return {"id": name, "rows": [[int(f), *_cell(p, v, c, t.info.threshold)] for f, p, v, c in cells]}

    def poll(self, number: int, row: int, wait: float = 10.0) -> dict[str, Any]:
        """Return the rows of the running job from ``row`` on (all of a newer job), waiting for news at most ``wait`` s.

        Each row is ``[frame, [[x, y, visible, confidence] or null per point]]``.
        """
        with self._news:
            self._news.wait_for(lambda: self._has_news(number, row), timeout=wait)
            job = self._job
            begin = row if number == job.number else 0
            rows, running = job.rows[begin : begin + ROWS_AT_ONCE], job.running
            more = begin + len(rows) < len(job.rows)
        threshold = self._tracker.model.threshold if self._tracker else 0.5
        return {
            "job": job.number, "ids": job.ids, "start": job.start, "first": begin, "error": job.error,
            "rows": [_row(r, threshold) for r in rows], "running": running or more,
            "frames": self.frames.count, "complete": self.frames.complete,
        }  # fmt: skip

    def _has_news(self, number: int, row: int) -> bool:
        job = self._job
        return number != job.number or len(job.rows) > row or not job.running

    def stop(self) -> None:
        """Stop tracking and wait for it."""
        self._cancel = True
        if self._thread is not None:
            self._thread.join()
        self._cancel = False

    def _run(self, queries: Queries, start: int, finish: Callable[[Job], None]) -> int:
        with self._news:
            self._job = job = Job(self._job.number + 1, queries.ids.tolist(), start)
            self._news.notify_all()
        self._thread = threading.Thread(target=self._work, args=(job, queries, finish), name="ptrack-pick-track")
        self._thread.start()
        return job.number

    def _work(self, job: Job, queries: Queries, finish: Callable[[Job], None]) -> None:
        try:
            for row in self._rows(queries, job.start):
                with self._news:
                    job.rows.append(row)
                    self._news.notify_all()
                if self._cancel:
                    break
            else:
                finish(job)
        except PTrackError as error:
            job.error = str(error)
        except Exception as error:  # the page must hear of it, whatever it is
            job.error = f"Tracking failed: {type(error).__name__}: {error}."
        finally:
            with self._news:
                job.running = False
                self._news.notify_all()

    def _rows(self, queries: Queries, start: int) -> Iterator[tuple[Any, ...]]:
        """Track ``queries`` (t counted from ``start``) the way ``Tracker.track`` does, row by row."""
        from ptrack.tracking.stream import stream_rows, tracks_info

        if self._tracker is None:
            self._tracker = self._make_tracker()
        with open_source(self.video, ReadOptions(start=start or None)) as source:
            self._info = tracks_info(self._tracker, source.info, self.frames.sha256)
            self._tracker.reset(self.size)
            self._tracker.add(queries)
            for row in stream_rows(self._tracker, PrefetchedFrames(source)):
                yield (*row.result, row.frame.index, row.frame.pts)

    def _finish(self, job: Job) -> None:
        from ptrack.tracking.stream import duplicate_queries, late_queries

        arrays = concatenate_rows(job.rows, len(self._queries))
        warnings = (*duplicate_queries(self._queries), *late_queries(self._queries, len(job.rows)))
        info = replace(self._info, warnings=warnings)
        self.tracks = Tracks(**arrays, queries=self._queries.points.copy(), ids=self._queries.ids, info=info)

    def _merge(self, job: Job, made: Correction) -> None:
        """Put the corrected point's new rows into the tracks."""
        assert self.tracks is not None
        tracks, new = self.tracks, concatenate_rows(job.rows, 1)
        n = tracks.ids.tolist().index(made.id)
        later = [c.t for c in self.corrections if c.id == made.id and c.t > made.t]
        end = min(later, default=int(tracks.frame_index[-1]) + 1)
        here = (tracks.frame_index >= made.t) & (tracks.frame_index < end)
        there = np.isin(new["frame_index"], tracks.frame_index[here])
        changed = {name: getattr(tracks, name).copy() for name in FIELDS}
        for name in FIELDS:
            changed[name][here, n] = new[name][there, 0]
        self._before.append((tracks, self.corrections))
        self.corrections = [c for c in self.corrections if (c.id, c.t) != (made.id, made.t)] + [made]
        self.tracks = replace(tracks, **changed)

    # -- saving

    def rename(self, old: str, new: str) -> None:
        """Give a tracked point another name; nothing happens if it is not tracked.

        Raises:
            QueryError: tracking runs, or the name is taken.
        """
        if self._job.running:
            raise QueryError("Wait until tracking has finished, then rename.")
        if self.tracks is None or old not in self.tracks.ids.tolist():
            return
        if new in self.tracks.ids.tolist():
            raise QueryError(f"The name '{new}' is in use.")
        ids = [new if i == old else i for i in self.tracks.ids.tolist()]
        self._queries = Queries(self._queries.points, ids)
        self.tracks = replace(self.tracks, ids=self._queries.ids)

        def renamed(corrections: list[Correction]) -> list[Correction]:
            return [replace(c, id=new if c.id == old else c.id) for c in corrections]

        self._before = [(replace(t, ids=self._queries.ids), renamed(c)) for t, c in self._before]
        self.corrections = renamed(self.corrections)

    def save(self, points: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Write the queries and, if these are the tracked ones, the tracks; returns ``{"saved": files, "note": text}``.

        Corrections are named in the tracks' warnings and written beside the queries as ``*.corrections.csv``.

        Raises:
            QueryError: malformed points, or tracking still runs.
            OutputError: a file cannot be written.
        """
        if self._job.running:
            raise QueryError("Wait until tracking has finished, then save.")
        queries, colours = parse_points(points)
        write_queries(self.queries_out, queries, colours)
        self.saved = [self.queries_out]
        same = (
            np.array_equal(queries.points, self._queries.points) and queries.ids.tolist() == self._queries.ids.tolist()
        )
        note = "" if self.tracks is not None else "There are no tracks yet."
        if self.tracks is not None and not same:
            note = "The points have changed since they were tracked: track again, then save, to save the tracks too."
        if self.tracks is not None and same:
            save_tracks(self._corrected(), self.tracks_out)
            self.saved.append(self.tracks_out)
            if self.corrections:
                beside = self.queries_out.with_name(f"{self.queries_out.stem}.corrections.csv")
                write_corrections(beside, self.corrections)
                self.saved.append(beside)
        return {"saved": [str(path) for path in self.saved], "note": note}

    def _corrected(self) -> Tracks:
        """Return the tracks with a sentence about each correction."""
        assert self.tracks is not None
        said = tuple(f"Point {c.id} was corrected by hand on frame {c.t}." for c in self.corrections)
        return replace(self.tracks, info=replace(self.tracks.info, warnings=(*self.tracks.info.warnings, *said)))

    def close(self) -> None:
        """Stop all threads."""
        self.stop()
        self.frames.close()


def _cell(xy: np.ndarray, visibility: float, confidence: float, threshold: float) -> list[Any]:
    if not np.isfinite(xy).all():
        return [None, None, 0, 0.0]
    return [round(float(xy[0]), 3), round(float(xy[1]), 3), int(visibility >= threshold), round(float(confidence), 3)]


def _row(row: tuple[Any, ...], threshold: float) -> list[Any]:
    xy, visibility, confidence, index, _ = row
    return [int(index), [_cell(p, v, c, threshold) for p, v, c in zip(xy, visibility, confidence, strict=True)]]


def parse_points(points: Sequence[dict[str, Any]]) -> tuple[Queries, list[str]]:
    """Return the queries and their colours ("" where none is given); raises QueryError for anything malformed."""
    if not isinstance(points, list) or not all(isinstance(p, dict) for p in points):
        raise QueryError("The points must be a list of objects with id, t, x and y.")
    if not points:
        raise QueryError("There is no point yet; click on the picture to add one.")
    try:
        rows = [[float(p["t"]), float(p["x"]), float(p["y"])] for p in points]
        ids = [str(p["id"]) for p in points]
    except (KeyError, TypeError, ValueError) as error:
        raise QueryError(f"A point lacks id, t, x or y, or one of them is no number ({error}).") from error
    if any(not i or len(i) > 200 or any(ord(c) < 32 for c in i) for i in ids):
        raise QueryError("A point's name must have 1 to 200 characters in one line.")
    return Queries(rows, ids), [str(p.get("colour", "")) for p in points]  # type: ignore[arg-type]


def write_queries(path: Path, queries: Queries, colours: Sequence[str] | None) -> None:
    """Write ``t,x,y,id[,colour]``, which ``ptrack track --queries`` reads; positions are exact."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["t", "x", "y", "id", *(["colour"] if colours else [])])
        for i, (t, x, y) in enumerate(queries.points.tolist()):
            rows.writerow([int(t), repr(x), repr(y), queries.ids[i], *([colours[i]] if colours else [])])


def write_corrections(path: Path, corrections: Sequence[Correction]) -> None:
    """Write ``t,x,y,id``, one row per correction in the order they were made; an id may come several times."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["t", "x", "y", "id"])
        rows.writerows([c.t, repr(c.x), repr(c.y), c.id] for c in corrections)
