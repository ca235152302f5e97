"""The live page: what a camera shows and where its points are, in the look and behind the checks of the picking page.

Nothing is coded while nobody looks: pictures become JPEGs when a page asks for them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ptrack.data.images import jpeg
from ptrack.viz.pick.frames import MAX_SIDE
from ptrack.viz.pick.server import PageHandler, PickServer, number

if TYPE_CHECKING:
    from ptrack.live.publish import LiveFrame

KEPT = 4  # pictures: a page asks for one a moment after it has heard of it
POLL_SECONDS = 10.0


class LiveView:
    """The newest frames of a live run; every method may be called from any thread."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[int, np.ndarray] = OrderedDict()
        self._newest: LiveFrame | None = None
        self._news = threading.Condition()
        self._over = False

    def show(self, rgb: np.ndarray, frame: LiveFrame) -> None:
        """Take the next frame: an (H, W, 3) uint8 picture and its points."""
        with self._news:
            self._pictures[frame.frame] = rgb
            while len(self._pictures) > KEPT:
                self._pictures.popitem(last=False)
            self._newest = frame
            self._news.notify_all()

    def poll(self, after: int, wait: float = POLL_SECONDS) -> dict[str, Any]:
        """Return the newest frame later than ``after``, waiting for it at most ``wait`` seconds."""
        with self._news:
            self._news.wait_for(lambda: self._over or self._number() > after, timeout=wait)
            frame = self._newest if self._number() > after else None
        if frame is None:
            return {"frame": None, "over": self._over}
        points = [
            [name, round(x, 1), round(y, 1), visible, round(c, 2)]
            for name, (x, y), visible, c in zip(
                frame.ids, frame.positions.tolist(), frame.visible.tolist(), frame.confidence.tolist(), strict=True
            )
            if x == x and y == y
        ]
        about = {"width": frame.width, "height": frame.height, "age": round(frame.age_ms, 1), "dropped": frame.dropped}
        return {"frame": frame.frame, "points": points, "over": self._over, **about}

    def _number(self) -> int:
        return -1 if self._newest is None else self._newest.frame

    def picture(self, index: int) -> bytes | None:
        """Return a recent frame's picture as JPEG, None if it has gone."""
        with self._news:
            rgb = self._pictures.get(index)
        if rgb is None:
            return None
        step = -(-max(rgb.shape[:2]) // MAX_SIDE)
        return jpeg(np.ascontiguousarray(rgb[::step, ::step]))

    def close(self) -> None:
        """Let waiting pages know that there is no more."""
        with self._news:
            self._over = True
            self._news.notify_all()


class LiveHandler(PageHandler):
    """Answers the live page."""

    files: Mapping[str, tuple[str, ...]] = {
        "": ("html", "pick/live.html"),
        "live.js": ("javascript", "pick/live.js"),
        "style.css": ("css", "html/viewer.css", "pick/live.css"),
    }
    answers: Mapping[str, Callable[[LiveView, dict[str, str]], Any]] = {
        "poll": lambda view, query: view.poll(number(query, "after"))
    }
    pictures: Mapping[str, Callable[[LiveView, int], bytes | None]] = {"frame": lambda view, i: view.picture(i)}


class LiveServer(PickServer):
    """Serves a ``LiveView``."""

    page = LiveHandler

    def close(self) -> None:
        """Let waiting pages go, then stop listening."""
        self.session.close()
        super().close()
