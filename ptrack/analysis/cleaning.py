"""Cleaning tracks: outliers out, short gaps filled, noise smoothed; each step with its units and a sentence.

Letters: T frames, N points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ptrack.analysis import filters
from ptrack.analysis.timing import row_rate, seconds_of
from ptrack.errors import ConfigError, count, did_you_mean
from ptrack.tracks import Tracks

SMOOTHERS = ("auto", "none", "butterworth", "savgol", "one-euro")
AUTO_NOISE = 0.1  # px of noise below which ``auto`` leaves a point as it is
AUTO_REACH = 3.0  # times its noise that ``auto`` moves a position at most: a bounce stays one


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """What to do with the positions. Raises ConfigError for values out of range."""

    below_confidence: float = 0.0  # probability below which positions are removed; 0 removes none
    hampel: int = 7  # frames of the outlier window, odd; 0 removes no outliers
    sigmas: float = 3.0  # standard deviations beyond the window's median that make an outlier
    least: float = 1.0  # px off the path that never make one
    max_gap: int = 5  # frames of the longest gap that is filled; 0 fills none
    smooth: str = "auto"  # one of SMOOTHERS
    cutoff: float = 6.0  # Hz, of butterworth and one-euro
    order: int = 2  # of each of butterworth's two passes
    window: int = 7  # frames, odd, of savgol and auto
    degree: int = 3  # of the polynomials of savgol and auto
    beta: float = 0.01  # Hz per px/s, of one-euro
    fps: float | None = None  # frames per second of a source without times

    def __post_init__(self) -> None:
        if self.smooth not in SMOOTHERS:
            near = did_you_mean(self.smooth, SMOOTHERS)
            raise ConfigError(f"--smooth {self.smooth}: unknown.{near} Known: {', '.join(SMOOTHERS)}.")
        rules = (
            ("below-confidence", self.below_confidence, 0 <= self.below_confidence <= 1, "a probability, 0..1"),
            ("hampel", self.hampel, self.hampel == 0 or _is_odd(self.hampel), "0 or odd, from 3"),
            ("sigmas", self.sigmas, 0 < self.sigmas < np.inf, "above 0"),
            ("least", self.least, 0 <= self.least < np.inf, "pixels, from 0"),
            ("max-gap", self.max_gap, self.max_gap >= 0, "frames, from 0"),
            ("cutoff", self.cutoff, 0 < self.cutoff < np.inf, "Hz, above 0"),
            ("order", self.order, 1 <= self.order <= 8, "1..8"),
            ("window", self.window, _is_odd(self.window), "odd, from 3 frames"),
            ("degree", self.degree, 0 <= self.degree < self.window, "from 0 and below --window"),
            ("beta", self.beta, 0 <= self.beta < np.inf, "Hz per px/s, from 0"),
        )
        for name, value, fits, wanted in rules:
            if not fits:
                raise ConfigError(f"--{name} {value:g}: it must be {wanted}.")


def _is_odd(frames: int) -> bool:
    return frames >= 3 and frames % 2 == 1


@dataclass(frozen=True, kw_only=True)
class CleanReport:
    """What cleaning changed."""

    removed: int  # positions taken away for their confidence
    outliers: int  # positions taken away by the Hampel filter
    filled: int  # positions interpolated, those taken away before included
    left: int  # positions in gaps between known ones that stay NaN
    smoothed: int  # points that were smoothed
    largest_px: float  # farthest that smoothing moved a position
    sentences: tuple[str, ...]  # the same in words, with units


def clean(tracks: Tracks, config: CleanConfig | None = None) -> tuple[Tracks, CleanReport]:
    """Return cleaned tracks and what was changed; ``tracks`` stays as it is.

    Positions that are interpolated get confidence 0 and keep their visibility. Before the first and behind the last
    known position of a point nothing is made up. Queries stay as asked for, so a smoothed position may differ from its
    query by the noise of the click. The sentences of the report are added to ``info.warnings``.

    Raises:
        ConfigError: ``cutoff`` is at or above half of the frame rate.
        TracksError: a filter in Hz, and the tracks hold no times and no ``fps`` is given.
    """
    config = config or CleanConfig()
    xy = tracks.tracks.astype(np.float64)
    known = np.isfinite(xy).all(axis=2)
    low = known & (tracks.confidence < config.below_confidence)
    xy[low] = np.nan
    far = filters.hampel(xy, config.hampel, config.sigmas, config.least) if config.hampel else np.zeros_like(low)
    xy[far] = np.nan
    xy, filled = _fill(xy, tracks, config)
    smooth, smoothing = _smoother(tracks, config)
    moved = np.zeros(xy.shape[1])
    for n in range(xy.shape[1]):
        before = xy[:, n].copy()
        xy[:, n] = smooth(before)
        moved[n] = np.nan_to_num(np.abs(xy[:, n] - before)).max(initial=0)
    report = _report(config, low, far, filled, _inner_gaps(xy), moved, smoothing)
    confidence = np.where(np.isfinite(xy).all(axis=2) & ~filled, tracks.confidence, 0).astype(np.float32)
    info = replace(tracks.info, settings="", warnings=(*tracks.info.warnings, *report.sentences))
    visibility = np.where(np.isfinite(xy).all(axis=2), tracks.visibility, 0).astype(np.float32)
    cleaned = replace(tracks, tracks=xy.astype(np.float32), confidence=confidence, visibility=visibility, info=info)
    return cleaned, report


def _fill(xy: np.ndarray, tracks: Tracks, config: CleanConfig) -> tuple[np.ndarray, np.ndarray]:
    filled = np.zeros(xy.shape[:2], bool)
    out = xy.copy()
    for n in range(xy.shape[1]):
        out[:, n], filled[:, n] = filters.fill_gaps(xy[:, n], tracks.frame_index, config.max_gap)
    return out, filled


def _inner_gaps(xy: np.ndarray) -> int:
    """Return how many positions are NaN between a point's first and last known one."""
    known = np.asarray(np.isfinite(xy).all(axis=2))
    started = np.cumsum(known, axis=0) > 0
    goes_on = np.cumsum(known[::-1], axis=0)[::-1] > 0
    return int((started & goes_on & ~known).sum())


def _smoother(tracks: Tracks, config: CleanConfig) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """Return the function that smooths one point's (T, 2) positions, and what it is, in words with units."""
    if config.smooth == "none" or tracks.num_frames < 2:
        return (lambda xy: xy), ""
    if config.smooth in ("auto", "savgol"):
        words = f"Savitzky-Golay over {config.window} frames, degree {config.degree}"
        if config.smooth == "savgol":
            return (lambda xy: filters.by_run(xy, lambda r: _savgol(xy[r], config))), words
        limits = f"of points with more than {AUTO_NOISE:g} px of noise, by at most {AUTO_REACH:g} times that"
        return (lambda xy: _auto(xy, config)), f"{words}, {limits}"
    seconds, source = seconds_of(tracks, config.fps)
    rate, even = row_rate(seconds)
    if not config.cutoff < rate / 2:
        raise ConfigError(
            f"--cutoff {config.cutoff:g}: it must be below half of the {rate:g} frames per second, in Hz."
        )
    if config.smooth == "one-euro":
        words = f"1€ filter, {config.cutoff:g} Hz at rest, {config.beta:g} Hz per px/s; it delays. {source}"
        euro = partial(filters.one_euro, cutoff=config.cutoff, beta=config.beta)
        return (lambda xy: filters.by_run(xy, lambda r: euro(xy[r], seconds[r]))), words
    words = f"Butterworth without delay, {config.cutoff:g} Hz, order {config.order}. {source}"
    if not even:
        words += f" They are uneven, and the filter takes them as even, {rate:g} per second."
    low_pass = partial(filters.butterworth, rate=rate, cutoff=config.cutoff, order=config.order)
    return (lambda xy: filters.by_run(xy, lambda r: low_pass(xy[r]))), words


def _savgol(xy: np.ndarray, config: CleanConfig) -> np.ndarray:
    return filters.savitzky_golay(xy, config.window, config.degree)


def _auto(xy: np.ndarray, config: CleanConfig) -> np.ndarray:
    """Smooth (T, 2) positions as far as their own noise goes."""
    parts = list(filters.runs(filters.known_rows(xy)))
    lengths = [run.stop - run.start for run in parts]
    noise = float(np.average([filters.noise_of(xy[run]) for run in parts], weights=lengths)) if parts else 0.0
    if noise <= AUTO_NOISE:
        return xy
    reach = AUTO_REACH * noise
    return filters.by_run(xy, lambda run: xy[run] + np.clip(_savgol(xy[run], config) - xy[run], -reach, reach))


def _report(
    config: CleanConfig, low: np.ndarray, far: np.ndarray, filled: np.ndarray, left: int, moved: np.ndarray, words: str
) -> CleanReport:
    sentences = []
    if config.below_confidence:
        sentences.append(
            f"{count(int(low.sum()), 'position')} with a confidence below {config.below_confidence:g} removed."
        )
    if config.hampel:
        rule = f"{config.sigmas:g} standard deviations and {config.least:g} px off the path of {config.hampel} frames"
        sentences.append(f"{count(int(far.sum()), 'outlier')} removed (Hampel: more than {rule}).")
    if config.max_gap:
        stay = f"; {count(left, 'position')} in longer gaps stay unknown" if left else ""
        gaps = f"gaps of up to {count(config.max_gap, 'frame')}"
        sentences.append(f"{count(int(filled.sum()), 'position')} in {gaps} interpolated{stay}.")
    smoothed, largest = int((moved > 0).sum()), float(moved.max(initial=0))
    if words:
        sentences.append(f"{count(smoothed, 'point')} smoothed, by at most {largest:.3g} px ({words.rstrip('.')}).")
    return CleanReport(
        removed=int(low.sum()),
        outliers=int(far.sum()),
        filled=int(filled.sum()),
        left=left,
        smoothed=smoothed,
        largest_px=largest,
        sentences=tuple(sentences),
    )
