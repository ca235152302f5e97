"""Tracks in HDF5: a file that grows chunk by chunk while tracking and that others can read at any time.

What is read may come from anybody: see ``ptrack.untrusted``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self

import h5py
import numpy as np

from ptrack import fileio
from ptrack.errors import OutputError, TracksError
from ptrack.fileio import atomic_path
from ptrack.tracks import SCHEMA_VERSION, Tracks, TracksInfo
from ptrack.untrusted import Budget, Refused, h5
from ptrack.untrusted.limits import amount, reason_of

CHUNK_ROWS = 32  # frames per HDF5 chunk: at 256 points 64 KiB of positions
COPY_ROWS = 256  # frames copied at once, a multiple of CHUNK_ROWS
SPACE = 128 << 10  # bytes that a file without rows takes, with room for attributes
PER_FRAME = ("tracks", "visibility", "confidence", "frame_index", "pts_seconds")
NUMERIC = (*PER_FRAME, "queries")
FREE_AND_RESUME = "Free space and run again with --resume."  # of a full disk under an unfinished run


def _write_info(group: h5py.Group, info: TracksInfo) -> None:
    for key, value in dataclasses.asdict(info).items():
        group.attrs[key] = json.dumps(value) if key == "warnings" else value


def read_info(attributes: Any) -> TracksInfo:
    """Build TracksInfo from a mapping, ignoring what a later version may have added.

    Raises:
        TracksError: a later schema, or values that no run writes.
    """
    if not isinstance(attributes, Mapping) or "schema_version" not in attributes:
        raise Refused("holds no ptrack tracks: 'schema_version' is missing")
    version = _typed("schema_version", attributes["schema_version"], int)
    if version > SCHEMA_VERSION:
        raise TracksError(
            f"The tracks have schema version {version}; this ptrack reads up to {SCHEMA_VERSION}. Update it."
        )
    values: dict[str, Any] = {}
    for field in dataclasses.fields(TracksInfo):
        if field.name not in attributes:
            continue
        value = attributes[field.name]
        if field.name == "warnings":
            lines = json.loads(value) if isinstance(value, str) else value
            values["warnings"] = tuple(_typed("warnings", line, str) for line in lines)
        else:
            values[field.name] = _typed(field.name, value, type(field.default))
    info = TracksInfo(**values)
    if not (0 <= info.width < 1 << 31 and 0 <= info.height < 1 << 31 and 0 <= info.threshold <= 1 and info.fps >= 0):
        raise TracksError("The frame size, the frame rate or the visibility threshold is impossible.")
    return info


def _typed(name: str, value: Any, wanted: type) -> Any:
    """Return an attribute as int, float, bool or str; raises Refused when it is something else."""
    kinds = {int: "iu", float: "fiu", bool: "b", str: "US"}[wanted]
    plain = np.asarray(value)
    if plain.ndim or plain.dtype.kind not in kinds:
        raise Refused(f"holds no ptrack tracks: '{name}' is no {wanted.__name__}")
    return value.decode("utf-8") if isinstance(value, bytes) else wanted(value)


class TracksWriter:
    """An HDF5 tracks file that grows row by row and can be opened by others after every ``flush``.

    Args:
        path: the file; use a temporary or partial name and rename it when done.
        queries: (N, 3) rows (t, x, y).
        ids: (N,) names.
        info: attributes known at the start; ``finish`` writes the final ones.
        final: the file that it becomes at once, named in errors instead; None for a run that can be resumed.
        growing: points can be added later, by ``extend``.
    """

    def __init__(
        self,
        path: Path | str,
        queries: np.ndarray,
        ids: np.ndarray,
        info: TracksInfo,
        final: Path | None = None,
        *,
        growing: bool = False,
    ) -> None:
        self.path, self._final = Path(path), final
        self._failed = False
        with self._writing():
            if self.path.is_file() and not self.path.is_symlink():
                self._locked(os.open(self.path, os.O_RDWR | fileio.NOFOLLOW)).close()
            self._lock = self._locked(fileio.new_file(self.path))
            fileio.check_space(self.path, SPACE)
            # HDF5's own locks are refused on network drives. Its types cannot distinguish a dataset from a group.
            self._file: Any = h5py.File(self.path, "w", locking=False)
            self._create(queries, ids, growing)
            self._hold()
            _write_info(self._file, info)
            self._file.attrs["complete"] = False
        self._pending: list[tuple[Any, ...]] = []
        self.rows = 0  # rows appended so far, flushed or not
        self.flush()

    def _create(self, queries: np.ndarray, ids: np.ndarray, growing: bool) -> None:
        make, n = self._file.create_dataset, len(queries)
        rows, columns = CHUNK_ROWS, max(1, min(n, 4096))
        most = None if growing else n or None  # HDF5 cannot chunk an axis that is fixed at 0
        make("tracks", (0, n, 2), "f4", maxshape=(None, most, 2), chunks=(rows, columns, 2), fillvalue=np.nan)
        make("visibility", (0, n), "f4", maxshape=(None, most), chunks=(rows, columns))
        make("confidence", (0, n), "f4", maxshape=(None, most), chunks=(rows, columns))
        make("frame_index", (0,), "i8", maxshape=(None,), chunks=(1024,))
        make("pts_seconds", (0,), "f8", maxshape=(None,), chunks=(1024,))
        text = {"data": [str(i) for i in ids], "dtype": h5py.string_dtype()}
        if growing:
            make("queries", data=np.asarray(queries, np.float32), maxshape=(None, 3), chunks=(1024, 3))
            make("ids", (n,), **text, maxshape=(None,), chunks=(1024,))
        else:
            self._file["queries"] = np.asarray(queries, np.float32)
            make("ids", (n,), **text)

    def _hold(self) -> None:
        """Keep the datasets open: h5py drops the errors of writing a chunk when a dataset is closed."""
        self._rows: list[Any] = [self._file[name] for name in PER_FRAME]

    def _locked(self, descriptor: int) -> BinaryIO:
        return fileio.locked(descriptor, self.path, "r+b", "choose another output")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what a full or vanished disk brings up into one sentence with the reason and the space left."""
        try:
            yield
        except (OSError, RuntimeError) as error:  # HDF5 raises the second kind when it cannot flush
            self._failed = True
            number = getattr(error, "errno", None)
            reason = os.strerror(number) if number else reason_of(error)
            advice = "Free space." if self._final else FREE_AND_RESUME
            raise OutputError(
                f"Cannot write {self._final or self.path}: {reason}; {space_left(self.path)}. {advice}"
            ) from error

    @classmethod
    def reopen(cls, path: Path | str, rows: int) -> Self:
        """Open a partial file again and cut it back to its first ``rows`` frames.

        Raises:
            TracksError: the file is damaged or shorter than ``rows``.
        """
        self = cls.__new__(cls)
        self.path, self._final, self._failed = Path(path), None, False
        try:
            self._lock = self._locked(os.open(self.path, os.O_RDWR | fileio.NOFOLLOW))
            h5.check_heaps(self.path)
            self._file = h5py.File(self.path, "r+", locking=False)
            root = h5.H5Group(self._file, Budget.of(self.path))
            have = min(root.dataset(name).shape[0] for name in PER_FRAME)
            if have < rows:
                raise TracksError(f"{path} holds {have} frames where {rows} were expected.")
            self._hold()
            for data in self._rows:
                data.resize(rows, axis=0)
            self._file.attrs["complete"] = False
        except (TracksError, OutputError):
            raise
        except Exception as error:  # h5py raises a dozen kinds for damaged files
            raise TracksError(f"{path} cannot be continued; it is damaged ({reason_of(error)}).") from error
        self._pending, self.rows = [], rows
        return self

    def append(self, xy: np.ndarray, visibility: np.ndarray, confidence: np.ndarray, index: int, pts: float) -> None:
        """Add one frame: (N, 2), (N,), (N,), the source's frame number and its time in seconds."""
        self._pending.append((xy, visibility, confidence, index, pts))
        self.rows += 1

    def extend(self, queries: np.ndarray, ids: Sequence[str]) -> None:
        """Add K points behind those there are; in the rows so far their positions are NaN. Needs ``growing``.

        Args:
            queries: (K, 3) rows (t, x, y).
            ids: K names.
        """
        self.flush()
        with self._writing():
            had = self._file["queries"].shape[0]
            for data in self._rows[:3]:
                data.resize(had + len(ids), axis=1)
            for name, new in (("queries", np.asarray(queries, np.float32)), ("ids", np.asarray(ids, dtype=object))):
                self._file[name].resize(had + len(ids), axis=0)
                self._file[name][had:] = new

    def flush(self) -> None:
        """Bring all rows to the file, so that it survives a kill.

        Raises:
            OutputError: the disk is full or gone.
        """
        with self._writing():
            if self._pending:
                stop, start = self.rows, self.rows - len(self._pending)
                fileio.check_space(self.path, self._bytes(len(self._pending)))
                for data, column in zip(self._rows, zip(*self._pending, strict=True), strict=True):
                    data.resize(stop, axis=0)
                    data[start:stop] = np.asarray(column)
                self._pending = []
            self._file.flush()

    def _bytes(self, rows: int) -> int:
        """Return the bytes of the chunks that ``rows`` more rows may need, with HDF5's own tables."""
        points, columns = self._rows[1].shape[1], self._rows[1].chunks[1]
        chunks = (-(-rows // CHUNK_ROWS) + 1) * -(-points // columns)
        return SPACE + chunks * CHUNK_ROWS * columns * 16  # bytes of a position, a visibility and a confidence

    def rewrite(self, row: int, points: np.ndarray, values: Sequence[np.ndarray]) -> None:
        """Replace (K, 2) positions, (K,) visibility and (K,) confidence of the ``points`` (N,) bool in one row."""
        with self._writing():
            for data, new in zip(self._rows[:3], values, strict=True):
                line = data[row]
                line[points] = new
                data[row] = line

    def finish(self, info: TracksInfo) -> None:
        """Write the final attributes, mark the file complete and close it."""
        self.flush()
        with self._writing():
            fileio.check_space(self.path, SPACE)
            _write_info(self._file, info)
            self._file.attrs["complete"] = True
        self.close()

    def close(self) -> None:
        """Close the file; rows not flushed are written first where the disk allows it.

        Raises:
            OutputError: the disk is full and no error has been raised for it before.
        """
        if not self._file.id.valid:
            return
        try:
            if not self._failed:
                self.flush()
        finally:
            with contextlib.suppress(*((OSError, RuntimeError) if self._failed else ())):
                self._file.close()
            self._lock.close()


def copy_finished(source: Path, target: Path) -> None:
    """Copy a finished tracks file so that equal tracks make equal files, in memory that does not grow with them.

    Where HDF5 puts a chunk depends on when rows were flushed and on whether the file was closed in between; a copy that
    is written in one go has one layout.

    Raises:
        OutputError: the disk is full.
        TracksError: the source is damaged.
    """
    try:
        opened = h5py.File(source, "r", locking=False)
    except OSError as error:
        raise TracksError(f"{source} cannot be copied; it is damaged ({reason_of(error)}).") from error
    with opened, atomic_path(target) as temporary:
        file: Any = opened
        info, ids = read_info(file.attrs), [i.decode() for i in file["ids"][:]]
        writer = TracksWriter(temporary, file["queries"][:], np.asarray(ids, dtype=np.str_), info, target)
        try:
            for begin in range(0, file["tracks"].shape[0], COPY_ROWS):
                block = [file[name][begin : begin + COPY_ROWS] for name in PER_FRAME]
                for row in zip(*block, strict=True):
                    writer.append(*row)
                writer.flush()
        except BaseException:
            writer.close()
            raise
        writer.finish(info)


def space_left(path: Path) -> str:
    """Return in words the space that is left on a disk."""
    try:
        return f"{amount(shutil.disk_usage(path.parent).free)} left on the disk"
    except OSError:
        return "the folder is gone"


def save_h5(tracks: Tracks, path: Path, final: Path) -> None:
    """Write tracks to ``path``, which becomes ``final``."""
    writer = TracksWriter(path, tracks.queries, tracks.ids, tracks.info, final)
    for row in range(tracks.num_frames):
        writer.append(*(getattr(tracks, name)[row] for name in PER_FRAME))
        if (row + 1) % 256 == 0:
            writer.flush()
    writer.finish(tracks.info)


def load_h5(path: Path) -> dict[str, Any]:
    """Return the fields of ``Tracks`` of a file; raises Refused when it holds none, and what h5py raises."""
    with h5.opened(path) as file:
        missing = [name for name in (*NUMERIC, "ids") if name not in file]
        if missing:
            raise Refused(f"holds no ptrack tracks: it has no '{missing[0]}'")
        info = read_info(file.attributes())
        shapes = [file.dataset(name).shape for name in PER_FRAME]
        rows = min(shape[0] if shape else 0 for shape in shapes)  # a killed run may have grown a part of them only
        values = {name: file.array(name, rows) for name in PER_FRAME}
        return values | {"queries": file.array("queries"), "ids": file.texts("ids"), "info": info}
