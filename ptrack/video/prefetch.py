"""Decoding ahead in a thread, so that it overlaps with tracking and writing. Memory stays bounded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Self

from ptrack.video.frames import Frame


class PrefetchedFrames:
    """The same frames in the same order, read ahead by a thread; iterate once, or use as a context manager.

    The thread starts with the first frame asked for and ends when the frames end, when the consumer leaves the loop, or
    with ``close``. An error in the thread comes out of the consumer's loop, after the frames that were read before it.

    Args:
        frames: a FrameSource or any iterable of frames; it is read in the thread only.
        depth: the most frames held ready.
        max_bytes: and the most bytes of pixels. A frame that is larger is read when it is asked for, not ahead.
    """

    def __init__(self, frames: Iterable[Frame], depth: int = 4, max_bytes: int = 128 << 20) -> None:
        self._frames, self._depth, self._max_bytes = frames, max(1, depth), max_bytes
        self._ready: deque[Frame] = deque()
        self._bytes = 0
        self._error: BaseException | None = None
        self._over = self._stop = self._wanted = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="ptrack-prefetch", daemon=True)

    def _work(self) -> None:
        """Fill the queue; the iterator is made, used and closed in this thread."""
        frames: Iterator[Frame] | None = None
        try:
            frames = iter(self._frames)
            while not self._stop:
                frame = next(frames, None)
                if frame is None or not self._put(frame):
                    break
                del frame  # it may have 400 MB, and the next one is being made
        except BaseException as error:  # handed to the consumer
            self._error = error
        finally:
            if frames is not None and hasattr(frames, "close"):
                frames.close()  # type: ignore[attr-defined]
            with self._change:
                self._over = True
                self._change.notify_all()

    def _put(self, frame: Frame) -> bool:
        """Wait for room and add the frame; False if the consumer has left."""
        size = frame.rgb.nbytes
        with self._change:
            self._change.wait_for(
                lambda: (
                    self._stop
                    or not self._ready
                    or (len(self._ready) < self._depth and self._bytes + size <= self._max_bytes)
                )
            )
            if self._stop:
                return False
            self._ready.append(frame)
            self._bytes += size
            self._change.notify_all()
            if size > self._max_bytes:
                self._change.wait_for(lambda: self._stop or (self._wanted and not self._ready))
            return True

    def _get(self) -> Frame | None:
        """Wait for the next frame; None when there are no more."""
        with self._change:
            self._wanted = True
            self._change.notify_all()
            self._change.wait_for(lambda: self._ready or self._over)
            self._wanted = False
            if not self._ready:
                return None
            frame = self._ready.popleft()
            self._bytes -= frame.rgb.nbytes
            self._change.notify_all()
            return frame

    def __iter__(self) -> Iterator[Frame]:
        if self._thread.ident is None:
            self._thread.start()
        try:
            while (frame := self._get()) is not None:
                yield frame
            if self._error is not None and not self._stop:
                error, self._error = self._error, None
                raise error
        finally:
            self.close()

    def close(self) -> None:
        """Stop reading ahead and wait for the thread; a camera that is silent is waited for 5 seconds at most."""
        with self._change:
            self._stop = True
            self._ready.clear()
            self._bytes = 0
            self._change.notify_all()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
