"""What several export formats share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ptrack.errors import TracksError
from ptrack.geometry import Size
from ptrack.tracks import Tracks, TracksInfo
from ptrack.tracks_io import check_values, first_positions


def frame_size(tracks: Tracks, name: str) -> Size:
    """Return (H, W) of the displayed frame. Raises TracksError when the tracks lack it and ``name`` needs it."""
    size = (tracks.info.height, tracks.info.width)
    if min(size) < 1:
        raise TracksError(
            f"The format '{name}' needs the frame size, which these tracks do not hold; "
            "give it with --size WIDTHxHEIGHT, or in the tracks' info."
        )
    return size


def frame_rate(tracks: Tracks, name: str) -> float:
    """Return how many frames of the source come per second, whatever the stride; measured on the time stamps.

    Raises:
        TracksError: the tracks hold no times, and ``name`` needs them.
    """
    index, seconds = tracks.frame_index, tracks.pts_seconds
    steps = np.diff(index)
    stride = int(np.gcd.reduce(steps)) if len(steps) and (steps > 0).all() else 1
    stated = tracks.info.fps * stride
    timed = len(steps) > 0 and bool(np.isfinite(seconds).all()) and seconds[-1] > seconds[0]
    if timed and (stated or not np.array_equal(seconds, index)):  # without a rate, frame numbers stand in for seconds
        measured = float((index[-1] - index[0]) / (seconds[-1] - seconds[0]))
        return stated if stated and abs(measured / stated - 1) < 0.01 else _usual(measured)
    if stated:
        return stated
    raise TracksError(f"The format '{name}' needs the frame rate, which these tracks do not hold; give it with --fps.")


def _usual(rate: float) -> float:
    """Return the whole or NTSC rate within 0.1 % of a measured one, else the rate itself."""
    usual = (round(rate), round(rate * 1.001) / 1.001)
    near = min(usual, key=lambda r: abs(r - rate))
    return near if abs(near / rate - 1) < 1e-3 and near > 0 else rate


def keyed(tracks: Tracks, point: int) -> Iterator[tuple[int, float, float, bool]]:
    """Yield ``(source frame, x, y, visible)`` of one point for the frames where it has a position."""
    xy, visible = tracks.tracks[:, point], tracks.visible[:, point]
    for t in np.flatnonzero(np.isfinite(xy).all(axis=1)):
        yield int(tracks.frame_index[t]), float(xy[t, 0]), float(xy[t, 1]), bool(visible[t])


def build_tracks(
    xy: np.ndarray,
    visibility: np.ndarray,
    ids: Any,
    info: TracksInfo,
    frame_index: np.ndarray | None = None,
    pts: np.ndarray | None = None,
) -> Tracks:
    """Build Tracks from other programs' arrays: (T, N, 2) raster pixels and (T, N) visibility probabilities.

    The query of a point is its first frame with a position (frame 0 and NaN if it has none). Times follow from the
    frame rate when there is one, and are the frame numbers otherwise.

    Raises:
        TracksError: shapes do not fit, frame numbers do not rise, or times or the frame rate are impossible.
    """
    if not 0 <= info.fps < np.inf:
        raise TracksError(f"the frame rate {info.fps} is impossible.")
    t, n = visibility.shape
    xy = np.ascontiguousarray(xy, dtype=np.float32)
    present = np.isfinite(xy[..., 0]) & np.isfinite(xy[..., 1])
    xy = np.where(present[..., None], xy, np.float32("nan"))
    visibility = np.where(present, np.clip(np.nan_to_num(visibility), 0, 1), 0).astype(np.float32)
    frame_index = np.arange(t) if frame_index is None else np.asarray(frame_index, dtype=np.int64)
    seconds = frame_index / (info.fps or 1.0) if pts is None else np.asarray(pts, dtype=np.float64)
    tracks = Tracks(
        tracks=xy,
        visibility=visibility,
        confidence=visibility.copy(),
        queries=first_positions(xy),
        ids=np.asarray([str(i) for i in (range(n) if ids is None else ids)], dtype=np.str_),
        frame_index=frame_index,
        pts_seconds=seconds,
        info=info,
    )
    return check_values(tracks)
