"""What a dataset is to ptrack: a list of its clips, and a way to load each. One file in ``sources/`` per dataset."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ptrack.data import images
from ptrack.data.clips import Clip, Frames
from ptrack.data.images import Codec
from ptrack.errors import DataError
from ptrack.untrusted import Refused, npz
from ptrack.untrusted.limits import reading

SPLITS = ("train", "val", "valid", "validation", "test", "eval", "sample")


@dataclass(frozen=True)
class ClipRef:
    """A clip that a source can load."""

    id: str  # unique within the source: <source>/<split>/<name>
    split: str
    name: str
    key: tuple[str, ...] = ()  # what the source needs to find it


class Source(ABC):
    """A dataset on disk. Subclasses are one file each in ``ptrack.data.sources`` and name themselves in ``SOURCE``.

    Instances are small and can be pickled: worker processes load clips with their own copy.
    """

    name: ClassVar[str]  # on the command line
    title: ClassVar[str]  # one line for people
    layout: ClassVar[str]  # what ROOT must look like, one line
    convention: ClassVar[str] = "unknown"  # see ``Clip.coord_convention``
    default_codec: ClassVar[Codec] = "raw"  # for frames that have no bytes of their own
    parallel: bool = True  # False: all clips lie in a few large files, workers would each load them

    def __init__(self, root: Path | str, *, depth: bool = False) -> None:
        self.root = Path(root)
        self.depth = depth  # also load depth pictures where the dataset has them
        if not self.root.exists():
            raise DataError(f"There is no folder or file {self.root}.")

    def refs(self) -> list[ClipRef]:
        """List the clips, sorted, cheaply.

        Raises:
            DataError: ``root`` holds nothing of this dataset.
        """
        found = self.listed()
        if not found:
            raise DataError(f"{self.root} holds nothing of {self.title}; expected {self.layout}.")
        return found

    @abstractmethod
    def listed(self) -> list[ClipRef]:
        """Return the clips that are found in ``root``, sorted."""

    @abstractmethod
    def load(self, ref: ClipRef) -> Clip:
        """Load one clip.

        Raises:
            DataError: its annotation or frames are missing, unreadable or do not fit together.
        """

    def settings(self) -> dict[str, Any]:
        """Return what decides the content of the clips; an interrupted conversion goes on only if it is the same."""
        return {"root": self.root.name, "depth": self.depth}

    def __iter__(self) -> Iterator[Clip]:
        for ref in self.refs():
            yield self.load(ref)

    def ref(self, split: str, name: str, *key: str) -> ClipRef:
        """Make the reference of a clip of this source."""
        return ClipRef(f"{self.name}/{split}/{name}", split, name, key)

    def clip(self, ref: ClipRef, frames: Frames, size: tuple[int, int], **arrays: Any) -> Clip:
        """Build a clip with this source's names and coordinate convention."""
        return Clip.build(
            id=ref.id,
            source=self.name,
            split=ref.split,
            name=ref.name,
            frames=frames,
            size=size,
            **{"coord_convention": self.convention} | arrays,
        )


def folders(root: Path) -> list[Path]:
    """Return the sub-folders of a folder, sorted, hidden ones left out; none of what is no folder."""
    return sorted(p for p in root.glob("*") if p.is_dir() and not p.name.startswith("."))


def sequences(root: Path, is_sequence: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield the folders in ``root`` that are sequences, and those in its other sub-folders, such as splits."""
    for folder in folders(root):
        yield from [folder] if is_sequence(folder) else filter(is_sequence, folders(folder))


def files(root: Path, pattern: str) -> list[Path]:
    """Return the files below a folder that match a pattern, sorted, hidden ones left out."""
    return sorted(p for p in root.rglob(pattern) if p.is_file() and not p.name.startswith("."))


def numbered_frames(folder: Path, pattern: str, first: int | None = None) -> list[Path]:
    """Return the frame files of a folder in the order of their numbers.

    Args:
        folder: where they lie.
        pattern: regular expression for a whole file name with one group, the number; other files are ignored.
        first: the number the first frame must have, if it is known.

    Raises:
        DataError: the folder is missing or has no frame, two files have one number, or a number is missing in between.
    """
    if not folder.is_dir():
        raise DataError(f"There is no frame folder {folder}.")
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        match = re.fullmatch(pattern, path.name)
        if match is None:
            continue
        number = int(match[1])
        if number in found:
            raise DataError(f"{path} and {found[number].name} are both frame {number}; keep one of them.")
        found[number] = path
    if not found:
        raise DataError(f"There are no frames in {folder}.")
    start = min(found) if first is None else first
    for number in range(start, start + len(found)):
        if number not in found:
            raise DataError(f"Frame {number} is missing in {folder} ({len(found)} frames, last {max(found)}).")
    return [found[number] for number in sorted(found)]


def first_size(frames: Frames) -> tuple[int, int]:
    """Return (H, W) from the first frame whose header can be read.

    Raises:
        DataError: there is none.
    """
    problem = "it has no frames"
    for t in range(len(frames)):
        try:
            return images.size_of(frames.encoded(t)[1])
        except DataError as error:
            problem = str(error)
    raise DataError(f"No frame can be read: {problem}")


def load_npz(paths: Sequence[Path], optional: Collection[str] = ()) -> tuple[Path, dict[str, np.ndarray]]:
    """Read the first of several possible annotation files; arrays of Python objects are refused.

    Args:
        paths: in the order of preference.
        optional: arrays that may be absent, or hold ``None`` in place of numbers; then they are left out.

    Raises:
        DataError: none exists, it is damaged, or holds objects.
    """
    path = next((p for p in paths if p.is_file()), None)
    if path is None:
        raise DataError(f"The annotation {' or '.join(p.name for p in paths)} is missing in {paths[0].parent}.")
    with reading(path, DataError, "an annotation"), npz.opened(path) as archive:
        found = {key: _array(archive, key, optional) for key in archive.names()}
    return path, {key: value for key, value in found.items() if value is not None}


def _array(archive: npz.NpzArrays, key: str, optional: Collection[str]) -> np.ndarray | None:
    """Return an array of an archive, None for an optional one that holds ``None``."""
    if key not in optional or not archive.holds_objects(key):
        return archive.array(key)
    cells = np.ravel(np.asarray(archive.objects(key), dtype=object))
    if any(cell is not None for cell in cells):
        raise Refused(f"holds Python objects other than None in '{key}'")
    return None


def need(arrays: dict[str, Any], key: str, where: Path) -> np.ndarray:
    """Return an array of an annotation file.

    Raises:
        DataError: it is not there.
    """
    if key not in arrays:
        raise DataError(f"The annotation {where} has no '{key}' (it has {', '.join(sorted(arrays)) or 'nothing'}).")
    return np.asarray(arrays[key])


def check_count(where: Path | str, frames: int, annotated: int) -> None:
    """Raise DataError unless there are as many frames as annotated time steps."""
    if frames != annotated:
        raise DataError(f"{where}: there are {frames} frames but the annotation has {annotated}.")


def filled(arrays: dict[str, Any], key: str) -> np.ndarray | None:
    """Return an optional array, None where it is absent or empty."""
    value = arrays.get(key)
    return None if value is None or np.asarray(value).size == 0 else np.asarray(value)
