"""Tracks of known positions for the export tests."""

from __future__ import annotations

import numpy as np

from ptrack.tracks import Tracks, TracksInfo

W, H = 64, 48


def example(ids: tuple[str, ...] = ("nose", "left ear", "größe"), start: int = 3, stride: int = 2) -> Tracks:
    """Five frames of a source read from frame 3 with stride 2; the second point starts late, the third is occluded."""
    t, n = 5, len(ids)
    rng = np.random.default_rng(4)
    xy = rng.uniform(1, 40, (t, n, 2)).astype(np.float32)
    visibility = rng.uniform(0.6, 1, (t, n)).astype(np.float32)
    if n > 1:
        xy[:2, 1] = np.nan
        visibility[:2, 1] = 0
    if n > 2:
        visibility[3, 2] = 0.25
    first = np.isfinite(xy).all(axis=2).argmax(axis=0)
    index = start + stride * np.arange(t)
    return Tracks(
        tracks=xy,
        visibility=visibility,
        confidence=visibility * np.float32(0.5),
        queries=np.column_stack([first, xy[first, np.arange(n)]]).astype(np.float32),
        ids=np.asarray(ids, dtype=np.str_),
        frame_index=index,
        pts_seconds=index / 25.0,
        info=TracksInfo(source="clip.mp4", width=W, height=H, fps=25.0, model="matching"),
    )
