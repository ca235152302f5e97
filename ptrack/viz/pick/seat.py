"""Who may change the session: one tab at a time. Another one looks on, and may take over."""

from __future__ import annotations

import threading
import time

from ptrack.errors import PTrackError

GONE_SECONDS = 30.0  # without a request, after which a tab no longer holds the seat; tabs ask every 10 s


class TakenError(PTrackError):
    """Another tab works on the points."""


class WriterSeat:
    """The one tab that may write; tabs are known by a name that each makes up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder = ""
        self._seen = 0.0

    def holds(self, tab: str) -> bool:
        """Return whether ``tab`` may write, and note that it is there."""
        with self._lock:
            if tab == self._holder and tab:
                self._seen = time.monotonic()
            return bool(tab) and tab == self._holder

    def claim(self, tab: str, *, force: bool = False) -> bool:
        """Take the seat if it is free, its holder is gone, or ``force``; returns whether ``tab`` has it."""
        with self._lock:
            free = not self._holder or time.monotonic() - self._seen > GONE_SECONDS
            if tab and (free or force or tab == self._holder):
                self._holder, self._seen = tab, time.monotonic()
            return bool(tab) and tab == self._holder

    def leave(self, tab: str) -> None:
        """Free the seat if ``tab`` holds it."""
        with self._lock:
            if tab == self._holder:
                self._holder = ""

    def require(self, tab: str) -> None:
        """Raise TakenError unless ``tab`` may write; a free seat becomes its own."""
        if not self.claim(tab):
            raise TakenError("Another tab works on these points now. Take over to change them here.")
