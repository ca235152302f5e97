"""Tracks on disk: HDF5 (``tracks_h5.py``), NPZ, CSV and JSON.

Every format holds the fields of ``Tracks`` under their own names. CSV is the long table
``frame,time_s,id,x,y,visibility,confidence,width,height`` for spreadsheets; of ``TracksInfo`` it holds the frame size
alone, and its queries are taken from each point's first finite row. What is read may come from anybody: see
``ptrack.untrusted``.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from array import array as packed
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptrack.errors import TracksError
from ptrack.fileio import atomic_path, check_writable
from ptrack.tracks import Queries, Tracks, TracksInfo
from ptrack.tracks_h5 import NUMERIC, PER_FRAME, load_h5, read_info, save_h5
from ptrack.untrusted import Budget, Refused, h5, npz, text
from ptrack.untrusted.limits import check_file, reading, reason_of

FORMATS = {"h5": ".h5", "npz": ".npz", "csv": ".csv", "json": ".json"}


def tracks_stem(path: Path | str) -> str:
    """Return the name that what is made from tracks begins with: ``walk`` for ``walk.tracks.h5``."""
    return Path(path).stem.removesuffix(".tracks")


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
    save = {"h5": save_h5, "npz": _save_npz, "csv": _save_csv, "json": _save_json}[format_of(path)]
    path = check_writable(path, overwrite=overwrite)
    with atomic_path(path) as temporary:
        save(tracks, temporary, path)
    return path


def load_tracks(path: Path | str) -> Tracks:
    """Read tracks written by ptrack in any of its formats, a partial HDF5 of a killed run included.

    Raises:
        TracksError: the file is missing, damaged, or does not hold tracks.
    """
    load = {"h5": load_h5, "npz": _load_npz, "csv": _load_csv, "json": _load_json}[format_of(path)]
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
            info, points = read_info(file.attributes()), file.array("queries")
            ids = np.asarray(file.texts("ids"), dtype=np.str_)
    known = np.isfinite(points).all(axis=1)  # those of a CSV that never start have no position
    return info, Queries(points[known], ids[known])


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
        return values | {"info": read_info(text.parse_json(str(file.array("info")).encode("utf-8")))}


def _nullable(array: np.ndarray) -> list[Any]:
    """Return nested lists of the shortest decimal texts' values, with None for NaN (JSON has no NaN)."""
    flat = [None if v != v else float(t) for v, t in zip(array.ravel(), array.ravel().astype("U"), strict=True)]
    for length in reversed(array.shape[1:]):
        rows = range(0, len(flat), length) if length else range(array.shape[0])
        flat = [flat[i : i + length] for i in rows]
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
    return values | times | {"ids": [str(i) for i in data["ids"]], "info": read_info(data["info"])}


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
        "queries": first_positions(tracks),
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


def first_positions(tracks: np.ndarray) -> np.ndarray:
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
