"""Nuke scripts. Positions are rounded to 4 decimals."""

from __future__ import annotations

from pathlib import Path

from ptrack.exports.common import frame_size, keyed, write_text
from ptrack.tracks import Tracks


def nuke_script(tracks: Tracks) -> str:
    """Return a Nuke script of Tracker3 nodes (four points each), to paste into the node graph or open.

    Coordinates: pixels, (0, 0) at the lower-left corner of the image, y upwards. Frame 0 of the video is frame 1.
    """
    h, _ = frame_size(tracks, "nuke")
    blocks = []
    for first in range(0, tracks.num_points, 4):
        points = range(first, min(first + 4, tracks.num_points))
        rows = [_nuke_track(tracks, n, n - first + 1, h) for n in points]
        names = " ".join(_plain(tracks.ids[n]) for n in points)
        label = f"ptrack_{first // 4 + 1}"
        blocks.append("\n".join(["Tracker3 {", *rows, f" label {{{names}}}", f" name {label}", " inputs 0", "}"]))
    return "\n".join(blocks) + "\n"


def _nuke_track(tracks: Tracks, n: int, slot: int, height: int) -> str:
    rows = [(f + 1, x, height - y) for f, x, y, _ in keyed(tracks, n)]
    xs = " ".join(f"x{f} {x:.4f}" for f, x, _ in rows)
    ys = " ".join(f"x{f} {y:.4f}" for f, _, y in rows)
    enabled = "true" if rows else "false"
    return f" track{slot} {{{{curve {xs}}} {{curve {ys}}}}}\n use_for{slot} all\n enable{slot} {enabled}"


def _plain(name: str) -> str:
    """Return an id as one TCL word."""
    return "".join(c if c.isalnum() or c in "_-." else "_" for c in str(name))


def write_nuke(tracks: Tracks, path: Path) -> None:
    """Write ``nuke_script`` to ``path``."""
    write_text(path, nuke_script(tracks))
