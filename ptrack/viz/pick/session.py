"""What happens behind the page: points are kept, tracked row by row in a thread, corrected, undone and saved.

The session lives here, not in the page: a page that is loaded again, or a second one, gets all of it.

Letters: T frames, N points.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptrack.errors import QueryError, count
from ptrack.fileio import check_writable
from ptrack.tracks import Queries, Tracks
from ptrack.tracks_io import concatenate_rows, format_of, save_tracks
from ptrack.viz.pick.frames import FrameStore
from ptrack.viz.pick.jobs import Row, TrackingJob, TrackingThread
from ptrack.viz.pick.look import MOST_PLACES, Suggester, places
from ptrack.viz.pick.points import (
    Correction,
    PickedPoint,
    PointList,
    as_queries,
    check_name,
    check_number,
    parse_points,
    write_corrections,
    write_queries,
)
from ptrack.viz.pick.seat import WriterSeat

if TYPE_CHECKING:
    from ptrack.tracking.tracker import Tracker

ROWS_AT_ONCE = 64  # rows per answer to the page, so that it draws while it reads
FIELDS = ("tracks", "visibility", "confidence")


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
        self.seat = WriterSeat()
        self.saved: list[Path] = []
        self.tracks: Tracks | None = None
        self.corrections: list[Correction] = []
        self.suggester = Suggester(self.video, lambda: self._changed(unsaved=False))
        self.unsaved = False  # something was changed since the last save
        self._waiting: dict[tuple[str, int], Correction] = {}  # corrections that are not tracked yet, by id and frame
        self._list = PointList()
        self._tracked: tuple[PickedPoint, ...] = ()  # the points that the tracks belong to
        self._before: list[tuple[Tracks, list[Correction]]] = []  # what was before each correction, for undo
        self._tracking = TrackingThread(self.frames, self.video, make_tracker)
        self._news = self._tracking.news
        self._commands = threading.RLock()  # one command at a time; never taken by the tracking thread
        self._revision = 0  # of everything that ``state`` reports
        self._version = 0  # of the tracked rows

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the displayed frame."""
        return self.frames.info.height, self.frames.info.width

    @property
    def points(self) -> tuple[PickedPoint, ...]:
        """The picked points, in the order they were added."""
        return self._list.points

    # -- what the page asks for

    def about(self) -> dict[str, Any]:
        """Return what the page needs at its start."""
        info = self.frames.info
        return {
            **{"name": Path(info.name).name, "width": info.width, "height": info.height, "fps": info.fps or 25.0},
            **{"frames": self.frames.count, "complete": self.frames.complete},
            **{"expected": max(self.frames.count, info.expected_frames or 0)},
            **{"tracksOut": str(self.tracks_out), "queriesOut": str(self.queries_out)},
        }

    def state(self, tab: str = "") -> dict[str, Any]:
        """Return the whole session but the tracked rows, as ``tab`` may see it."""
        with self._news:
            job = self._tracking.job
            return {
                **{"revision": self._revision, "version": self._version, "writer": self.seat.holds(tab)},
                **{"points": self._list.to_json(), "steps": self._list.steps + len(self._waiting)},
                **{"unsaved": self.unsaved, "suggested": self.suggester.state()},
                **{"waiting": [[c.id, c.t, c.x, c.y] for c in list(self._waiting.values())]},
                **{"tracked": [list(point.query) for point in self._tracked], "job": job.number},
                **{"running": job.running, "error": job.error, "saved": [str(path) for path in self.saved]},
            }

    def watch(self, tab: str, revision: int, wait: float = 10.0) -> dict[str, Any]:
        """Return ``state``, as soon as it is another than ``revision``, or after ``wait`` seconds."""
        self.seat.holds(tab)
        with self._news:
            self._news.wait_for(lambda: self._revision != revision, timeout=wait)
        return self.state(tab)

    def claim(self, tab: str, *, force: bool = False) -> dict[str, Any]:
        """Give the right to write to ``tab`` if nobody has it, or ``force``; returns ``state``."""
        if self.seat.claim(tab, force=force):
            self._changed(unsaved=False)
        return self.state(tab)

    def poll(self, number: int, row: int, wait: float = 10.0) -> dict[str, Any]:
        """Return the rows of the running job from ``row`` on (all of a newer job), waiting for news at most ``wait`` s.

        Each row is ``[frame, [[x, y, visible, confidence] or null per point]]``.
        """
        with self._news:
            self._news.wait_for(lambda: self._has_news(number, row), timeout=wait)
            job = self._tracking.job
            begin = row if number == job.number else 0
            rows, running = job.rows[begin : begin + ROWS_AT_ONCE], job.running
            more = begin + len(rows) < len(job.rows)
        return {
            **{"job": job.number, "ids": job.queries.ids.tolist(), "start": job.start, "first": begin},
            **{"error": job.error, "rows": [_row(r, self._tracking.threshold) for r in rows]},
            **{"running": running or more, "frames": self.frames.count, "complete": self.frames.complete},
        }

    def rows(self, first: int, last: int) -> dict[str, Any]:
        """Return the tracked rows of source frames ``first`` .. ``last``, at most ROWS_AT_ONCE of them, as ``poll``."""
        with self._news:
            tracks, job, version = self.tracks, self._tracking.job, self._version
            ids = [point.id for point in self._tracked]
        found: list[list[Any]] = []
        if tracks is not None:
            numbers = np.flatnonzero((tracks.frame_index >= first) & (tracks.frame_index <= last))[:ROWS_AT_ONCE]
            fields = [tracks.tracks, tracks.visibility, tracks.confidence, tracks.frame_index]
            found = [_row((*(values[t] for values in fields), None), tracks.info.threshold) for t in numbers]
        elif ids:
            inside = [row for row in list(job.rows) if first <= row[3] <= last][:ROWS_AT_ONCE]
            found = [_row(row, self._tracking.threshold) for row in inside]
        return {"version": version, "ids": ids, "rows": found}

    def places(self) -> dict[str, Any]:
        """Return where the tracks may be wrong, the first MOST_PLACES, and how many places there are."""
        with self._news:
            tracks, corrections, version = self.tracks, self.corrections, self._version
        found = places(tracks, corrections) if tracks is not None else []
        return {"version": version, "places": found[:MOST_PLACES], "all": len(found)}

    def suggest(self, frames: Any) -> None:
        """Begin to suggest so many frames to label; ``state`` has them when they are found.

        Raises:
            ConfigError, QueryError: not a possible number, or they are being looked for already.
        """
        with self._command(unsaved=False):
            self.suggester.start(frames)

    def _has_news(self, number: int, row: int) -> bool:
        job = self._tracking.job
        return number != job.number or len(job.rows) > row or not job.running

    @contextmanager
    def _command(self, *, unsaved: bool = True) -> Iterator[None]:
        """One command at a time; all pages hear of it. ``unsaved``: it leaves something to save."""
        with self._commands:
            yield
            self._changed(unsaved=unsaved)

    def _changed(self, *, unsaved: bool = True, rows: bool = False) -> None:
        with self._news:
            self._revision += 1
            self._version += rows
            self.unsaved |= unsaved
            self._news.notify_all()

    # -- the points

    def edit(self, points: Any, *, remember: bool = True) -> None:
        """Put other points in the place of the present ones.

        Args:
            points: list of dicts with ``id``, ``t``, ``x``, ``y`` and, if wanted, ``colour`` (#rrggbb).
            remember: make it a step that can be undone.

        Raises:
            QueryError: a malformed point, one outside the frame, or an id used twice.
        """
        made = parse_points(points)
        if made:
            as_queries(made).check_inside(self.size)
        with self._command():
            self._list.replace(made, remember=remember)

    def rename(self, old: str, new: Any) -> None:
        """Give a point another name, also in its track and corrections; anything may be given, names are checked.

        Raises:
            QueryError: there is no such point, the name is not allowed or in use, or tracking runs.
        """
        check_name(new)
        with self._command():
            if self._tracking.job.running:
                raise QueryError("Wait until tracking has finished, then rename.")
            self._list.rename(old, new)
            if self.tracks is None or old not in self.tracks.ids.tolist():
                return
            self._rename_tracked(old, new)

    def _rename_tracked(self, old: str, new: str) -> None:
        assert self.tracks is not None
        names = self.tracks.ids.tolist()
        spare = next(n for i in range(len(names) + 1) if (n := f"{new} ({i + 2})") not in names)
        swap = {old: new, new: spare}  # a tracked point that was deleted may have had the new name
        ids = Queries(self.tracks.queries, [swap.get(i, i) for i in names]).ids

        def renamed(corrections: list[Correction]) -> list[Correction]:
            return [replace(c, id=swap.get(c.id, c.id)) for c in corrections]

        self._before = [(replace(t, ids=ids), renamed(c)) for t, c in self._before]
        self._waiting = {(c.id, c.t): c for c in renamed(list(self._waiting.values()))}
        self.corrections = renamed(self.corrections)
        self._tracked = tuple(replace(p, id=swap.get(p.id, p.id)) for p in self._tracked)
        self.tracks = replace(self.tracks, ids=ids)
        self._changed(rows=True)

    def undo(self) -> str:
        """Take the last step back, an edit or a correction; returns a sentence about it.

        Raises:
            QueryError: there is none, or it is a correction and tracking runs.
        """
        with self._command():
            if self._waiting:
                (name, t), _ = self._waiting.popitem()
                return f"The correction of {name} on frame {t}, which waited, is dropped."
            if not self._list.steps:
                raise QueryError("There is nothing to undo.")
            if not self._list.last_is_correction:
                self._list.undo()
                return "The last step is undone."
            if self._tracking.job.running:
                raise QueryError("Wait until tracking has finished, then undo the correction.")
            self._list.undo()
            newest = [c for c in self.corrections if c not in self._before[-1][1]] or self.corrections[-1:]
            self.tracks, self.corrections = self._before.pop()
            self._changed(rows=True)
            which = newest[0].id if len(newest) == 1 else f"{len(newest)} points and frames"
            return f"The correction of {which} is undone."

    # -- tracking

    def start(self) -> int:
        """Track all points from their frames on; returns the job's number.

        Raises:
            QueryError: there is no point.
        """
        with self._command():
            points = self._list.points
            queries = as_queries(points)
            self._tracking.stop()
            self._list.forget_corrections()
            self._tracked = points
            self.corrections, self._before, self.tracks = [], [], None
            self._waiting.clear()
            self._changed(rows=True)
            return self._tracking.run(queries, 0, self._finish)

    def correct(self, name: str, t: Any, x: Any, y: Any, *, wait: bool = False) -> int:
        """Put point ``name`` at (x, y) on source frame ``t`` and track it again from there; returns the job's number.

        Only that point changes, up to its next later correction; before ``t`` it stays as it was. With ``wait`` nothing
        is tracked before ``again``, and the number is that of the last job.

        Raises:
            QueryError: nothing is tracked yet, tracking still runs, the point was changed since, or the place is
                unknown or outside the frame.
        """
        t, x, y = (check_number(value, f"'{key}'") for key, value in (("t", t), ("x", x), ("y", y)))
        with self._command():
            tracks = self.tracks
            if tracks is None or self._tracking.job.running:
                raise QueryError("Points can be corrected when tracking has finished.")
            if name not in tracks.ids.tolist() or t not in tracks.frame_index.tolist():
                raise QueryError(f"There is no point '{name}' on frame {t:g}.")
            if name not in self._unchanged():
                raise QueryError(f"Point '{name}' has changed since it was tracked; track again, then correct it.")
            made = Correction(id=name, t=int(t), x=x, y=y)
            Queries(np.asarray([[0, x, y]]), [name]).check_inside(self.size)
            self._waiting.pop((name, made.t), None)
            if not wait:
                return self._track_again([made])
            self._waiting[name, made.t] = made
            return self._tracking.job.number

    def again(self) -> int:
        """Track all corrections that wait, in one run from the first one's frame on; returns the job's number.

        Raises:
            QueryError: none waits, tracking still runs, or points were changed since, whose corrections are dropped.
        """
        with self._command():
            if self._tracking.job.running:
                raise QueryError("Wait until tracking has finished, then track again.")
            unchanged = self._unchanged()
            outdated = [c for c in self._waiting.values() if c.id not in unchanged]
            self._waiting = {key: c for key, c in self._waiting.items() if c.id in unchanged}
            if outdated:
                self._changed()
            if not self._waiting:
                raise QueryError("No correction waits to be tracked.")
            if outdated:
                raise QueryError(
                    f"Point '{outdated[0].id}' has changed since it was tracked: {count(len(outdated), 'correction')} "
                    "dropped. Press Track again for the others."
                )
            return self._track_again(sorted(self._waiting.values(), key=lambda c: c.t))

    def _unchanged(self) -> set[str]:
        """Return the tracked points whose queries are still the ones they were tracked from."""
        now = {point.query for point in self._list.points}
        return {point.id for point in self._tracked if point.query in now}

    def _track_again(self, made: list[Correction]) -> int:
        """Track corrected points from the first one's frame on; a point with several has a query for each."""
        start = min(c.t for c in made)
        names = [c.id for c in made] if len({c.id for c in made}) == len(made) else [f"{c.id} @ {c.t}" for c in made]
        queries = Queries(np.asarray([[c.t - start, c.x, c.y] for c in made]), names)
        return self._tracking.run(queries, start, lambda job: self._merge(job, made))

    def stop(self) -> None:
        """Stop tracking and wait for it."""
        with self._command(unsaved=False):
            self._tracking.stop()

    def _finish(self, job: TrackingJob) -> None:
        from ptrack.tracking.stream import duplicate_queries, late_queries

        arrays = concatenate_rows(job.rows, len(job.queries))
        warnings = (*duplicate_queries(job.queries), *late_queries(job.queries, len(job.rows)))
        info = replace(job.info, warnings=warnings)
        self.tracks = Tracks(**arrays, queries=job.queries.points.copy(), ids=job.queries.ids, info=info)
        self._changed()

    def _merge(self, job: TrackingJob, made: list[Correction]) -> None:
        """Put the corrected points' new rows into the tracks, each up to its point's next correction."""
        assert self.tracks is not None
        tracks, new = self.tracks, concatenate_rows(job.rows, len(made))
        keys = {(c.id, c.t) for c in made}
        corrections = [c for c in self.corrections if (c.id, c.t) not in keys] + made
        changed = {name: getattr(tracks, name).copy() for name in FIELDS}
        for k, c in enumerate(made):
            n = tracks.ids.tolist().index(c.id)
            later = [o.t for o in corrections if o.id == c.id and o.t > c.t]
            end = min(later, default=int(tracks.frame_index[-1]) + 1)
            here = (tracks.frame_index >= c.t) & (tracks.frame_index < end)
            there = np.isin(new["frame_index"], tracks.frame_index[here])
            for name in FIELDS:
                changed[name][here, n] = new[name][there, k]
        self._before.append((tracks, self.corrections))
        self.corrections = corrections
        self._waiting = {key: c for key, c in self._waiting.items() if key not in keys}
        self._list.note_correction()
        self.tracks = replace(tracks, **changed)
        self._changed(rows=True)

    # -- saving

    def save(self) -> str:
        """Write the queries and, if these are the tracked ones, the tracks; returns a sentence about it.

        Corrections are named in the tracks' warnings and written beside the queries as ``*.corrections.csv``.

        Raises:
            QueryError: there is no point, or tracking still runs.
            OutputError: a file cannot be written.
        """
        with self._command(unsaved=False):
            if self._tracking.job.running:
                raise QueryError("Wait until tracking has finished, then save.")
            points, saved = self._list.points, [self.queries_out]
            write_queries(self.queries_out, points)
            same = [p.query for p in points] == [p.query for p in self._tracked]
            note = " There are no tracks yet."
            if self.tracks is not None:
                note = "" if same else " The points have changed since they were tracked: track and save again."
            if self.tracks is not None and same:
                save_tracks(self._corrected(), self.tracks_out)
                saved.append(self.tracks_out)
                if self.corrections:
                    beside = self.queries_out.with_name(f"{self.queries_out.stem}.corrections.csv")
                    write_corrections(beside, self.corrections)
                    saved.append(beside)
            if self._waiting:
                note += f" {count(len(self._waiting), 'correction')} not in it: press Track again, then save."
            self.saved, self.unsaved = saved, bool(self._waiting)
        return f"Saved {', '.join(str(path) for path in saved)}.{note}"

    def _corrected(self) -> Tracks:
        """Return the tracks with a sentence about each correction."""
        assert self.tracks is not None
        sentences = tuple(f"Point {c.id} was corrected by hand on frame {c.t}." for c in self.corrections)
        return replace(self.tracks, info=replace(self.tracks.info, warnings=(*self.tracks.info.warnings, *sentences)))

    def close(self) -> None:
        """Stop all threads; who watches is answered."""
        self._tracking.stop()
        self.suggester.close()
        self._changed(unsaved=False)
        self.frames.close()


def _cell(xy: np.ndarray, visibility: float, confidence: float, threshold: float) -> list[Any]:
    if not np.isfinite(xy).all():
        return [None, None, 0, 0.0]
    return [round(float(xy[0]), 3), round(float(xy[1]), 3), int(visibility >= threshold), round(float(confidence), 3)]


def _row(row: Row, threshold: float) -> list[Any]:
    xy, visibility, confidence, index, _ = row
    return [int(index), [_cell(p, v, c, threshold) for p, v, c in zip(xy, visibility, confidence, strict=True)]]
