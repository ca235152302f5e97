"""Tracks on disk: HDF5 (grown chunk by chunk while tracking), NPZ, CSV and JSON.

Every format holds the fields of ``Tracks`` under their own names. CSV is the long table
``frame,time_s,id,x,y,visibility,confidence`` for spreadsheets; it has no place for ``TracksInfo``, and its queries are
taken from each point's first finite row.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from ptrack.errors import OutputError, TracksError
from ptrack.fileio import atomic_path, check_writable
from ptrack.tracks import SCHEMA_VERSION, Tracks, TracksInfo

CHUNK_ROWS = 32  # frames per HDF5 chunk: at 256 points 64 KiB of positions
COPY_ROWS = 256  # frames copied at once, a multiple of CHUNK_ROWS
PER_FRAME = ("tracks", "visibility", "confidence", "frame_index", "pts_seconds")
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
        save(tracks, temporary)
    return path


def load_tracks(path: Path | str) -> Tracks:
    """Read tracks written by ptrack in any of its formats, a partial HDF5 of a killed run included.

    Raises:
        TracksError: the file is missing, damaged, or does not hold tracks.
    """
    load = {"h5": _load_h5, "npz": _load_npz, "csv": _load_csv, "json": _load_json}[format_of(path)]
    if not Path(path).is_file():
        raise TracksError(f"There is no tracks file {path}.")
    try:
        return load(Path(path))
    except TracksError:
        raise
    except KeyError as error:
        raise TracksError(f"{path} holds no ptrack tracks: {str(error).strip(chr(34))}.") from error
    except (OSError, ValueError, TypeError, EOFError, csv.Error, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TracksError(f"{path} cannot be read as tracks; it is damaged or something else ({error}).") from error
    except Exception as error:  # zipfile.BadZipFile and friends: a damaged file must never end in a traceback
        raise TracksError(f"{path} is damaged ({error}).") from error


# -- HDF5 ---------------------------------------------------------------------------------------------------------


def _write_info(group: h5py.Group, info: TracksInfo) -> None:
    for key, value in dataclasses.asdict(info).items():
        group.attrs[key] = json.dumps(value) if key == "warnings" else value


def _read_info(attributes: Any) -> TracksInfo:
    """Build TracksInfo from a mapping, ignoring what a later version may have added."""
    version = int(attributes["schema_version"])
    if version > SCHEMA_VERSION:
        raise TracksError(
            f"The tracks have schema version {version}; this ptrack reads up to {SCHEMA_VERSION}. Update it."
        )
    values = {}
    for field in dataclasses.fields(TracksInfo):
        if field.name not in attributes:
            continue
        value = attributes[field.name]
        if field.name == "warnings":
            values["warnings"] = tuple(json.loads(value) if isinstance(value, str) else value)
        else:
            values[field.name] = type(field.default)(value)
    return TracksInfo(**values)


class TracksWriter:
    """An HDF5 tracks file that grows row by row and can be opened by others after every ``flush``.

    Args:
        path: the file; use a temporary or partial name and rename it when done.
        queries: (N, 3) rows (t, x, y).
        ids: (N,) names.
        info: attributes known at the start; ``finish`` writes the final ones.
    """

    def __init__(self, path: Path | str, queries: np.ndarray, ids: np.ndarray, info: TracksInfo) -> None:
        self.path = Path(path)
        n = len(queries)
        try:
            self._file: Any = h5py.File(self.path, "w")  # h5py's own types cannot tell a dataset from a group
        except OSError as error:
            raise OutputError(f"Cannot write {path}: {error}.") from error
        make = self._file.create_dataset
        rows, columns = CHUNK_ROWS, max(1, min(n, 4096))
        most = n or None  # HDF5 cannot chunk an axis that is fixed at 0
        make("tracks", (0, n, 2), "f4", maxshape=(None, most, 2), chunks=(rows, columns, 2))
        make("visibility", (0, n), "f4", maxshape=(None, most), chunks=(rows, columns))
        make("confidence", (0, n), "f4", maxshape=(None, most), chunks=(rows, columns))
        make("frame_index", (0,), "i8", maxshape=(None,), chunks=(1024,))
        make("pts_seconds", (0,), "f8", maxshape=(None,), chunks=(1024,))
        self._file["queries"] = np.asarray(queries, np.float32)
        make("ids", (n,), data=[str(i) for i in ids], dtype=h5py.string_dtype())
        _write_info(self._file, info)
        self._file.attrs["complete"] = False
        self._pending: list[tuple[Any, ...]] = []
        self.rows = 0  # rows appended so far, flushed or not
        self.flush()

    @classmethod
    def reopen(cls, path: Path | str, rows: int) -> Self:
        """Open a partial file again and cut it back to its first ``rows`` frames.

        Raises:
            TracksError: the file is damaged or shorter than ``rows``.
        """
        self = cls.__new__(cls)
        self.path = Path(path)
        try:
            self._file = h5py.File(self.path, "r+")
            have = min(self._file[name].shape[0] for name in PER_FRAME)
            if have < rows:
                raise TracksError(f"{path} holds {have} frames where {rows} were expected.")
            for name in PER_FRAME:
                self._file[name].resize(rows, axis=0)
            self._file.attrs["complete"] = False
        except (OSError, KeyError) as error:
            raise TracksError(f"{path} cannot be continued; it is damaged ({error}).") from error
        self._pending, self.rows = [], rows
        return self

    def append(self, xy: np.ndarray, visibility: np.ndarray, confidence: np.ndarray, index: int, pts: float) -> None:
        """Add one frame: (N, 2), (N,), (N,), the source's frame number and its time in seconds."""
        self._pending.append((xy, visibility, confidence, index, pts))
        self.rows += 1

    def flush(self) -> None:
        """Bring all rows to the file, so that it survives a kill.

        Raises:
            OutputError: the disk is full or gone.
        """
        try:
            if self._pending:
                stop, start = self.rows, self.rows - len(self._pending)
                for name, column in zip(PER_FRAME, zip(*self._pending, strict=True), strict=True):
                    self._file[name].resize(stop, axis=0)
                    self._file[name][start:stop] = np.asarray(column)
                self._pending = []
            self._file.flush()
        except (OSError, RuntimeError) as error:
            raise OutputError(
                f"Cannot write {self.path}: {error}. Free some space and run again with --resume."
            ) from error

    def rewrite(self, row: int, points: np.ndarray, values: Sequence[np.ndarray]) -> None:
        """Replace (K, 2) positions, (K,) visibility and (K,) confidence of the ``points`` (N,) bool in one row."""
        for name, new in zip(PER_FRAME[:3], values, strict=True):
            line = self._file[name][row]
            line[points] = new
            self._file[name][row] = line

    def finish(self, info: TracksInfo) -> None:
        """Write the final attributes, mark the file complete and close it."""
        self.flush()
        _write_info(self._file, info)
        self._file.attrs["complete"] = True
        self.close()

    def close(self) -> None:
        """Close the file; rows not flushed are written first where the disk allows it."""
        if self._file.id.valid:
            try:
                self.flush()
            finally:
                self._file.close()


def copy_finished(source: Path, target: Path) -> None:
    """Copy a finished tracks file so that equal tracks make equal files, in memory that does not grow with them.

    Where HDF5 puts a chunk depends on when rows were flushed and on whether the file was closed in between; a copy that
    is written in one go has one layout.

    Raises:
        OutputError: the disk is full.
        TracksError: the source is damaged.
    """
    try:
        with h5py.File(source, "r") as opened, atomic_path(target) as temporary:
            file: Any = opened
            info, ids = _read_info(file.attrs), [i.decode() for i in file["ids"][:]]
            writer = TracksWriter(temporary, file["queries"][:], np.asarray(ids, dtype=np.str_), info)
            rows = file["tracks"].shape[0]
            for begin in range(0, rows, COPY_ROWS):
                block = [file[name][begin : begin + COPY_ROWS] for name in PER_FRAME]
                for row in zip(*block, strict=True):
                    writer.append(*row)
                writer.flush()
            writer.finish(info)
    except (OSError, KeyError) as error:
        raise TracksError(f"{source} cannot be copied; it is damaged ({error}).") from error


def _save_h5(tracks: Tracks, path: Path) -> None:
    writer = TracksWriter(path, tracks.queries, tracks.ids, tracks.info)
    for row in range(tracks.num_frames):
        writer.append(*(getattr(tracks, name)[row] for name in PER_FRAME))
        if (row + 1) % 256 == 0:
            writer.flush()
    writer.finish(tracks.info)


def _load_h5(path: Path) -> Tracks:
    with h5py.File(path, "r") as opened:
        file: Any = opened
        rows = min(file[name].shape[0] for name in PER_FRAME)
        values = {name: file[name][:rows] for name in PER_FRAME}
        ids = np.asarray([i.decode() if isinstance(i, bytes) else str(i) for i in file["ids"][:]], dtype=np.str_)
        return Tracks(**values, queries=file["queries"][:], ids=ids, info=_read_info(file.attrs))


# -- NPZ, JSON, CSV -----------------------------------------------------------------------------------------------


def _save_npz(tracks: Tracks, path: Path) -> None:
    with open(path, "wb") as file:
        arrays = {name: getattr(tracks, name) for name in (*PER_FRAME, "queries", "ids")}
        np.savez_compressed(file, **arrays, info=np.asarray(json.dumps(dataclasses.asdict(tracks.info))))


def _load_npz(path: Path) -> Tracks:
    with np.load(path, allow_pickle=False) as file:
        values = {name: file[name] for name in (*PER_FRAME, "queries", "ids")}
        info = _read_info(json.loads(str(file["info"])))
    return Tracks(**values, info=info)


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


def _save_json(tracks: Tracks, path: Path) -> None:
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


def _load_json(path: Path) -> Tracks:
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise TracksError(f"{path} holds no ptrack tracks.")
    t, n = len(data["frame_index"]), len(data["ids"])

    def array(name: str, *shape: int) -> np.ndarray:
        return np.asarray(data[name], dtype=np.float32).reshape(shape)  # None becomes NaN

    return Tracks(
        tracks=array("tracks", t, n, 2),
        visibility=array("visibility", t, n),
        confidence=array("confidence", t, n),
        queries=array("queries", n, 3),
        ids=np.asarray(data["ids"], dtype=np.str_),
        frame_index=np.asarray(data["frame_index"], dtype=np.int64),
        pts_seconds=np.asarray(data["pts_seconds"], dtype=np.float64),
        info=_read_info(data["info"]),
    )


CSV_HEADER = ("frame", "time_s", "id", "x", "y", "visibility", "confidence")


def _csv_rows(tracks: Tracks) -> Iterator[tuple[Any, ...]]:
    for row in range(tracks.num_frames):
        xy = np.where(np.isnan(tracks.tracks[row]), "", tracks.tracks[row].astype("U"))
        values = tracks.visibility[row].astype("U"), tracks.confidence[row].astype("U")
        head = int(tracks.frame_index[row]), repr(float(tracks.pts_seconds[row]))
        for i, (x, y), v, c in zip(tracks.ids, xy, *values, strict=True):
            yield (*head, i, x, y, v, c)


def _save_csv(tracks: Tracks, path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_HEADER)
        writer.writerows(_csv_rows(tracks))


def _load_csv(path: Path) -> Tracks:
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = set(CSV_HEADER[:5]) - set(reader.fieldnames or ())
        if missing:
            raise TracksError(f"{path} has no column '{sorted(missing)[0]}'; expected {','.join(CSV_HEADER)}.")
        rows = list(reader)
    ids, frames = _in_order(r["id"] for r in rows), _in_order(int(r["frame"]) for r in rows)
    t, n = len(frames), len(ids)
    tracks = np.full((t, n, 2), np.nan, np.float32)
    visibility, confidence, pts = np.zeros((t, n), np.float32), np.zeros((t, n), np.float32), np.zeros(t)
    for r in rows:
        f, i = frames[int(r["frame"])], ids[r["id"]]
        pts[f] = float(r["time_s"])
        tracks[f, i] = [float(r[c]) if r[c] else np.nan for c in ("x", "y")]
        visibility[f, i] = float(r.get("visibility") or 0)
        confidence[f, i] = float(r.get("confidence") or 0)
    return Tracks(
        tracks=tracks,
        visibility=visibility,
        confidence=confidence,
        queries=_first_finite(tracks),
        ids=np.asarray(list(ids), dtype=np.str_),
        frame_index=np.asarray(list(frames), dtype=np.int64),
        pts_seconds=pts,
    )


def _in_order(values: Any) -> dict[Any, int]:
    """Number distinct values in order of first appearance."""
    return {v: i for i, v in enumerate(dict.fromkeys(values))}


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
