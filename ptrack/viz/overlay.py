"""The standard picture of tracked points while they are tracked: frame after frame, each drawn once."""

from __future__ import annotations

from collections import deque

import numpy as np

from ptrack.viz.colours import by_position
from ptrack.viz.draw import Canvas
from ptrack.viz.recent import RecentTracks, draw_recent
from ptrack.viz.style import OverlayStyle, overlay_style

__all__ = ["Overlay", "OverlayStyle"]

_Row = tuple[np.ndarray, np.ndarray, np.ndarray]  # positions (N, 2), visible (N,), confidence (N,)


def asked_overlay(trail: int | None = None, occluded: bool | None = None) -> Overlay:
    """Return what draws a video in the style a user asked for, see ``overlay_style``; raises ConfigError."""
    return Overlay(overlay_style(trail, occluded))


class Overlay:
    """Draws the points of one video, frame after frame; remembers the last ``style.history`` rows and nothing else.

    A point's colour is fixed by where it is first seen. Points may be appended over time.
    """

    def __init__(self, style: OverlayStyle | None = None) -> None:
        self.style = style or OverlayStyle()
        self._past: deque[_Row] = deque(maxlen=self.style.history + 1)
        self._colours = np.zeros((0, 3), np.uint8)
        self._coloured = np.zeros(0, bool)

    def draw(
        self, frame: np.ndarray, xy: np.ndarray, visible: np.ndarray, confidence: np.ndarray | None = None
    ) -> np.ndarray:
        """Return a copy of the frame with the points drawn on it.

        Args:
            frame: (H, W, 3) uint8 RGB.
            xy: (N, 2) raster pixels of this frame; rows with NaN are not drawn.
            visible: (N,) bool; False draws a ring, as ``style.occluded`` states.
            confidence: (N,) 0 to 1; a low one draws a smaller and paler point. None: all are sure.

        Raises:
            ValueError: there are fewer points than in the last frame (choose with ``keep``) or shapes do not agree.
        """
        xy = np.array(xy, dtype=np.float64).reshape(-1, 2)
        visible = np.array(visible, dtype=bool)
        sure = np.ones(len(xy)) if confidence is None else np.array(confidence, dtype=np.float64)
        if visible.shape != (len(xy),) or sure.shape != (len(xy),) or len(xy) < len(self._colours):
            raise ValueError(f"{len(xy)} positions, {visible.shape} visible, {len(self._colours)} points before.")
        self._grow(xy, frame.shape[:2])
        self._past.append((xy, visible, sure))
        canvas = Canvas(frame)
        recent = RecentTracks(*(np.stack(column) for column in zip(*self._past, strict=True)))
        draw_recent(canvas, recent, self._colours, self.style, len(xy))
        return canvas.rgb

    def keep(self, index: np.ndarray) -> None:
        """Go on with only the points ``index`` (K,), in that order."""
        self._colours, self._coloured = self._colours[index], self._coloured[index]
        past = [(xy[index], visible[index], sure[index]) for xy, visible, sure in self._past]
        self._past = deque(past, maxlen=self._past.maxlen)

    def _grow(self, now: np.ndarray, size: tuple[int, int]) -> None:
        """Make room for appended points and colour those that are seen for the first time."""
        more = len(now) - len(self._colours)
        if more:
            self._colours = np.concatenate([self._colours, np.zeros((more, 3), np.uint8)])
            self._coloured = np.concatenate([self._coloured, np.zeros(more, bool)])
            nowhere, hidden, unknown = np.full((more, 2), np.nan), np.zeros(more, bool), np.zeros(more)
            past = [
                (np.concatenate([xy, nowhere]), np.concatenate([seen, hidden]), np.concatenate([sure, unknown]))
                for xy, seen, sure in self._past
            ]
            self._past = deque(past, maxlen=self._past.maxlen)
        new = ~self._coloured & np.isfinite(now).all(axis=1)
        self._colours[new] = by_position(now[new], size)
        self._coloured |= new
