"""Tracks and video for the Rerun viewer (https://rerun.io), through the optional extra ``rerun``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ptrack.data.images import jpeg
from ptrack.errors import OutputError
from ptrack.fileio import atomic_path
from ptrack.tracks import Tracks


def _library() -> Any:
    try:
        import rerun
    except ImportError as error:
        raise OutputError("--rerun needs the Rerun SDK; install it with: pip install 'pointtrack[rerun]'.") from error
    return rerun


def write_rerun(
    tracks: Tracks,
    path: Path | str,
    frames: Iterable[tuple[int, np.ndarray]] = (),
    colours: np.ndarray | None = None,
    trail: int = 12,
    joined: np.ndarray | None = None,
) -> None:
    """Write a recording with timelines ``frame`` and ``time``: video/points, video/occluded, video/trails.

    Coordinates: pixels, (0, 0) is the upper-left corner of the upper-left pixel, as Rerun's images have it.

    Args:
        tracks: what to show.
        path: the ``.rrd`` file; replaced if it exists.
        frames: ``(row of the tracks, (H, W, 3) uint8)``; stored as JPEG. Rows without a frame show the points only.
        colours: (N, 3) uint8.
        trail: frames of the past that are drawn.
        joined: (T, N) bool: a trail leads from the row before to this one. None: where both are visible.

    Raises:
        OutputError: the Rerun SDK is not installed, or the file cannot be written.
    """
    rr = _library()
    colours = np.full((tracks.num_points, 3), 255, np.uint8) if colours is None else colours
    if joined is None:
        seen = tracks.visible & np.isfinite(tracks.tracks).all(axis=-1)
        joined = seen & np.concatenate([np.zeros_like(seen[:1]), seen[:-1]])
    with atomic_path(path) as temporary:
        recording = rr.RecordingStream("ptrack")
        recording.save(str(temporary))
        pictures = iter(frames)
        waiting = next(pictures, None)
        for t in range(tracks.num_frames):
            recording.set_time("frame", sequence=int(tracks.frame_index[t]))
            if np.isfinite(tracks.pts_seconds[t]):
                recording.set_time("time", duration=float(tracks.pts_seconds[t]))
            if waiting is not None and waiting[0] == t:
                recording.log("video", rr.EncodedImage(contents=jpeg(waiting[1]), media_type="image/jpeg"))
                waiting = next(pictures, None)
            _log_points(rr, recording, tracks, t, colours, trail, joined)
        recording.flush()
        recording.disconnect()


def _log_points(
    rr: Any, recording: Any, tracks: Tracks, t: int, colours: np.ndarray, trail: int, joined: np.ndarray
) -> None:
    """Log the visible points, the occluded ones and the trails of row ``t``."""
    xy, visible = tracks.tracks[t], tracks.visible[t]
    present = np.isfinite(xy[:, 0]) & np.isfinite(xy[:, 1])
    for name, chosen, radius in (("points", present & visible, 3.0), ("occluded", present & ~visible, 1.5)):
        points = rr.Points2D(xy[chosen], colors=colours[chosen], radii=radius, labels=tracks.ids[chosen].tolist())
        recording.log(f"video/{name}", points)
    strips, owners = _trails(tracks, t, trail, joined)
    recording.log("video/trails", rr.LineStrips2D(strips, colors=colours[owners] if strips else None))


def _trails(tracks: Tracks, t: int, trail: int, joined: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the newest unbroken stretch of every visible point's trail, and whose they are."""
    first = max(0, t - trail)
    steps = np.cumprod(joined[first + 1 : t + 1][::-1], axis=0).sum(axis=0)  # back from this row
    owners = np.flatnonzero(steps)
    return [tracks.tracks[t - steps[n] : t + 1, n] for n in owners], owners
