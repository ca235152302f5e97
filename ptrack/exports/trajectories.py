"""Point trajectories as JSON, as nodes for video generation read them (ComfyUI's WanTrackToVideo and relatives).

The whole file is ``[[{"x": 12.5, "y": 40}, ...], ...]``: one list per point with one place per frame. There is room for
neither ids, times nor visibility, and none for a gap.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ptrack.errors import TracksError
from ptrack.fileio import write_text
from ptrack.tracks import Tracks


def trajectories(tracks: Tracks) -> list[list[dict[str, float]]]:
    """Return the lists. Coordinates: pixels, (0, 0) at the upper-left corner of the image; occluded places are kept.

    A row without a position gets the point's last known place, or its first one; points that never have one are left
    out.

    Raises:
        TracksError: no point has a position.
    """
    found = []
    for n in range(tracks.num_points):
        xy = tracks.tracks[:, n].astype(np.float64)
        known = np.flatnonzero(np.isfinite(xy).all(axis=1))
        if not len(known):
            continue
        at = known[np.maximum(np.searchsorted(known, np.arange(len(xy)), side="right") - 1, 0)]
        found.append([{"x": round(x, 4), "y": round(y, 4)} for x, y in xy[at].tolist()])
    if not found:
        raise TracksError("The format 'trajectories' needs at least one point with a position; there is none.")
    return found


def write_trajectories(tracks: Tracks, path: Path) -> None:
    """Write ``trajectories`` to ``path``."""
    write_text(path, json.dumps(trajectories(tracks), separators=(",", ":")))
