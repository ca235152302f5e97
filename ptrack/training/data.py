"""The clips of a run: a converted data set, a folder that is converted on the way, or the synthetic source."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ptrack.data.augment import AugmentConfig
from ptrack.data.hdf5 import ClipStore
from ptrack.data.loading.dataset import ClipDataset, sample_clip
from ptrack.data.loading.sampling import LoaderConfig, choose_clips
from ptrack.data.samples import SampleKey, TrainingSample
from ptrack.errors import DataError
from ptrack.processes import Group
from ptrack.training.config import DataConfig, TrainConfig
from ptrack.training.order import Batches, OrderedBatches, SampleSource
from ptrack.training.pool import open_pool

if TYPE_CHECKING:
    from ptrack.data.synthetic.config import SyntheticConfig

Note = Callable[[str], None]

_STORE_SUFFIXES = (".h5", ".hdf5")
_LIGHT = AugmentConfig(erase=0.0, pad=0, zoom=False, flip_y=0.0, reverse=0.5)
_AUGMENT = {
    "none": AugmentConfig.none(),
    "light": _LIGHT,
    "strong": replace(
        _LIGHT, erase=0.1, erase_count=(1, 6), erase_size=(4, 64),
        colour=0.8, brightness=0.35, contrast=0.35, saturation=0.35, blur=0.4,
        zoom=True, zoom_relative=True, zoom_range=(1.0, 1.6), zoom_limits=(1.0, 2.0), zoom_step=0.03, crop_step=8,
    ),
    "track-on2": AugmentConfig(),
}  # fmt: skip
SYNTHETIC_ATTEMPTS = 10  # clips that are rendered until one has a point to track


def loader_config(data: DataConfig, *, training: bool) -> LoaderConfig:
    """Return how samples are cut: the same for validation, but without changes of colour and geometry."""
    augment = _AUGMENT[data.augment] if training else AugmentConfig.none()
    if data.query == "track-on2":
        points, queries = "track_on", "track_on"
    elif data.query == "any":
        points, queries = "any_frame", "any"
    else:
        points, queries = "first_frame", "first_frame"
    return LoaderConfig(
        size=data.image_size,
        num_frames=data.sequence_length,
        stride=data.stride,
        num_points=data.num_points,
        points=points,
        queries=queries,
        augment=augment,
    )


@dataclass(frozen=True)
class RunData:
    """What a run is trained and validated on."""

    batches: Batches
    valid: SampleSource | None = None
    shown: SampleSource | None = None  # its first clip is drawn after each validation


def open_data(
    config: TrainConfig, group: Group | None = None, device: torch.device | str = "cpu", note: Note = lambda _: None
) -> RunData:
    """Open training batches and validation clips.

    Args:
        config: of the run.
        group: this process among all.
        device: where the batches go.
        note: called with a sentence on what is converted and how many clips there are.

    Raises:
        DataError: nothing usable is there; the message names the place.
    """
    group = group or Group()
    train, valid = open_samples(config, note)
    if config.data.pool is not None:
        return RunData(open_pool(config, config.data.pool, group, torch.device(device), note), valid, valid)
    batches = OrderedBatches(
        train,
        config.batch_size,
        grad_accum=config.grad_accum,
        seed=config.seed,
        workers=config.num_workers,
        group=group,
        device=device,
    )
    return RunData(batches, valid, train if valid is None else valid)


def open_samples(config: TrainConfig, note: Note = lambda _: None) -> tuple[SampleSource, SampleSource | None]:
    """Return the clips to train on, and those to validate on if there are any.

    Raises:
        DataError: nothing usable is there; the message names the place.
    """
    data = config.data
    if data.root is None:
        return _synthetic(config)
    store = ClipStore(_stores(data.root, note))
    fraction = 1 - data.validation_share
    train = choose_clips(store, "train", videos=data.videos, train_fraction=fraction, seed=config.seed)
    train = _usable(store, train)
    if not train:
        raise DataError(f"No clip of {data.root} can be trained on: none has two frames and a point to track.")
    valid = _validation_clips(store, data, fraction, config.seed)
    note(f"{len(train)} clips to train on, {len(valid)} to validate on, from {data.root}.")
    return (
        ClipDataset(store, loader_config(data, training=True), train, seed=config.seed),
        ClipDataset(store, loader_config(data, training=False), valid, seed=config.seed) if valid else None,
    )


def _validation_clips(store: ClipStore, data: DataConfig, fraction: float, seed: int) -> list[int]:
    """Return at most ``validation_clips`` clips, none if the data set has only one."""
    try:
        found = choose_clips(store, "val", videos=data.videos, train_fraction=fraction, seed=seed)
    except DataError:
        return []
    return _usable(store, found)[: data.validation_clips]


def _usable(store: ClipStore, clips: list[int]) -> list[int]:
    return [i for i in clips if store.num_frames[i] >= 2 and store.num_tracks[i] >= 1]


# ---- converting on the way -------------------------------------------------------------------------------------------


def _stores(root: str, note: Note) -> list[Path]:
    """Return the converted files that ``root`` means, converting a folder of videos into the cache first."""
    path = Path(root).expanduser()
    if path.suffix in _STORE_SUFFIXES and path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix in _STORE_SUFFIXES)
        return found or [convert_to_cache(path, note)]
    if any(c in root for c in "*?["):
        found = sorted(p for p in path.parent.glob(path.name) if p.suffix in _STORE_SUFFIXES)
        if found:
            return found
    raise DataError(
        f"There is no data set {root}: give a converted .h5 file, a folder of them, or a PointOdyssey folder."
    )


def cache_folder() -> Path:
    """Return where converted data sets are kept: ``ptrack/datasets`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ptrack" / "datasets"


def convert_to_cache(root: Path, note: Note) -> Path:
    """Convert a PointOdyssey folder (published or simple layout) once, and return the file.

    The file's name depends on the folder and on the size and time of its annotations, so a changed data set is
    converted again; an interrupted conversion goes on where it stopped.

    Raises:
        DataError: the folder is no such data set, or not one of its clips can be used.
    """
    from ptrack.data.convert import ConvertOptions, convert
    from ptrack.data.sources import open_dataset

    source = open_dataset("point-odyssey", root)
    source.refs()  # raises if nothing is there
    out = cache_folder() / f"{root.resolve().name}-{_fingerprint(root)}.h5"
    if not out.exists():
        note(f"Converting {root} into {out} (once).")
        out.parent.mkdir(parents=True, exist_ok=True)
        report = convert(source, out, ConvertOptions())
        for clip, reason in report.skipped:
            note(f"Left out {clip}: {reason}")
    return out


def _fingerprint(root: Path) -> str:
    digest = hashlib.sha256(str(root.resolve()).encode())
    for path in sorted(root.rglob("*.npz")):
        status = path.stat()
        digest.update(f"{path.relative_to(root)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


# ---- the synthetic source --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SyntheticClips:
    """Rendered clips as a data set: every epoch shows new ones, each rendered when it is asked for."""

    world: SyntheticConfig
    cut: LoaderConfig
    length: int
    seed: int = 0
    first: int = 0  # number of the first clip

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: int | SampleKey) -> TrainingSample:
        """Return a sample.

        Raises:
            DataError: no clip that was tried has a point to track.
        """
        from ptrack.data.synthetic.source import clip_of, generate

        index, epoch = key if isinstance(key, tuple) else (key, 0)
        for attempt in range(SYNTHETIC_ATTEMPTS):
            number = self.first + (epoch * self.length + index) * SYNTHETIC_ATTEMPTS + attempt
            clip = clip_of(self.world, generate(self.world, [number]), 0)
            sample = sample_clip(clip, self.cut, np.random.default_rng([self.seed, number]))
            if sample is not None:
                return sample
        raise DataError(f"{SYNTHETIC_ATTEMPTS} rendered clips in a row had no point to track; ask for larger images.")


def _synthetic(config: TrainConfig) -> tuple[SampleSource, SampleSource | None]:
    from ptrack.data.synthetic.config import SyntheticConfig

    data = config.data
    stride = data.stride
    world = SyntheticConfig(
        frames=(data.sequence_length - 1) * stride + 1,
        height=data.image_size[0],
        width=data.image_size[1],
        points=max(256, 2 * data.num_points),
        split="train",
        seed=config.seed,
        actors_dir=data.actors,
        textures_dir=data.textures,
        supersampling=data.supersampling,
    )
    train = SyntheticClips(world, loader_config(data, training=True), data.synthetic_clips, config.seed)
    if data.validation_clips == 0:
        return train, None
    held_out = replace(world, split="val")
    return train, SyntheticClips(held_out, loader_config(data, training=False), data.validation_clips, 1)
