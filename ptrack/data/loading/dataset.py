"""From clip stores to training samples: cut and augmented, the same on every machine.

Random choices of a sample depend on (seed, epoch, position of the clip) alone, so samples are the same with any number
of workers and after a resume. Which samples make up which batch is decided in ``ptrack.training.order``.

Letters: T frames, N points.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from ptrack.data import augment, images
from ptrack.data.augment import Framing
from ptrack.data.clips import Clip
from ptrack.data.hdf5 import ClipStore, Window
from ptrack.data.loading.sampling import LoaderConfig, Rng, choose_frames, choose_points, choose_queries
from ptrack.data.samples import SampleKey, TrainingSample
from ptrack.errors import DataError

POOL = 8192  # points of a clip that are followed through augmentation; N is chosen among them
ATTEMPTS = 10  # windows and clips that are tried when one has no point to track


class ClipDataset(Dataset[TrainingSample]):
    """Training samples of a clip store, one per clip and epoch.

    Args:
        store: an open store, or what ``ClipStore`` takes.
        config: how samples are cut.
        clips: positions of the clips to use (see ``choose_clips``); all by default.
        seed: random seed.

    Raises:
        DataError: the store is missing, or ``clips`` is empty.
    """

    def __init__(
        self,
        store: ClipStore | str | Path | Sequence[str | Path],
        config: LoaderConfig,
        clips: Sequence[int] | None = None,
        *,
        seed: int = 0,
    ) -> None:
        self.store = store if isinstance(store, ClipStore) else ClipStore(store)
        self.config = config
        self.clips = list(range(len(self.store)) if clips is None else clips)
        self.seed = seed
        if not self.clips:
            raise DataError("The dataset has no clips.")

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: int | SampleKey) -> TrainingSample:
        """Return a sample; if its clip has no point to track, another window and then other clips are drawn.

        Raises:
            DataError: no clip that was tried has any point to track.
        """
        index, epoch = key if isinstance(key, tuple) else (key, 0)
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        tried = []
        for attempt in range(ATTEMPTS):
            rng = np.random.default_rng([self.seed, epoch, index, attempt])
            which = index if attempt < 3 else int(rng.integers(len(self.clips)))
            clip = self.clips[which]
            sample = self._draw(clip, rng)
            if sample is not None:
                return sample
            tried.append(self.store.ids[clip])
        names = ", ".join(dict.fromkeys(tried))
        raise DataError(f"None of the clips that were tried has a point to track ({names}); leave such clips out.")

    def _draw(self, clip: int, rng: Rng) -> TrainingSample | None:
        length = int(self.store.num_frames[clip])
        if length == 0 or self.store.num_tracks[clip] == 0:
            return None
        index = choose_frames(self.config, rng, length)
        window = read_window(self.store, clip, index)
        h, w = (int(v) for v in self.store.sizes[clip])
        return _build(window, index, self.store.ids[clip], (h, w), self.config, rng)


# --- one sample ------------------------------------------------------------------------------------------------------


def sample_clip(clip: Clip, config: LoaderConfig, rng: Rng) -> TrainingSample | None:
    """Cut a training sample from a clip in memory (e.g. a synthetic one); None if it has no point to track."""
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
    steps = np.unique(np.abs(np.diff(index)))
    low, step = int(index.min()), max(1, int(steps[0])) if len(steps) == 1 else 1
    window = store.window(clip, low, int(index.max()) + 1, step)
    order = (index - low) // step
    if np.array_equal(order, np.arange(len(window.tracks))):
        return window
    frames = window.frames
    picked = frames[order] if isinstance(frames, np.ndarray) else [frames[k] for k in order]
    arrays = (window.tracks[order], window.visibility[order], window.valid[order], window.frame_ok[order])
    return Window(window.codec, picked, *arrays)


def _build(
    window: Window, index: np.ndarray, clip_id: str, size: tuple[int, int], config: LoaderConfig, rng: Rng
) -> TrainingSample | None:
    """Augment a window and choose its points; None if there is none to track."""
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
    if not len(choose_points(config, np.random.default_rng(0), visible)):
        return None  # before the expensive part: erasing only ever hides more
    frames = _frames(window, geometry, size)
    if config.augment.erase:
        augment.erase(config.augment, rng, frames, tracks, visible)
    augment.photometric(config.augment, rng, frames)
    chosen = choose_points(config, rng, visible)
    if not len(chosen):
        return None
    time = choose_queries(config, rng, visible[:, chosen])
    order = rng.permutation(len(time))  # so that a batch may keep the first points of each sample
    time, chosen = time[order], chosen[order]
    tracks, visible, valid = tracks[:, chosen], visible[:, chosen], valid[:, chosen]
    return TrainingSample(
        frames=torch.from_numpy(frames),
        tracks=torch.from_numpy(np.ascontiguousarray(tracks, dtype=np.float32)),
        visibility=torch.from_numpy(np.ascontiguousarray(visible)),
        valid=torch.from_numpy(np.ascontiguousarray(valid)),
        query_time=torch.from_numpy(time),
        query_xy=torch.from_numpy(tracks[time, np.arange(len(time))].astype(np.float32)),
        clip_id=clip_id,
        frame_index=torch.from_numpy(index.astype(np.int64)),
        size=size,
    )


def _in_frame(tracks: np.ndarray, valid: np.ndarray, visible: np.ndarray, config: LoaderConfig) -> np.ndarray:
    """Hide points outside the frame (in place) and return the numbers of those never too far away."""
    h, w = config.size
    x, y = tracks[..., 0], tracks[..., 1]
    visible &= (x >= 0) & (x <= w) & (y >= 0) & (y <= h)
    tracks[~valid] = 0.0
    far = ((tracks - (w / 2, h / 2)) ** 2).sum(axis=-1) > config.augment.far**2
    return np.flatnonzero(~(far & valid).any(axis=0))


def _frames(window: Window, geometry: Framing, size: tuple[int, int]) -> np.ndarray:
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
