"""One packed clip in a file of its own: how a worker process hands it to the process that writes the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py

from ptrack.data.clips import ArrayFrames, Clip, Frames
from ptrack.data.hdf5 import Group, clip_values
from ptrack.data.packing import Packed, PackedFrames
from ptrack.data.store_writer import write_clip
from ptrack.errors import DataError, OutputError, reason
from ptrack.fileio import atomic_path
from ptrack.untrusted.limits import reading


def write_packed(path: Path, packed: Packed) -> None:
    """Write a packed clip; the file appears whole.

    Raises:
        OutputError: the disk is full or the folder takes no file.
    """
    try:
        with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
            file.attrs["damaged"] = json.dumps(packed.damaged)
            write_clip(file.create_group("clip"), packed.clip)
    except (OSError, RuntimeError) as error:  # HDF5 raises both
        raise OutputError(f"Cannot write {path}: {reason(error)}.") from error


def read_packed(path: Path) -> Packed:
    """Read what ``write_packed`` wrote.

    Raises:
        DataError: it is missing or damaged.
    """
    with reading(path, DataError, "a packed clip"), h5py.File(path, "r", locking=False) as file:
        group: Group = file["clip"]
        attrs: Any = group.attrs
        sides: dict[str, Any] = {name: _pictures(group[name]) for name in ("masks", "depth") if name in group}
        clip = Clip(
            id=str(attrs["id"]),
            source=str(attrs["source"]),
            split=str(attrs["split"]),
            name=str(attrs["name"]),
            frames=_pictures(group["frames"]),
            size=(int(attrs["height"]), int(attrs["width"])),
            **clip_values(group),
            **sides,
        )
        damaged = json.loads(str(file.attrs["damaged"]))
    return Packed(clip, tuple((int(frame), str(reason)) for frame, reason in damaged))


def _pictures(group: Group) -> Frames:
    data = group["data"][()]
    return PackedFrames(group.attrs["codec"], data, group["offsets"][()]) if "offsets" in group else ArrayFrames(data)
