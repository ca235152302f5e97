"""Reading ahead in a thread, so that it overlaps with tracking and writing. Memory stays bounded."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Self, TypeVar

from ptrack.video.frames import Frame

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """The same items in the same order, read by a thread into a bounded queue. One thread may take them.

    The thread starts with ``start`` or the first item asked for, and ends with the items or with ``close``. An error in
    it is raised where the items are taken, after those that were read before it.

    Args:
        items: made an iterator, used and closed in the thread only.
        name: of the thread.
        count: the most items held ready.
        size: of an item, in bytes.
        max_bytes: the most of all items held ready. A larger item is read when it is asked for, not ahead.
        newest: where the queue is full its oldest items make room; else the thread waits.
        patience: seconds for which ``close`` waits for the thread; a silent source may hold it longer.
        release: called when ``close`` was called and the thread reads no more, in whichever comes last.

    Attributes:
        dropped: how many items made room for newer ones.
    """

    def __init__(
        self,
        items: Iterable[T],
        name: str,
        *,
        count: float = math.inf,
        size: Callable[[T], int] = lambda item: 0,
        max_bytes: int = 0,
        newest: bool = False,
        patience: float = 5.0,
        release: Callable[[], object] = lambda: None,
    ) -> None:
        self._items, self._count, self._size, self._max_bytes = items, count, size, max_bytes
        self._newest, self._patience, self._release = newest, patience, release
        self.dropped = 0
        self._ready: deque[T] = deque()
        self._bytes = 0
        self._error: BaseException | None = None
        self._over = self._closed = self._wanted = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Begin to read, if it has not begun and ``close`` was not called."""
        if self._thread.ident is None and not self._closed:
            self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called; the items then end as soon as they can."""
        return self._closed

    @property
    def over(self) -> bool:
        """Whether no further item will come."""
        with self._change:
            return (self._over or self._closed) and not self._ready

    def pause(self, seconds: float) -> bool:
        """Let the thread wait; False as soon as ``close`` is called."""
        with self._change:
            return not self._change.wait_for(lambda: self._closed, max(seconds, 0))

    def get(self, timeout: float | None = None) -> T | None:
        """Wait for the next item; None when there are no more, or after ``timeout`` seconds without one."""
        self.start()
        with self._change:
            self._wanted = True
            self._change.notify_all()
            self._change.wait_for(lambda: self._ready or self._over or self._closed, timeout)
            self._wanted = False
            if self._ready:
                return self._take()
            if self._error is not None and not self._closed:
                error, self._error = self._error, None
                raise error
            return None

    def __iter__(self) -> Iterator[T]:
        while (item := self.get()) is not None:
            yield item

    def close(self) -> None:
        """Stop reading, forget what is ready, and wait for the thread, but no longer than ``patience``."""
        with self._change:
            if not self._closed and (self._over or self._thread.ident is None):
                self._release()
            self._closed = True
            self._ready.clear()
            self._bytes = 0
            self._change.notify_all()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(self._patience)

    def _work(self) -> None:
        """Fill the queue."""
        items: Iterator[T] | None = None
        try:
            items = iter(self._items)
            while not self._closed:
                item = next(items, None)
                if item is None or not self._put(item):
                    break
                del item  # it may have 400 MB, and the next one is being made
        except BaseException as error:  # handed to the consumer
            self._error = error
        finally:
            if close := getattr(items, "close", None):
                close()
            with self._change:
                self._over = True
                if self._closed:
                    self._release()
                self._change.notify_all()

    def _put(self, item: T) -> bool:
        """Wait for room and add the item; False if the consumer has left."""
        size = self._size(item)

        def fits() -> bool:
            return len(self._ready) < self._count and self._bytes + size <= self._max_bytes

        with self._change:
            while self._newest and self._ready and not fits():
                self._take()
                self.dropped += 1
            self._change.wait_for(lambda: self._closed or not self._ready or fits())
            if self._closed:
                return False
            self._ready.append(item)
            self._bytes += size
            self._change.notify_all()
            if size > self._max_bytes:
                self._change.wait_for(lambda: self._closed or (self._wanted and not self._ready))
            return True

    def _take(self) -> T:
        item = self._ready.popleft()
        self._bytes -= self._size(item)
        self._change.notify_all()
        return item


class PrefetchedFrames(ReadAhead[Frame]):
    """Frames decoded ahead; iterate once, or use as a context manager. Leaving the loop ends the thread.

    Args:
        frames: a FrameSource or any iterable of frames; it is read in the thread only.
        depth: the most frames held ready.
        max_bytes: and the most bytes of pixels. A frame that is larger is read when it is asked for, not ahead.
    """

    def __init__(self, frames: Iterable[Frame], depth: int = 4, max_bytes: int = 128 << 20) -> None:
        super().__init__(
            frames, "ptrack-prefetch", count=max(1, depth), size=lambda frame: frame.rgb.nbytes, max_bytes=max_bytes
        )

    def __iter__(self) -> Iterator[Frame]:
        try:
            yield from super().__iter__()
        finally:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
