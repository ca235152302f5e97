"""Encoding frames ahead in a thread of its own, while the frame before them is tracked.

On a CPU a step is thousands of small operations, which several threads speed up little; an encoder beside it keeps the
other cores busy. With few points encoding is most of the work, with very many of them the step is: then all threads
work on one thing after the other. Models know with how many points both take about as long.
Numbers: docs/benchmarks.md.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ptrack.models.base import EncodesAhead
from ptrack.tracking.frame_tracker import FrameTracker, as_frame
from ptrack.video.frames import Frame

AHEAD = 2  # frames encoded or being encoded while one is tracked
MOST_BYTES = 128 << 20  # of pixels of frames that wait: of very large frames none is read before it is needed


class _Threads:
    """How many threads torch has while nothing is encoded ahead: those that every user begins with and puts back."""

    def __init__(self) -> None:
        self._lock, self._users, self._whole = threading.Lock(), 0, 1

    def whole(self) -> int:
        """Return that number."""
        with self._lock:
            return self._whole if self._users else torch.get_num_threads()

    @contextmanager
    def shared(self) -> Iterator[int]:
        """Hold that number for one run, in which other numbers may be set, and put it back at its end."""
        with self._lock:
            if not self._users:
                self._whole = torch.get_num_threads()
            self._users += 1
            threads = self._whole
        try:
            yield threads
        finally:
            torch.set_num_threads(threads)
            with self._lock:
                self._users -= 1


_THREADS = _Threads()


def pays(tracker: FrameTracker) -> bool:
    """Return whether frames should be encoded ahead: with two threads or more, and as many points as suit the model."""
    model = tracker.model
    return isinstance(model, EncodesAhead) and len(tracker.ids) in model.encodes_ahead and _THREADS.whole() > 1


def encode(tracker: FrameTracker, pictures: list[np.ndarray]) -> list[Any]:
    """Return the model's features of (H, W, 3) frames of one size, encoded in one call."""
    with torch.inference_mode():
        return list(tracker.model.encode(torch.stack([as_frame(rgb) for rgb in pictures])))


def encoded_ahead(tracker: FrameTracker, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Any]]:
    """Yield every frame with its features, None for those that no point needs.

    Half of the threads encode; the caller has the others until the last frame was read. An error of ``frames`` comes
    after the frames before it.
    """
    with _THREADS.shared() as threads:
        pool = ThreadPoolExecutor(1, "ptrack-encoder", initializer=torch.set_num_threads, initargs=(threads // 2,))
        try:
            pool.submit(int).result()  # the initializer has run: it sets what this thread would begin with, too
            torch.set_num_threads(threads - threads // 2)
            yield from _encoded_by(pool, tracker, frames)
        finally:
            pool.shutdown(cancel_futures=True)


def _encoded_by(
    pool: ThreadPoolExecutor, tracker: FrameTracker, frames: Iterable[Frame]
) -> Iterator[tuple[Frame, Any]]:
    waiting: deque[tuple[Frame, Future[list[Any]] | None]] = deque()
    source = iter(frames)
    error: Exception | None = None
    while waiting or error is None:
        while error is None and _room(waiting):
            try:
                frame = next(source)
            except Exception as raised:
                error = raised
            else:
                wanted = frame.ok and tracker.needs_features(ahead=len(waiting))
                waiting.append((frame, pool.submit(encode, tracker, [frame.rgb]) if wanted else None))
        if waiting:
            frame, job = waiting.popleft()
            yield frame, None if job is None else job.result()[0]
    if not isinstance(error, StopIteration):
        raise error


def _room(waiting: deque[tuple[Frame, Future[list[Any]] | None]]) -> bool:
    """Return whether one more frame may be read ahead."""
    return len(waiting) <= AHEAD and sum(frame.rgb.nbytes for frame, _ in waiting) < MOST_BYTES
