"""Reading DeepLabCut's tables, as DeepLabCut, movement and pandas write them: CSV, and HDF5 in both layouts of pandas.

A table has one row per frame and one column per body part and coordinate, named by three or four header rows: scorer,
individuals (of projects with several animals), bodyparts, coords. One animal can be read. Rows are numbered frames, or
pictures such as ``labeled-data/video/img0012.png`` in the labels that people made (``CollectedData``). (0, 0) is the
centre of the upper-left pixel. Letters: T frames, N points, C columns.
"""

from __future__ import annotations

import io
import re
from array import array as packed
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ptrack import geometry
from ptrack.errors import TracksError
from ptrack.exports.common import build_tracks
from ptrack.tracks import Tracks, TracksInfo
from ptrack.untrusted import Budget, Refused, h5, npz, pickles, text
from ptrack.untrusted.limits import array_bytes, check_file, reading, reason_of

KEY = "df_with_missing"  # under which DeepLabCut stores its table
LEVELS = ("scorer", "individuals", "bodyparts", "coords")  # header rows, from the top
KIND = "a DeepLabCut table"
MOST_BLOCKS = 16  # of values of one type each in a table of pandas; DeepLabCut's have one

Label = tuple[str, ...]  # what names a row: a frame number, or the parts of a picture's path


def read_dlc_csv(path: Path) -> Tracks:
    """Read DeepLabCut's CSV of one animal.

    Raises:
        TracksError: it is missing or damaged, holds several animals, or names no frames.
    """
    check_file(path, TracksError, "file of tracks")
    with reading(path, TracksError, KIND):
        rows = text.csv_rows(path)
        head, first = _header(rows)
        width = 1 + next((i for i, word in enumerate(head[0][1:]) if word), len(head[0]) - 1)  # columns of the label
        columns = list(zip(*(row[width:] for row in head), strict=True))
        labels, values = [], packed("d")
        for number, row in enumerate(chain(first, rows), len(head) + 1):
            if len(row) != width + len(columns):
                raise Refused(f"has {len(row)} cells in row {number} where the header has {width + len(columns)}")
            labels.append(tuple(row[:width]))
            try:
                values.extend([float(cell) if cell else np.nan for cell in row[width:]])
            except ValueError as error:
                raise Refused(f"holds something else than numbers in row {number}: {reason_of(error)}") from error
        table = np.asarray(values).reshape(len(labels), len(columns))
        return _tracks(path, labels, columns, table)


def _header(rows: Iterator[list[str]]) -> tuple[list[list[str]], list[list[str]]]:
    """Return the header rows of a CSV and the row after them, if there is one."""
    head: list[list[str]] = []
    for row in rows:
        if row[0] not in LEVELS[len(head) :]:
            break
        head.append(row)
    else:
        row = []
    names = [line[0] for line in head]
    if names not in (["scorer", "bodyparts", "coords"], list(LEVELS)):
        words = ", ".join(repr(line[0][:40]) for line in [*head, row][:3] if line)
        raise Refused(
            f"is no DeepLabCut table: its first column starts with {words or 'nothing'}, not scorer, bodyparts, coords"
        )
    if len({len(line) for line in head}) != 1:
        raise Refused("is damaged: its header rows differ in length")
    return head, [row] if row else []


def read_dlc_h5(path: Path) -> Tracks:
    """Read DeepLabCut's HDF5 of one animal, in pandas' 'fixed' or 'table' layout; nothing in it is executed.

    Raises:
        TracksError: as ``read_dlc_csv``.
    """
    check_file(path, TracksError, "file of tracks")
    with reading(path, TracksError, KIND):
        budget = Budget.of(path)
        with h5.opened(path) as file:
            names = file.names()
            if not names:
                raise Refused("is no DeepLabCut table: it is empty")
            group = file.group(KEY if KEY in names else names[0])
            labels, columns, values = _read_table(group, budget) if "table" in group else _read_fixed(group)
        return _tracks(path, labels, columns, npz.numbers("the table", values, np.float64))


def _read_fixed(group: h5.H5Group) -> tuple[list[Label], list[Label], np.ndarray]:
    """Read pandas' 'fixed' layout: the labels of T rows, the names of C columns, (T, C) values."""
    columns: list[Label] = []
    blocks = []
    for i in range(min(MOST_BLOCKS, int(group.attribute("nblocks")))):
        columns += _codes(group, f"block{i}_items")
        blocks.append(group.array(f"block{i}_values"))
    if not blocks:
        raise Refused("is no DeepLabCut table: it has no columns")
    if group.attribute("axis1_variety") in ("multi", b"multi"):
        labels = _codes(group, "axis1")
    elif group.dataset("axis1").dtype.kind == "S":
        labels = [(name,) for name in group.texts("axis1")]
    else:
        labels = [(str(value),) for value in group.array("axis1").tolist()]
    return labels, columns, np.hstack(blocks)


def _codes(group: h5.H5Group, prefix: str) -> list[Label]:
    """Return the names of an index of several levels, stored per level as its words and, per entry, which word."""
    depth = min(len(LEVELS), int(group.attribute(f"{prefix}_nlevels")))
    parts = []
    for i in range(depth):
        codes = group.array(f"{prefix}_label{i}")
        stored = group.dataset(f"{prefix}_level{i}")
        level = f"{prefix}_level{i}"
        words = group.texts(level) if stored.dtype.kind == "S" else group.array(level).ravel().astype(str).tolist()
        if codes.size and not (codes.min() >= 0 and codes.max() < len(words)):
            raise Refused("is damaged: a name of the table is missing")
        parts.append([words[code] for code in codes])
    return list(zip(*parts, strict=True))


def _read_table(group: h5.H5Group, budget: Budget) -> tuple[list[Label], list[Label], np.ndarray]:
    """Read pandas' 'table' layout, whose column names are a pickled list of tuples of text."""
    data = group.dataset("table")
    wanted = ("index", "values_block_0", "values_block_0_kind")
    if data.dtype.names is None or not set(wanted[:2]) <= set(data.dtype.names):
        raise Refused("is a table of pandas, but not one of numbered frames with values of one type")
    budget.take(array_bytes(data.shape, data.dtype.itemsize), "'table'")
    table = h5.in_blocks(data, data.shape)
    named = pickles.load(io.BytesIO(bytes(h5.attribute(data, wanted[2]))), Budget(0), arrays=False)
    columns = [tuple(map(str, column)) for column in named]
    values = table["values_block_0"].reshape(len(table), -1)
    return [(_word(label),) for label in table["index"].tolist()], columns, values


def _word(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _tracks(path: Path, labels: list[Label], columns: Sequence[Label], values: np.ndarray) -> Tracks:
    """Build Tracks from the labels of T rows, the names of C columns in any order, and (T, C) values."""
    if values.shape != (len(labels), len(columns)):
        raise Refused(f"is damaged: it holds values of the shape {values.shape} for {len(columns)} columns")
    where = {name: i for i, name in enumerate(_of_one_animal(columns))}
    if len(where) != len(columns):
        raise Refused("holds a body part more than once; tables of several animals are not supported")
    names = list(dict.fromkeys(part for part, _ in where))
    missing = [(name, axis) for name in names for axis in ("x", "y") if (name, axis) not in where]
    if missing:
        raise Refused(f"has no column '{missing[0][1]}' of '{missing[0][0]}'")
    x, y = (values[:, [where[name, axis] for name in names]] for axis in ("x", "y"))
    ones = np.ones(len(labels))
    shown = [values[:, where[name, "likelihood"]] if (name, "likelihood") in where else ones for name in names]
    visibility = np.stack(shown, axis=1) if names else np.zeros((len(labels), 0))
    xy = geometry.from_opencv(np.stack([x, y], axis=2).astype(np.float32))
    frames, notes = _frames(labels)
    order = np.argsort(frames, kind="stable")
    info = TracksInfo(source=str(path), warnings=notes)
    return build_tracks(xy[order], visibility[order], names, info, frames[order])


def _of_one_animal(columns: Sequence[Label]) -> list[tuple[str, str]]:
    """Return (body part, coordinate) of every column; raises Refused for several animals."""
    if any(len(column) not in (3, 4) for column in columns):
        raise Refused("is no DeepLabCut table: it has neither three nor four header rows")
    animals = list(dict.fromkeys(column[1] for column in columns if len(column) == 4))
    if len(animals) > 1:
        raise Refused(
            f"holds {len(animals)} individuals ({', '.join(animals[:8])}); ptrack reads one. Save one with pandas: "
            f"df.xs('{animals[0]}', level='individuals', axis=1)"
        )
    return [(column[-2], column[-1]) for column in columns]


def _frames(labels: Sequence[Label]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the frame number (T,) int64 of every row, and notes about them.

    Raises:
        Refused: pictures of several videos, or names without numbers.
    """
    try:
        numbers = [float(label[0]) for label in labels if len(label) == 1]
        if len(numbers) == len(labels) and all(number.is_integer() for number in numbers):
            return np.asarray(numbers, np.float64).astype(np.int64), ()
    except ValueError:
        pass
    paths = ["/".join(label) for label in labels]
    folders = {path.rpartition("/")[0] for path in paths}
    if len(folders) > 1:
        raise Refused(f"labels pictures of {len(folders)} videos ({', '.join(sorted(folders)[:4])}); split it by video")
    found = [re.search(r"(\d{1,15})\D*$", path.rpartition("/")[2].rpartition(".")[0] or path) for path in paths]
    unnumbered = [path for path, number in zip(paths, found, strict=True) if number is None]
    if unnumbered:
        raise Refused(f"names the row '{unnumbered[0][:80]}', in which there is no frame number")
    note = "Frame numbers are those in the names of the labelled pictures."
    return np.asarray([int(number[1]) for number in found if number], np.int64), (note,)
