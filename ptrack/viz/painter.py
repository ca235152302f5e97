"""Painting the tracks of one frame onto its picture. Stateless in time: any frame, in any order, in constant memory.

Letters: S steps of a trail, N points, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ptrack.homography import apply
from ptrack.tracks import Tracks
from ptrack.viz import homography, marks, palette
from ptrack.viz.draw import Canvas
from ptrack.viz.recent import RecentTracks, draw_recent, presence
from ptrack.viz.style import OverlayStyle

LONG_TRAIL = 40  # frames of a stabilised trail: long, because without the camera's motion it stays readable


@dataclass(frozen=True, kw_only=True)
class PaintOptions:
    """How a set of tracks is painted."""

    colour: str = "start"  # one of palette.MODES
    style: OverlayStyle = field(default_factory=OverlayStyle)
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


class TracksPainter:
    """Paints one set of tracks.

    Args:
        tracks: what to paint.
        options: colours, sizes, what else to draw.

    Raises:
        ConfigError: unknown colour mode.
    """

    def __init__(self, tracks: Tracks, options: PaintOptions | None = None) -> None:
        self.tracks, self.options = tracks, options or PaintOptions()
        self.scheme = palette.colouring(tracks, self.options.colour)
        self._motion = homography.CameraMotion(tracks, self.style.history) if self.options.stabilise else None

    @property
    def style(self) -> OverlayStyle:
        """Sizes, trails and occluded points."""
        return self.options.style

    def paint(self, t: int, view: View) -> np.ndarray:
        """Return a copy of the view's picture with row ``t`` of the tracks on it, and a scale: (H, W, 3) uint8."""
        canvas = Canvas(view.rgb)
        self.draw(t, view, canvas)
        self.draw_scale(canvas)
        return canvas.rgb

    def draw_scale(self, canvas: Canvas) -> None:
        """Draw what the colours mean into the lower left corner, if they stand for numbers."""
        if self.scheme.scale is not None:
            marks.draw_scale(canvas.rgb, self.scheme.scale)

    def draw(self, t: int, view: View, canvas: Canvas) -> None:
        """Draw row ``t`` onto a canvas that holds the view's picture."""
        first = max(0, t - self.style.history)
        recent = self._recent(t, first, view)
        still = self._motion.background if self._motion is not None else np.zeros(self.tracks.num_points, bool)
        moving = np.flatnonzero(~still)
        _, radius = self.style.sizes(canvas.height, canvas.width, self.tracks.num_points)
        xy = recent.xy[-1]
        if still.any():  # where the camera's motion was measured: small and pale
            seen = still & self.tracks.visible[t]
            canvas.discs(xy[seen], max(0.8, 0.45 * radius), np.full(3, 230, np.uint8), 0.45)
        colours = self.scheme.colours(first, t)[:, moving]
        draw_recent(canvas, recent.select(moving), colours, self.style, self.tracks.num_points)
        if self.options.highlight is not None:
            chosen = self.tracks.ids == self.options.highlight
            canvas.rings(xy[chosen], 2.2 * radius, 0.5 * radius, np.full(3, 255, np.uint8), 0.9)
        if self.options.labels:
            named = moving[presence(recent.visible, self.style)[moving] > 0]
            self._write(canvas, xy, named[np.isfinite(xy[named, 0])], radius)

    def _recent(self, t: int, first: int, view: View) -> RecentTracks:
        """Return the rows ``first`` .. ``t`` in pixels of the view, seen from the camera of frame ``t``."""
        rows = slice(first, t + 1)
        past = self.tracks.tracks[rows].astype(np.float64)
        if self._motion is not None:
            past = apply(self._motion.to_current(t, first), past)
        past[-1] = self.tracks.tracks[t]
        return RecentTracks(view.place(past), self.tracks.visible[rows], self.tracks.confidence[rows])

    def _write(self, canvas: Canvas, xy: np.ndarray, points: np.ndarray, radius: float) -> None:
        size = marks.text_size(canvas.height)
        for n in points:
            x, y = xy[n, 0] + radius + 1, xy[n, 1] - radius - size
            marks.draw_text(canvas.rgb, str(self.tracks.ids[n]), x, y, size)
