"""The standard picture of tracked points: discs with fading trails, a stable colour per point, hollow when occluded."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from ptrack.errors import ConfigError
from ptrack.viz.colours import by_position
from ptrack.viz.draw import Canvas

_REFERENCE = 480.0  # the frame side at which the default sizes below are meant in pixels


@dataclass(frozen=True, kw_only=True)
class OverlayStyle:
    """How tracks look. Sizes left at None follow the frame's shorter side and shrink when there are many points."""

    trail: int = 12  # frames of the past that are drawn, 0 for none
    width: float | None = None  # pixels, of a trail
    radius: float | None = None  # pixels, of a point
    fade: float = 1.0  # how much of its opacity a trail has lost at its old end, 0 to 1
    opacity: float = 0.9  # of a trail at its new end, 0 to 1
    occluded: float = 0.3  # opacity of a trail where the point was hidden, relative to visible, 0 to 1
    outline: bool = True  # a thin dark rim that keeps light points readable on light ground

    def __post_init__(self) -> None:
        if self.trail < 0:
            raise ConfigError(f"trail must be 0 or more frames, not {self.trail}.")
        for name in ("fade", "opacity", "occluded"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie between 0 and 1, not {getattr(self, name):g}.")
        for name in ("width", "radius"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above 0 pixels, not {value:g}.")

    def sizes(self, height: int, width: int, points: int) -> tuple[float, float]:
        """Return (trail width, point radius) in pixels for a frame of this size with so many points."""
        scale = min(height, width) / _REFERENCE
        room = 0.2 * np.sqrt(height * width / max(points, 1))  # a fifth of the distance in an even grid
        radius = self.radius or float(np.clip(3.6 * scale, 1.2, max(1.2, room)))
        return self.width or max(0.8, 0.5 * radius), radius


class Overlay:
    """Draws the points of one video, frame after frame; remembers the last ``style.trail`` positions and nothing else.

    A point's colour is fixed by where it is first seen. Points may be appended over time.
    """

    def __init__(self, style: OverlayStyle | None = None) -> None:
        self.style = style or OverlayStyle()
        self._past: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=self.style.trail + 1)
        self._colours = np.zeros((0, 3), np.uint8)
        self._coloured = np.zeros(0, bool)

    def draw(self, frame: np.ndarray, xy: np.ndarray, visible: np.ndarray) -> np.ndarray:
        """Return a copy of the frame with the points drawn on it.

        Args:
            frame: (H, W, 3) uint8 RGB.
            xy: (N, 2) raster pixels of this frame; rows with NaN are not drawn.
            visible: (N,) bool; False draws a hollow point.

        Raises:
            ValueError: there are fewer points than in the last frame (say which with ``keep``) or shapes do not agree.
        """
        xy = np.array(xy, dtype=np.float64).reshape(-1, 2)
        visible = np.array(visible, dtype=bool)
        if visible.shape != (len(xy),) or len(xy) < len(self._colours):
            raise ValueError(f"{len(xy)} positions, {visible.shape} visible, {len(self._colours)} points before.")
        self._grow(xy, frame.shape[:2])
        self._past.append((xy, visible))
        canvas = Canvas(frame)
        width, radius = self.style.sizes(frame.shape[0], frame.shape[1], len(xy))
        self._trails(canvas, width)
        draw_points(canvas, xy, visible, self._colours, self.style, radius)
        return canvas.rgb

    def keep(self, index: np.ndarray) -> None:
        """Go on with only the points ``index`` (K,), in that order."""
        self._colours, self._coloured = self._colours[index], self._coloured[index]
        past = [(xy[index], visible[index]) for xy, visible in self._past]
        self._past = deque(past, maxlen=self._past.maxlen)

    def _grow(self, xy: np.ndarray, size: tuple[int, int]) -> None:
        """Make room for appended points and colour those that are seen for the first time."""
        more = len(xy) - len(self._colours)
        if more:
            self._colours = np.concatenate([self._colours, np.zeros((more, 3), np.uint8)])
            self._coloured = np.concatenate([self._coloured, np.zeros(more, bool)])
            nowhere, unseen = np.full((more, 2), np.nan), np.zeros(more, bool)
            past = [(np.concatenate([a, nowhere]), np.concatenate([b, unseen])) for a, b in self._past]
            self._past = deque(past, maxlen=self._past.maxlen)
        fresh = ~self._coloured & np.isfinite(xy).all(axis=1)
        self._colours[fresh] = by_position(xy[fresh], size)
        self._coloured |= fresh

    def _trails(self, canvas: Canvas, width: float) -> None:
        if len(self._past) > 1:
            xy = np.stack([position for position, _ in self._past])
            visible = np.stack([seen for _, seen in self._past])
            draw_trails(canvas, xy, visible, self._colours, self.style, width)


def draw_trails(
    canvas: Canvas, xy: np.ndarray, visible: np.ndarray, colours: np.ndarray, style: OverlayStyle, width: float
) -> None:
    """Draw all segments of all trails in one call; the newest are the most opaque and win where they overlap.

    Args:
        canvas: to draw on.
        xy: (S + 1, N, 2) pixels, oldest first; NaN breaks a trail.
        visible: (S + 1, N) bool; segments with a hidden end are fainter.
        colours: (N, 3), or (S, N, 3) for each segment, uint8.
        style: fade, opacity and length.
        width: pixels.
    """
    steps = len(xy) - 1
    if steps < 1:
        return
    age = np.arange(steps - 1, -1, -1) / max(1, style.trail)  # 0 for the newest segment
    alpha = style.opacity * (1 - style.fade * age)[:, None]
    alpha = alpha * np.where(visible[1:] & visible[:-1], 1.0, style.occluded)
    colours = np.broadcast_to(colours, (steps, *colours.shape[-2:]))
    canvas.lines(xy[:-1].reshape(-1, 2), xy[1:].reshape(-1, 2), width, colours.reshape(-1, 3), alpha.reshape(-1))


def draw_points(
    canvas: Canvas, xy: np.ndarray, visible: np.ndarray, colours: np.ndarray, style: OverlayStyle, radius: float
) -> None:
    """Draw discs for visible points and rings for hidden ones, over a dark rim: (N, 2), (N,) bool, (N, 3) uint8."""
    hidden = ~visible
    rim = max(0.6, 0.25 * radius)
    if style.outline:
        black = np.zeros(3, np.uint8)
        canvas.discs(xy[visible], radius + rim, black, 0.55)
        canvas.rings(xy[hidden], radius + rim, 0.38 * radius + 2 * rim, black, 0.4)
    canvas.discs(xy[visible], radius, colours[visible])
    canvas.rings(xy[hidden], radius, max(0.8, 0.38 * radius), colours[hidden])
