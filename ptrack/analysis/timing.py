"""Times of tracks in seconds: those of the file, or of a rate that the user gives; never an assumed one."""

from __future__ import annotations

import numpy as np

from ptrack.errors import TracksError
from ptrack.tracks import Tracks

UNEVEN = 0.05  # share by which a step in time may differ from the usual one before times count as uneven


def has_times(tracks: Tracks) -> bool:
    """Return whether ``pts_seconds`` are times: finite, rising, and not frame numbers that stand in for them."""
    seconds = tracks.pts_seconds
    rising = len(seconds) < 2 or bool((np.diff(seconds) > 0).all())
    stand_in = not tracks.info.fps and np.array_equal(seconds, tracks.frame_index)
    return bool(np.isfinite(seconds).all()) and rising and not stand_in


def seconds_of(tracks: Tracks, fps: float | None = None) -> tuple[np.ndarray, str]:
    """Return the (T,) float64 times in seconds and a sentence on where they come from.

    Args:
        tracks: any tracks.
        fps: frames of the source per second; takes the place of the file's own times (slow motion). None: the file's.

    Raises:
        TracksError: ``fps`` is not above 0, or there are no times and no ``fps``.
    """
    if fps is not None:
        if not 0 < fps < np.inf:
            raise TracksError(f"--fps {fps:g}: give the frames per second at which the source was taken, above 0.")
        instead = ", in place of the times that the tracks hold" if has_times(tracks) else ""
        sentence = f"Times are frame numbers at {fps:g} frames per second (--fps){instead}."
        return tracks.frame_index / float(fps), sentence
    if not has_times(tracks):
        raise TracksError("The tracks hold no times; give the frames per second of the source with --fps.")
    return tracks.pts_seconds.astype(np.float64), "Times are the tracks' own."


def row_rate(seconds: np.ndarray) -> tuple[float, bool]:
    """Return rows per second (the median; 0 with less than two rows) and whether the steps in time are even."""
    steps = np.diff(seconds)
    if not len(steps):
        return 0.0, True
    usual = float(np.median(steps))
    return 1 / usual, bool((np.abs(steps - usual) <= UNEVEN * usual).all())
