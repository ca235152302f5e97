"""Measuring with units: positions, speeds, accelerations, path lengths, distances and angles.

Letters: T frames, N points, P pairs, A angles.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptrack.analysis.timing import seconds_of
from ptrack.analysis.uncertainty import calibration_of, position_sd
from ptrack.errors import ConfigError, TracksError, count
from ptrack.tracks import Tracks

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_UNIT = r"[^\W\d_]+"  # letters of any alphabet: mm, µm, in


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How many pixels are one unit of length. Raises ConfigError unless the number is above 0."""

    px: float  # pixels per unit
    unit: str  # of length

    def __post_init__(self) -> None:
        if not 0 < self.px < np.inf:
            raise ConfigError(f"A scale of {self.px:g} pixels per {self.unit} measures nothing; it must be above 0.")

    @classmethod
    def parse(cls, text: str) -> Scale:
        """Return the scale of "12.5px/mm", "0.08mm/px" or "px" (pixels stay pixels); raises ConfigError."""
        plain = text.replace(" ", "")
        if plain == "px":
            return cls(px=1.0, unit="px")
        per_unit = re.fullmatch(rf"({_NUMBER})px/({_UNIT})", plain)
        if per_unit:
            return cls(px=float(per_unit[1]), unit=per_unit[2])
        per_pixel = re.fullmatch(rf"({_NUMBER})({_UNIT})/px", plain)
        if per_pixel and float(per_pixel[1]) > 0:
            return cls(px=1 / float(per_pixel[1]), unit=per_pixel[2])
        if per_pixel:
            raise ConfigError(f"--scale {text}: a scale must be above 0.")
        raise ConfigError(f"--scale {text}: write pixels per unit as 12.5px/mm, units per pixel as 0.08mm/px, or px.")


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """What to measure, and in which coordinates."""

    scale: Scale
    fps: float | None = None  # frames per second, for tracks without times and slow motion
    origin: tuple[float, float] | str | None = None  # raster pixels (x, y), or the id of a point that is the origin
    y_up: bool = False  # y grows upwards; without an origin, (0, 0) is the lower-left corner of the picture
    distances: tuple[tuple[str, str], ...] = ()  # pairs of ids
    angles: tuple[tuple[str, str, str], ...] = ()  # triples of ids; the angle is at the second one
    occluded: bool = False  # measure positions of occluded points too: they are estimates


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Measured tracks. NaN where a point is not seen (or, for derivatives, has too few neighbours)."""

    unit: str  # of length
    y_up: bool  # y grows upwards
    frame_index: np.ndarray  # (T,) source frames
    seconds: np.ndarray  # (T,) float64
    ids: tuple[str, ...]  # N
    position: np.ndarray  # (T, N, 2) unit
    speed: np.ndarray  # (T, N) unit/s
    acceleration: np.ndarray  # (T, N) unit/s², of the velocity vector
    path: np.ndarray  # (T, N) unit, length so far; straight across gaps
    pairs: tuple[tuple[str, str], ...]  # P
    distance: np.ndarray  # (T, P) unit
    corners: tuple[tuple[str, str, str], ...]  # A
    angle: np.ndarray  # (T, A) degrees, 0..180
    position_sd: np.ndarray | None  # (T, N, 2) unit, along x and y; None for models without a calibration
    sentences: tuple[str, ...]  # where times and scale come from, gaps


def scale_of_distance(tracks: Tracks, first: str, second: str, length: float, unit: str) -> Scale:
    """Return the scale at which two points are ``length`` units apart: the median over frames in which both are seen.

    Raises:
        TracksError: an id does not exist, or the two are never seen together.
        ConfigError: ``length`` is not above 0, or the two lie on each other.
    """
    if not 0 < length < np.inf:
        raise ConfigError(f"A known distance of {length:g} {unit} gives no scale; it must be above 0.")
    pair = tracks.select([first, second])
    xy = _seen(pair, occluded=False)
    distance = np.linalg.norm(xy[:, 0] - xy[:, 1], axis=1)
    if not np.isfinite(distance).any():
        raise TracksError(f"The points '{first}' and '{second}' are never visible in one frame: they give no scale.")
    return Scale(px=float(np.nanmedian(distance)) / length, unit=unit)


def parse_known_distance(text: str) -> tuple[str, str, float, str]:
    """Return (id, id, length, unit) of "nose,tail=50mm"; raises ConfigError."""
    found = re.fullmatch(rf"\s*([^,]+),([^,]+)=\s*({_NUMBER})\s*({_UNIT})\s*", text)
    if not found:
        raise ConfigError(f"--known {text}: write two ids and their distance as nose,tail=50mm.")
    first, second = found[1].strip(), found[2].strip()
    if first == second:
        raise ConfigError(f"--known {text}: give two different ids; '{first}' lies no distance from itself.")
    return first, second, float(found[3]), found[4]


def parse_ids(text: str, number: int, option: str) -> tuple[str, ...]:
    """Return ``number`` ids from text with commas; raises ConfigError."""
    names = tuple(name.strip() for name in text.split(","))
    if len(names) != number or not all(names) or len(set(names)) != number:
        raise ConfigError(f"{option} {text}: give {number} different ids with commas between them.")
    return names


def _seen(tracks: Tracks, *, occluded: bool) -> np.ndarray:
    """Return (T, N, 2) float64 positions, NaN where a point is not visible."""
    xy = tracks.tracks.astype(np.float64)
    if not occluded:
        xy[~tracks.visible] = np.nan
    return xy


def measure(tracks: Tracks, config: MeasureConfig) -> Measures:
    """Return positions, derivatives, distances and angles in units.

    Speeds are central differences over the actual times (one-sided beside gaps and at the ends), accelerations second
    differences of three frames in a row; both grow with noise, so clean noisy tracks first.

    Raises:
        TracksError: no times and no ``fps``, an id that does not exist, no point visible in any frame, or ``y_up``
            without an origin and a frame size.
        ConfigError: ``fps`` is not above 0.
    """
    pixels = _seen(tracks, occluded=config.occluded)
    if not np.isfinite(pixels).any():
        why = "has a position" if config.occluded else "is visible"
        raise TracksError(f"No point {why} in any frame; there is nothing to measure.")
    seconds, timed = _times(tracks, config.fps)
    position = _coordinates(tracks, pixels, config)
    velocity, acceleration = derivatives(position, seconds)
    where = {str(name): n for n, name in enumerate(tracks.ids)}
    distance, angle = _relations(tracks, position, where, config)
    path, gaps = _path(position)
    sentences = (
        [timed, f"Scale: {config.scale.px:g} px per {config.scale.unit}."] if config.scale.unit != "px" else [timed]
    )
    sd = _sd(tracks, config)
    sentences.append(_sd_sentence(tracks, sd, config.scale.unit))
    if gaps:
        sentences.append(f"{count(gaps, 'gap')} of unseen frames: the path across them is taken as straight.")
    if tracks.num_frames == 1:
        sentences.append("With 1 frame there are positions, distances and angles, but no speed.")
    return Measures(
        unit=config.scale.unit,
        y_up=config.y_up,
        frame_index=tracks.frame_index,
        seconds=seconds,
        ids=tuple(str(i) for i in tracks.ids),
        position=position,
        speed=np.linalg.norm(velocity, axis=2),
        acceleration=np.linalg.norm(acceleration, axis=2),
        path=path,
        pairs=config.distances,
        distance=distance,
        corners=config.angles,
        angle=angle,
        position_sd=sd,
        sentences=tuple(sentences),
    )


def _times(tracks: Tracks, fps: float | None) -> tuple[np.ndarray, str]:
    """Return times and a sentence; one frame needs none."""
    if tracks.num_frames == 1 and fps is None:
        return tracks.pts_seconds.astype(np.float64), "Times are the tracks' own."
    return seconds_of(tracks, fps)


def _coordinates(tracks: Tracks, pixels: np.ndarray, config: MeasureConfig) -> np.ndarray:
    """Return (T, N, 2) positions in units from the origin."""
    origin = config.origin
    if isinstance(origin, str):
        start = _seen(tracks.select([origin]), occluded=config.occluded)  # (T, 1, 2): it may move
    elif origin is not None:
        start = np.asarray(origin, np.float64)
    elif not config.y_up:
        start = np.zeros(2)
    elif tracks.info.height > 0:
        start = np.asarray([0.0, tracks.info.height])
    else:
        raise TracksError("--y-up without --origin needs the frame's height, which these tracks do not hold.")
    return (pixels - start) / config.scale.px * np.asarray([1, -1 if config.y_up else 1])


def _sd(tracks: Tracks, config: MeasureConfig) -> np.ndarray | None:
    """Return (T, N, 2) standard deviations of the coordinates in units; those of an origin that moves are added."""
    sd = position_sd(tracks)
    if sd is None:
        return None
    if isinstance(config.origin, str):
        origin = position_sd(tracks.select([config.origin]))
        assert origin is not None
        sd = np.sqrt(sd**2 + origin**2)
        sd[:, tracks.ids == config.origin] = np.nan  # it is at (0, 0) by definition
    return sd / config.scale.px


def _sd_sentence(tracks: Tracks, sd: np.ndarray | None, unit: str) -> str:
    calibration = calibration_of(tracks)
    if sd is None or calibration is None:
        name = tracks.info.model or "what made these tracks"
        return f"No uncertainty: the confidence of {name}, or of these weights, was not compared with labels."
    if not np.isfinite(sd).any():
        return "No uncertainty: nothing but clicked, occluded or filled positions."
    x, y = np.nanmedian(sd.reshape(-1, 2), axis=0)
    return (
        f"Uncertainty by confidence (x_sd, y_sd: 68 % of {calibration.model}'s errors are smaller, by "
        f"{calibration.source}): median {x:.3g} and {y:.3g} {unit}, before any smoothing."
    )


def derivatives(position: np.ndarray, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return velocity and acceleration (T, N, 2) by differences over uneven times (T,).

    With both neighbours known the velocity is that of the parabola through the three, exact for constant acceleration;
    with one it is the difference to that one. The acceleration is that of the parabola, NaN without both neighbours.
    """
    edge = np.full_like(position[:1], np.nan)
    steps = np.diff(seconds)[:, None, None]
    slopes = np.diff(position, axis=0) / steps if len(position) > 1 else position[:0]
    before, after = np.concatenate([edge, slopes]), np.concatenate([slopes, edge])
    unknown = np.full((1, 1, 1), np.nan)
    h0, h1 = np.concatenate([unknown, steps]), np.concatenate([steps, unknown])
    velocity = (before * h1 + after * h0) / (h0 + h1)
    velocity = np.where(np.isnan(velocity), np.where(np.isnan(before), after, before), velocity)
    return velocity, 2 * (after - before) / (h0 + h1)


def _path(position: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the (T, N) length of path so far, NaN where unseen, and how many gaps it crosses."""
    path, gaps = np.full(position.shape[:2], np.nan), 0
    for n in range(position.shape[1]):
        at = np.flatnonzero(np.isfinite(position[:, n]).all(axis=1))
        if len(at):
            steps = np.linalg.norm(np.diff(position[at, n], axis=0), axis=1)
            path[at, n] = np.concatenate([[0.0], np.cumsum(steps)])
            gaps += int((np.diff(at) > 1).sum())
    return path, gaps


def _relations(
    tracks: Tracks, position: np.ndarray, where: dict[str, int], config: MeasureConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Return distances (T, P) in units and angles (T, A) in degrees; an id that does not exist is an error."""
    tracks.select([name for names in (*config.distances, *config.angles) for name in names])
    spans = [position[:, where[a]] - position[:, where[b]] for a, b in config.distances]
    distance = np.stack([np.linalg.norm(s, axis=1) for s in spans], axis=1) if spans else np.zeros((len(position), 0))
    turns = []
    for a, b, c in config.angles:
        one, two = position[:, where[a]] - position[:, where[b]], position[:, where[c]] - position[:, where[b]]
        cross = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]
        meet = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1) == 0
        turns.append(np.where(meet, np.nan, np.degrees(np.arctan2(np.abs(cross), (one * two).sum(axis=1)))))
    return distance, np.stack(turns, axis=1) if turns else np.zeros((len(position), 0))


def frame_columns(found: Measures) -> list[str]:
    """Return the names of the columns of ``frame_rows``, with units."""
    u = found.unit
    return [
        *("frame", "time_s", "id", f"x_{u}", f"y_{u}", f"speed_{u}_per_s", f"acceleration_{u}_per_s2"),
        *(f"path_{u}", f"distance_{u}", "angle_deg"),
        *(() if found.position_sd is None else (f"x_sd_{u}", f"y_sd_{u}")),
    ]


def frame_rows(found: Measures) -> Iterable[list[Any]]:
    """Yield a row per frame and point, pair (``nose-tail``) and angle (``nose-neck-tail``); None in empty cells."""
    sd = found.position_sd
    none = [] if sd is None else [None, None]
    for t, (frame, time) in enumerate(zip(found.frame_index.tolist(), found.seconds.tolist(), strict=True)):
        for n, name in enumerate(found.ids):
            values = (*found.position[t, n], found.speed[t, n], found.acceleration[t, n], found.path[t, n])
            yield [frame, time, name, *map(float, values), None, None, *([] if sd is None else map(float, sd[t, n]))]
        for k, pair in enumerate(found.pairs):
            yield [frame, time, "-".join(pair), *[None] * 5, float(found.distance[t, k]), None, *none]
        for k, corner in enumerate(found.corners):
            yield [frame, time, "-".join(corner), *[None] * 6, float(found.angle[t, k]), *none]


def summary(found: Measures) -> list[dict[str, Any]]:
    """Return a dict per quantity and point, pair or angle: what, id, unit, frames, mean, sd, min, max, last.

    ``last`` is the value in the last frame with one: for ``path``, the whole length. None where there is no value.
    """
    u, names = found.unit, found.ids
    parts: list[tuple[str, str, Sequence[str], np.ndarray]] = [
        ("speed", f"{u}/s", names, found.speed),
        ("acceleration", f"{u}/s²", names, found.acceleration),
        ("path", u, names, found.path),
        ("displacement", u, names, _displacement(found.position)),
        ("distance", u, ["-".join(p) for p in found.pairs], found.distance),
        ("angle", "deg", ["-".join(c) for c in found.corners], found.angle),
    ]
    return [
        {"quantity": what, "id": name, "unit": unit, **_numbers(values[:, k])}
        for what, unit, ids, values in parts
        for k, name in enumerate(ids)
    ]


def _displacement(position: np.ndarray) -> np.ndarray:
    """Return (T, N): the straight distance from each point's first seen position."""
    known = np.isfinite(position).all(axis=2)
    first = np.take_along_axis(position, known.argmax(axis=0)[None, :, None], axis=0)
    return np.linalg.norm(position - first, axis=2)


def _numbers(values: np.ndarray) -> dict[str, float | int | None]:
    known = values[np.isfinite(values)]
    if not len(known):
        return {"frames": 0, "mean": None, "sd": None, "min": None, "max": None, "last": None}
    numbers = {"mean": known.mean(), "sd": known.std(), "min": known.min(), "max": known.max(), "last": known[-1]}
    return {"frames": len(known), **{key: float(value) for key, value in numbers.items()}}


SUMMARY_COLUMNS = ("quantity", "id", "unit", "frames", "mean", "sd", "min", "max", "last")


@dataclass(frozen=True, kw_only=True)
class MeasureRequest:
    """The texts of a command line; ``config`` needs the tracks, as the scale may come from two of their points."""

    scale: str | None = None  # "12.5px/mm"
    known: str | None = None  # "nose,tail=50mm"
    fps: float | None = None  # frames per second
    origin: str | None = None  # "X,Y" in pixels or an id
    y_up: bool = False
    distances: tuple[str, ...] = ()  # "nose,tail"
    angles: tuple[str, ...] = ()  # "left,nose,right"
    occluded: bool = False

    def __post_init__(self) -> None:
        if (self.scale is None) == (self.known is None):
            also = "not both" if self.scale else "--scale px stays in pixels"
            raise ConfigError(f"Measuring needs a scale: --scale 12.5px/mm or --known nose,tail=50mm; {also}.")
        if self.scale:
            Scale.parse(self.scale)

    def config(self, tracks: Tracks) -> MeasureConfig:
        """Return what to measure. Raises ConfigError or TracksError in one sentence."""
        if self.scale is not None:
            scale = Scale.parse(self.scale)
        else:
            scale = scale_of_distance(tracks, *parse_known_distance(self.known or ""))
        pairs = [parse_ids(text, 2, "--distance") for text in self.distances]
        triples = [parse_ids(text, 3, "--angle") for text in self.angles]
        return MeasureConfig(
            scale=scale,
            fps=self.fps,
            origin=self._origin(tracks),
            y_up=self.y_up,
            distances=tuple((a, b) for a, b in pairs),
            angles=tuple((a, b, c) for a, b, c in triples),
            occluded=self.occluded,
        )

    def _origin(self, tracks: Tracks) -> tuple[float, float] | str | None:
        if self.origin is None or self.origin in tracks.ids.tolist():
            return self.origin
        found = re.fullmatch(rf"\s*({_NUMBER})\s*,\s*({_NUMBER})\s*", self.origin)
        if not found:
            raise ConfigError(f"--origin {self.origin}: give X,Y in pixels or the id of a point; there is no such id.")
        return float(found[1]), float(found[2])
