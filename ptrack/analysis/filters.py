"""Filters of one or many position signals; NaN is a gap, which no filter reaches across.

Letters: T rows, N points, K rows of one run without a gap.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from scipy.interpolate import Akima1DInterpolator
from scipy.signal import butter, savgol_filter, sosfiltfilt

TO_SIGMA = 1.4826  # from the median absolute deviation of a normal distribution to its standard deviation
DIFFERENCES = 5  # order by which movement is taken out before noise is measured: what bends in 10 frames is left out
SPEED_CUTOFF = 1.0  # Hz of the 1€ filter on the speed
AKIMA_LEAST = 5  # known positions that its slopes need


def known_rows(xy: np.ndarray) -> np.ndarray:
    """Return (T,) bool: rows of (T, 2) with a position."""
    return np.asarray(np.isfinite(xy).all(axis=1))


def runs(known: np.ndarray) -> Iterator[slice]:
    """Yield the slices of (T,) bool in which all are true, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        yield slice(int(start), int(stop))


def hampel(xy: np.ndarray, window: int, sigmas: float, least: float) -> np.ndarray:
    """Return (T, N) bool: positions off the path of their point, by Hampel's rule (1974) on how far they lie off it.

    A position is an outlier when its ``off_path`` is above the median of its window by more than ``sigmas`` standard
    deviations, estimated from the median absolute deviation of the window or of the whole point, whichever is larger.

    Args:
        xy: (T, N, 2) pixels, NaN where unknown.
        window: frames, odd.
        sigmas: how many standard deviations are too far.
        least: pixels that are never too far, so that a point at rest has no outliers.
    """
    far = np.zeros(xy.shape[:2], bool)
    for n in range(xy.shape[1]):  # by point: windows of all points at once would take ``window`` times the tracks
        off = off_path(xy[:, n].astype(np.float64), window // 2)
        judged = np.isfinite(off)
        if not judged.any():
            continue
        padded = np.pad(off, window // 2, constant_values=np.nan)
        views = np.lib.stride_tricks.sliding_window_view(padded, window)[judged]
        middle = np.nanmedian(views, axis=1)
        spread = np.nanmedian(np.abs(views - middle[:, None]), axis=1)
        usual = np.median(np.abs(off[judged] - middle))
        far[judged, n] = off[judged] - middle > np.maximum(sigmas * TO_SIGMA * np.maximum(spread, usual), least)
    return far


def off_path(xy: np.ndarray, reach: int) -> np.ndarray:
    """Return (T,) pixels by which positions (T, 2) lie off the path of the rows around; NaN where too few are known.

    The smallest of three: the median of the distances to the midpoints of ``reach`` pairs of rows around, and the
    distances to where the two rows before and the two behind lead. Both sides lead to a bounce, one side to a jump that
    lasts, none to an outlier, also not when its neighbour is one.
    """
    padded = np.pad(xy, ((2 * reach, 2 * reach), (0, 0)), constant_values=np.nan)

    def shifted(k: int) -> np.ndarray:
        return padded[2 * reach + k : 2 * reach + k + len(xy)]

    pairs = np.stack([(shifted(k) + shifted(-k)) / 2 for k in range(1, reach + 1)])
    distances = np.sort(np.linalg.norm(pairs - xy, axis=2), axis=0)  # NaN comes last
    number = np.isfinite(distances).sum(axis=0)
    middle = np.take_along_axis(distances, np.maximum(number - 1, 0)[None] // 2, axis=0)[0]
    sides = [np.linalg.norm(2 * shifted(k) - shifted(2 * k) - xy, axis=1) for k in (-1, 1)]
    return np.where(number >= min(2, reach), np.fmin(middle, np.fmin(*sides)), np.nan)


def fill_gaps(xy: np.ndarray, rows: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions (T, 2) with gaps between known ones filled, and which rows (T,) were.

    Akima's piecewise cubic (1970), which hardly overshoots; straight lines below five known positions. Ends are never
    extrapolated.

    Args:
        xy: (T, 2) pixels, NaN where unknown.
        rows: (T,) rising frame numbers.
        most: frames of the longest gap that is filled.
    """
    known = known_rows(xy)
    filled = np.zeros(len(xy), bool)
    at = np.flatnonzero(known)
    if most < 1 or len(at) < 2:
        return xy.copy(), filled
    for before, after in itertools.pairwise(at):
        filled[before + 1 : after] = rows[after] - rows[before] - 1 <= most
    out = xy.copy()
    if filled.any():
        if len(at) >= AKIMA_LEAST:
            out[filled] = Akima1DInterpolator(rows[known], xy[known], axis=0)(rows[filled])
        else:
            out[filled] = np.stack([np.interp(rows[filled], rows[known], axis) for axis in xy[known].T], axis=1)
    return out, filled


def noise_of(xy: np.ndarray) -> float:
    """Return the standard deviation in pixels of what movement leaves over in (K, 2) positions; 0 if K is too small.

    From the median absolute fifth difference: smooth movement of 10 frames and more hardly has any, independent noise
    of 1 pixel has one of sqrt(252).
    """
    if len(xy) <= DIFFERENCES + 1:
        return 0.0
    rest = np.diff(xy, n=DIFFERENCES, axis=0)
    return float(TO_SIGMA * np.median(np.abs(rest)) / np.sqrt(252))


def butterworth(xy: np.ndarray, rate: float, cutoff: float, order: int) -> np.ndarray:
    """Return (K, 2) low-passed forwards and backwards, so that nothing is delayed; short runs come back as they are.

    Args:
        xy: positions at even steps in time.
        rate: rows per second.
        cutoff: Hz at which half of the power (-3 dB) is left after both passes.
        order: of each pass.
    """
    if len(xy) <= 3 * order:
        return xy.copy()
    # Two passes together are 3 dB down at ``cutoff`` when each one is 1.5 dB down there (Winter 2009).
    correction = (2**0.5 - 1) ** (1 / (2 * order))
    # The bilinear transform maps tan(pi f / rate), so that the correction belongs there.
    single = np.arctan(np.tan(np.pi * cutoff / rate) / correction) * rate / np.pi
    sections = np.asarray(butter(order, min(float(single), 0.499 * rate), fs=rate, output="sos"))
    return np.asarray(sosfiltfilt(sections, xy, axis=0, padlen=min(3 * (2 * len(sections) + 1), len(xy) - 1)))


def savitzky_golay(xy: np.ndarray, window: int, degree: int) -> np.ndarray:
    """Return (K, 2) positions of the polynomials of ``degree`` that fit ``window`` frames (odd) around each row.

    Runs shorter than the window are fitted by the largest odd one that they hold, and come back as they are when that
    is not above ``degree``.
    """
    window = min(window, len(xy) - (len(xy) + 1) % 2)
    if window <= degree:
        return xy.copy()
    return np.asarray(savgol_filter(xy, window, degree, axis=0, mode="interp"))


def one_euro(xy: np.ndarray, seconds: np.ndarray, cutoff: float, beta: float) -> np.ndarray:
    """Return (K, 2) smoothed with the past alone, as a live filter does: it delays (Casiez, Roussel and Vogel 2012).

    Args:
        xy: positions.
        seconds: (K,) times.
        cutoff: Hz for a point at rest.
        beta: Hz that are added to the cutoff per pixel per second of speed.
    """
    out, speed = xy.astype(np.float64).copy(), np.zeros(xy.shape[1])
    for k in range(1, len(xy)):
        step = seconds[k] - seconds[k - 1]
        speed = speed + _share(step, SPEED_CUTOFF) * ((xy[k] - xy[k - 1]) / step - speed)
        share = _share(step, cutoff + beta * float(np.linalg.norm(speed)))
        out[k] = out[k - 1] + share * (xy[k] - out[k - 1])
    return out


def _share(step: float, cutoff: float) -> float:
    """Return how much a first-order low-pass of ``cutoff`` Hz takes of a new value after ``step`` seconds."""
    turn = 2 * np.pi * cutoff * step
    return turn / (turn + 1)


def by_run(xy: np.ndarray, smooth: Callable[[slice], np.ndarray]) -> np.ndarray:
    """Return (T, 2) with each run without a gap replaced by ``smooth(run)``."""
    out = xy.copy()
    for run in runs(known_rows(xy)):
        out[run] = smooth(run)
    return out
