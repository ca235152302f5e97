"""The clip store: many clips in one HDF5 file (schema 1), read at random; ``store_writer.py`` writes it.

Layout (V clips; T frames, N tracks; H W pixels)::

    /               attrs: ptrack_schema, source, created_with, settings (JSON), complete (written last)
    /index/         id, name, split, source (V,) UTF-8; num_frames, num_tracks, height, width, group (V,) int32
    /videos/000000/ attrs: id, name, split, source, fps (NaN: unknown), height, width, codec, coord_convention
        frames/data      encoded: (total bytes,) uint8 contiguous + frames/offsets (T+1,) int64; raw: (T,H,W,3) uint8
        tracks           (T,N,2) float32, contiguous
        visibility valid (T,N) uint8 0/1, gzip
        frame_ok ...     optional arrays of ``Clip`` under their own names
        masks/ depth/    optional pictures like frames/, attr codec; empty range: no picture

Why: pictures are the source's own bytes, so nothing is lost and a frame is one contiguous read; gzip cannot shrink
them. Tracks are stored frame by frame and unfiltered, so "T' frames of all tracks" is one contiguous read (inflating
gzip chunks costs more than reading); flags are 0/1 bytes that gzip shrinks about fiftyfold. Group numbers state the
order of writing, /index the order of the dataset.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptrack.data import images
from ptrack.data.clips import OPTIONAL_ARRAYS, Clip, Frames
from ptrack.data.images import Codec
from ptrack.errors import DataError, did_you_mean
from ptrack.untrusted import Budget, Refused, h5, npz
from ptrack.untrusted.limits import check_file, reading

SCHEMA = 1
TEXTS = ("id", "name", "split", "source")  # columns of the index
NUMBERS = ("num_frames", "num_tracks", "height", "width", "group")
FLAGS = ("visibility", "valid", "vis_valid", "out_of_view", "occluded_label", "is_dynamic", "frame_ok")
Group = Any  # an h5py.Group; h5py's own annotations make every look-up a union of everything it could be


@dataclass(frozen=True, eq=False)
class Window:
    """Some frames of a clip and their tracks, as stored. K frames."""

    codec: Codec
    frames: list[bytes] | np.ndarray  # K encoded pictures, or (K, H, W, 3) uint8 when raw
    tracks: np.ndarray  # (K, N, 2) float32, NaN where not finite
    visibility: np.ndarray  # (K, N) bool
    valid: np.ndarray  # (K, N) bool
    frame_ok: np.ndarray  # (K,) bool

    def rgb(self, k: int) -> np.ndarray:
        """Decode frame ``k``: (H, W, 3) uint8.

        Raises:
            DataError: it is damaged.
        """
        frame = self.frames[k]
        return frame if isinstance(frame, np.ndarray) else images.decode_rgb(frame)


def _check_kinds(group: Group) -> None:
    """Raise Refused when a name of a clip that holds data is a group, or the other way round."""
    if not isinstance(group, h5py.Group):
        raise Refused("is damaged: data stand in the place of a clip")
    for name in group:
        folder = name in ("frames", "masks", "depth")
        item = h5.member(group, str(name))
        if not isinstance(item, h5py.Group if folder else h5py.Dataset):
            raise Refused(f"is damaged: '{name}' of a clip is {'no group' if folder else 'a group'}")
        inside = [h5.member(item, inner) for inner in list(item)] if folder else []
        if any(not isinstance(one, h5py.Dataset) for one in inside):
            raise Refused(f"is damaged: '{name}' of a clip holds groups")


class _Handles:
    """Open files of this process, least recently used closed first. Never crosses a fork or a pickle."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.pid = os.getpid()
        self.open: OrderedDict[Path, h5py.File] = OrderedDict()
        self.checked: dict[Path, set[str]] = {}  # groups of the open files
        self.inherited: list[OrderedDict[Path, h5py.File]] = []  # the parent's, kept untouched after a fork

    def get(self, path: Path) -> Any:
        if self.pid != os.getpid():
            self.inherited.append(self.open)
            self.open, self.pid = OrderedDict(), os.getpid()
        if path not in self.open:
            while len(self.open) >= self.limit:
                self.open.popitem(last=False)[1].close()
            self.open[path] = open_store(path)
            self.checked[path] = set()
        self.open.move_to_end(path)
        return self.open[path]

    def group(self, path: Path, name: str) -> Group:
        """Return a clip's group, checked when it is read for the first time; raises Refused."""
        file = self.get(path)
        if name not in self.checked[path]:
            _check_kinds(h5.member(file, name))
            h5.check_tree(file[name], path.stat().st_size)
            self.checked[path].add(name)
        return file[name]

    def close(self) -> None:
        if self.pid == os.getpid():
            while self.open:
                self.open.popitem()[1].close()


def open_store(path: Path) -> Any:
    """Open a finished clip store for reading.

    Raises:
        DataError: it is missing, no HDF5 file, of another schema, or its writing was not finished.
    """
    check_file(path, DataError, "clip store")
    with reading(path, DataError, "a clip store"):
        h5.check_heaps(path)
        file = h5py.File(path, "r", locking=False)
        try:
            wanted = [name for name in ("ptrack_schema", "complete") if name in file.attrs]
            problem = _problem({name: h5.attribute(file, name) for name in wanted})
        except BaseException:
            file.close()
            raise
    if problem:
        file.close()
        raise DataError(f"{path} {problem}.")
    return file


def _problem(attributes: dict[str, Any]) -> str:
    """Return what keeps a file with these attributes from being read as a clip store, empty if nothing does."""
    schema = attributes.get("ptrack_schema")
    if schema is None:
        return "is an HDF5 file but not one of ptrack's clip stores"
    if not isinstance(schema, int | np.integer) or schema != SCHEMA:
        return f"has the schema {schema}, this version of ptrack reads {SCHEMA}"
    if not attributes.get("complete", False):
        return "is not complete; run the same 'ptrack convert' command again to finish it"
    return ""


def _read_index(path: Path) -> dict[str, Any]:
    """Return the columns of a store's index: lists of texts, and (V,) int32 numbers.

    Raises:
        DataError: it is no finished store, or damaged.
    """
    with open_store(path) as file, reading(path, DataError, "a clip store"):
        index = h5.H5Group(file, Budget.of(path)).group("index")
        numbers = {key: npz.numbers(key, index.array(key), np.int32, "iu") for key in NUMBERS}
        columns = {key: index.texts(key) for key in TEXTS} | numbers
        lengths = {len(values) for values in columns.values()}
        if len(lengths) > 1 or any(values.ndim != 1 or (values < 0).any() for values in numbers.values()):
            raise Refused("is damaged: the columns of its index do not fit")
        return columns


class ClipStore:
    """Clips in one or several HDF5 files: ``len(store)``, ``store[i]`` or ``store["id"]`` gives a ``Clip``.

    Files are opened when first needed, by each process, at most ``max_open`` at a time; the object can be pickled
    and used by forked and spawned workers. ``source`` may be a file, a folder (all ``*.h5`` in it), a pattern with
    ``*`` or a list of files.

    Raises:
        DataError: nothing is there, or a file is not a finished clip store.
    """

    def __init__(self, source: str | Path | Sequence[str | Path], max_open: int = 8) -> None:
        self.paths = find_stores(source)
        self._handles = _Handles(max_open)
        self._max_open = max_open
        files = [_read_index(path) for path in self.paths]
        texts: list[list[str]] = [[text for file in files for text in file[key]] for key in TEXTS]
        self.ids, self.names, self.splits, self.sources = texts
        numbers: list[np.ndarray] = [np.concatenate([file[key] for file in files]) for key in NUMBERS]  # (V,) int32
        self.num_frames, self.num_tracks, height, width, self._group = numbers
        self.sizes: np.ndarray = np.stack([height, width], -1)  # (V, 2)
        self._file = np.repeat(np.arange(len(files)), [len(file["id"]) for file in files])

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._handles = _Handles(self._max_open)

    def index_of(self, clip: int | str) -> int:
        """Return the position of a clip given by position or id.

        Raises:
            DataError: there is no such clip, or several files have one of this id.
        """
        if isinstance(clip, str):
            found = [i for i, name in enumerate(self.ids) if name == clip]
            if len(found) != 1:
                problem = "is in more than one file" if found else "is not in the store"
                raise DataError(f"The clip '{clip}' {problem}.{'' if found else did_you_mean(clip, self.ids)}")
            return found[0]
        if not -len(self) <= clip < len(self):
            raise IndexError(f"clip {clip} of {len(self)}")  # IndexError ends ``for clip in store``
        return int(clip) % len(self)

    def group(self, clip: int | str) -> Group:
        """Return the open HDF5 group of a clip; use it at once, its file may be closed later.

        Raises:
            DataError: it is missing, damaged, or its data lie in other files.
        """
        i = self.index_of(clip)
        path = self.paths[self._file[i]]
        with self._reading(i):
            return self._handles.group(path, f"videos/{self._group[i]:06d}")

    def _reading(self, i: int) -> AbstractContextManager[None]:
        """Return the context that turns what a damaged file brings up into one sentence about clip ``i``."""
        return reading(self.paths[self._file[i]], DataError, f"a clip store ('{self.ids[i]}')")

    def __getitem__(self, clip: int | str) -> Clip:
        """Return a clip: its arrays are read, its pictures when asked for.

        Raises:
            DataError: there is no such clip, or an array of it is missing or damaged.
        """
        i = self.index_of(clip)
        with self._reading(i):
            return self._clip(i, self.group(i))

    def _clip(self, i: int, group: Group) -> Clip:
        missing = [n for n in ("tracks", "visibility", "valid", "frames") if n not in group]
        if missing:
            raise DataError(f"{self.ids[i]} in {self.paths[self._file[i]]} has no '{missing[0]}'; convert it again.")
        sides: dict[str, Any] = {n: StoreFrames(self, i, n) for n in ("masks", "depth") if n in group}
        return Clip(
            id=self.ids[i],
            source=self.sources[i],
            split=self.splits[i],
            name=self.names[i],
            frames=StoreFrames(self, i, "frames"),
            size=(int(self.sizes[i, 0]), int(self.sizes[i, 1])),
            **clip_values(group),
            **sides,
        )

    def window(self, clip: int | str, start: int, stop: int, step: int = 1) -> Window:
        """Read frames ``start, start + step, ...`` below ``stop`` and their tracks, pictures still encoded.

        Raises:
            DataError: the frames are not all in the clip.
        """
        i = self.index_of(clip)
        total = int(self.num_frames[i])
        if not 0 <= start < stop <= total or step < 1:
            raise DataError(f"{self.ids[i]}: frames {start}..{stop - 1} are not all in the clip of {total} frames.")
        with self._reading(i):
            group = self.group(i)
            arrays = {n: _read_array(group, n, start, stop)[::step] for n in ("tracks", "visibility", "valid")}
            ok = _read_array(group, "frame_ok", start, stop)[::step] if "frame_ok" in group else None
            k = len(arrays["tracks"])
            window = Window(
                codec=group["frames"].attrs["codec"],
                frames=_read_pictures(group["frames"], start, stop, step),
                frame_ok=np.ones(k, np.bool_) if ok is None else ok,
                **arrays,
            )
        lengths = {len(part) for part in (*arrays.values(), window.frames, window.frame_ok)}
        if lengths != {len(range(start, stop, step))}:
            raise DataError(f"{self.ids[i]} in {self.paths[self._file[i]]} is not whole; convert it again.")
        return window

    def close(self) -> None:
        """Close the open files; they open again when needed."""
        self._handles.close()


def clip_values(group: Group) -> dict[str, Any]:
    """Return what a clip's group holds besides its name, size and pictures, as fields of ``Clip``."""
    attrs, depth = group.attrs, group.get("depth")
    scale = None if depth is None else depth.attrs.get("scale")
    return {
        "coord_convention": str(attrs["coord_convention"]),
        "fps": None if np.isnan(attrs["fps"]) else float(attrs["fps"]),
        "first_frame_number": int(attrs["first_frame_number"]) if "first_frame_number" in attrs else None,
        "depth_scale": None if scale is None else float(scale),
        **{n: _read_array(group, n) for n in ("tracks", "visibility", "valid", *OPTIONAL_ARRAYS) if n in group},
    }


class StoreFrames(Frames):
    """The pictures of one clip in a store ("frames", "masks" or "depth")."""

    def __init__(self, store: ClipStore, index: int, kind: str) -> None:
        self.store, self.index, self.kind = store, index, kind

    def __len__(self) -> int:
        return int(self.store.num_frames[self.index])

    def encoded(self, t: int) -> tuple[Codec, bytes]:
        """Return the codec and the stored bytes of picture ``t``."""
        picture = self._picture(t)
        if isinstance(picture, np.ndarray):
            return "raw", picture.tobytes()
        with self.store._reading(self.index):
            return self.store.group(self.index)[self.kind].attrs["codec"], picture

    def rgb(self, t: int) -> np.ndarray:
        """Decode frame ``t``: (H, W, 3) uint8."""
        picture = self._picture(t)
        if isinstance(picture, np.ndarray):
            return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
        with self.store._reading(self.index):
            return super().rgb(t)

    def values(self, t: int) -> np.ndarray:
        """Return picture ``t`` as stored."""
        picture = self._picture(t)
        return picture if isinstance(picture, np.ndarray) else super().values(t)

    def _picture(self, t: int) -> bytes | np.ndarray:
        t = range(len(self))[t]
        with self.store._reading(self.index):
            return _read_pictures(self.store.group(self.index)[self.kind], t, t + 1, 1)[0]


def _read_array(group: Group, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    value = group[name][start:stop]
    return value.astype(np.bool_) if name in FLAGS else value


def _read_pictures(group: Group, start: int, stop: int, step: int) -> list[bytes] | np.ndarray:
    data = group["data"]
    if "offsets" not in group:
        return data[start:stop:step] if step > 1 else data[start:stop]
    offsets = group["offsets"][start : stop + 1]
    if step > 1:
        return [data[offsets[k] : offsets[k + 1]].tobytes() for k in range(0, stop - start, step)]
    block = data[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
    return [block[offsets[k] : offsets[k + 1]].tobytes() for k in range(stop - start)]


def find_stores(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the HDF5 files meant by a file, a folder, a pattern with ``*``, or a list of these, sorted in each.

    Raises:
        DataError: nothing is there.
    """
    if not isinstance(source, str | Path):
        return [path for item in source for path in find_stores(item)]
    path = Path(source)
    if path.is_dir():
        found = sorted(p for p in path.glob("*.h5") if not p.name.startswith("."))
    elif path.exists():
        found = [path]
    else:
        found = sorted(p for p in path.parent.glob(path.name) if not p.name.startswith("."))
    if not found:
        raise DataError(f"There is no clip store at {path}; make one with 'ptrack convert'.")
    return found
