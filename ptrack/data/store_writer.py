"""Writing clip stores so that they survive a kill; their layout is described in ``hdf5.py``."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptrack._version import __version__
from ptrack.data.clips import OPTIONAL_ARRAYS, ArrayFrames, Clip, Frames
from ptrack.data.hdf5 import FLAGS, NUMBERS, SCHEMA, TEXTS, Group
from ptrack.data.journal import JournaledFile
from ptrack.data.packing import PackedFrames
from ptrack.errors import OutputError, reason
from ptrack.signals import Uninterrupted
from ptrack.untrusted.limits import reason_of

_TEXT = h5py.string_dtype("utf-8")


class StoreWriter:
    """Writes clips one after another into a partial file; each ``add`` is permanent even if the next one is killed.

    Args:
        partial: the partial file. If it exists, writing goes on after its last whole clip.
        settings: what was asked for (source, codec, ...); going on with other settings is refused.

    Raises:
        OutputError: the partial file cannot be opened, is damaged, or was made with other settings.
    """

    def __init__(self, partial: Path, settings: dict[str, Any]) -> None:
        self.partial = partial
        self.done: dict[str, str] = {}  # id -> group name
        text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
        self._disk = JournaledFile(partial)
        self._file: Any = None
        try:
            empty = os.path.getsize(partial) == 0
            self._file = h5py.File(self._disk, "w" if empty else "r+")
            if empty:
                self._start(settings, text)
            else:
                self._resume(text)
        except OutputError:
            self.close()
            raise
        except Exception as error:  # h5py raises a dozen kinds for damaged files
            self.close()
            raise OutputError(
                f"The partial file {partial} cannot be continued ({reason_of(error)}); start again with --overwrite."
            ) from error

    def _start(self, settings: dict[str, Any], text: str) -> None:
        self._file.attrs["ptrack_schema"] = SCHEMA
        self._file.attrs["source"] = settings.get("source", "")
        self._file.attrs["created_with"] = f"ptrack {__version__}"
        self._file.attrs["settings"] = text
        self._file.create_group("videos")
        self._commit()

    def _resume(self, text: str) -> None:
        if self._file.attrs.get("settings") != text:
            raise OutputError(
                f"The partial file {self.partial} was begun with other options; "
                "use the same ones to go on, or --overwrite to start again."
            )
        for name, group in self._file["videos"].items():
            _check_group(group)
            self.done[str(group.attrs["id"])] = name

    def _commit(self) -> None:
        self._file.flush()
        self._disk.commit()

    def add(self, clip: Clip) -> None:
        """Write one clip whose frames are packed (see ``packing.pack``) and make it permanent.

        Raises:
            OutputError: the disk is full or another write failed; everything up to the clip before is kept.
        """
        name = f"{len(self.done):06d}"
        try:
            with Uninterrupted():
                write_clip(self._file["videos"].create_group(name), clip)
                self._commit()
                self.done[clip.id] = name
        except (OSError, RuntimeError, OutputError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> OutputError:
        """Close the file, so that nothing more is written, and return the error for the user."""
        self.close()
        return OutputError(
            f"Cannot write {self.partial}: {reason(self._disk.failure or error)}. {_kept(len(self.done))}; "
            "make room and run the same command again to go on."
        )

    def finish(self, order: Sequence[str], final: Path) -> None:
        """Write the index in the order of ``order`` (ids that are not in the file are left out), and rename the file.

        Raises:
            OutputError: a write failed; the partial file is kept.
        """
        try:
            with Uninterrupted():
                if "index" in self._file:
                    del self._file["index"]
                _write_index(self._file, [self.done[i] for i in order if i in self.done])
                self._file.attrs["complete"] = True
                self._commit()
                self._file.close()
                self._disk.close()
                self._disk.undo_path.unlink(missing_ok=True)
                os.replace(self.partial, final)
        except (OSError, RuntimeError, OutputError) as error:
            raise self._failed(error) from error

    def discard(self) -> None:
        """Close and remove the partial file."""
        self.close()
        self.partial.unlink(missing_ok=True)
        self._disk.undo_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close without finishing: the partial file stays, to be continued."""
        try:
            if self._file is not None:
                self._file.close()
        finally:
            self._disk.close()


def _kept(clips: int) -> str:
    return "The clip before is kept" if clips == 1 else f"The {clips} clips before are kept"


def write_clip(group: Group, clip: Clip) -> None:
    """Write a packed clip into an empty group."""
    frames = clip.frames
    attrs: dict[str, Any] = {
        "id": clip.id, "name": clip.name, "split": clip.split, "source": clip.source,
        "fps": np.nan if clip.fps is None else float(clip.fps), "height": clip.size[0], "width": clip.size[1],
        "codec": frames.codec if isinstance(frames, PackedFrames) else "raw",
        "coord_convention": clip.coord_convention,
    }  # fmt: skip
    if clip.first_frame_number is not None:
        attrs["first_frame_number"] = clip.first_frame_number
    for key, value in attrs.items():
        group.attrs[key] = value
    _write_pictures(group.create_group("frames"), frames)
    for name in ("tracks", "visibility", "valid", *OPTIONAL_ARRAYS):
        if (value := getattr(clip, name)) is not None:
            _write_array(group, name, value)
    for name in ("masks", "depth"):
        if (side := getattr(clip, name)) is not None:
            _write_pictures(group.create_group(name), side)
    if clip.depth is not None and clip.depth_scale is not None:
        group["depth"].attrs["scale"] = clip.depth_scale


def _write_pictures(group: Group, frames: Frames) -> None:
    if isinstance(frames, PackedFrames):
        group.attrs["codec"] = frames.codec
        group.create_dataset("data", data=frames.data)
        group.create_dataset("offsets", data=frames.offsets)
    elif isinstance(frames, ArrayFrames):
        group.attrs["codec"] = "raw"
        group.create_dataset("data", data=frames.array)
    else:
        raise TypeError("pack() the clip before it is written")


def _write_array(group: Group, name: str, value: np.ndarray) -> None:
    """Write an array: flags and 3-D tracks in gzip chunks of 16 frames x 4096 points, all else contiguous."""
    if name in FLAGS:
        value = value.astype(np.uint8)
    packed = value.size > 4096 and value.ndim >= 2 and (name in FLAGS or name == "trajs_3d")
    chunks = (min(len(value), 16), min(value.shape[1], 4096), *value.shape[2:]) if packed else None
    options: dict[str, Any] = {
        "chunks": chunks,
        "compression": "gzip",
        "compression_opts": 1,
        "shuffle": value.itemsize > 1,
    }
    group.create_dataset(name, data=value, **(options if packed else {}))


def _write_index(file: Any, names: Sequence[str]) -> None:
    groups = [file["videos"][name] for name in names]
    index = file.create_group("index")
    for key in TEXTS:
        index.create_dataset(key, data=np.array([str(g.attrs[key]) for g in groups], dtype=object), dtype=_TEXT)
    sizes = ((*g["tracks"].shape[:2], g.attrs["height"], g.attrs["width"]) for g in groups)
    rows = [(*size, int(name)) for size, name in zip(sizes, names, strict=True)]
    numbers = np.asarray(rows, np.int32).reshape(-1, len(NUMBERS))
    for key, values in zip(NUMBERS, numbers.T, strict=True):
        index.create_dataset(key, data=np.ascontiguousarray(values))


def _check_group(group: Group) -> None:
    """Raise ValueError unless the arrays of a stored clip fit together."""
    t = group["tracks"].shape[0]
    data = group["frames/data"]
    if group.attrs["codec"] == "raw":
        good = len(data) == t
    else:
        offsets = group["frames/offsets"][()]
        good = len(offsets) == t + 1 and offsets[-1] == len(data) and (np.diff(offsets) >= 0).all()
    if not good or group["visibility"].shape != group["tracks"].shape[:2]:
        raise ValueError(f"the clip '{group.attrs.get('id')}' in it is not whole")
