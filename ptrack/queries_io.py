"""Queries from the command line and from files: grids, single points, CSV, JSON, NPZ and mask images."""

from __future__ import annotations

import re
import warnings
from array import array as packed
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ptrack import geometry
from ptrack.errors import QueryError
from ptrack.tracks import Queries
from ptrack.untrusted import Refused, npz, text
from ptrack.untrusted.limits import check_file, reading

POINT = re.compile(r"\s*([^,@]+),([^,@]+?)(?:@(.+))?\s*")
DEFAULT_GRID = 16  # points per side where nothing else is asked for
MASK_PIXELS = 100_000_000  # of a mask image, about 1 GB while it is read
LOSSY = {"JPEG", "MPO", "WEBP", "AVIF", "HEIF", "JPEG2000"}  # Pillow's names; their black is seldom exactly 0
ROW_BYTES = 16  # of one point in one frame of a tracks file: x, y, visibility and confidence as float32
MASK_SEED = 0  # of the random choice of --num points inside a mask


@dataclass(frozen=True, kw_only=True)
class QueryOptions:
    """What to track, as asked for; several kinds add up. Parsed and checked without decoding any frame."""

    grid: int | None = None  # points per side of a grid over the frame, or inside the mask
    grid_frame: int = 0  # frame on which the grid, and the points of the mask, start
    points: Sequence[str] = ()  # "X,Y" or "X,Y@T"
    file: Path | None = None  # CSV, JSON or NPZ
    mask: Path | None = None  # image; see ``load_mask`` for what is inside
    num: int | None = None  # points at random inside the mask, instead of a grid
    max_points: int | None = None  # refuse more in all

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
        self._check_count(sum(len(part) for part in self.fixed) + self._most_generated())
        parts = [*self.fixed, *self._generated(size)]
        queries = Queries.concatenate(parts)
        self._check_count(len(queries))
        if not len(queries):
            raise QueryError("There is no point to track; give --grid, --point, --queries or --mask.")
        queries.check_inside(size)
        return queries

    def _most_generated(self) -> int:
        """Return how many points there will be without making them; a mask leaves out most of a grid, at most 99 %."""
        o = self.options
        if self.mask is not None:
            return (o.grid or DEFAULT_GRID) ** 2 // 100 if o.num is None else min(o.num, self.mask.size)
        return (o.grid or DEFAULT_GRID) ** 2 if o.grid is not None or not self.fixed else 0

    def _check_count(self, points: int) -> None:
        most = self.options.max_points
        if most is not None and points > most:
            raise QueryError(
                f"{points:,} points are more than the {most:,} of --max-points; their tracks would take "
                f"{points * ROW_BYTES / 1e6:.1f} MB per frame. Ask for fewer, or raise --max-points."
            )

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
    check_file(path, QueryError, "query file")
    with reading(path, QueryError, "queries"):
        return Queries(*reader(path))


def _read_csv(path: Path) -> tuple[Any, Any]:
    rows = text.csv_rows(path)
    at = {name.strip().lower(): i for i, name in enumerate(next(rows, []))}
    missing = [n for n in ("t", "x", "y") if n not in at]
    if missing:
        raise QueryError(f"the header has no column '{missing[0]}'; it must be t,x,y or t,x,y,id.")
    points, ids = packed("d"), []
    for number, row in enumerate(rows, 2):
        try:
            points.extend([float(row[at[n]]) for n in ("t", "x", "y")])
        except (IndexError, ValueError):
            raise QueryError(f"line {number} is not three numbers t,x,y.") from None
        if "id" in at:
            ids.append(row[at["id"]].strip() if at["id"] < len(row) else "")
    return np.asarray(points).reshape(-1, 3), ids if "id" in at else None


def _read_json(path: Path) -> tuple[Any, Any]:
    data = text.load_json(path)
    if isinstance(data, dict):
        if "queries" not in data:
            raise QueryError('the object has no "queries".')
        return data["queries"], data.get("ids")
    if not isinstance(data, list):
        raise QueryError("it holds one value where a list of points was expected.")
    if data and isinstance(data[0], dict):
        try:
            ids = [row["id"] for row in data] if "id" in data[0] else None
            return [[row["t"], row["x"], row["y"]] for row in data], ids
        except KeyError as error:
            raise QueryError(f"an entry has no {error}.") from None
    return data, None


def _read_npz(path: Path) -> tuple[Any, Any]:
    with npz.opened(path) as file:
        if "queries" not in file:
            raise QueryError("the file has no array 'queries'.")
        return file.array("queries"), file.array("ids") if "ids" in file else None


def load_mask(path: Path | str) -> np.ndarray:
    """Read a mask image as (h, w) bool, turned as its EXIF states.

    Where the image has transparency that varies, what is at least half opaque is inside (a cut-out). Else pixels count
    by their brightest channel, images with a coloured palette by their index: of labels (0 and 1, object numbers, label
    colours) every non-zero one is inside; of JPEG and other images with soft edges, those from half of the maximum,
    because their black is not exactly 0.

    Raises:
        QueryError: the file is missing, no image, too large or of several pictures, or nothing is inside.
    """
    path = check_file(path, QueryError, "mask")
    with reading(path, QueryError, "an image"), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is stricter
        with Image.open(path) as image:
            if image.width * image.height > MASK_PIXELS:
                raise Refused(
                    f"has {image.width}x{image.height} pixels; a mask may have {MASK_PIXELS // 10**6} million of them"
                )
            pictures = getattr(image, "n_frames", 1)
            if pictures > 1:
                raise Refused(f"holds {pictures} pictures; give a mask of one")
            mask = _inside(image)
    if not mask.any():
        raise QueryError(f"The mask {path} is empty: no pixel of it is inside.")
    return mask


def _inside(image: Image.Image) -> np.ndarray:
    """Return (h, w) bool of a mask image; see ``load_mask``."""
    lossy = image.format in LOSSY
    upright = ImageOps.exif_transpose(image)
    assert upright is not None
    if "A" in upright.getbands() or "transparency" in upright.info:
        alpha = np.asarray(upright.convert("RGBA").getchannel("A"))
        if alpha.min() != alpha.max():
            return alpha >= 128
    if upright.mode == "P":
        rgb = np.asarray(upright.convert("RGB")).astype(np.int16)
        if (rgb[..., 0] != rgb[..., 1]).any() or (rgb[..., 1] != rgb[..., 2]).any():
            return np.asarray(upright) != 0  # object numbers; a palette of greys is a picture that was made smaller
        upright = upright.convert("L")
    if len(upright.getbands()) > 1:
        upright = upright.convert("RGB")
    values = np.asarray(upright)
    values = np.nan_to_num(values.max(axis=2) if values.ndim == 3 else values)
    return values >= values.max() / 2 if values.any() and (lossy or _soft(values)) else values != 0


def _soft(values: np.ndarray) -> bool:
    """Whether (h, w) grey values are a drawing in black and white with soft or noisy edges rather than labels.

    It uses the whole range, more than 32 different values, and most pixels that are not 0 lie near its ends.
    """
    full = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.int32): 65535}.get(values.dtype)
    if full is None or values.max() != full or len(np.unique(values)) <= 32:
        return False
    between = (values > full // 8) & (values < full - full // 8)
    return 2 * int(between.sum()) < int((values != 0).sum())


def mask_points(mask: np.ndarray, size: geometry.Size, *, grid: int, num: int | None = None) -> np.ndarray:
    """Return points inside a mask: (K, 2) float32 pixels of a frame of size (H, W).

    Args:
        mask: (h, w) bool; scaled to the frame if the sizes differ in the same proportion.
        size: (H, W) of the frame.
        grid: points per side of a grid over the mask's bounding box; those outside the mask are left out.
        num: that many pixel centres at random instead, at most one per pixel.

    Raises:
        QueryError: the mask has another aspect ratio than the frame, or no grid point lies inside.
    """
    small: geometry.Size = (mask.shape[0], mask.shape[1])
    _check_proportions(small, size)
    ys, xs = np.nonzero(mask)
    if num is not None:
        chosen = np.random.default_rng(MASK_SEED).permutation(len(xs))[:num]
        xy = np.stack([xs[chosen], ys[chosen]], axis=1).astype(np.float32) + 0.5
        return geometry.rescale(xy, small, size)
    left, top, right, bottom = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    xy = geometry.grid_points(grid, (int(bottom - top), int(right - left))) + np.asarray([left, top], np.float32)
    inside = mask[xy[:, 1].astype(int), xy[:, 0].astype(int)]
    if not inside.any():
        raise QueryError("No grid point lies inside the mask; raise --grid or use --num.")
    return geometry.rescale(xy[inside], small, size)


def _check_proportions(mask: geometry.Size, size: geometry.Size) -> None:
    """Raise QueryError unless a mask of ``mask`` (h, w) is the frame of ``size`` (H, W) scaled, rounding aside."""
    (h, w), (height, width) = mask, size
    # a side of h pixels may have been h - 1 to h + 1 before it was rounded
    if (w - 1) * height < (h + 1) * width and (h - 1) * width < (w + 1) * height:
        return
    turned = " It looks turned by 90 degrees." if h * height == w * width else ""
    raise QueryError(
        f"The mask has {w}x{h} pixels, the frame {width}x{height}: another aspect ratio.{turned} "
        "Give a mask made on a frame of this video, of its size or scaled as a whole."
    )
