"""Batches from a pool of rendered clips: whole clips for a tracker, pairs of frames for its encoder.

Letters: B clips, T frames of a batch, N points, P photos, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ptrack.data.gpu_augment import DeviceClips, GpuAugmentConfig, augment
from ptrack.data.pool import ClipPool
from ptrack.data.samples import TrainingBatch
from ptrack.data.synthetic.library import open_library
from ptrack.errors import ConfigError
from ptrack.processes import Group
from ptrack.training.config import PoolConfig, TrainConfig
from ptrack.training.schedules import derive_seed

POLL = 4  # new clips that are taken in before a step, at most: reading them must not hold it up
PHOTO_POINTS = 256  # random places on a photo, among which a pair's points are chosen

Note = Callable[[str], None]


def open_pool(
    config: TrainConfig, options: PoolConfig, group: Group, device: torch.device, note: Note = lambda _: None
) -> PoolBatches:
    """Wait for the first clips and return the batches that a configuration asks for.

    Raises:
        ConfigError: a clip is shorter than a batch's clips.
        DataError: a clip or a photo cannot be read.
    """
    pool = ClipPool(Path(options.folder), options.room, device)
    if config.model != "nano-encoder":
        pool.wait(options.least, note)
        return PoolBatches(config, options, pool, group)
    if options.photo_share < 1:
        pool.wait(options.least, note)
    photos = read_photos(config.data.textures, config.data.image_size) if options.photo_share else None
    return PairBatches(config, options, pool, None if photos is None else photos.to(device), group)


class PoolBatches:
    """Batches of ``data.sequence_length`` frames of rendered clips, augmented on the device.

    What a step gets depends on (seed, epoch, step, rank) and on the clips that are there. A resumed run goes on with
    the same random numbers, but not with the same clips.

    Args:
        config: of the run.
        options: of the pool.
        pool: of clips, all of one size.
        group: this process among all.

    Raises:
        ConfigError: the clips have fewer frames.
    """

    def __init__(self, config: TrainConfig, options: PoolConfig, pool: ClipPool, group: Group) -> None:
        self.config, self.options, self.pool, self.group = config, options, pool, group
        self.batch_size = config.batch_size
        self.epoch_steps = max(1, config.data.synthetic_clips // (config.batch_size * config.grad_accum * group.world))
        self.check()

    def check(self) -> None:
        """Raise ConfigError if the clips are too short."""
        wanted, (frames, _) = self.config.data.sequence_length, self.pool.shape
        if frames < wanted:
            raise ConfigError(
                f"The clips in {self.pool.folder} have {frames} frames, fewer than sequence_length {wanted}."
            )

    def steps(self, epoch: int, done: int, count: int) -> Iterator[list[TrainingBatch]]:
        """Yield the passes of ``count`` steps of an epoch, after ``done`` of its steps."""
        for step in range(done, done + count):
            self.pool.poll(POLL)
            seed = derive_seed(self.config.seed, "pool", epoch, step, self.group.rank)
            host = torch.Generator().manual_seed(seed)  # chooses clips, whose names are needed on the host
            device = torch.Generator(self.pool.device).manual_seed(seed)
            yield [self.batch(host, device) for _ in range(self.config.grad_accum)]

    def batch(self, host: torch.Generator, device: torch.Generator) -> TrainingBatch:
        """Return one batch of B clips."""
        data, size = self.config.data, self.batch_size
        clips = torch.randint(len(self.pool), (size,), generator=host).tolist()
        start = torch.randint(self.pool.shape[0] - data.sequence_length + 1, (size, 1), generator=host)
        frames = start + torch.arange(data.sequence_length)
        made = augment(self.pool.draw(clips, frames.to(self.pool.device)), GpuAugmentConfig(), device)
        anywhere = bool(torch.rand((), generator=host) < self.options.any_query)
        names = tuple(self.pool.names[i] for i in clips)
        return to_batch(made, data.num_points, device, anywhere=anywhere, names=names)


class PairBatches(PoolBatches):
    """Pairs of frames of rendered clips, and of photos with themselves, every frame changed in its own way.

    Args:
        config: of the run.
        options: of the pool.
        pool: of clips.
        photos: (P, H, W, 3) uint8 on the pool's device; None if there are none.
        group: this process among all.
    """

    def __init__(
        self, config: TrainConfig, options: PoolConfig, pool: ClipPool, photos: Tensor | None, group: Group
    ) -> None:
        self.photos = photos
        super().__init__(config, options, pool, group)

    def check(self) -> None:
        """Any clip has two frames."""

    def batch(self, host: torch.Generator, device: torch.Generator) -> TrainingBatch:
        """Return one batch of B pairs, all queries in the first frame."""
        still = 0 if self.photos is None else round(self.batch_size * self.options.photo_share)
        names = ["photo"] * still
        parts = [self._stills(self.photos, still, host, device)] if self.photos is not None and still else []
        if still < self.batch_size:
            clips = torch.randint(len(self.pool), (self.batch_size - still,), generator=host).tolist()
            frames = torch.randint(self.pool.shape[0], (len(clips), 2), generator=host)
            parts.append(self.pool.draw(clips, frames.to(self.pool.device)))
            names += [self.pool.names[i] for i in clips]
        order = torch.randperm(self.batch_size, generator=host)  # occluders are pieces of the clip before
        made = augment(_joined(parts, order), GpuAugmentConfig(reverse=0.0), device, independent=True)
        both = made.visible.all(1, keepdim=True).expand_as(made.visible)
        pairs = DeviceClips(made.frames, made.tracks, both, both)
        return to_batch(pairs, self.config.data.num_points, device, names=tuple(names[i] for i in order.tolist()))

    def _stills(self, photos: Tensor, count: int, host: torch.Generator, device: torch.Generator) -> DeviceClips:
        """Return photos as clips of two equal frames, with points at random places."""
        chosen = photos[torch.randint(len(photos), (count,), generator=host).to(photos.device)]
        points = self.pool.shape[1] if len(self.pool) else PHOTO_POINTS
        side = torch.tensor([photos.shape[2], photos.shape[1]], device=photos.device)
        xy = torch.rand(count, 1, points, 2, generator=device, device=photos.device) * side
        seen = torch.ones(count, 2, points, dtype=torch.bool, device=photos.device)
        return DeviceClips(chosen[:, None].expand(-1, 2, -1, -1, -1), xy.expand(-1, 2, -1, -1), seen, seen)


def _joined(parts: list[DeviceClips], order: Tensor) -> DeviceClips:
    """Return the clips of all parts in another order."""
    names = [f.name for f in fields(DeviceClips)]
    return DeviceClips(*(torch.cat([getattr(p, n) for p in parts])[order.to(parts[0].frames.device)] for n in names))


def to_batch(
    clips: DeviceClips, points: int, generator: torch.Generator, *, anywhere: bool = False, names: tuple[str, ...]
) -> TrainingBatch:
    """Choose points of each clip, queried in the first frame or, ``anywhere``, in any frame where they are seen.

    Where fewer can be queried, others fill the rows; they are valid nowhere and play no part.

    Args:
        clips: B of them.
        points: of each clip in the batch.
        generator: of random numbers, on the clips' device.
        anywhere: queries in any frame.
        names: of the clips.
    """
    rows = torch.arange(len(clips.visible), device=clips.visible.device)[:, None]
    queried = clips.visible.clone()
    if not anywhere:
        queried[:, 1:] = False
    chosen = torch.multinomial(queried.any(1).float() + 1e-6, points, generator=generator)

    def of(values: Tensor) -> Tensor:
        return values.transpose(1, 2)[rows, chosen].transpose(1, 2)

    tracks, queried = of(clips.tracks), of(queried)
    time = torch.multinomial(queried.transpose(1, 2).flatten(0, 1).float() + 1e-9, 1, generator=generator)
    time = time.view(-1, points)
    valid = of(clips.valid) & queried.any(1, keepdim=True)
    at = tracks.transpose(1, 2).gather(2, time[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]
    h, w = clips.frames.shape[2:4]
    return TrainingBatch(
        frames=clips.frames,
        tracks=tracks,
        visibility=of(clips.visible) & valid,
        valid=valid,
        query_time=time,
        query_xy=torch.minimum(at.nan_to_num().clamp(min=0), at.new_tensor([w, h])),
        clip_ids=names,
        frame_index=torch.zeros_like(time[:, :1]).expand(-1, tracks.shape[1]),
        sizes=((h, w),) * len(names),
    )


def read_photos(folder: str | None, size: tuple[int, int]) -> Tensor:
    """Return the photos of the training split, of the package and of a folder, stretched to (P, H, W, 3) uint8."""
    from PIL import Image

    files = open_library(None, folder, "train").photos
    if not files:
        raise ConfigError("There are no photos: give a folder with data.textures, or set data.pool.photo_share to 0.")
    pictures = []
    for path in files:
        with Image.open(path) as picture:
            pictures.append(np.asarray(picture.convert("RGB").resize((size[1], size[0]), Image.Resampling.BICUBIC)))
    return torch.from_numpy(np.stack(pictures))
