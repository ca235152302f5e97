"""Tracks on disk: HDF5 (grown chunk by chunk while tracking), NPZ, CSV and JSON.

Every format holds the fields of ``Tracks`` under their own names. CSV is the long table
``frame,time_s,id,x,y,visibility,confidence,width,height`` for spreadsheets; of ``TracksInfo`` it holds the frame size
alone, and its queries are taken from each point's first finite row. What is read may come from anybody: see
``ptrack.untrusted``.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import shutil
from array import array as packed
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

import h5py
import numpy as np

from ptrack import fileio
from ptrack.errors import OutputError, TracksError
from ptrack.fileio import atomic_path, check_writable
from ptrack.tracks import SCHEMA_VERSION, Queries, Tracks, TracksInfo
from ptrack.untrusted import Budget, Refused, h5, npz, text
from ptrack.untrusted.limits import amount, check_file, reading, reason_of

CHUNK_ROWS = 32  # frames per HDF5 chunk: at 256 points 64 KiB of positions
COPY_ROWS = 256  # frames copied at once, a multiple of CHUNK_ROWS
SPACE = 128 << 10  # bytes that a file without rows takes, with room for attributes
PER_FRAME = ("tracks", "visibility", "confidence", "frame_index", "pts_seconds")
NUMERIC = (*PER_FRAME, "queries")
FORMATS = {"h5": ".h5", "npz": ".npz", "csv": ".csv", "json": ".json"}


def format_of(path: Path | str) -> str:
    """Return "h5", "npz", "csv" or "json" from a file name; raises TracksError for another suffix."""
    if not isinstance(path, str | os.PathLike):
        raise TracksError(f"A tracks file is named by a text or a path, not by {path!r} ({type(path).__name__}).")
    suffix = Path(path).suffix.lower()
    name = {".hdf5": "h5", ".hdf": "h5"}.get(suffix, suffix[1:])
    if name not in FORMATS:
        raise TracksError(f"{path}: tracks files end in .h5, .npz, .csv or .json, not '{suffix}'.")
    return name


def save_tracks(tracks: Tracks, path: Path | str, *, overwrite: bool = True) -> Path:
    """Write tracks in the format of the file's suffix; the file appears under its name only when whole.

    Raises:
        OutputError: the place is not writable, or the file exists and ``overwrite`` is false.
        TracksError: unknown suffix.
    """
    save = {"h5": _save_h5, "npz": _save_npz, "csv": _save_csv, "json": _save_json}[format_of(path)]
    path = check_writable(path, overwrite=overwrite)
    with atomic_path(path) as temporary:
        save(tracks, temporary, path)
    return path


def load_tracks(path: Path | str) -> Tracks:
    """Read tracks written by ptrack in any of its formats, a partial HDF5 of a killed run included.

    Raises:
        TracksError: the file is missing, damaged, or does not hold tracks.
    """
    load = {"h5": _load_h5, "npz": _load_npz, "csv": _load_csv, "json": _load_json}[format_of(path)]
    path = check_file(path, TracksError, "tracks file")
    with reading(path, TracksError, "tracks"):
        return _built(load(path))


def _built(fields: Mapping[str, Any]) -> Tracks:
    """Build Tracks from what a file holds. Raises TracksError, Refused or ValueError when it cannot be tracks."""
    types = {"frame_index": (np.int64, "iu"), "pts_seconds": (np.float64, "fiu")}
    arrays = {name: npz.numbers(name, fields[name], *types.get(name, (np.float32, "fiu"))) for name in NUMERIC}
    return check_values(Tracks(**arrays, ids=np.asarray(fields["ids"], dtype=np.str_), info=fields["info"]))


def check_values(tracks: Tracks) -> Tracks:
    """Return tracks read from a file.

    Raises:
        TracksError: probabilities are not in 0..1, frame numbers do not rise from 0 upwards, or times are not finite.
    """
    for name in ("visibility", "confidence"):
        values = getattr(tracks, name)
        if values.size and not (values.min() >= 0 and values.max() <= 1):  # NaN fails too
            raise TracksError(f"'{name}' holds values outside 0..1.")
    index = tracks.frame_index
    if len(index) and (index[0] < 0 or (np.diff(index) <= 0).any()):
        raise TracksError("the frame numbers do not rise from 0 upwards.")
    if not np.isfinite(tracks.pts_seconds).all():
        raise TracksError("the times are not all finite.")
    return tracks


def load_header(path: Path | str) -> tuple[TracksInfo, Queries]:
    """Return where tracks come from and the queries of the points that start; of HDF5 without reading the rows.

    Raises:
        TracksError: as ``load_tracks``.
    """
    if format_of(path) != "h5":
        tracks = load_tracks(path)
        info, points, ids = tracks.info, tracks.queries, tracks.ids
    else:
        path = check_file(path, TracksError, "tracks file")
        with reading(path, TracksError, "tracks"), h5.opened(path) as file:
            info, points = _read_info(file.attributes()), file.array("queries")
            ids = np.asarray(file.texts("ids"), dtype=np.str_)
    known = np.isfinite(points).all(axis=1)  # those of a CSV that never start have no position
    return info, Queries(points[known], ids[known])


# -- HDF5 ---------------------------------------------------------------------------------------------------------


def _write_info(group: h5py.Group, info: TracksInfo) -> None:
    for key, value in dataclasses.asdict(info).items():
        group.attrs[key] = json.dumps(value) if key == "warnings" else value


def _read_info(attributes: Any) -> TracksInfo:
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
                _lock(os.open(self.path, os.O_RDWR | fileio.NOFOLLOW), self.path).close()
            self._lock = _lock(fileio.new_file(self.path), self.path)
            fileio.check_space(self.path, SPACE)
            # HDF5's own locks are refused on network drives. Its types cannot tell a dataset from a group.
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

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what a full or vanished disk brings up into one sentence with the reason and the space left."""
        try:
            yield
        except (OSError, RuntimeError) as error:  # HDF5 raises the second kind when it cannot flush
            self._failed = True
            number = getattr(error, "errno", None)
            reason = os.strerror(number) if number else reason_of(error)
            advice = "Free some space." if self._final else "Free some space and run again with --resume."
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
            self._lock = _lock(os.open(self.path, os.O_RDWR | fileio.NOFOLLOW), self.path)
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
            OutputError: the disk is full and nothing has said so before.
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
        info, ids = _read_info(file.attrs), [i.decode() for i in file["ids"][:]]
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
    """Return in words how much a disk still takes."""
    try:
        return f"{amount(shutil.disk_usage(path.parent).free)} left on the disk"
    except OSError:
        return "the folder is gone"


def _save_h5(tracks: Tracks, path: Path, final: Path) -> None:
    writer = TracksWriter(path, tracks.queries, tracks.ids, tracks.info, final)
    for row in range(tracks.num_frames):
        writer.append(*(getattr(tracks, name)[row] for name in PER_FRAME))
        if (row + 1) % 256 == 0:
            writer.flush()
    writer.finish(tracks.info)


def _lock(descriptor: int, path: Path) -> IO[bytes]:
    """Return an open file, locked against other runs of this machine until it closes where the file system can lock.

    Raises:
        OutputError: another process writes it.
    """
    file = os.fdopen(descriptor, "r+b")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise OutputError(f"{path} is being written by another run; wait for it or choose another output.") from None
    except (ImportError, OSError):  # Windows has no such locks, network drives refuse them
        pass
    return file


def _load_h5(path: Path) -> dict[str, Any]:
    with h5.opened(path) as file:
        missing = [name for name in (*NUMERIC, "ids") if name not in file]
        if missing:
            raise Refused(f"holds no ptrack tracks: it has no '{missing[0]}'")
        info = _read_info(file.attributes())
        shapes = [file.dataset(name).shape for name in PER_FRAME]
        rows = min(shape[0] if shape else 0 for shape in shapes)  # a killed run may have grown some of them only
        values = {name: file.array(name, rows) for name in PER_FRAME}
        return values | {"queries": file.array("queries"), "ids": file.texts("ids"), "info": info}


# -- NPZ, JSON, CSV -----------------------------------------------------------------------------------------------


def _save_npz(tracks: Tracks, path: Path, final: Path) -> None:
    with open(path, "wb") as file:
        arrays = {name: getattr(tracks, name) for name in (*PER_FRAME, "queries", "ids")}
        np.savez_compressed(file, **arrays, info=np.asarray(json.dumps(dataclasses.asdict(tracks.info))))


def _load_npz(path: Path) -> dict[str, Any]:
    with npz.opened(path) as file:
        missing = [name for name in (*NUMERIC, "ids", "info") if name not in file]
        if missing:
            raise Refused(f"holds no ptrack tracks: it has no array '{missing[0]}'")
        values = {name: file.array(name) for name in (*NUMERIC, "ids")}
        return values | {"info": _read_info(text.parse_json(str(file.array("info")).encode("utf-8")))}


def _nullable(array: np.ndarray) -> list[Any]:
    """Return nested lists of the shortest decimal texts' values, with None for NaN (JSON has no NaN)."""
    flat = [None if v != v else float(t) for v, t in zip(array.ravel(), array.ravel().astype("U"), strict=True)]
    for length in reversed(array.shape[1:]):
        flat = (
            [flat[i : i + length] for i in range(0, len(flat), length)]
            if length
            else [[] for _ in range(array.shape[0])]
        )
    return flat


def _save_json(tracks: Tracks, path: Path, final: Path) -> None:
    data = {
        "info": dataclasses.asdict(tracks.info),
        "ids": tracks.ids.tolist(),
        "queries": _nullable(tracks.queries),
        "frame_index": tracks.frame_index.tolist(),
        "pts_seconds": tracks.pts_seconds.tolist(),
        "tracks": _nullable(tracks.tracks),
        "visibility": _nullable(tracks.visibility),
        "confidence": _nullable(tracks.confidence),
    }
    path.write_text(json.dumps(data, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def _load_json(path: Path) -> dict[str, Any]:
    data = text.load_json(path)
    missing = [name for name in (*NUMERIC, "ids", "info") if not isinstance(data, dict) or name not in data]
    if missing:
        raise Refused(f"holds no ptrack tracks: it has no '{missing[0]}'")
    t, n = len(data["frame_index"]), len(data["ids"])
    shapes = {"tracks": (t, n, 2), "queries": (n, 3), "visibility": (t, n), "confidence": (t, n)}
    # None becomes NaN
    values = {name: np.asarray(data[name], dtype=np.float32).reshape(shape) for name, shape in shapes.items()}
    times = {
        "frame_index": np.asarray(data["frame_index"] or np.zeros(0, np.int64)),
        "pts_seconds": np.asarray(data["pts_seconds"], dtype=np.float64),
    }
    return values | times | {"ids": [str(i) for i in data["ids"]], "info": _read_info(data["info"])}


CSV_HEADER = ("frame", "time_s", "id", "x", "y", "visibility", "confidence", "width", "height")


def _csv_rows(tracks: Tracks) -> Iterator[tuple[Any, ...]]:
    size = tracks.info.width, tracks.info.height
    for row in range(tracks.num_frames):
        xy = np.where(np.isnan(tracks.tracks[row]), "", tracks.tracks[row].astype("U"))
        values = tracks.visibility[row].astype("U"), tracks.confidence[row].astype("U")
        head = int(tracks.frame_index[row]), repr(float(tracks.pts_seconds[row]))
        for i, (x, y), v, c in zip(tracks.ids, xy, *values, strict=True):
            yield (*head, i, x, y, v, c, *size)


def _save_csv(tracks: Tracks, path: Path, final: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_HEADER)
        writer.writerows(_csv_rows(tracks))


class _LongTable:
    """The columns of a long table, gathered row by row; a cell takes 8 bytes."""

    def __init__(self, header: Sequence[str]) -> None:
        at = {name.strip(): i for i, name in enumerate(header)}
        missing = [name for name in CSV_HEADER[:5] if name not in at]
        if missing:
            raise Refused(f"has no column '{missing[0]}'; expected {','.join(CSV_HEADER)}")
        self.places = [at.get(name) for name in CSV_HEADER]
        self.ids: dict[str, int] = {}
        self.frames, self.points = packed("q"), packed("q")
        self.numbers = [packed("d") for _ in ("time_s", "x", "y", "visibility", "confidence")]
        self.size: tuple[int, int] | None = None  # (width, height)

    def add(self, row: Sequence[str]) -> None:
        """Add a row of text; raises ValueError when a cell is no number."""
        cells = [row[place].strip() if place is not None and place < len(row) else "" for place in self.places]
        frame, time, name, x, y, seen, sure, width, height = cells
        self.frames.append(int(frame))
        self.points.append(self.ids.setdefault(name, len(self.ids)))
        values = (time or "0", x or "nan", y or "nan", seen or "0", sure or "0")
        for column, value in zip(self.numbers, values, strict=True):
            column.append(float(value))
        size = int(width or 0), int(height or 0)
        if self.size is None:
            self.size = size
        elif self.size != size:
            raise ValueError("the frame size differs from the row before")


def _load_csv(path: Path) -> dict[str, Any]:
    rows = text.csv_rows(path)
    table = _LongTable(next(rows, []))
    for number, row in enumerate(rows, 2):
        try:
            table.add(row)
        except (ValueError, OverflowError) as error:
            raise Refused(f"holds a row that is no point (row {number}: {reason_of(error)})") from error
    frames, at = np.unique(np.asarray(table.frames, np.int64), return_inverse=True)
    t, n, points = len(frames), len(table.ids), np.asarray(table.points)
    Budget.of(path).take(t * n * 24, f"{t} frames of {n} points")
    time, x, y, seen, sure = (np.asarray(column) for column in table.numbers)
    tracks, pts = np.full((t, n, 2), np.nan, np.float32), np.zeros(t)
    visibility, confidence = np.zeros((t, n), np.float32), np.zeros((t, n), np.float32)
    pts[at], visibility[at, points], confidence[at, points] = time, seen, sure
    tracks[at, points] = np.column_stack([x, y])
    return {
        "tracks": tracks,
        "visibility": visibility,
        "confidence": confidence,
        "queries": _first_finite(tracks),
        "ids": list(table.ids),
        "frame_index": frames,
        "pts_seconds": pts,
        "info": _csv_info(table.size),
    }


def _csv_info(size: tuple[int, int] | None) -> TracksInfo:
    width, height = size or (0, 0)
    if min(width, height) > 0:
        return TracksInfo(width=width, height=height)
    return TracksInfo(warnings=("The table does not hold the frame size: it has no columns width and height.",))


def _first_finite(tracks: np.ndarray) -> np.ndarray:
    """Return (N, 3) rows (t, x, y) of each point's first finite position; (0, NaN, NaN) if there is none."""
    finite = np.isfinite(tracks).all(axis=2)
    t = finite.argmax(axis=0) if len(tracks) else np.zeros(tracks.shape[1], np.int64)
    xy = tracks[t, np.arange(tracks.shape[1])] if len(tracks) else np.full((tracks.shape[1], 2), np.nan)
    return np.column_stack([t, xy]).astype(np.float32)


def concatenate_rows(rows: Sequence[tuple[Any, ...]], count: int) -> dict[str, np.ndarray]:
    """Return the per-frame arrays of ``Tracks`` from rows as given to ``TracksWriter.append``; N = ``count``."""
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        "tracks": ((count, 2), np.float32),
        "visibility": ((count,), np.float32),
        "confidence": ((count,), np.float32),
        "frame_index": ((), np.int64),
        "pts_seconds": ((), np.float64),
    }
    columns = zip(*rows, strict=True) if rows else [()] * len(PER_FRAME)
    return {
        name: np.asarray(column, dtype=shapes[name][1]).reshape(len(rows), *shapes[name][0])
        for name, column in zip(PER_FRAME, columns, strict=True)
    }
