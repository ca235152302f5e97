"""How fast training clips come off the disk: clip stores against folders of JPEG frames, in one run.

Both readers give the same clips (T consecutive frames at the same output size, the tracks of N points visible in the
first) through the loader that training uses. The folder reader does what such readers usually do: open every JPEG,
decode it, resize it, and load the annotation file of the video. Its second variant also decodes JPEGs at reduced size,
as the store's reader does, so that the two effects can be separated.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from ptrack.data import images
from ptrack.data.convert import ConvertOptions, convert
from ptrack.data.hdf5 import ClipStore
from ptrack.data.loading.dataset import ClipDataset
from ptrack.data.samples import SampleKey, TrainingSample
from ptrack.data.sources import open_dataset
from ptrack.training import order
from ptrack.training.config import DataConfig
from ptrack.training.data import loader_config

Reader = Literal["store", "folder", "folder_reduced"]


@dataclass(frozen=True, kw_only=True)
class IoOptions:
    """What is measured."""

    videos: int = 2  # in the made-up dataset
    frames: int = 200  # of each video
    height: int = 540  # pixels of the JPEG frames (PointOdyssey's)
    width: int = 960
    tracks: int = 2000  # of each video
    num_frames: int = 24  # T of a training clip
    num_points: int = 256  # N of a training clip
    size: int = 256  # height and width of the training clips
    workers: int = 2  # DataLoader processes
    clips: int = 16  # clips that are timed for each reader
    rounds: int = 5  # the readers take turns; the median round counts


@dataclass(frozen=True)
class IoResult:
    """What was measured."""

    clips_per_second: dict[Reader, float]  # median over the rounds
    rounds: dict[Reader, list[float]]  # clips/s of every round
    store_megabytes: float
    folder_megabytes: float
    options: IoOptions

    @property
    def speedup(self) -> float:
        """Clips per second from the store over those from the folder: the median of the rounds' own ratios."""
        return self.ratio("store", "folder")

    def ratio(self, reader: Reader, to: Reader) -> float:
        """Return how many times as fast a reader is as another one, the median over the rounds.

        Readers of one round run one after the other, so that a slow spell of the machine hits them alike.
        """
        return float(np.median(np.divide(self.rounds[reader], self.rounds[to])))

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        more = {"speedup": self.speedup, "speedup_over_reduced": self.ratio("store", "folder_reduced")}
        return asdict(self) | more


def bench_io(options: IoOptions, note: Callable[[str], None] = lambda _: None) -> IoResult:
    """Make a dataset of JPEG folders, convert it, and time both readers in turns.

    Args:
        options: what is measured.
        note: called with a line on what is being done.

    Returns:
        Clips per second of each reader. The files are in the page cache for all of them.
    """
    with _dataset(options, note) as (folder, store):
        rounds: dict[Reader, list[float]] = {"folder": [], "folder_reduced": [], "store": []}
        for number in range(options.rounds + 1):
            for reader, speeds in rounds.items():
                speed = _time(_reader(reader, folder, store, options), options)
                note(f"round {number}: {reader} {speed:.1f} clips/s")
                if number:  # round 0 warms the page cache and the code
                    speeds.append(speed)
        return IoResult(
            clips_per_second={k: float(np.median(v)) for k, v in rounds.items()},
            rounds=rounds,
            store_megabytes=store.stat().st_size / 1e6,
            folder_megabytes=sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6,
            options=options,
        )


@contextmanager
def _dataset(options: IoOptions, note: Callable[[str], None]) -> Iterator[tuple[Path, Path]]:
    """Make the folder dataset and its store in a temporary place."""
    place = Path(tempfile.mkdtemp(prefix="ptrack-io-"))
    try:
        note(f"making {options.videos} videos of {options.frames} JPEG frames")
        for v in range(options.videos):
            make_video(place / "folder" / f"video_{v:03d}", options, seed=v)
        note("converting them")
        convert(open_dataset("point-odyssey", place / "folder"), place / "store.h5", ConvertOptions())
        yield place / "folder", place / "store.h5"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def make_video(folder: Path, options: IoOptions, seed: int) -> None:
    """Write a panning textured video with tracks in the simple layout."""
    rng = np.random.default_rng(seed)
    (folder / "frames").mkdir(parents=True)
    h, w = options.height, options.width
    texture = _texture(rng, h + options.frames, w + 2 * options.frames)
    for t in range(options.frames):
        data = images.encode(texture[t : t + h, 2 * t : 2 * t + w], "jpeg", 90)
        (folder / "frames" / f"frame_{t:06d}.jpg").write_bytes(data)
    start = rng.uniform(0, (w, h), (options.tracks, 2))
    tracks = start[None] - np.arange(options.frames)[:, None, None] * np.asarray([2.0, 1.0])
    inside = (tracks >= 0).all(-1) & (tracks <= (w, h)).all(-1)
    np.savez(folder / "anno.npz", trajs_2d=tracks.astype(np.float32), visibs=inside)


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return noise of several scales (height, width, 3) uint8, about as hard for JPEG as photographs."""
    total = np.zeros((height, width, 3), np.float32)
    for step, weight in ((64, 90.0), (16, 45.0), (4, 16.0)):
        coarse = rng.integers(0, 256, (height // step + 2, width // step + 2, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(smooth, np.float32) / 255 * weight
    return np.clip(total + 50, 0, 255).astype(np.uint8)


class FolderDataset(Dataset[TrainingSample]):
    """Training clips straight from a folder dataset: every frame a file, the annotation loaded for every clip."""

    def __init__(self, root: Path, options: IoOptions, reduced: bool) -> None:
        self.videos = sorted(p for p in root.iterdir() if p.is_dir())
        self.options = options
        self.reduced = reduced

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: SampleKey) -> TrainingSample:
        """Read a clip at random."""
        o = self.options
        rng = np.random.default_rng([key.epoch, key.index])
        video = self.videos[key.index % len(self.videos)]
        files = sorted((video / "frames").glob("*.jpg"))
        start = int(rng.integers(0, len(files) - o.num_frames + 1))
        frames = np.stack([self._frame(path) for path in files[start : start + o.num_frames]])
        with np.load(video / "anno.npz") as anno:
            tracks = anno["trajs_2d"][start : start + o.num_frames]
            seen = anno["visibs"][start : start + o.num_frames]
        chosen = rng.permutation(np.flatnonzero(seen[0]))[: o.num_points]
        tracks = tracks[:, chosen] * np.asarray([o.size / o.width, o.size / o.height], np.float32)
        seen = np.ascontiguousarray(seen[:, chosen])
        return TrainingSample(
            frames=torch.from_numpy(frames),
            tracks=torch.from_numpy(tracks),
            visibility=torch.from_numpy(seen),
            valid=torch.from_numpy(seen),
            query_time=torch.zeros(len(chosen), dtype=torch.int64),
            query_xy=torch.from_numpy(tracks[0].copy()),
            clip_id=video.name,
            frame_index=torch.arange(start, start + o.num_frames),
            size=(o.height, o.width),
        )

    def _frame(self, path: Path) -> np.ndarray:
        size = (self.options.size, self.options.size)
        if self.reduced:
            picture = images.decode_reduced(path.read_bytes(), size)
        else:
            picture = Image.open(path).convert("RGB")
        return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))


def _reader(reader: Reader, folder: Path, store: Path, options: IoOptions) -> Dataset[TrainingSample]:
    if reader != "store":
        return FolderDataset(folder, options, reader == "folder_reduced")
    data = DataConfig(
        sequence_length=options.num_frames, num_points=options.num_points, image_size=(options.size, options.size)
    )
    return ClipDataset(ClipStore(store), loader_config(data, training=True))


def _time(data: Any, options: IoOptions) -> float:
    """Return clips per second over ``options.clips`` clips, after the first ones, which start the workers."""
    lead = 4 * max(options.workers, 1)
    batches = [[SampleKey(k % len(data), k)] for k in range(options.clips + lead)]
    began = 0.0
    for number, _ in enumerate(order.loader(data, batches, options.workers), 1):
        if number == lead:
            began = time.perf_counter()
    return options.clips / (time.perf_counter() - began)


def small(options: IoOptions) -> IoOptions:
    """Return options that finish in seconds, for a first look and for tests."""
    return replace(
        options, videos=2, frames=12, height=96, width=128, tracks=50, num_frames=6, size=64, clips=8, rounds=1
    )
