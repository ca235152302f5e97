"""Which files of a folder or pattern are its pictures, in which order, and what is missing or left out."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

from ptrack.errors import InputError

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("png", "jpg", "jpeg", "jpe", "jfif", "bmp", "dib", "tif", "tiff", "webp"),
        *("ppm", "pgm", "pbm", "pnm", "tga", "jp2", "avif"),
    )
)
_OTHER_PICTURES = frozenset(  # pictures that cannot be read here, and GIF, which counts as a video
    f".{name}"
    for name in (
        *("gif", "heic", "heif", "hif", "jxl", "exr", "dpx", "cin", "hdr", "pfm", "psd", "psb", "fits", "dcm"),
        *("arw", "cr2", "cr3", "crw", "dng", "nef", "nrw", "orf", "pef", "raf", "rw2", "srw", "3fr", "iiq"),
    )
)
_REGULAR = 0.5  # share of the steps between file numbers that must be equal to call others gaps


P = TypeVar("P", Path, str)


class Listing(NamedTuple):
    """The pictures of a sequence in order, and sentences about what is not among them."""

    paths: list[Path]
    warnings: list[str]


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key that compares runs of the digits 0-9 as numbers and the rest without case."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(part), "") if i % 2 else (1, 0, part) for i, part in enumerate(parts) if part]


def natural_order(paths: Iterable[P]) -> list[P]:
    """Return paths or names sorted by ``natural_key``."""
    return sorted(paths, key=lambda path: (natural_key(str(path)), str(path)))


def is_pattern(source: Path | str) -> bool:
    """Return whether a source is a glob pattern rather than a file whose name looks like one."""
    return any(sign in str(source) for sign in "*?[") and not os.path.exists(source)


def in_folder(folder: Path) -> Listing:
    """Return the images of a folder in natural order; hidden and other files are left out.

    Raises:
        InputError: it holds no images or may not be read.
    """
    try:
        files = [p for p in folder.iterdir() if not p.name.startswith(".") and p.is_file()]
    except OSError as error:
        raise InputError(f"The folder {folder} may not be read: {error.strerror or error}.") from error
    return _listing(files, f"The folder {folder}", str(folder))


def by_pattern(pattern: str) -> Listing:
    """Return the images a glob pattern finds, in natural order.

    Raises:
        InputError: it finds none.
    """
    files = [path for path in map(Path, glob.glob(pattern, recursive=True)) if path.is_file()]
    if not files:
        raise InputError(f"No image matches {pattern}. Check the pattern, and quote it in the shell.")
    return _listing(files, f"The pattern {pattern}", pattern)


def _listing(files: Iterable[Path], where: str, name: str) -> Listing:
    paths = [p for p in files if p.suffix.lower() in SUFFIXES]
    others = [p for p in files if p.suffix.lower() in _OTHER_PICTURES]
    if not paths:
        if others:
            kinds = " and ".join(sorted({p.suffix.lower() for p in others}))
            raise InputError(f"{where} holds {len(others)} {kinds} files, which cannot be read. {_CONVERT}")
        raise InputError(f"{where} holds no images (such as .png or .jpg). Give a folder of frames or a video file.")
    paths = natural_order(paths)
    return Listing(paths, [f"{name}: {text}" for text in (_left_out(paths, others), _missing(paths)) if text])


_CONVERT = "Convert them to PNG, JPEG or TIFF."


def _left_out(paths: Sequence[Path], others: Sequence[Path]) -> str:
    """Return the sentence about pictures of other formats; raw files beside their own JPEG need none."""
    there = {p.with_suffix("").as_posix().casefold() for p in paths}
    alone = sorted(p for p in others if p.with_suffix("").as_posix().casefold() not in there)
    if not alone:
        return ""
    kinds = " and ".join(sorted({p.suffix.lower() for p in alone}))
    number = "1 picture is" if len(alone) == 1 else f"{len(alone)} pictures are"
    return f"{number} left out, of the format {kinds} ({alone[0].name} first), which cannot be read. {_CONVERT}"


def _missing(paths: Sequence[Path]) -> str:
    """Return the sentence about numbers missing in file names that are otherwise equal and evenly numbered."""
    numbers = _numbers(paths)
    steps = [after - before for before, after in pairwise(numbers)]
    if len(steps) < 2:
        return ""
    usual, often = Counter(steps).most_common(1)[0]
    gaps = [(before, after) for before, after in pairwise(numbers) if after - before > usual]
    if not gaps or usual < 1 or often < _REGULAR * len(steps):
        return ""
    before, after = gaps[0]
    count = sum((after - before) // usual - 1 for before, after in gaps)
    first = f"{before + usual}" if after - before == 2 * usual else f"{before + usual} to {after - usual}"
    what = f"number {first} is" if count == 1 else f"{count} numbers ({first}{' first' if len(gaps) > 1 else ''}) are"
    return f"{what} missing among the files; the pictures before and after follow each other without a gap."


def _numbers(paths: Sequence[Path]) -> list[int]:
    """Return the number that counts the files: the only run of digits in which the names differ. Empty if none."""
    parts = [re.split(r"([0-9]+)", str(path)) for path in paths]
    if len({len(p) for p in parts}) != 1:
        return []
    varying = [i for i, column in enumerate(zip(*parts, strict=True)) if len({_plain(i, c) for c in column}) > 1]
    if len(varying) != 1 or varying[0] % 2 == 0:
        return []
    return [int(p[varying[0]]) for p in parts]


def _plain(column: int, text: str) -> int | str:
    return int(text) if column % 2 else text
