"""Where the queries of a benchmark come from: TAP-Vid's two modes.

Letters: T frames, N tracks, Q queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptrack.evaluation.metrics import first_visible

STRIDE = 5  # frames between the query frames of "strided"
MODES = ("first", "strided")


@dataclass(frozen=True)
class SampledQueries:
    """Queries made from tracks."""

    queries: np.ndarray  # (Q, 3) float32, rows (t, x, y)
    track: np.ndarray  # (Q,) int64, the track each query belongs to


def sample_first(tracks: np.ndarray, visible: np.ndarray) -> SampledQueries:
    """One query per track that is ever visible, at its first visible frame.

    Args:
        tracks: (T, N, 2).
        visible: (T, N) bool.
    """
    track = np.flatnonzero(np.asarray(visible, bool).any(axis=0))
    return _at(tracks, first_visible(visible)[track], track)


def sample_strided(tracks: np.ndarray, visible: np.ndarray, stride: int = STRIDE) -> SampledQueries:
    """At every ``stride``-th frame one query per track that is visible there, ordered by frame, then track."""
    t, n = np.nonzero(np.asarray(visible, bool)[::stride])
    return _at(tracks, t * stride, n)


def _at(tracks: np.ndarray, t: np.ndarray, track: np.ndarray) -> SampledQueries:
    queries = np.column_stack([t, tracks[t, track]]).astype(np.float32).reshape(-1, 3)
    return SampledQueries(queries, track.astype(np.int64))


def evenly(count: int, limit: int) -> np.ndarray:
    """Return ``min(count, limit)`` indices below ``count``, evenly spread and rounded down (PointOdyssey's choice)."""
    return np.linspace(0, max(count - 1, 0), min(count, limit)).astype(np.int64)
