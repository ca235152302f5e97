"""Tracking in a thread: one job at a time, its rows readable while they are made, stoppable between frames."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ptrack.errors import PTrackError
from ptrack.tracks import Queries, TracksInfo
from ptrack.video import PrefetchedFrames, ReadOptions, open_source
from ptrack.viz.pick.frames import FrameStore

if TYPE_CHECKING:
    from ptrack.tracking.tracker import Tracker

Row = tuple[Any, ...]  # positions (N, 2), visibility (N,), confidence (N,), frame number, seconds


@dataclass
class TrackingJob:
    """One run of the tracker: all points from the start, or one corrected point from its frame on."""

    number: int
    queries: Queries
    start: int  # source frame of the first row
    rows: list[Row] = field(default_factory=list)
    running: bool = True
    error: str = ""
    info: TracksInfo = field(default_factory=TracksInfo)


class TrackingThread:
    """Runs jobs one after another and reports when there is something new.

    Args:
        frames: the video.
        make_tracker: builds the tracker; called once, when tracking starts first.
    """

    def __init__(self, frames: FrameStore, video: str, make_tracker: Callable[[], Tracker]) -> None:
        self.news = threading.Condition()  # notified after every row and every change of the session
        self.job = TrackingJob(0, Queries([]), 0, running=False)
        self._frames, self._video = frames, video
        self._make_tracker, self._tracker = make_tracker, None
        self._cancel = False
        self._thread: threading.Thread | None = None

    @property
    def threshold(self) -> float:
        """Visibility probability from which the tracker's points count as visible."""
        return self._tracker.model.threshold if self._tracker else 0.5

    def run(self, queries: Queries, start: int, finish: Callable[[TrackingJob], None]) -> int:
        """Track ``queries`` (t counted from frame ``start``) in a thread; returns the job's number.

        ``finish`` is called in that thread with the whole job, unless it was stopped or failed.
        """
        with self.news:
            self.job = job = TrackingJob(self.job.number + 1, queries, start)
            self.news.notify_all()
        self._thread = threading.Thread(target=self._work, args=(job, finish), name="ptrack-pick-track")
        self._thread.start()
        return job.number

    def stop(self) -> None:
        """Stop tracking and wait for it."""
        self._cancel = True
        if self._thread is not None:
            self._thread.join()
        self._cancel = False

    def _work(self, job: TrackingJob, finish: Callable[[TrackingJob], None]) -> None:
        try:
            for row in self._rows(job):
                with self.news:
                    job.rows.append(row)
                    self.news.notify_all()
                if self._cancel:
                    break
            else:
                finish(job)
        except PTrackError as error:
            job.error = str(error)
        except Exception as error:  # the page must hear of it, whatever it is
            job.error = f"Tracking failed: {type(error).__name__}: {error}."
        finally:
            with self.news:
                job.running = False
                self.news.notify_all()

    def _rows(self, job: TrackingJob) -> Iterator[Row]:
        """Track the way ``Tracker.track`` does, row by row."""
        from ptrack.tracking.stream import stream_rows, tracks_info

        if self._tracker is None:
            self._tracker = self._make_tracker()
        tracker = self._tracker
        with open_source(self._video, ReadOptions(start=job.start or None)) as source:
            job.info = tracks_info(tracker, source.info, self._frames.sha256())
            tracker.reset((source.info.height, source.info.width))
            tracker.add(job.queries)
            for row in stream_rows(tracker, PrefetchedFrames(source)):
                yield (*row.result, row.frame.index, row.frame.pts)
