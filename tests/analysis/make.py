"""Tracks of known movement."""

from __future__ import annotations

import numpy as np

from ptrack.tracks import Tracks, TracksInfo

FPS = 50.0


def made(xy: np.ndarray, ids: list[str] | None = None, **changes: object) -> Tracks:
    """Return tracks of (T, N, 2) positions at FPS in a 640x480 frame, visible and sure where they have a position."""
    xy = np.asarray(xy, np.float32)
    t, n = xy.shape[:2]
    known = np.isfinite(xy).all(axis=2).astype(np.float32)
    fields: dict = {
        "tracks": xy,
        "visibility": known,
        "confidence": known.copy(),
        "queries": np.column_stack([np.zeros(n), np.nan_to_num(xy[0])]).astype(np.float32),
        "ids": np.asarray(ids or [str(i) for i in range(n)]),
        "frame_index": np.arange(t),
        "pts_seconds": np.arange(t) / FPS,
        "info": TracksInfo(width=640, height=480, fps=FPS, source="made.mp4"),
    }
    return Tracks(**(fields | changes))


def circling(frames: int = 200, points: int = 3, period: float = 40.0) -> np.ndarray:
    """Return (T, N, 2) positions on circles of 60 px radius, one turn in ``period`` frames, drifting by 0.5 px."""
    t = np.arange(frames)[:, None]
    turn = 2 * np.pi * (t / period + np.arange(points) / 7)
    centre = np.stack([200 + 30 * np.arange(points) + 0.5 * t, 200 + 0 * turn], axis=-1)
    return centre + 60 * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
