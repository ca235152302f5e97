"""Frames and points worth a look: steps that do not fit the movement around them, and runs of frames of low confidence.

Letters: T frames, N points, K known positions of one point.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ptrack.analysis.filters import known_rows, runs
from ptrack.errors import ConfigError, count
from ptrack.tracks import Tracks

AROUND = 4  # steps on either side whose median is the usual movement
RAYLEIGH = 1.1774  # median distance of a normal distribution in the plane, in standard deviations of an axis
SAME_FRAME = 0.5  # share of the points that jump in one frame from which it is rather the picture that changed


@dataclass(frozen=True, kw_only=True)
class JumpConfig:
    """What counts as a jump. Raises ConfigError for values out of range."""

    min_px: float = 5.0  # px beyond the usual movement below which nothing is a jump
    sigmas: float = 8.0  # and standard deviations of the point's own irregularity
    below_confidence: float = 0.0  # probability; runs of frames below it are listed too; 0 lists none

    def __post_init__(self) -> None:
        if not 0 < self.min_px < np.inf:
            raise ConfigError(f"--min-px {self.min_px:g}: it must be pixels above 0.")
        if not 0 < self.sigmas < np.inf:
            raise ConfigError(f"--sigmas {self.sigmas:g}: it must be above 0.")
        if not 0 <= self.below_confidence <= 1:
            raise ConfigError(f"--below-confidence {self.below_confidence:g}: it must be a probability, 0..1.")


@dataclass(frozen=True, kw_only=True)
class Jump:
    """One step that does not fit."""

    frame: int  # source frame in which the point arrives
    time_s: float  # its time as the tracks hold it
    id: str
    px: float  # between where it is and where the usual movement would have brought it
    since: int  # source frame of the position before
    visible: bool  # the point is visible in both


@dataclass(frozen=True, kw_only=True)
class LowConfidence:
    """Frames in a row with a position of low confidence."""

    id: str
    first: int  # source frames
    last: int
    mean: float  # confidence


@dataclass(frozen=True, kw_only=True)
class JumpReport:
    """What is worth a look; jumps with the largest first."""

    jumps: tuple[Jump, ...]
    low: tuple[LowConfidence, ...]
    frames: dict[int, int] = field(default_factory=dict)  # source frame: how many points jump in it
    sentences: tuple[str, ...] = ()


def find_jumps(tracks: Tracks, config: JumpConfig | None = None) -> JumpReport:
    """Return the jumps of tracks: steps farther from the median of the steps around them than both limits.

    A visit of one frame is two jumps, there and back. A gap is one step, of so many frames.
    """
    config = config or JumpConfig()
    jumps = [jump for n in range(tracks.num_points) for jump in _of_point(tracks, n, config)]
    jumps.sort(key=lambda jump: (-jump.px, jump.frame))
    frames: dict[int, int] = {}
    for jump in sorted(jumps, key=lambda jump: jump.frame):
        frames[jump.frame] = frames.get(jump.frame, 0) + 1
    low = [part for n in range(tracks.num_points) for part in _low(tracks, n, config.below_confidence)]
    return JumpReport(
        jumps=tuple(jumps), low=tuple(low), frames=frames, sentences=_sentences(tracks, config, jumps, low, frames)
    )


def _of_point(tracks: Tracks, n: int, config: JumpConfig) -> list[Jump]:
    xy = tracks.tracks[:, n].astype(np.float64)
    at = np.flatnonzero(known_rows(xy))
    if len(at) < 2:
        return []
    passed = np.diff(tracks.frame_index[at]).astype(np.float64)
    velocity = np.diff(xy[at], axis=0) / passed[:, None]
    beyond = np.linalg.norm((velocity - _neighbouring(velocity)) * passed[:, None], axis=1)
    spread = float(np.median(beyond)) / RAYLEIGH
    found = np.flatnonzero(beyond > max(config.min_px, config.sigmas * spread))
    seen = tracks.visible[:, n]
    return [
        Jump(
            frame=int(tracks.frame_index[at[k + 1]]),
            time_s=float(tracks.pts_seconds[at[k + 1]]),
            id=str(tracks.ids[n]),
            px=round(float(beyond[k]), 3),
            since=int(tracks.frame_index[at[k]]),
            visible=bool(seen[at[k]] and seen[at[k + 1]]),
        )
        for k in found
    ]


def _neighbouring(velocity: np.ndarray) -> np.ndarray:
    """Return (K, 2): the median of the velocities around each one, itself left out; 0 where there are none."""
    padded = np.pad(velocity, ((AROUND, AROUND), (0, 0)), constant_values=np.nan)
    views = np.lib.stride_tricks.sliding_window_view(padded, 2 * AROUND + 1, axis=0)  # (K, 2, 2 * AROUND + 1)
    others = np.delete(views, AROUND, axis=2)
    alone = np.asarray(np.isnan(others).all(axis=2, keepdims=True))
    others = np.where(alone, 0.0, others)
    return np.nanmedian(others, axis=2)


def _low(tracks: Tracks, n: int, below: float) -> list[LowConfidence]:
    known = known_rows(tracks.tracks[:, n])
    return [
        LowConfidence(
            id=str(tracks.ids[n]),
            first=int(tracks.frame_index[run.start]),
            last=int(tracks.frame_index[run.stop - 1]),
            mean=round(float(tracks.confidence[run, n].mean()), 4),
        )
        for run in runs(known & (tracks.confidence[:, n] < below))
    ]


def _sentences(
    tracks: Tracks, config: JumpConfig, jumps: list[Jump], low: list[LowConfidence], frames: dict[int, int]
) -> tuple[str, ...]:
    points = len({jump.id for jump in jumps})
    rule = f"more than {config.min_px:g} px and {config.sigmas:g} standard deviations beyond the movement around"
    lines = [f"{count(len(jumps), 'jump')} of {count(points, 'point')} in {count(len(frames), 'frame')} ({rule})."]
    if tracks.num_frames < 2:
        lines.append(f"With {count(tracks.num_frames, 'frame')} there are no steps to look at.")
    many = [frame for frame, k in frames.items() if k >= 3 and k >= SAME_FRAME * tracks.num_points]
    if many:
        names = ", ".join(str(frame) for frame in many[:10]) + (", ..." if len(many) > 10 else "")
        lines.append(f"Most points jump in frame {names}: a cut, or frames are missing there.")
    if config.below_confidence:
        lines.append(f"{count(len(low), 'run')} of frames with a confidence below {config.below_confidence:g}.")
    return tuple(lines)
