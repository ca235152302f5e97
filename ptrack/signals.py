"""SIGINT and SIGTERM as a request to finish the current frame and close the files."""

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
