"""Frames to label: those of a video that differ most from each other.

Pictures of a sample of frames are described by the packaged encoder at stride 16, put into clusters by k-means, and of
each cluster the frame nearest its centre is suggested. The same video and settings always give the same frames.

Letters: T frames, S sampled frames, D numbers that describe one, K suggested frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy.cluster.vq import kmeans, vq

from ptrack.errors import ConfigError, InputError, count
from ptrack.fileio import atomic_path, check_writable
from ptrack.video import ReadOptions, open_source
from ptrack.video.frames import FrameSource
from ptrack.video.seeking import SeekableVideo

MOST_FRAMES = 1000  # that can be suggested
MOST_SAMPLED = 3000  # about 300 MB of pictures, descriptions and their products
IN_ORDER = 2000  # frames up to which a video is decoded whole; of a longer one only key frames
SIDE = 160  # pixels of the longest side of a sampled picture
LOOK = (96, 128)  # (H, W) of what the encoder sees; multiples of 16
AT_ONCE = 16  # pictures per encoder call
KEPT = 64  # principal components; more only make k-means slower
SAME = 1e-3  # distance below which two descriptions are the same picture, of the usual length of a description


@dataclass(frozen=True, kw_only=True)
class SuggestConfig:
    """How many frames to suggest, out of how many. Raises ConfigError for values out of range."""

    frames: int = 20  # suggested
    sample: int = 300  # frames that are looked at, at most

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= MOST_FRAMES:
            raise ConfigError(f"--frames {self.frames}: from 1 to {MOST_FRAMES} frames can be suggested.")
        if not self.frames <= self.sample <= MOST_SAMPLED:
            raise ConfigError(
                f"--sample {self.sample}: it must be at least --frames ({self.frames}), and at most {MOST_SAMPLED}."
            )


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A frame that stands for others."""

    frame: int  # number in the source
    time_s: float  # on the source's own clock
    share: float  # of the sampled frames that look most like this one, 0..1
    picture: np.ndarray  # (h, w, 3) uint8 RGB, at most SIDE pixels long


@dataclass(frozen=True, kw_only=True)
class SuggestReport:
    """Suggested frames in their order in the video."""

    frames: tuple[Suggestion, ...]
    sampled: np.ndarray  # (S,) int64 numbers of the frames that were looked at
    sentences: tuple[str, ...]  # what was looked at, and what could not be suggested


class SampledFrame(NamedTuple):
    """One frame that is looked at."""

    index: int
    seconds: float
    picture: np.ndarray  # (h, w, 3) uint8


Watch = Callable[[int], bool]  # called with the number of frames looked at; True stops


def suggest_frames(video: Any, config: SuggestConfig | None = None, watch: Watch | None = None) -> SuggestReport:
    """Return frames of a video that differ most from each other, to label them.

    Args:
        video: a file, image folder or array; anything ``ptrack.open_source`` can read again.
        config: how many.
        watch: called after every frame that is looked at; when it returns True, those so far are the sample.

    Raises:
        InputError: the video cannot be read, or is a camera or stream.
    """
    config = config or SuggestConfig()
    with open_source(video, ReadOptions(max_size=SIDE)) as source:
        if source.info.live or not source.info.rereadable:
            raise InputError(f"{source.info.name} is no file: frames to label are suggested for videos that are kept.")
        sample, sentence = _sample(source, config, watch or (lambda _: False))
    chosen, shares = diverse(describe([s.picture for s in sample]), config.frames)
    frames = [
        Suggestion(frame=sample[i].index, time_s=sample[i].seconds, share=share, picture=sample[i].picture)
        for i, share in zip(chosen.tolist(), shares.tolist(), strict=True)
    ]
    sentences = [sentence]
    if len(frames) < config.frames:
        sentences.append(f"Only {count(len(frames), 'frame')} of {config.frames}: the others look the same as these.")
    return SuggestReport(
        frames=tuple(frames), sampled=np.asarray([s.index for s in sample]), sentences=tuple(sentences)
    )


def _sample(source: FrameSource, config: SuggestConfig, watch: Watch) -> tuple[list[SampledFrame], str]:
    """Return at most ``config.sample`` frames in order, and a sentence on which they are."""
    access = SeekableVideo.open(source)
    if access is not None and len(access) > IN_ORDER and len(access.key_frames) >= 2 * config.frames:
        keys = access.key_frames
        keys = keys[np.unique(np.linspace(0, len(keys) - 1, min(len(keys), config.sample)).round().astype(int))]
        with closing(access):
            sample = _watched((SampledFrame(i, access.seconds(i), rgb) for i, rgb in access.single(keys)), watch)
        if sample:
            which = f"evenly spread over its {len(access.key_frames)} key frames"
            return sample, f"Of {len(access)} frames {len(sample)} were looked at, {which}."
    total = len(access) if access is not None else source.info.expected_frames
    return _in_order(source, config.sample, total, watch)


def _watched(frames: Iterator[SampledFrame], watch: Watch) -> list[SampledFrame]:
    sample: list[SampledFrame] = []
    for frame in frames:
        sample.append(frame)
        if watch(len(sample)):
            break
    return sample


def _in_order(source: FrameSource, most: int, total: int | None, watch: Watch) -> tuple[list[SampledFrame], str]:
    """Read everything; keep every n-th frame, n being doubled whenever ``most`` are held. ``total`` is a guess."""
    step = max(1, -(-(total or 1) // most))
    sample: list[SampledFrame] = []
    seen = 0
    for frame in source:
        seen = frame.index + 1
        if frame.index % step or not frame.ok:
            continue
        if len(sample) == most:
            step *= 2
            sample = [s for s in sample if s.index % step == 0]
            if frame.index % step:
                continue
        sample.append(SampledFrame(frame.index, frame.pts, frame.rgb))
        if watch(len(sample)):
            break
    if not sample:
        raise InputError(f"{source.info.name} holds no frame that can be decoded.")
    which = "all" if step == 1 else f"every {ordinal(step)}"
    return sample, f"Of {count(seen, 'frame')} {len(sample)} were looked at ({which})."


def ordinal(n: int) -> str:
    """Return a number above 0 with its ending: 2nd, 11th, 32nd."""
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def describe(pictures: list[np.ndarray]) -> np.ndarray:
    """Return what the packaged encoder sees in (h, w, 3) pictures: (S, D) float32, centred, D at most KEPT.

    The picture is seen in 6 x 8 places, so that where something is counts too, not only what there is.
    """
    import torch

    from ptrack.models.backbones.lite0 import Lite0, packaged_weights, stretched

    net = Lite0(packaged_weights())
    rows = []
    with torch.inference_mode():
        for first in range(0, len(pictures), AT_ONCE):
            batch = [stretched(torch.from_numpy(p.copy())[None], LOOK) for p in pictures[first : first + AT_ONCE]]
            rows.append(net(torch.cat(batch))[-1].flatten(1).numpy())
    return _reduced(np.concatenate(rows))


def _reduced(features: np.ndarray) -> np.ndarray:
    """Return (S, D) features by their main directions, from the (S, S) products: S is smaller than the width."""
    centred = features - features.mean(axis=0)
    values, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    keep = np.argsort(-values)[:KEPT]
    return (vectors[:, keep] * np.sqrt(np.maximum(values[keep], 0))).astype(np.float32)


def diverse(features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows nearest to the centres of ``k`` clusters, ascending, and which share of the rows each stands for.

    Fewer than ``k`` where there are fewer different rows.

    Args:
        features: (S, D).
        k: clusters.

    Returns:
        (K,) int64 rows and (K,) shares, which sum to 1.
    """
    if len(features) == 1:  # which SciPy would take for a number of clusters
        return np.zeros(1, np.int64), np.ones(1)
    centres, _ = kmeans(features, features[_spread(features, k)])  # without those of which no row is left
    nearest, distance = vq(features, centres)
    mine = nearest[:, None] == np.arange(len(centres))  # (S, K)
    rows = np.where(mine, distance[:, None], np.inf).argmin(axis=0)
    order = np.argsort(rows)
    return rows[order], mine.mean(axis=0)[order]


def _spread(features: np.ndarray, k: int) -> np.ndarray:
    """Return up to ``k`` rows to start from: the one nearest the mean, then always the one farthest from all before."""
    rows = [int(np.linalg.norm(features - features.mean(axis=0), axis=1).argmin())]
    away = np.linalg.norm(features - features[rows[0]], axis=1)
    least = SAME * float(np.linalg.norm(features, axis=1).mean())
    while len(rows) < min(k, len(features)) and away.max() > least:
        rows.append(int(away.argmax()))
        away = np.minimum(away, np.linalg.norm(features - features[rows[-1]], axis=1))
    return np.asarray(rows)


def picture_paths(folder: Path | str, report: SuggestReport) -> list[Path]:
    """Return where ``write_pictures`` puts the suggested frames: ``img00012.png`` for frame 12."""
    digits = max(5, len(str(int(report.sampled.max()))))
    return [Path(folder) / f"img{s.frame:0{digits}}.png" for s in report.frames]


def write_pictures(video: Any, report: SuggestReport, folder: Path | str, *, overwrite: bool = False) -> list[Path]:
    """Write the suggested frames as PNG, in full size, for a labelling program; returns the files.

    Raises:
        OutputError: a file exists and ``overwrite`` is false, or the folder cannot be written to.
        InputError: the video cannot be read again.
    """
    paths = [check_writable(path, overwrite=overwrite) for path in picture_paths(folder, report)]
    wanted = {s.frame: path for s, path in zip(report.frames, paths, strict=True)}
    for index, rgb in _whole(video, sorted(wanted)):
        with atomic_path(wanted.pop(index)) as temporary:
            Image.fromarray(rgb).save(temporary, "PNG")
    if wanted:
        raise InputError(f"{video}: frame {min(wanted)} cannot be decoded in full size.")
    return paths


def _whole(video: Any, numbers: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield number and (H, W, 3) of the frames with these numbers, ascending."""
    with open_source(video) as source:
        access = SeekableVideo.open(source)
        if access is not None:
            with closing(access):
                for number in numbers:
                    yield from access.frames(number, number + 1)
            return
        for frame in source:
            if frame.index in numbers:
                yield frame.index, frame.rgb
            if frame.index >= numbers[-1]:
                return


SUGGEST_COLUMNS = ("frame", "time_s", "share")


def suggest_rows(report: SuggestReport) -> list[list[Any]]:
    """Return a row of SUGGEST_COLUMNS per suggested frame."""
    return [[s.frame, round(s.time_s, 6), round(s.share, 4)] for s in report.frames]
