"""Painting the tracks of one frame onto its picture. Stateless in time: any frame, in any order, in constant memory.

Letters: S steps of a trail, N points, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ptrack.tracks import Tracks
from ptrack.viz import homography, marks, palette
from ptrack.viz.draw import Canvas
from ptrack.viz.overlay import OverlayStyle, draw_points, draw_trails

LONG_TRAIL = 40  # frames of a stabilised trail: long, because without the camera's motion it stays readable


@dataclass(frozen=True, kw_only=True)
class Look:
    """How tracks look."""

    colour: str = "start"  # one of palette.MODES
    style: OverlayStyle = field(default_factory=OverlayStyle)
    occluded: bool = True  # draw hidden points, hollow; False leaves them out
    labels: bool = False  # write the ids beside the points
    highlight: str | None = None  # id of a point that gets a white ring
    stabilise: bool = False  # take the camera's motion out of the trails, and leave out those of the background


@dataclass(frozen=True)
class View:
    """Which part of the frame a picture shows: a point (x, y) of the tracks is drawn at ``(x, y) * scale + offset``."""

    rgb: np.ndarray  # (H, W, 3) uint8
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)

    def place(self, xy: np.ndarray) -> np.ndarray:
        """Return points (..., 2) of the tracks as pixels of the picture, float64."""
        return xy.astype(np.float64) * self.scale + self.offset


def whole_frame(tracks: Tracks, rgb: np.ndarray) -> View:
    """Return the view of a whole frame that may have been reduced when it was read."""
    height, width = rgb.shape[:2]
    return View(rgb, (width / (tracks.info.width or width), height / (tracks.info.height or height)))


class Painter:
    """Paints one set of tracks.

    Args:
        tracks: what to paint.
        look: how.

    Raises:
        ConfigError: unknown colour mode.
    """

    def __init__(self, tracks: Tracks, look: Look | None = None) -> None:
        self.tracks, self.look = tracks, look or Look()
        self.colours = palette.colouring(tracks, self.look.colour)
        self._motion = homography.CameraMotion(tracks, self.look.style.trail) if self.look.stabilise else None

    def paint(self, t: int, view: View) -> np.ndarray:
        """Return a copy of the view's picture with row ``t`` of the tracks on it: (H, W, 3) uint8."""
        canvas = Canvas(view.rgb)
        self.draw(t, view, canvas)
        return canvas.rgb

    def draw(self, t: int, view: View, canvas: Canvas) -> None:
        """Draw row ``t`` onto a canvas that holds the view's picture."""
        style = self.look.style
        width, radius = style.sizes(canvas.height, canvas.width, self.tracks.num_points)
        first = max(0, t - style.trail)
        colours = self.colours(first, t)
        visible = self.tracks.visible[t]
        shown = np.isfinite(self.tracks.tracks[t, :, 0]) & (visible | self.look.occluded)
        still = self._motion.background if self._motion is not None else np.zeros(len(shown), bool)
        moving = np.flatnonzero(shown & ~still)
        if style.trail and t > first:
            past = view.place(self._past(t, first)[:, moving])
            seen = self.tracks.visible[first : t + 1, moving]
            draw_trails(canvas, past, seen, colours[1:, moving], style, width)
        xy = view.place(self.tracks.tracks[t])
        if still.any():  # where the camera's motion was measured: small and pale
            canvas.discs(xy[shown & still], max(0.8, 0.45 * radius), np.full(3, 230, np.uint8), 0.45)
        draw_points(canvas, xy[moving], visible[moving], colours[-1, moving], style, radius)
        if self.look.highlight is not None:
            chosen = (self.tracks.ids == self.look.highlight) & shown
            canvas.rings(xy[chosen], 2.2 * radius, 0.5 * radius, np.full(3, 255, np.uint8), 0.9)
        if self.look.labels:
            self._write(canvas, xy, moving, radius)

    def _past(self, t: int, first: int) -> np.ndarray:
        """Return (S + 1, N, 2) positions from frame ``first`` to ``t``, seen from the camera of frame ``t``."""
        past = self.tracks.tracks[first : t + 1].astype(np.float64)
        if self._motion is None:
            return past
        return homography.apply(self._motion.to_current(t, first), past)

    def _write(self, canvas: Canvas, xy: np.ndarray, points: np.ndarray, radius: float) -> None:
        size = marks.text_size(canvas.height)
        for n in points:
            x, y = xy[n, 0] + radius + 1, xy[n, 1] - radius - size
            marks.draw_text(canvas.rgb, str(self.tracks.ids[n]), x, y, size)
