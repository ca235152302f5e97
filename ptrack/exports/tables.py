"""Tables: napari's Tracks layer."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ptrack import geometry
from ptrack.errors import TracksError
from ptrack.fileio import atomic_path
from ptrack.tracks import Tracks
from ptrack.untrusted.limits import reading


def write_napari(tracks: Tracks, path: Path) -> None:
    """Write ``track_id, t, y, x`` (napari's order) with visibility, confidence and the point's id as properties.

    Rows are sorted by track and time, as napari asks; positions that are NaN have no row. ``t`` is the source frame,
    coordinates have the pixel's centre at whole numbers.
    """
    xy = geometry.to_opencv(tracks.tracks)
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["track_id", "t", "y", "x", "visibility", "confidence", "id"])
        for n in range(tracks.num_points):
            for t in np.flatnonzero(np.isfinite(xy[:, n]).all(axis=1)):
                x, y = xy[t, n]
                seen, sure = tracks.visibility[t, n], tracks.confidence[t, n]
                frame = int(tracks.frame_index[t])
                rows.writerow([n, frame, f"{y:.4f}", f"{x:.4f}", f"{seen:.4f}", f"{sure:.4f}", tracks.ids[n]])


def guess_csv(path: Path) -> str:
    """Return the format name of a CSV file from the first word of its first line."""
    with reading(path, TracksError, "a table"), open(path, "rb") as file:
        return "dlc-csv" if file.readline(100).removeprefix(b"\xef\xbb\xbf").startswith(b"scorer,") else "csv"
