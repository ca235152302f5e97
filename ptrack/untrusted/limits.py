"""Limits of the memory that a file may ask for, and one sentence for whatever a damaged file brings up."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptrack.errors import PTrackError

UNPACKED_BYTES = 512 << 20  # all arrays of a file together may unpack to this much,
UNPACKED_RATIO = 20  # or to this many times the file's size: float32 positions shrink by 1.1 to 3, flags by up to 50
REASON_LENGTH = 160  # characters of a library's own words in a sentence


_OBJECT = re.compile(r"<[^<>]* object at 0x[0-9a-f]+>")
_CLASS = re.compile(r"<class '([^']*)'>")


class Refused(Exception):
    """A file asks for something that ptrack does not do; the text goes on from the file's name, without a full stop."""


class Budget:
    """Bytes that the arrays of one file may still take in memory.

    Args:
        file_bytes: size of the file.
    """

    def __init__(self, file_bytes: int) -> None:
        self.file_bytes = file_bytes
        self.left = max(UNPACKED_BYTES, UNPACKED_RATIO * file_bytes)

    @classmethod
    def of(cls, path: Path | str) -> Budget:
        """Return the budget of a file on disk."""
        return cls(os.stat(path).st_size)

    def take(self, size: int, what: str) -> None:
        """Book ``size`` bytes for ``what``; raises Refused when they are more than is left."""
        if size > self.left:
            raise Refused(
                f"claims {amount(size)} for {what}; from a file of {amount(self.file_bytes)} ptrack unpacks "
                f"at most {amount(max(UNPACKED_BYTES, UNPACKED_RATIO * self.file_bytes))}"
            )
        self.left -= size


def array_bytes(shape: tuple[int, ...], itemsize: int) -> int:
    """Return the size of an array in bytes, as a whole number of any size; raises Refused for a negative shape."""
    if any(length < 0 for length in shape):
        raise Refused(f"holds an array of the impossible shape {shape}")
    return math.prod(int(length) for length in shape) * itemsize


def check_values(value: Any, most: int) -> None:
    """Raise Refused when a nested value contains itself or stands for more than ``most`` values.

    What several aliases share counts for each: a few lines of them can stand for more than any memory holds.
    """
    if _count(value, {}) > most:
        raise Refused(f"stands for more than {most} values")


def _count(value: Any, known: dict[int, int]) -> int:
    """Count a value and those in it. ``known``: counts by identity, -1 for containers that are being counted."""
    if not isinstance(value, dict | list | tuple | set):
        return 1
    if id(value) in known:
        if known[id(value)] < 0:
            raise Refused("holds a value that contains itself")
        return known[id(value)]
    known[id(value)] = -1
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    known[id(value)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(value)]


def amount(size: int) -> str:
    """Return bytes in words, such as "4.0 TiB"."""
    value, unit = float(min(size, 1 << 90)), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{size} bytes" if unit == "bytes" else f"{value:.3g} {unit}"


def reason_of(error: BaseException) -> str:
    """Return a library's own words as a part of a sentence: one line, printable, short, without a full stop."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    first = _OBJECT.sub("an object", _CLASS.sub(r"\1", first))
    clean = "".join(c if c.isprintable() else "?" for c in first)
    return (clean if len(clean) <= REASON_LENGTH else clean[: REASON_LENGTH - 3] + "...").rstrip(".:; ")


def check_file(path: Path | str, error: type[PTrackError], kind: str = "file") -> Path:
    """Return ``path`` if it is an ordinary file; ``kind`` names what it should be, such as "tracks file".

    Raises:
        PTrackError: of the class ``error``: there is none, or it is a folder, a device or a pipe.
    """
    try:
        found = Path(path)
        if found.is_file():
            return found
        exists = found.exists()
    except (OSError, ValueError) as problem:
        raise error(f"Cannot read {str(path)[:REASON_LENGTH]!r}: {_words(problem)}.") from problem
    if exists:
        raise error(f"{path} is {'a folder' if found.is_dir() else 'a device or a pipe'}, not a {kind}.")
    raise error(f"There is no {kind} {path}.")


@contextmanager
def reading(path: Path | str, error: type[PTrackError], kind: str) -> Iterator[None]:
    """Turn what the body raises about the file ``path`` into one sentence of the class ``error`` that names it.

    Args:
        path: the file.
        error: class of the errors.
        kind: what it should be, such as "tracks".
    """
    try:
        yield
    except error as problem:
        if str(path) in str(problem):
            raise
        raise error(f"{path}: {problem}") from problem
    except PTrackError:
        raise
    except Refused as problem:
        raise error(f"{path} {problem}.") from problem
    except MemoryError as problem:
        raise error(f"{path} needs more memory than there is.") from problem
    except RecursionError as problem:
        raise error(f"{path} is nested too deeply to hold {kind}.") from problem
    except OSError as problem:
        if problem.strerror:
            raise error(f"Cannot read {path}: {_words(problem)}.") from problem
        raise error(_damaged(path, kind, problem)) from problem
    except Exception as problem:  # the libraries raise dozens of kinds for damaged files
        raise error(_damaged(path, kind, problem)) from problem


def _words(problem: OSError | ValueError) -> str:
    return getattr(problem, "strerror", None) or reason_of(problem)


def _damaged(path: Path | str, kind: str, problem: Exception) -> str:
    return f"{path} cannot be read as {kind}; it is damaged or something else ({reason_of(problem)})."
