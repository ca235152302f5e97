"""From clip stores to training batches: which clips, frames and points, cut and augmented, the same on every machine.

The chance of a sample depends on (seed, epoch, position of the clip) alone, so batches are the same with any number of
workers, forked or spawned, and after a resume; ranks of a distributed run share one order.

Letters: T frames, N points, L frames of the whole clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from ptrack.data import augment, images
from ptrack.data.augment import AugmentConfig, Geometry
from ptrack.data.clips import Clip
from ptrack.data.hdf5 import ClipStore, Window
from ptrack.data.samples import TrainingBatch, TrainingSample, collate
from ptrack.errors import ConfigError, DataError, did_you_mean

__all__ = [
    "ClipDataset", "ClipSampler", "LoaderConfig", "SampleKey", "TrainingBatch", "TrainingSample", "choose_clips",
    "collate", "make_loader", "sample_clip",
]  # fmt: skip

POOL = 8192  # points of a clip that are followed through augmentation; N is chosen among them
ATTEMPTS = 10  # windows and clips that are tried when one has too few points

Rng = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How training samples are cut from clips. The defaults are the published Track-On2 recipe."""

    size: tuple[int, int] = (384, 512)  # (H, W) of the frames given out
    num_frames: int = 48  # T; a clip that is too short is played forwards and backwards
    frames: Literal["uniform", "uniform_mixed", "random"] = "uniform"  # see ``choose_frames``
    ratio: int = 2  # stride of "uniform"; window of "random" in multiples of T
    num_points: int = 384  # N at most
    min_points: int = 1  # fewer: another window, then another clip is drawn (the published recipe asks 96)
    points: Literal["first_frame", "any_frame", "track_on"] = "track_on"  # which points are candidates
    queries: Literal["first_frame", "first_visible", "any", "track_on"] = "track_on"  # where they are queried
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        for name in ("num_frames", "ratio", "num_points", "min_points"):
            if getattr(self, name) < 1:
                raise ConfigError(f"loader: {name} must be at least 1, not {getattr(self, name)}.")
        if self.min_points > self.num_points:
            raise ConfigError(f"loader: min_points {self.min_points} is larger than num_points {self.num_points}.")
        if self.queries == "first_frame" and self.points != "first_frame":
            raise ConfigError("loader: queries 'first_frame' need points 'first_frame'.")

    @classmethod
    def plain(cls, *, size: int | tuple[int, int], num_frames: int, num_points: int) -> LoaderConfig:
        """Return the offline tracker's recipe: consecutive frames, points visible in the first, no augmentation."""
        return cls(
            size=(size, size) if isinstance(size, int) else size,
            num_frames=num_frames,
            ratio=1,
            num_points=num_points,
            points="first_frame",
            queries="first_frame",
            augment=AugmentConfig.none(),
        )


# --- which clips -------------------------------------------------------------------------------------------------


def choose_clips(
    store: ClipStore, split: Literal["train", "val", "all"] = "all", *, videos: Sequence[str] = (),
    train_fraction: float = 0.8, seed: int = 0,
) -> list[int]:  # fmt: skip
    """Return the positions of the clips of a split.

    A store that marks clips for training and others for validation keeps its own splits. Otherwise its videos (clips
    of one name stay together; only those marked for training, if any are) are divided at random by ``seed``,
    ``train_fraction`` of them for training, at least one on each side when there are two.

    Args:
        store: the clips.
        split: "train", "val" or "all".
        videos: only these names or ids; their order does not matter.
        train_fraction: share of training videos where the store has no splits.
        seed: of the division.

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


# --- which frames and points -------------------------------------------------------------------------------------


def choose_frames(config: LoaderConfig, rng: Rng, length: int) -> np.ndarray:
    """Return (T,) frame numbers of a clip of ``length`` frames.

    "uniform": every ``ratio``-th frame from a random start (a smaller stride where the clip is too short);
    "uniform_mixed": stride 1 or ``ratio`` with equal chance; "random": T frames in random order out of a window of
    ``ratio`` * T. A clip of fewer than T frames is played forwards and backwards.
    """
    t = config.num_frames
    if config.frames == "random" and length >= t:
        span = min(length, config.ratio * t)
        return rng.integers(0, length - span + 1) + rng.permutation(span)[:t]
    stride = config.ratio
    if config.frames == "uniform_mixed" and rng.random() < 0.5:
        stride = 1
    stride = max(1, min(stride, (length - 1) // max(t - 1, 1)))
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
    quarter = {"any": len(first), "track_on": len(first) // 4}.get(config.queries, 0)
    for n in range(quarter):
        first[n] = rng.choice(np.flatnonzero(seen[:, n]))
    return first


# --- one sample --------------------------------------------------------------------------------------------------


def sample_clip(clip: Clip, config: LoaderConfig, rng: Rng) -> TrainingSample | None:
    """Cut a training sample from a clip in memory (e.g. a synthetic one); None if it has fewer than min_points."""
    index = choose_frames(config, rng, clip.num_frames)
    ok = np.ones(len(index), np.bool_) if clip.frame_ok is None else clip.frame_ok[index]
    codec = clip.frames.encoded(int(index[0]))[0]
    if codec == "raw":
        frames: Any = np.stack([clip.frames.rgb(int(t)) for t in index])
    else:
        frames = [clip.frames.encoded(int(t))[1] for t in index]
    window = Window(codec, frames, clip.tracks[index], clip.visibility[index], clip.valid[index], ok)
    return _build(window, index, clip.id, clip.size, config, rng)


def read_window(store: ClipStore, clip: int, index: np.ndarray) -> Window:
    """Read frames of a clip in any order (K,), in one go where they are evenly spaced."""
    steps = np.unique(np.diff(index)) if len(index) > 1 else np.ones(1, np.int64)
    low, high = int(index.min()), int(index.max()) + 1
    if len(steps) == 1 and steps[0] != 0:
        window = store.window(clip, low, high, abs(int(steps[0])))
        order = np.arange(len(index)) if steps[0] > 0 else np.arange(len(index))[::-1]
    else:
        window = store.window(clip, low, high)
        order = index - low
    if len(steps) == 1 and steps[0] > 0:
        return window
    frames = window.frames
    picked = frames[order] if isinstance(frames, np.ndarray) else [frames[k] for k in order]
    arrays = (window.tracks[order], window.visibility[order], window.valid[order], window.frame_ok[order])
    return Window(window.codec, picked, *arrays)


def _build(
    window: Window, index: np.ndarray, clip_id: str, size: tuple[int, int], config: LoaderConfig, rng: Rng
) -> TrainingSample | None:
    """Augment a window and choose its points; None if there are fewer than ``min_points``."""
    pool = rng.permutation(window.tracks.shape[1])[:POOL]
    tracks = window.tracks[:, pool]
    valid = window.valid[:, pool] & window.frame_ok[:, None]
    visible = window.visibility[:, pool] & valid
    if not visible.any():
        return None
    geometry = augment.draw_geometry(config.augment, rng, size, config.size, tracks, visible)
    tracks = geometry.points(tracks)
    near = _in_frame(tracks, valid, visible, config)
    tracks, valid, visible = tracks[:, near], valid[:, near], visible[:, near]
    if len(choose_points(config, np.random.default_rng(0), visible)) < config.min_points:
        return None  # before the expensive part: erasing only ever hides more
    frames = _frames(window, geometry, size)
    if config.augment.erase:
        augment.erase(config.augment, rng, frames, tracks, visible)
    if config.augment.replace:
        augment.replace_patches(config.augment, rng, frames, tracks, visible)
    augment.photometric(config.augment, rng, frames)
    chosen = choose_points(config, rng, visible)
    if len(chosen) < config.min_points:
        return None
    return _sample(frames, tracks[:, chosen], visible[:, chosen], valid[:, chosen], index, clip_id, size, config, rng)


def _in_frame(tracks: np.ndarray, valid: np.ndarray, visible: np.ndarray, config: LoaderConfig) -> np.ndarray:
    """Hide points outside the frame (in place) and return the numbers of those never too far away."""
    h, w = config.size
    x, y = tracks[..., 0], tracks[..., 1]
    visible &= (x >= 0) & (x <= w) & (y >= 0) & (y <= h)
    tracks[~valid] = 0.0
    far = ((tracks - (w / 2, h / 2)) ** 2).sum(axis=-1) > config.augment.far**2
    return np.flatnonzero(~(far & valid).any(axis=0))


def _frames(window: Window, geometry: Geometry, size: tuple[int, int]) -> np.ndarray:
    """Decode and resample the frames of a window: (T, H, W, 3) uint8; damaged ones are black."""
    out = np.zeros((len(window.frame_ok), *geometry.size, 3), np.uint8)
    for k in np.flatnonzero(window.frame_ok):
        frame = window.frames[k]
        if isinstance(frame, np.ndarray):
            picture, reduced = Image.fromarray(frame), 1
        else:
            picture = images.decode_reduced(frame, geometry.least_size(int(k), size))
            reduced = round(size[1] / picture.width)
        out[k] = geometry.image(picture, int(k), reduced)
    return out


def _sample(
    frames: np.ndarray, tracks: np.ndarray, visible: np.ndarray, valid: np.ndarray, index: np.ndarray, clip_id: str,
    size: tuple[int, int], config: LoaderConfig, rng: Rng,
) -> TrainingSample:  # fmt: skip
    time = choose_queries(config, rng, visible)
    order = rng.permutation(len(time))  # so that a batch may keep the first points of each sample
    time, tracks, visible, valid = time[order], tracks[:, order], visible[:, order], valid[:, order]
    return TrainingSample(
        frames=torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))),
        tracks=torch.from_numpy(np.ascontiguousarray(tracks, dtype=np.float32)),
        visibility=torch.from_numpy(np.ascontiguousarray(visible)),
        valid=torch.from_numpy(np.ascontiguousarray(valid)),
        query_time=torch.from_numpy(time),
        query_xy=torch.from_numpy(tracks[time, np.arange(len(time))].astype(np.float32)),
        clip_id=clip_id,
        frame_index=torch.from_numpy(index.astype(np.int64)),
        size=size,
    )


# --- dataset, sampler, loader ------------------------------------------------------------------------------------


class SampleKey(NamedTuple):
    """Which sample: the position in the dataset and the epoch."""

    index: int
    epoch: int = 0


class ClipDataset(Dataset[TrainingSample]):
    """Training samples of a clip store, one per clip and epoch (``repeat`` of them).

    Args:
        store: an open store, or what ``ClipStore`` takes.
        config: how samples are cut.
        clips: positions of the clips to use (see ``choose_clips``); all by default.
        seed: of all chance.
        repeat: samples of each clip in one epoch.

    Raises:
        DataError: the store is missing, or ``clips`` is empty.
    """

    def __init__(
        self, store: ClipStore | str | Path | Sequence[str | Path], config: LoaderConfig,
        clips: Sequence[int] | None = None, *, seed: int = 0, repeat: int = 1,
    ) -> None:  # fmt: skip
        self.store = store if isinstance(store, ClipStore) else ClipStore(store)
        self.config = config
        self.clips = list(range(len(self.store)) if clips is None else clips)
        self.seed = seed
        self.repeat = repeat
        if not self.clips:
            raise DataError("The dataset has no clips.")

    def __len__(self) -> int:
        return len(self.clips) * self.repeat

    def __getitem__(self, key: int | SampleKey) -> TrainingSample:
        """Return a sample; if its clip has too few points, another window and then other clips are drawn.

        Raises:
            DataError: no clip that was tried has any point to track.
        """
        index, epoch = key if isinstance(key, tuple) else (key, 0)
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        tried = []
        for attempt in range(ATTEMPTS):
            rng = np.random.default_rng([self.seed, epoch, index, attempt])
            which = index % len(self.clips) if attempt < 3 else int(rng.integers(len(self.clips)))
            clip = self.clips[which]
            sample = self._draw(clip, rng)
            if sample is not None:
                return sample
            tried.append(self.store.ids[clip])
        names = ", ".join(dict.fromkeys(tried))
        raise DataError(
            f"None of the clips that were tried has {self.config.min_points} points to track ({names}); "
            "lower min_points, or leave such clips out."
        )

    def _draw(self, clip: int, rng: Rng) -> TrainingSample | None:
        length = int(self.store.num_frames[clip])
        if length == 0 or self.store.num_tracks[clip] == 0:
            return None
        index = choose_frames(self.config, rng, length)
        window = read_window(self.store, clip, index)
        h, w = (int(v) for v in self.store.sizes[clip])
        return _build(window, index, self.store.ids[clip], (h, w), self.config, rng)


class ClipSampler(Sampler[SampleKey]):
    """Shuffled samples of an epoch, shared out over the ranks of a distributed run, resumable at any sample.

    Rank r takes the samples r, r + world, ... of one common order, so the ranks' batches together are the batch of a
    single process with ``world`` times the size. Every rank gets equally many: the remainder is left out (in a dataset
    smaller than ``world`` samples repeat).

    Args:
        data: the dataset, or anything with its length.
        seed: of the order.
        rank: this process, from ``torch.distributed`` by default.
        world: number of processes.
        shuffle: False keeps the order of the dataset.
    """

    def __init__(
        self, data: Sized, *, seed: int = 0, rank: int | None = None, world: int | None = None, shuffle: bool = True
    ) -> None:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = rank if rank is not None else torch.distributed.get_rank() if distributed else 0
        self.world = world if world is not None else torch.distributed.get_world_size() if distributed else 1
        self.length = len(data)
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self.position = 0
        if not 0 <= self.rank < self.world:
            raise ConfigError(f"loader: rank {self.rank} is not one of {self.world} processes.")

    def set_epoch(self, epoch: int, position: int = 0) -> None:
        """Go to an epoch, after ``position`` samples of this rank (batches done * batch size) have been used."""
        self.epoch, self.position = epoch, position

    def __len__(self) -> int:
        """Return the samples that are left for this rank in the epoch."""
        return max(max(self.length // self.world, 1) - self.position, 0)

    def __iter__(self) -> Iterator[SampleKey]:
        order = np.arange(self.length)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch, 0x0DE5]).permutation(self.length)
        total = max(self.length // self.world, 1)
        for k in range(self.position, total):
            yield SampleKey(int(order[(k * self.world + self.rank) % self.length]), self.epoch)

    def state_dict(self, used: int = 0) -> dict[str, int]:
        """Return the position after ``used`` more samples of this rank; prefetched ones do not count."""
        return {"epoch": self.epoch, "position": self.position + used, "seed": self.seed, "length": self.length}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a saved position.

        Raises:
            DataError: the dataset has another length or the seed is another one than when it was saved.
        """
        if state["length"] != self.length or state["seed"] != self.seed:
            raise DataError(
                f"The saved position belongs to a dataset of {state['length']} clips and seed {state['seed']}, "
                f"not {self.length} and {self.seed}; start a new run for other data."
            )
        self.set_epoch(state["epoch"], state["position"])


def make_loader(
    dataset: Dataset[TrainingSample], sampler: Sampler[SampleKey], batch_size: int, *, workers: int = 0,
    drop_last: bool = True, pin_memory: bool = False, context: Literal["fork", "spawn", "forkserver"] | None = None,
    prefetch: int = 2,
) -> DataLoader[TrainingBatch]:  # fmt: skip
    """Return a DataLoader of ``TrainingBatch``; it draws nothing from the process's random state.

    Args:
        dataset: e.g. ``ClipDataset``.
        sampler: e.g. ``ClipSampler``; call its ``set_epoch`` before each epoch.
        batch_size: clips per batch.
        workers: processes that load ahead; 0 loads in this one.
        drop_last: leave out a last, smaller batch.
        pin_memory: batches in page-locked memory, for a GPU.
        context: how workers are started; the system's default if None.
        prefetch: batches that each worker holds ready.
    """
    return DataLoader(  # type: ignore[return-value]  # DataLoader is typed by its samples, not by its batches
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        drop_last=drop_last,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        multiprocessing_context=context if workers else None,
        prefetch_factor=prefetch if workers else None,
        generator=torch.Generator().manual_seed(0),
    )
