"""The picked points: what a point may be, the list with its undo history, and the files they are written to."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ptrack.errors import QueryError
from ptrack.fileio import write_csv
from ptrack.tracks import Queries

MAX_NAME = 200  # characters
MAX_STEPS = 200  # that can be undone
LARGEST = 1e9  # no frame number or coordinate is larger


@dataclass(frozen=True, kw_only=True)
class PickedPoint:
    """A point on its query frame."""

    id: str
    t: int  # source frame
    x: float  # raster pixels
    y: float
    colour: str = ""  # #rrggbb, "" if none was chosen

    @property
    def query(self) -> tuple[str, int, float, float]:
        """What decides its track."""
        return self.id, self.t, self.x, self.y


@dataclass(frozen=True, kw_only=True)
class Correction:
    """A point put right by hand on a later frame."""

    id: str
    t: int
    x: float
    y: float


def check_name(name: Any) -> str:
    """Return a point's name; raises QueryError for one that cannot stand in a file or in one line."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise QueryError(f"A point's name must have 1 to {MAX_NAME} characters in one line.")
    if any(0xD800 <= ord(c) < 0xE000 for c in name):
        raise QueryError("A point's name holds half a character (a lone surrogate), which no file can keep.")
    return name


def check_number(value: Any, what: str) -> float:
    """Return a finite number of a sensible size; raises QueryError that names ``what``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise QueryError(f"{what} must be a number.")
    return float(value)


def _point(data: Any) -> PickedPoint:
    if not isinstance(data, dict):
        raise QueryError("The points must be a list of objects with id, t, x and y.")
    missing = [key for key in ("id", "t", "x", "y") if key not in data]
    if missing:
        raise QueryError(f"A point lacks '{missing[0]}'; it needs id, t, x and y.")
    name, colour = check_name(data["id"]), data.get("colour", "")
    t, x, y = (check_number(data[key], f"'{key}' of point {name}") for key in ("t", "x", "y"))
    if t < 0 or t != math.floor(t):
        raise QueryError(f"Point {name} starts at frame {t:g}; t must be a whole number from 0 upwards.")
    if not isinstance(colour, str) or not re.fullmatch(r"(#[0-9a-fA-F]{6})?", colour):
        raise QueryError(f"The colour of point {name} must be written #rrggbb.")
    return PickedPoint(id=name, t=int(t), x=x, y=y, colour=colour)


def parse_points(points: Any) -> tuple[PickedPoint, ...]:
    """Return points given as JSON; raises QueryError for anything malformed and for names used twice."""
    if not isinstance(points, list):
        raise QueryError("The points must be a list of objects with id, t, x and y.")
    made = tuple(_point(point) for point in points)
    seen: set[str] = set()
    for point in made:
        if point.id in seen:
            raise QueryError(f"The name '{point.id}' is in use; every point needs its own.")
        seen.add(point.id)
    return made


def as_queries(points: Sequence[PickedPoint]) -> Queries:
    """Return the points as queries; raises QueryError if there is none."""
    if not points:
        raise QueryError("There is no point yet; click on the picture to add one.")
    return Queries(np.asarray([[p.t, p.x, p.y] for p in points]), [p.id for p in points])


class PointList:
    """The points and what was before each step, for undo. A step is earlier points, or None for a correction."""

    def __init__(self) -> None:
        self.points: tuple[PickedPoint, ...] = ()
        self._steps: list[tuple[PickedPoint, ...] | None] = []

    @property
    def steps(self) -> int:
        """Steps that can be undone."""
        return len(self._steps)

    @property
    def last_is_correction(self) -> bool:
        """Whether the step that would be undone is a correction."""
        return bool(self._steps) and self._steps[-1] is None

    def replace(self, points: tuple[PickedPoint, ...], *, remember: bool = True) -> None:
        """Put other points in the place of these; ``remember`` makes it a step that can be undone."""
        if remember:
            self._push(self.points)
        self.points = points

    def note_correction(self) -> None:
        """Make a correction the newest step."""
        self._push(None)

    def forget_corrections(self) -> None:
        """Drop the steps that were corrections: the tracks they changed are gone."""
        self._steps = [step for step in self._steps if step is not None]

    def undo(self) -> None:
        """Take the newest step back; of a correction, only the note."""
        step = self._steps.pop()
        if step is not None:
            self.points = step

    def rename(self, old: str, new: str) -> None:
        """Give a point another name, now and in the history: undo must not bring the old name back.

        Raises:
            QueryError: the new name is not allowed or in use, or there is no point ``old``.
        """
        check_name(new)
        names = {point.id for point in self.points}
        if old not in names:
            raise QueryError(f"There is no point '{old}'.")
        if new in names and new != old:
            raise QueryError(f"The name '{new}' is in use; every point needs its own.")
        self.points = _renamed(self.points, old, new)
        self._steps = [step if step is None else _renamed(step, old, new) for step in self._steps]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the points as plain JSON values."""
        return [asdict(point) for point in self.points]

    def _push(self, step: tuple[PickedPoint, ...] | None) -> None:
        self._steps.append(step)
        del self._steps[:-MAX_STEPS]


def _renamed(points: tuple[PickedPoint, ...], old: str, new: str) -> tuple[PickedPoint, ...]:
    """Return the points with ``old`` named ``new``; a deleted point that had the new name gets a free one."""
    taken = {point.id for point in points}
    free = next(n for i in range(len(points) + 1) if (n := f"{new} ({i + 2})") not in taken)
    names = {old: new, new: free} if old in taken else {new: free}
    return tuple(replace(point, id=names.get(point.id, point.id)) for point in points)


def write_queries(path: Path, points: Sequence[PickedPoint]) -> None:
    """Write ``t,x,y,id,colour``, which ``ptrack track --queries`` reads; positions are exact (float32)."""
    rows = zip(as_queries(points).points.tolist(), points, strict=True)
    cells = ([int(t), repr(x), repr(y), point.id, point.colour] for (t, x, y), point in rows)
    write_csv(path, [["t", "x", "y", "id", "colour"], *cells])


def write_corrections(path: Path, corrections: Sequence[Correction]) -> None:
    """Write ``t,x,y,id``, one row per correction in the order they were made; an id may come several times."""
    write_csv(path, [["t", "x", "y", "id"], *([c.t, repr(c.x), repr(c.y), c.id] for c in corrections)])
