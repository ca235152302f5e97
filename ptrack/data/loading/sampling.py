"""Which clips a split has, and which frames, points and queries of a clip make a training sample.

Letters: T frames of a sample, N points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ptrack.config import check_bounds
from ptrack.data.augment import AugmentConfig
from ptrack.data.hdf5 import ClipStore
from ptrack.errors import ConfigError, DataError, did_you_mean

Rng = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How training samples are cut from clips. The defaults are the published Track-On2 recipe."""

    size: tuple[int, int] = (384, 512)  # (H, W) pixels of the sample's frames
    num_frames: int = 48  # T; a clip that is too short is played forwards and backwards
    stride: int = 2  # frames of the clip per frame of the sample; smaller where the clip is too short
    num_points: int = 384  # N at most
    points: Literal["first_frame", "any_frame", "track_on"] = "track_on"  # which points are candidates
    queries: Literal["first_frame", "any", "track_on"] = "track_on"  # where they are queried
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        check_bounds(self, "num_frames", "stride", "num_points", least=1, where="loader: ")
        if self.queries == "first_frame" and self.points != "first_frame":
            raise ConfigError("loader: queries 'first_frame' need points 'first_frame'.")


# --- which clips -----------------------------------------------------------------------------------------------------


def choose_clips(
    store: ClipStore,
    split: Literal["train", "val", "all"] = "all",
    *,
    videos: Sequence[str] = (),
    train_fraction: float = 0.8,
    seed: int = 0,
) -> list[int]:
    """Return the positions of the clips of a split.

    A store that marks clips for training and others for validation keeps its own splits. Otherwise its videos (clips
    of one name stay together; only those marked for training, if any are) are divided at random by ``seed``,
    ``train_fraction`` of them for training, at least one on each side when there are two.

    Args:
        store: the clips.
        split: "train", "val" or "all".
        videos: only these names or ids; their order does not matter.
        train_fraction: share of training videos where the store has no splits.
        seed: random seed of the division.

    Raises:
        DataError: a video is not in the store, or nothing is left.
    """
    chosen = _named(store, videos) if videos else list(range(len(store)))
    if split != "all":
        marked, held_out = _own_split(store, "train"), _own_split(store, "val")
        if marked and not held_out:
            chosen = [i for i in chosen if i in marked]
        if marked and held_out:
            keep = marked if split == "train" else held_out
        else:
            keep = _divided(store, chosen, split, train_fraction, seed)
        chosen = [i for i in chosen if i in keep]
    if not chosen:
        raise DataError(f"There are no clips for the split '{split}' in {', '.join(map(str, store.paths))}.")
    return chosen


def _named(store: ClipStore, videos: Sequence[str]) -> list[int]:
    for name in videos:
        if name not in store.names and name not in store.ids:
            raise DataError(f"There is no video '{name}' in the data.{did_you_mean(name, store.names)}")
    wanted = set(videos)
    return [i for i in range(len(store)) if store.names[i] in wanted or store.ids[i] in wanted]


def _own_split(store: ClipStore, split: str) -> set[int]:
    names = {"train": ("train",), "val": ("val", "valid", "validation", "test", "eval")}[split]
    return {i for i, s in enumerate(store.splits) if s in names}


def _divided(store: ClipStore, chosen: Sequence[int], split: str, fraction: float, seed: int) -> set[int]:
    videos = sorted({(store.sources[i], store.names[i]) for i in chosen})
    order = np.random.default_rng([seed, 0x5EED]).permutation(len(videos))
    count = round(len(videos) * fraction)
    if len(videos) > 1:
        count = min(max(count, 1), len(videos) - 1)
    train = {videos[k] for k in order[:count]}
    return {i for i in chosen if ((store.sources[i], store.names[i]) in train) == (split == "train")}


# --- which frames, points and queries --------------------------------------------------------------------------------


def choose_frames(config: LoaderConfig, rng: Rng, length: int) -> np.ndarray:
    """Return (T,) frame numbers of a clip of ``length`` frames, evenly spaced from a random start.

    The stride is smaller where the clip is too short; a clip of fewer than T frames is played forwards and backwards.
    """
    t = config.num_frames
    stride = max(1, min(config.stride, (length - 1) // max(t - 1, 1)))
    if length < t:
        there_and_back = np.concatenate([np.arange(length), np.arange(length - 2, 0, -1)])
        index = there_and_back[np.arange(t) % len(there_and_back)]
    else:
        index = rng.integers(0, length - stride * (t - 1)) + stride * np.arange(t)
    return index[::-1].copy() if rng.random() < config.augment.reverse else index


def choose_points(config: LoaderConfig, rng: Rng, seen: np.ndarray) -> np.ndarray:
    """Return at most N point numbers, in random order, that may be tracked given where they are seen (T, N_all) bool.

    "track_on": those seen in frame 0 or T/2, and if they are fewer than N also in T/4 or T - T/4.
    """
    t = len(seen)
    if config.points == "track_on":
        good = seen[0] | seen[t // 2]
        if good.sum() < config.num_points:
            good = good | seen[t // 4] | seen[min(t - t // 4, t - 1)]
    else:
        good = seen[0] if config.points == "first_frame" else seen.any(axis=0)
    return rng.permutation(np.flatnonzero(good))[: config.num_points]


def choose_queries(config: LoaderConfig, rng: Rng, seen: np.ndarray) -> np.ndarray:
    """Return (N,) int64 query frames of points that are each seen somewhere (T, N) bool.

    "any" is a uniformly random frame in which the point is seen; "track_on" does so for the first quarter of the points
    and takes the first such frame for the others.
    """
    first = seen.argmax(axis=0).astype(np.int64)
    anywhere = {"any": len(first), "track_on": len(first) // 4}.get(config.queries, 0)
    for n in range(anywhere):
        first[n] = rng.choice(np.flatnonzero(seen[:, n]))
    return first
