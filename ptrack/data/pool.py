"""A pool of rendered clips: processes write them into a folder, training keeps the newest ones on its device.

Rendering a clip takes longer than a GPU needs for it, so every clip is used many times, each time
augmented differently.

Letters: B clips, T frames, N points, H W pixels.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from itertools import count
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ptrack.data.gpu_augment import DeviceClips
from ptrack.data.synthetic import SyntheticConfig
from ptrack.data.synthetic.source import generate
from ptrack.errors import DataError
from ptrack.fileio import atomic_path

SUFFIX = ".clip.safetensors"
ARRAYS = tuple(f.name for f in fields(DeviceClips))
WAIT_SECONDS = 0.2  # between two looks into the folder


def write_clip(path: Path, clip: DeviceClips) -> None:
    """Write a batch of one clip; the file appears when whole."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(save({name: getattr(clip, name)[0].clone() for name in ARRAYS}))


def render(config: SyntheticConfig, folder: Path, numbers: Iterable[int]) -> None:
    """Render clips of the world ``config`` into a folder, which is made if it is not there, until the numbers end."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        made = generate(config, [number])
        clip = DeviceClips(made.frames, made.tracks, made.visibility, made.valid)
        write_clip(folder / f"{number:07d}{SUFFIX}", clip)


def render_for(minutes: float, config: SyntheticConfig, folder: Path, worker: int, workers: int) -> None:
    """Render as one of several processes, on one core and after everything else, until the time is up."""
    torch.set_num_threads(1)
    os.nice(10)
    end = time.monotonic() + 60 * minutes
    numbers = iter(lambda it=count(worker, workers): next(it) if time.monotonic() < end else -1, -1)
    render(config, folder, numbers)


class ClipPool:
    """Clips on the device; files of the folder come in as they appear, in place of old ones when it is full.

    Args:
        folder: of :func:`render`.
        room: clips kept.
        device: where.
    """

    def __init__(self, folder: Path, room: int, device: torch.device) -> None:
        self.folder, self.room, self.device = folder, room, device
        self.names: list[str] = []  # of the clips in their slots
        self._known: set[str] = set()
        self._taken = 0
        self._clips: DeviceClips | None = None

    def __len__(self) -> int:
        return min(self._taken, self.room)

    @property
    def shape(self) -> tuple[int, int]:
        """T and N of every clip.

        Raises:
            DataError: there is no clip yet.
        """
        t, n = self._held().valid.shape[1:]
        return t, n

    def poll(self, most: int) -> None:
        """Take at most so many new files; hidden ones are still being written.

        Raises:
            DataError: a file is damaged, or its clip has another size than the first one.
        """
        found = sorted(p.name for p in self.folder.glob(f"[0-9]*{SUFFIX}") if p.name not in self._known)
        for name in found[:most]:
            self._known.add(name)
            self._take(self.folder / name)

    def _take(self, path: Path) -> None:
        try:
            arrays = load_file(path)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path} is no clip of a pool ({error}).") from error
        if self._clips is None:
            room = {k: torch.zeros(self.room, *v.shape, dtype=v.dtype, device=self.device) for k, v in arrays.items()}
            self._clips = DeviceClips(**room)
        slot = self._taken % self.room
        for name in ARRAYS:
            held = getattr(self._clips, name)[slot]
            if arrays[name].shape != held.shape:
                raise DataError(f"{path} has {name} of {tuple(arrays[name].shape)}, other clips {tuple(held.shape)}.")
            held.copy_(arrays[name])
        self.names[slot : slot + 1] = [path.name.removesuffix(SUFFIX)]
        self._taken += 1

    def wait(self, least: int, note: Callable[[str], None] = lambda _: None) -> None:
        """Wait until so many clips are there, or as many as there is room for."""
        least = min(least, self.room)
        self.poll(least)
        if len(self) < least:
            note(f"Waiting for {least} rendered clips in {self.folder}.")
        while len(self) < least:
            time.sleep(WAIT_SECONDS)
            self.poll(least)

    def draw(self, clips: Sequence[int], frames: Tensor) -> DeviceClips:
        """Return clips by slot (B) with their frames (B, T); a point that is not valid counts as hidden."""
        held = self._held()
        rows = torch.tensor(clips, device=self.device)[:, None]
        video, tracks, visible, valid = (getattr(held, name)[rows, frames] for name in ARRAYS)
        return DeviceClips(video, torch.nan_to_num(tracks), visible & valid, valid)

    def _held(self) -> DeviceClips:
        if self._clips is None:
            raise DataError(f"There is no rendered clip in {self.folder}.")
        return self._clips
