"""Tracks files of a live stream: rows reach the disk every two seconds, and a run of days is cut into files.

While a part is written it is ``NAME.partial.h5``, readable at any time; when it is whole it gets its own name. Points
that come get columns of their own, points that go leave NaN behind; a part begins with the points alive at its start.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ptrack.errors import OutputError
from ptrack.fileio import check_writable
from ptrack.tracking.partial import partial_path
from ptrack.tracks import TracksInfo
from ptrack.tracks_h5 import TracksWriter, copy_finished
from ptrack.tracks_io import format_of, load_tracks, save_tracks, tracks_stem

FLUSH_SECONDS = 2.0  # of results lost at most by a kill
MOST_COLUMNS = 512  # points in one part, the removed ones included; then, or at four times those alive, the next begins


class Recorder:
    """Writes rows with any set of points into one file or, with ``split``, into numbered ones.

    Args:
        out: tracks file; parts of a split run are ``NAME.0000.tracks.h5`` and so on.
        info: what is known about the tracks.
        split: seconds of the stream per part, None for one file.
        overwrite: replace existing files.

    Raises:
        OutputError, TracksError: the place is not writable, a file exists, or the suffix is unknown.
    """

    def __init__(self, out: Path, info: TracksInfo, *, split: float | None = None, overwrite: bool = False) -> None:
        format_of(out)
        self.out, self._info, self._split, self._overwrite = out, info, split, overwrite
        self.parts: list[Path] = []
        self._number = 0
        self._writer: TracksWriter | None = None
        self._columns: dict[str, int] = {}  # of the part being written
        self._began = self._flushed = 0.0
        self._check(self._name(0))

    def _name(self, number: int) -> Path:
        if self._split is None and number == 0:
            return self.out
        stem = tracks_stem(self.out)
        middle = ".tracks" if self.out.stem.endswith(".tracks") else ""
        return self.out.with_name(f"{stem}.{number:04d}{middle}{self.out.suffix}")

    def _check(self, path: Path) -> None:
        check_writable(path, overwrite=self._overwrite)
        partial = partial_path(path)
        if partial.exists() and not self._overwrite:
            raise OutputError(
                f"{partial} is left of a killed run; it can be read as it is. Rename it, or add --overwrite."
            )

    def write(
        self,
        ids: Sequence[str],
        xy: np.ndarray,
        visibility: np.ndarray,
        confidence: np.ndarray,
        number: int,
        seconds: float,
    ) -> None:
        """Add a frame.

        Args:
            ids: N names of the points there are now.
            xy: (N, 2) raster pixels.
            visibility, confidence: (N,) probabilities.
            number: of the frame; a jump is a gap of dropped frames.
            seconds: since the first frame.

        Raises:
            OutputError: the disk is full.
        """
        if self._writer is not None and self._is_full(ids, seconds):
            self._finish()
        if self._writer is None:
            self._begin(ids, xy, seconds)
        assert self._writer is not None
        new = [name for name in ids if name not in self._columns]
        if new:
            self._extend(new, ids, xy)
        columns = [self._columns[name] for name in ids]
        row = np.full((len(self._columns), 2), np.nan, np.float32)
        seen, sure = np.zeros(len(row), np.float32), np.zeros(len(row), np.float32)
        row[columns], seen[columns], sure[columns] = xy, visibility, confidence
        self._writer.append(row, seen, sure, number, seconds)
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def _is_full(self, ids: Sequence[str], seconds: float) -> bool:
        if self._split is not None and seconds - self._began >= self._split:
            return True
        wanted = len(self._columns) + sum(name not in self._columns for name in ids)
        return wanted > max(MOST_COLUMNS, 4 * len(ids))

    def _begin(self, ids: Sequence[str], xy: np.ndarray, seconds: float) -> None:
        path = self._name(self._number)
        self._check(path)
        queries = np.column_stack([np.zeros(len(ids)), xy])
        names = np.asarray(ids, dtype=np.str_)
        self._writer = TracksWriter(partial_path(path), queries, names, self._info, growing=True)
        self._columns = {name: i for i, name in enumerate(ids)}
        self._began, self._flushed = seconds, time.monotonic()

    def _extend(self, new: Sequence[str], ids: Sequence[str], xy: np.ndarray) -> None:
        assert self._writer is not None
        place = dict(zip(ids, xy, strict=True))
        queries = np.asarray([[self._writer.rows, *place[name]] for name in new])
        self._writer.extend(queries, new)
        self._columns |= {name: len(self._columns) + i for i, name in enumerate(new)}

    def _finish(self) -> None:
        """Give the part its name and format."""
        assert self._writer is not None
        path = self._name(self._number)
        partial = partial_path(path)
        self._writer.finish(self._info)
        if format_of(path) == "h5":
            copy_finished(partial, path)
        else:
            save_tracks(load_tracks(partial), path)
        partial.unlink()
        self.parts.append(path)
        self._writer, self._number = None, self._number + 1

    def close(self, warnings: Sequence[str] = ()) -> None:
        """Finish the last part; ``warnings`` are sentences for it.

        Raises:
            OutputError: the disk is full.
        """
        if self._writer is not None:
            self._info = replace(self._info, warnings=tuple(warnings))
            self._finish()
