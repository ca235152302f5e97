"""Queries from the command line and from files: grids, single points, CSV, JSON, NPZ and mask images."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptrack import geometry
from ptrack.errors import QueryError
from ptrack.tracks import Queries

POINT = re.compile(r"\s*([^,@]+),([^,@]+?)(?:@(.+))?\s*")
DEFAULT_GRID = 16  # points per side where nothing else is asked for
MASK_SEED = 0  # of the random choice of --num points inside a mask


@dataclass(frozen=True, kw_only=True)
class QueryOptions:
    """What to track, as asked for; several kinds add up. Parsed and checked without decoding any frame."""

    grid: int | None = None  # points per side of a grid over the frame, or inside the mask
    grid_frame: int = 0  # frame on which the grid, and the points of the mask, start
    points: Sequence[str] = ()  # "X,Y" or "X,Y@T"
    file: Path | None = None  # CSV, JSON or NPZ
    mask: Path | None = None  # image; non-zero pixels are inside
    num: int | None = None  # points at random inside the mask, instead of a grid

    def __post_init__(self) -> None:
        if self.grid is not None and self.grid < 1:
            raise QueryError(f"--grid {self.grid}: give at least 1 point per side.")
        if self.grid_frame < 0:
            raise QueryError(f"--grid-frame {self.grid_frame}: give a frame from 0 upwards.")
        if self.num is not None and self.mask is None:
            raise QueryError("--num chooses points inside a mask; add --mask FILE.")
        if self.num is not None and self.num < 1:
            raise QueryError(f"--num {self.num}: give at least 1 point.")


@dataclass(frozen=True)
class QueryPlan:
    """Queries read and parsed, waiting for the size of the frame."""

    options: QueryOptions
    fixed: tuple[Queries, ...]  # from --point and --queries
    mask: np.ndarray | None  # (h, w) bool

    def build(self, size: geometry.Size) -> Queries:
        """Return all queries for a frame of size (H, W).

        Raises:
            QueryError: a point outside the frame, or no point at all.
        """
        parts = [*self.fixed, *self._generated(size)]
        queries = Queries.concatenate(parts)
        if not len(queries):
            raise QueryError("There is no point to track; give --grid, --point, --queries or --mask.")
        queries.check_inside(size)
        return queries

    def _generated(self, size: geometry.Size) -> list[Queries]:
        o = self.options
        if self.mask is not None:
            xy = mask_points(self.mask, size, grid=o.grid or DEFAULT_GRID, num=o.num)
            return [Queries(np.column_stack([np.full(len(xy), o.grid_frame), xy]))]
        if o.grid is not None or not self.fixed:
            return [Queries.grid(o.grid or DEFAULT_GRID, size, o.grid_frame)]
        return []


def plan_queries(options: QueryOptions) -> QueryPlan:
    """Read and parse everything that does not depend on the frame.

    Raises:
        QueryError: a malformed point or file; the sentence names it.
    """
    fixed = []
    if options.points:
        fixed.append(Queries(np.asarray([parse_point(text) for text in options.points])))
    if options.file is not None:
        fixed.append(load_queries(options.file))
    mask = load_mask(options.mask) if options.mask is not None else None
    return QueryPlan(options, tuple(fixed), mask)


def parse_point(text: str) -> tuple[float, float, float]:
    """Return (t, x, y) from "X,Y" (t = 0) or "X,Y@T"; raises QueryError."""
    found = POINT.fullmatch(text)
    try:
        if not found:
            raise ValueError
        return float(found[3] or 0), float(found[1]), float(found[2])
    except ValueError:
        raise QueryError(f"--point {text}: write X,Y or X,Y@T, for example --point 120,80@10.") from None


def load_queries(path: Path | str) -> Queries:
    """Read queries from a CSV with the header ``t,x,y[,id]``, a JSON, or an NPZ.

    JSON: a list of ``[t, x, y]`` or of ``{"t":, "x":, "y":, "id":}``, or ``{"queries": [...], "ids": [...]}``.
    NPZ: an array ``queries`` (N, 3) and, if wanted, ``ids`` (N,); files written by ptrack are such files.

    Raises:
        QueryError: the file is missing, damaged or malformed.
    """
    path = Path(path)
    readers = {".csv": _read_csv, ".json": _read_json, ".npz": _read_npz}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise QueryError(f"{path}: query files end in .csv, .json or .npz.")
    if not path.is_file():
        raise QueryError(f"There is no query file {path}.")
    try:
        points, ids = reader(path)
        return Queries(points, ids)
    except QueryError as error:
        raise QueryError(f"{path}: {error}") from error
    except Exception as error:  # a damaged file must never end in a traceback
        raise QueryError(f"{path} cannot be read as queries ({error}).") from error


def _read_csv(path: Path) -> tuple[Any, Any]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        names = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
        missing = [n for n in ("t", "x", "y") if n not in names]
        if missing:
            raise QueryError(f"the header has no column '{missing[0]}'; it must be t,x,y or t,x,y,id.")
        points, ids = [], []
        for row in reader:
            try:
                points.append([float(row[names[n]]) for n in ("t", "x", "y")])
            except (TypeError, ValueError):
                raise QueryError(f"line {reader.line_num} is not three numbers t,x,y.") from None
            ids.append(row[names["id"]] if "id" in names else None)
    return points, ids if "id" in names else None


def _read_json(path: Path) -> tuple[Any, Any]:
    data = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(data, dict):
        if "queries" not in data:
            raise QueryError('the object has no "queries".')
        return data["queries"], data.get("ids")
    if data and isinstance(data[0], dict):
        try:
            ids = [row["id"] for row in data] if "id" in data[0] else None
            return [[row["t"], row["x"], row["y"]] for row in data], ids
        except KeyError as error:
            raise QueryError(f"an entry has no {error}.") from None
    return data, None


def _read_npz(path: Path) -> tuple[Any, Any]:
    with np.load(path, allow_pickle=False) as file:
        if "queries" not in file:
            raise QueryError("the file has no array 'queries'.")
        return file["queries"], file.get("ids", None)


def load_mask(path: Path | str) -> np.ndarray:
    """Read a mask image as (h, w) bool: non-zero (in any colour channel) is inside; transparency is ignored.

    Raises:
        QueryError: the file is missing or no image, or nothing is inside.
    """
    import imageio.v3 as iio

    if not Path(path).is_file():
        raise QueryError(f"There is no mask {path}.")
    try:
        image = iio.imread(path, index=0)
    except Exception as error:  # imageio raises many kinds
        raise QueryError(f"The mask {path} cannot be read as an image.") from error
    if image.ndim == 3:
        image = image[..., : 1 if image.shape[2] == 2 else 3].any(axis=2)
    mask = image.astype(bool)
    if not mask.any():
        raise QueryError(f"The mask {path} is empty: every pixel is 0.")
    return mask


def mask_points(mask: np.ndarray, size: geometry.Size, *, grid: int, num: int | None = None) -> np.ndarray:
    """Return points inside a mask: (K, 2) float32 pixels of a frame of size (H, W).

    Args:
        mask: (h, w) bool; scaled to the frame if the sizes differ.
        size: (H, W) of the frame.
        grid: points per side of a grid over the mask's bounding box; those outside the mask are left out.
        num: that many pixel centres at random instead, at most one per pixel.

    Raises:
        QueryError: no grid point lies inside.
    """
    ys, xs = np.nonzero(mask)
    if num is not None:
        chosen = np.random.default_rng(MASK_SEED).permutation(len(xs))[:num]
        xy = np.stack([xs[chosen], ys[chosen]], axis=1).astype(np.float32) + 0.5
        return geometry.rescale(xy, mask.shape, size)  # type: ignore[arg-type]
    left, top, right, bottom = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    xy = geometry.grid_points(grid, (int(bottom - top), int(right - left))) + np.asarray([left, top], np.float32)
    inside = mask[xy[:, 1].astype(int), xy[:, 0].astype(int)]
    if not inside.any():
        raise QueryError("No grid point lies inside the mask; raise --grid or use --num.")
    return geometry.rescale(xy[inside], mask.shape, size)  # type: ignore[arg-type]
