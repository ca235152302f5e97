"""Tables: napari's Tracks layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ptrack import geometry
from ptrack.errors import TracksError
from ptrack.fileio import write_csv
from ptrack.tracks import Tracks
from ptrack.untrusted.limits import reading


def write_napari(tracks: Tracks, path: Path) -> None:
    """Write ``track_id, t, y, x`` (napari's order) with visibility, confidence and the point's id as properties.

    Rows are sorted by track and time, as napari asks; positions that are NaN have no row. ``t`` is the source frame,
    coordinates have the pixel's centre at whole numbers.
    """
    write_csv(path, _napari_rows(tracks))


def _napari_rows(tracks: Tracks) -> Iterator[tuple[Any, ...]]:
    yield "track_id", "t", "y", "x", "visibility", "confidence", "id"
    xy = geometry.to_opencv(tracks.tracks)
    for n in range(tracks.num_points):
        for t in np.flatnonzero(np.isfinite(xy[:, n]).all(axis=1)):
            values = (*xy[t, n, ::-1], tracks.visibility[t, n], tracks.confidence[t, n])
            yield n, int(tracks.frame_index[t]), *(f"{value:.4f}" for value in values), tracks.ids[n]


def guess_csv(path: Path) -> str:
    """Return the format name of a CSV file from the first word of its first line."""
    with reading(path, TracksError, "a table"), open(path, "rb") as file:
        return "dlc-csv" if file.readline(100).removeprefix(b"\xef\xbb\xbf").startswith(b"scorer,") else "csv"
