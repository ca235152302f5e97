"""The videos of a benchmark: from the original files or a converted clip store, one loaded at a time."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ptrack.data.clips import Clip
from ptrack.data.source import Source
from ptrack.errors import DataError, did_you_mean
from ptrack.evaluation.protocols import Protocol, select_split
from ptrack.evaluation.resizing import resize
from ptrack.fileio import plain_name
from ptrack.video.frames import Frame, FrameSource, ReadOptions, SourceInfo

CHUNK = 64  # frames in memory while a clip is read backwards
HDF5 = (".h5", ".hdf5")
HELD_OUT = 64  # synthetic clips of the benchmark


@dataclass(frozen=True)
class ClipRow:
    """A video that can be loaded."""

    id: str
    name: str
    split: str
    load: Callable[[], Clip]


def open_clips(protocol: Protocol, data: str | Path) -> list[ClipRow]:
    """List the videos of a benchmark in a fixed order.

    Args:
        protocol: names which reader and which split.
        data: the original files, or a clip store (a file, a folder of them, or a pattern with ``*``); empty for the
            synthetic benchmark: 64 clips of its held-out split, made on the spot.

    Raises:
        DataError: nothing of the benchmark is there.
    """
    if not str(data):
        return _from_source(_source(protocol, data))
    path = Path(data)
    stored = path.suffix in HDF5 or "*" in path.name or (path.is_dir() and any(path.glob("*.h5")))
    rows = _from_store(path) if stored else _from_source(_source(protocol, path))
    return [rows[i] for i in select_split(protocol, [row.split for row in rows], data)]


def _from_store(path: Path) -> list[ClipRow]:
    from ptrack.data.hdf5 import ClipStore

    store = ClipStore(path)
    columns = enumerate(zip(store.ids, store.names, store.splits, strict=True))
    return [ClipRow(*texts, partial(store.__getitem__, i)) for i, texts in columns]


def _from_source(source: Source) -> list[ClipRow]:
    return [ClipRow(ref.id, ref.name, ref.split, partial(source.load, ref)) for ref in source.refs()]


def _source(protocol: Protocol, data: str | Path) -> Source:
    """Open the original files of a benchmark; without any, the held-out synthetic clips."""
    from ptrack.data.sources import open_dataset

    if str(data):
        return open_dataset(protocol.source, data)
    if protocol.source != "synthetic":
        raise DataError(f"{protocol.title} needs its data; name the original files or a clip store with --data.")
    from ptrack.data.sources.synthetic import Synthetic
    from ptrack.data.synthetic.config import SyntheticConfig

    return Synthetic(SyntheticConfig(split="val"), count=HELD_OUT)


def choose(rows: Sequence[ClipRow], patterns: Sequence[str], limit: int | None) -> list[ClipRow]:
    """Return the videos whose name or id matches one of the patterns (all without patterns), at most ``limit``.

    Raises:
        DataError: a pattern matches nothing.
    """
    chosen = list(rows)
    if patterns:
        for pattern in patterns:
            if not any(_matches(row, pattern) for row in rows):
                raise DataError(f"No video is called '{pattern}'.{did_you_mean(pattern, [r.name for r in rows])}")
        chosen = [row for row in rows if any(_matches(row, p) for p in patterns)]
    return chosen if limit is None else chosen[:limit]


def _matches(row: ClipRow, pattern: str) -> bool:
    return fnmatch.fnmatchcase(row.name, pattern) or fnmatch.fnmatchcase(row.id, pattern)


def file_names(rows: Sequence[ClipRow]) -> dict[str, str]:
    """Return id -> a file name without suffix: the video's name, or its id where names repeat or are no file names."""
    names = [row.name for row in rows]
    out: dict[str, str] = {}
    for row in rows:
        plain = row.name if names.count(row.name) == 1 else row.id
        safe = plain_name(plain, " ").strip(". ") or "video"
        if safe in out.values():
            safe = f"{safe}_{hashlib.sha256(row.id.encode()).hexdigest()[:8]}"
        out[row.id] = safe
    return out


def content_key(clip: Clip) -> str:
    """Return 16 hex digits that change when the clip's labels or its first, middle or last frame do."""
    digest = hashlib.sha256(f"{clip.id}|{clip.size}|{clip.num_frames}".encode())
    for array in (clip.tracks, clip.visibility, clip.valid):
        digest.update(np.ascontiguousarray(array).tobytes())
    for t in sorted({0, clip.num_frames // 2, clip.num_frames - 1}) if clip.num_frames else ():
        digest.update(clip.frames.rgb(t).tobytes())
    return digest.hexdigest()[:16]


class ClipSource(FrameSource):
    """The frames of a clip, resized as a protocol asks, decoded when asked for.

    Raises:
        DataError: while iterating, a frame is damaged or has another size than the clip.
    """

    def __init__(self, clip: Clip, size: tuple[int, int], frames: int, method: str) -> None:
        super().__init__(ReadOptions())
        self.clip, self.size, self.count, self.method = clip, size, frames, method
        self.info = SourceInfo(
            name=clip.id, kind="array", width=size[1], height=size[0], fps=clip.fps, expected_frames=frames
        )

    def _frame(self, t: int) -> Frame:
        clip = self.clip
        if clip.frame_ok is not None and not clip.frame_ok[t]:
            raise DataError(f"{clip.id}: frame {t} is marked as damaged.")
        rgb = clip.frames.rgb(t)
        if rgb.shape[:2] != tuple(clip.size):
            raise DataError(f"{clip.id}: frame {t} has the size {rgb.shape[:2]}, the clip {clip.size}.")
        return Frame(np.ascontiguousarray(resize(rgb, self.size, self.method)), t, t / (clip.fps or 25.0))

    def at(self, t: int) -> Iterator[Frame]:
        """Yield the frames from ``t`` on."""
        return (self._frame(i) for i in range(t, self.count))

    def __iter__(self) -> Iterator[Frame]:
        return (self._frame(t) for t in range(self.count))

    def reversed(self, stop: int) -> Iterator[Frame]:
        """Yield frames ``stop - 1 .. 0``, read forward in chunks."""
        for end in range(stop, 0, -CHUNK):
            yield from [self._frame(t) for t in range(max(0, end - CHUNK), end)][::-1]
