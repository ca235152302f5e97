"""How far positions may be off, in pixels, for models whose confidence was compared with labelled positions.

Letters: T frames, N points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptrack.tracks import Tracks

COVERED = 0.6827  # of a normal distribution within one standard deviation


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Errors of one model by confidence, measured on labelled clips."""

    model: str
    weights_sha256: str  # of the weights that were measured; others may be as sure and less right
    source: str  # on what it was measured
    # (confidence from which it holds, sd in x, in y), by rising confidence; sd: COVERED of the errors along the axis
    # are smaller; shares of the frame's width and height
    rows: tuple[tuple[float, float, float], ...]


NANO = Calibration(
    model="nano",
    weights_sha256="1c58947e27b4e14ce2075bfb66c2c5bfbc2a90e841ba086800a383d1cee19063",
    source="the labels of 10 TAP-Vid DAVIS clips of 32 frames",
    # scripts/measure_uncertainty.py: 34,106 positions at the three qualities, people's own error of about a pixel
    # included. The table of the other clips covers 72 % of a clip's errors on average, of single clips 40 to 93 %.
    rows=(
        (0.00, 0.02934, 0.03265),
        (0.30, 0.00949, 0.01665),
        (0.50, 0.00680, 0.01033),
        (0.60, 0.00577, 0.01032),
        (0.70, 0.00469, 0.00928),
        (0.80, 0.00384, 0.00756),
        (0.85, 0.00369, 0.00678),
        (0.90, 0.00296, 0.00486),
        (0.95, 0.00131, 0.00183),
    ),
)
CALIBRATIONS = (NANO,)


def calibration_of(tracks: Tracks) -> Calibration | None:
    """Return the calibration of the model and weights behind the tracks, None without one or without a frame size."""
    info = tracks.info
    found = (c for c in CALIBRATIONS if (c.model, c.weights_sha256) == (info.model, info.weights_sha256))
    return next(found, None) if info.width > 0 and info.height > 0 else None


def position_sd(tracks: Tracks) -> np.ndarray | None:
    """Return (T, N, 2) standard deviations in pixels along x and y, None for tracks of a model without a calibration.

    NaN where nothing is known: no position, an occluded point, a filled gap, the frame of the point's query.
    They are those of the tracker's own positions: smoothing afterwards makes them smaller, by an unknown amount.
    """
    calibration = calibration_of(tracks)
    if calibration is None:
        return None
    rows = np.asarray(calibration.rows)
    place = np.searchsorted(rows[:, 0], tracks.confidence, side="right") - 1
    sd = rows[np.maximum(place, 0), 1:] * (tracks.info.width, tracks.info.height)
    asked = np.arange(tracks.num_frames)[:, None] == tracks.queries[:, 0]
    unknown = ~tracks.visible | asked | (tracks.confidence == 0) | np.isnan(tracks.tracks).any(axis=2)
    return np.where(unknown[..., None], np.nan, sd)
