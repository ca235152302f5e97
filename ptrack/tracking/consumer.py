"""A worker thread that consumes items in order, so that writing overlaps with tracking."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

END = object()


class Consumer:
    """Calls ``work(item)`` for every item put, in order, in one thread.

    Args:
        work: what to do with an item.
        depth: items that may wait; ``put`` blocks beyond that, which bounds memory.

    An error in ``work`` comes out of the next ``put`` or of ``finish``.
    """

    def __init__(self, work: Callable[[Any], None], depth: int = 4) -> None:
        self._work = work
        self._items: queue.Queue[Any] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._aborted = False
        self._thread = threading.Thread(target=self._run, name="ptrack-consumer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (item := self._items.get()) is not END:
            if self._error is None and not self._aborted:
                try:
                    self._work(item)
                except BaseException as error:  # handed to the producer
                    self._error = error

    def put(self, item: Any) -> None:
        """Hand over an item; raises what an earlier item's work raised."""
        self._raise()
        self._items.put(item)

    def finish(self) -> None:
        """Wait until everything is done; raises what the work raised."""
        self._end()
        self._raise()

    def abort(self) -> None:
        """Drop what waits and end the thread."""
        self._aborted = True
        self._end()

    def _end(self) -> None:
        if self._thread.is_alive():
            self._items.put(END)
            self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
