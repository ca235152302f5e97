"""SIGINT and SIGTERM as a request to finish the current frame and close the files, or to wait a moment."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While in the ``with`` block, the first signal only sets ``signum``; a second one ends the process at once.

    Outside the main thread, where handlers cannot be set, it never fires.
    """

    def __init__(self) -> None:
        self.signum = 0  # number of the signal that came, 0 for none
        self._before: dict[int, Any] = {}

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        self.signum = signum

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._handle) for s in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Uninterrupted:
    """While in the ``with`` block, a Ctrl-C waits until its end: an exception inside a library's callback breaks it.

    Outside the main thread, where exceptions of signals do not arrive, it does nothing.
    """

    def __init__(self) -> None:
        self._came = False
        self._before: Any = None

    def _handle(self, _signum: int, _frame: FrameType | None) -> None:
        self._came = True

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        if self._came:
            signal.raise_signal(signal.SIGINT)
