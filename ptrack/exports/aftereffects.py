"""After Effects keyframe data, to paste onto a layer.

After Effects has one rate for all keys and whole frames in between. The rate is that of the source, measured on the
tracks' time stamps, so that a key's frame divided by "Units Per Second" is its time in the clip, whatever the stride.
Positions are rounded to 4 decimals.
"""

from __future__ import annotations

import numpy as np

from ptrack.exports.common import frame_rate, frame_size
from ptrack.exports.corners import CornerPin
from ptrack.geometry import Size
from ptrack.tracks import Tracks

# The effect's corners as it counts them, and their numbers in a CornerPin.
_PIN = (("Upper Left", 0), ("Upper Right", 1), ("Lower Left", 3), ("Lower Right", 2))
MOST_DOUBLINGS = 6  # of the rate: frames that come closer than 1/64 of the usual time share a unit


def key_frames(tracks: Tracks) -> tuple[float, np.ndarray]:
    """Return the units per second and the (T,) int64 units of the rows; row 0 keeps its frame number.

    Where the source's frames come at a constant rate, the units are its frame numbers. Where they do not, a frame
    number is no time: the units then count from the stamps, at the average rate, doubled until no two rows share one.

    Raises:
        TracksError: the tracks hold no rate.
    """
    rate = frame_rate(tracks, "aftereffects")
    index, seconds = tracks.frame_index.astype(np.int64), tracks.pts_seconds
    if not np.isfinite(seconds).all():
        return rate, index
    passed = seconds - seconds[:1]
    if (np.abs(passed * rate - (index - index[:1])) < 0.5).all():
        return rate, index
    begin = index[:1] / rate  # seconds before the first row, as far as a frame number gives them
    units = index
    for _ in range(MOST_DOUBLINGS):
        units = np.round((begin + passed) * rate).astype(np.int64)
        if (np.diff(units) > 0).all():
            break
        rate *= 2
    return rate, units


def aftereffects_text(tracks: Tracks) -> str:
    """Return After Effects keyframe data: one motion-tracker point per point, with its confidence in percent.

    Coordinates: pixels, (0, 0) at the upper-left corner of the image. Frames are counted from 0, see ``key_frames``.
    """
    h, w = frame_size(tracks, "aftereffects")
    rate, units = key_frames(tracks)
    head = _head(rate, (h, w))
    points = [line for n in range(tracks.num_points) for line in _point(tracks, n, units)]
    return "\n".join([*head, *points, "", "End of Keyframe Data", ""])


def _head(rate: float, size: Size) -> list[str]:
    return [
        "Adobe After Effects 8.0 Keyframe Data",
        "",
        f"\tUnits Per Second\t{rate:.6g}",
        f"\tSource Width\t{size[1]}",
        f"\tSource Height\t{size[0]}",
        "\tSource Pixel Aspect Ratio\t1",
        "\tComp Pixel Aspect Ratio\t1",
        "",
    ]


def _point(tracks: Tracks, n: int, units: np.ndarray) -> list[str]:
    """Return the lines of one point; rows without a position have no key."""
    xy, name = tracks.tracks[:, n], f"Motion Trackers\tTracker #1\tTrack Point #{n + 1}"
    rows = np.flatnonzero(np.isfinite(xy).all(axis=1))
    places = [f"\t{units[t]}\t{xy[t, 0]:.4f}\t{xy[t, 1]:.4f}" for t in rows]
    percents = [f"\t{units[t]}\t{100 * tracks.visibility[t, n]:.2f}" for t in rows]
    return [
        *(f"{name}\tFeature Center", "\tFrame\tX pixels\tY pixels", *places, ""),
        *(f"{name}\tConfidence", "\tFrame\tpercent", *percents, ""),
    ]


def corner_pin_text(tracks: Tracks) -> str:
    """Return keyframes of the Corner Pin effect of 4 points: copy them, choose a layer of the frame's size, paste."""
    pin = CornerPin.of(tracks, "aftereffects-cornerpin")
    rate, units = key_frames(tracks)
    lines = _head(rate, pin.size)
    for number, (name, corner) in enumerate(_PIN, start=2):
        rows = zip(units[pin.rows], pin.corners[:, corner], strict=True)
        places = [f"\t{unit}\t{x:.4f}\t{y:.4f}" for unit, (x, y) in rows]
        lines += [f"Effects\tCorner Pin #1\t{name} #{number}", "\tFrame\tX pixels\tY pixels", *places, ""]
    return "\n".join([*lines, "", "End of Keyframe Data", ""])
