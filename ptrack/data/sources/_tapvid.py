"""TAP-Vid pickles (arXiv 2211.03726): dicts or lists of examples with ``video``, ``points`` and ``occluded``."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ptrack.data.clips import ArrayFrames, BytesFrames, Clip, Frames
from ptrack.data.pickles import load_pickle
from ptrack.data.source import ClipRef, Source, check_count, files, first_size
from ptrack.errors import DataError


@lru_cache(maxsize=1)
def _examples(path: Path, stamp: int) -> list[tuple[str | None, Any]]:
    """Return (name or None, example) of a pickle in the order of the file; the last file stays in memory."""
    content = load_pickle(path)
    if isinstance(content, dict):
        return [(str(name), example) for name, example in content.items()]
    if isinstance(content, list | tuple):
        return [(None, example) for example in content]
    raise DataError(f"{path} holds a {type(content).__name__} where a dict or list of examples was expected.")


def examples(path: Path) -> list[tuple[str | None, Any]]:
    """Return (name or None, example) of every example of a pickle file.

    Raises:
        DataError: it is missing, refused, damaged or holds something else.
    """
    return _examples(path, path.stat().st_mtime_ns)


class TapVidSource(Source):
    """Base of the TAP-Vid family: points are normalised so that 1 is the far edge of the last pixel."""

    convention = "raster"
    parallel = False

    def listed(self) -> list[ClipRef]:
        """List the examples of all files; a file that cannot be read is listed as one clip that will be skipped."""
        found = []
        for path in [self.root] if self.root.is_file() else files(self.root, "*.pkl"):
            try:
                listed = examples(path)
            except DataError:
                found.append(self.ref("eval", path.stem, str(path), ""))
                continue
            names = [(self.naming(path, i, name), i) for i, (name, _) in enumerate(listed)]
            found += [self.ref("eval", name, str(path), str(i)) for name, i in sorted(names, key=self.order)]
        return found

    def naming(self, path: Path, index: int, name: str | None) -> str:
        """Return a clip's name; without one of its own the file and the position."""
        return f"{path.stem}_{index}" if name is None else name

    def order(self, item: tuple[str, int]) -> Any:
        """Return the sorting key of (name, position): the position."""
        return item[1]

    def load(self, ref: ClipRef) -> Clip:
        """Load one example."""
        path = Path(ref.key[0])
        listed = examples(path)
        try:
            return self.from_example(ref, path, listed[int(ref.key[1])][1])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(
                f"{path}: the example '{ref.name}' is malformed ({type(error).__name__}: {error})."
            ) from error

    def from_example(self, ref: ClipRef, path: Path, example: Any) -> Clip:
        """Make a clip from an example dict."""
        frames, size = _frames(example["video"])
        points = np.asarray(example["points"], dtype=np.float64)
        if points.ndim != 3 or points.shape[-1] != 2:
            raise ValueError(f"'points' has the shape {points.shape}, not (N, T, 2)")
        check_count(f"{path}, {ref.name}", len(frames), points.shape[1])
        visible = (np.asarray(example["occluded"]) == 0).T
        tracks = (points * np.asarray([size[1], size[0]], np.float64)).transpose(1, 0, 2)
        return self.clip(ref, frames, size, tracks=tracks, visibility=visible, valid=visible, fps=self.rate())

    def rate(self) -> float | None:
        """Return the frame rate of the dataset, None if it is not stated."""
        return None


def _frames(video: Any) -> tuple[Frames, tuple[int, int]]:
    """Return the frames of a ``video`` entry: uint8 (T, H, W, 3), or a sequence of encoded pictures."""
    if len(video) and isinstance(video[0], bytes):
        encoded = BytesFrames([bytes(data) for data in video])
        return encoded, first_size(encoded)
    array = np.asarray(video)
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8:
        raise ValueError(f"'video' is {array.dtype} {array.shape}, not uint8 (T, H, W, 3)")
    return ArrayFrames(array), (array.shape[1], array.shape[2])
