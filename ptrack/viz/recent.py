"""What is drawn of the last frames: where trails break, how faint an occluded point is, how unsure a position looks.

Everything here depends on the frames up to the one drawn, so a live picture and one made later are the same.

Letters: S steps between the last S + 1 frames, N points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptrack.tracks import Tracks
from ptrack.viz.draw import Canvas
from ptrack.viz.style import OverlayStyle

JUMP = 0.05  # of the frame's shorter side: a shorter step is never a jump (24 pixels at 480p)
UNEXPLAINED = 0.75  # of a step's length: further from every step it is compared with, it is a jump
SHARED = 8  # points from which the median step of all is taken for the camera's motion
UNSURE, SURE = 0.2, 0.7  # confidence at and below which a point looks least, at and above which it looks fully sure
BLACK = np.zeros(3, np.uint8)


@dataclass(frozen=True)
class RecentTracks:
    """The last frames of all points, oldest first; the last row is the frame that is drawn."""

    xy: np.ndarray  # (S + 1, N, 2) pixels of the picture, NaN where there is no position
    visible: np.ndarray  # (S + 1, N) bool
    confidence: np.ndarray  # (S + 1, N) 0 to 1

    def select(self, points: np.ndarray) -> RecentTracks:
        """Return the points ``points`` (K,) only."""
        return RecentTracks(self.xy[:, points], self.visible[:, points], self.confidence[:, points])


def jumps(xy: np.ndarray, shorter_side: float) -> np.ndarray:
    """Return (S, N) bool: the step is long and neither the point's own motion nor that of all points explains it.

    A step is compared with the same point's step before and after and with the median step of all points; one of them
    must lie within ``UNEXPLAINED`` of its length. So fast motion and camera pans stay whole, while a tracker's leap to
    another place, and zig-zags, break.

    Args:
        xy: (S + 1, N, 2) pixels, NaN where unknown.
        shorter_side: of the frame, pixels.
    """
    step = np.diff(xy, axis=0)  # (S, N, 2)
    length = np.linalg.norm(step, axis=-1)
    nothing = np.full_like(step[:1], np.nan)
    others = [np.concatenate([nothing, step[:-1]]), np.concatenate([step[1:], nothing])]
    finite = np.isfinite(length)
    if step.shape[1] >= SHARED:
        median = [np.median(s[f], axis=0) if f.any() else np.full(2, np.nan) for s, f in zip(step, finite, strict=True)]
        others.append(np.broadcast_to(np.asarray(median).reshape(-1, 1, 2), step.shape))
    nearest = np.full_like(length, np.inf)
    for other in others:
        nearest = np.fmin(nearest, np.linalg.norm(step - other, axis=-1))
    return finite & (length > JUMP * shorter_side) & (nearest > UNEXPLAINED * length)


def joined_steps(tracks: Tracks) -> np.ndarray:
    """Return (T, N) bool: a trail leads from the frame before to this one; False at occlusions, jumps and gaps."""
    joined = np.zeros(tracks.visibility.shape, bool)
    if tracks.num_frames > 1:
        side = min(tracks.info.height, tracks.info.width)
        xy = tracks.tracks.astype(np.float64)
        joined[1:] = tracks.visible[1:] & tracks.visible[:-1] & np.isfinite(np.diff(xy, axis=0)).all(axis=-1)
        joined[1:] &= ~jumps(xy, side)
    return joined


def presence(visible: np.ndarray, style: OverlayStyle) -> np.ndarray:
    """Return (N,) opacity 0 to 1 of the marks in the last row: 1 where visible, by ``style.occluded`` where not.

    A briefly shown point fades over ``style.linger`` frames from where it was last visible, and then is gone.
    """
    now = visible[-1]
    if style.occluded != "brief":
        return np.where(now, 1.0, float(style.occluded == "always"))
    frames = np.arange(len(visible) - 1, -1, -1)[:, None]  # of each row before the last one
    since = np.where(visible, frames, style.linger + 1).min(axis=0)
    return np.clip(1 - since / (style.linger + 1), 0.0, 1.0)


def trail_opacity(xy: np.ndarray, shorter_side: float, style: OverlayStyle) -> np.ndarray:
    """Return (S, N) opacity 0 to 1 of the steps between rows of ``xy`` (S + 1, N, 2): less with age and with length."""
    steps = len(xy) - 1
    age = np.arange(steps - 1, -1, -1)[:, None] / max(1, style.trail)  # 0 for the newest step
    opacity = np.broadcast_to(1 - style.fade * age, (steps, xy.shape[1]))
    if style.reach is None:
        return opacity
    length = np.nan_to_num(np.linalg.norm(np.diff(xy, axis=0), axis=-1))
    newer = np.cumsum(length[::-1], axis=0)[::-1] - length  # pixels of trail between a step and the point
    return opacity * np.clip(1 - newer / (style.reach * shorter_side), 0.0, 1.0)


def certainty(confidence: np.ndarray) -> np.ndarray:
    """Return 0 (looks unsure) to 1 (looks sure) for confidences; NaN counts as sure, as nothing is known."""
    return np.clip((np.nan_to_num(confidence, nan=1.0) - UNSURE) / (SURE - UNSURE), 0.0, 1.0)


def draw_recent(canvas: Canvas, recent: RecentTracks, colours: np.ndarray, style: OverlayStyle, points: int) -> None:
    """Draw trails and points of the last frames.

    Args:
        canvas: holds the picture.
        recent: at least one row; trails are as long as ``style.trail`` and the rows allow.
        colours: (N, 3), or (S + 1, N, 3) for each row, uint8.
        style: the marks' looks.
        points: number of all points, on which the sizes depend.
    """
    width, radius = style.sizes(canvas.height, canvas.width, points)
    rows = slice(max(0, len(recent.xy) - 1 - style.trail), None)
    trail = RecentTracks(recent.xy[rows], recent.visible[rows], recent.confidence[rows])
    draw_trails(canvas, trail, colours[rows] if colours.ndim == 3 else colours, style, width)
    draw_points(canvas, recent, colours[-1] if colours.ndim == 3 else colours, style, radius)


def draw_trails(canvas: Canvas, recent: RecentTracks, colours: np.ndarray, style: OverlayStyle, width: float) -> None:
    """Draw the steps whose two ends are visible, jumps left out; the newest and surest are the most opaque.

    Args:
        canvas: holds the picture.
        recent: the rows of the trail.
        colours: (N, 3), or (S + 1, N, 3) for each row, uint8; a step has the colour of the row it leads to.
        style: fade, opacity, length and outline.
        width: pixels.
    """
    steps = len(recent.xy) - 1
    if steps < 1:
        return
    whole = recent.visible[1:] & recent.visible[:-1] & np.isfinite(recent.xy[1:] - recent.xy[:-1]).all(axis=-1)
    side = min(canvas.height, canvas.width)
    whole &= ~jumps(recent.xy, side)
    sure = certainty(np.fmin(recent.confidence[1:], recent.confidence[:-1]))
    left = trail_opacity(recent.xy, side, style) * presence(recent.visible, style)
    alpha = (style.opacity * left * (0.3 + 0.7 * sure))[whole]
    shades = np.broadcast_to(colours[1:] if colours.ndim == 3 else colours, (steps, *colours.shape[-2:]))[whole]
    start, end = recent.xy[:-1][whole], recent.xy[1:][whole]
    if style.outline:
        plain = alpha > 0.3  # under a fainter line the rim would not be seen
        canvas.lines(start[plain], end[plain], width + 1.5, BLACK, 0.45 * alpha[plain])
    canvas.lines(start, end, width, shades, alpha)


def draw_points(canvas: Canvas, recent: RecentTracks, colours: np.ndarray, style: OverlayStyle, radius: float) -> None:
    """Draw the last row: discs where visible, smaller and paler the less sure; thin rings where occluded.

    Args:
        canvas: holds the picture.
        recent: the last row is drawn; the rows before it show how long a point has been occluded.
        colours: (N, 3) uint8.
        style: ``occluded``, ``linger`` and ``outline``.
        radius: pixels of a disc that is sure.
    """
    xy, seen = recent.xy[-1], recent.visible[-1]
    sure = certainty(recent.confidence[-1])
    rim = max(0.8, 0.3 * radius)
    shown = presence(recent.visible, style)
    ghosts = ~seen & (shown > 0)
    opacity = 0.75 * shown[ghosts]
    line = max(1.0, 0.3 * radius)
    if style.outline:
        canvas.rings(xy[ghosts], radius + 0.5 * rim, line + 0.5 * rim, BLACK, 0.5 * opacity)
    canvas.rings(xy[ghosts], radius, line, colours[ghosts], opacity)
    size, alpha = radius * (0.5 + 0.5 * sure[seen]), 0.45 + 0.55 * sure[seen]
    if style.outline:
        canvas.discs(xy[seen], size + rim, BLACK, 0.75 * alpha)
    canvas.discs(xy[seen], size, colours[seen], alpha)
