"""The crop that a container asks for, which ffmpeg's decoders do not apply: MP4's ``clap``, Matroska's PixelCrop."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ptrack.video.probe import EBML, MP4, read_vint

_SAMPLE_ENTRY = 8 + 78  # bytes of a VisualSampleEntry before the boxes inside it
_CROP_IDS = {0x54CC: "left", 0x54BB: "top", 0x54DD: "right", 0x54AA: "bottom"}
_MOST = 10_000  # boxes or elements that are looked at on one level


class Crop(NamedTuple):
    """Pixels to cut off each side of the coded picture, before rotation."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def leaves(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) of what is left."""
        return width - self.left - self.right, height - self.top - self.bottom


def crop_of(path: Path | str, track: int, width: int, height: int) -> Crop | None:
    """Return the crop of the ``track``-th video track (from 0) of a file with decoded pictures of this size.

    None if it asks for none, or for one that leaves nothing. A clean aperture of the very size of the decoded pictures
    is none: the codec has cropped them.
    """
    with open(path, "rb") as file:
        head = file.read(12)
        size = os.fstat(file.fileno()).st_size
        try:
            if head[4:8] in MP4:
                crop = _mp4(file, size, track, width, height)
            elif head[:4] == EBML:
                crop = _matroska(file, size, track)
            else:
                return None
        except (IndexError, ZeroDivisionError):
            return None
    if crop is None or not any(crop) or min(crop) < 0 or min(crop.leaves(width, height)) < 1:
        return None
    return crop


def _boxes(file: BinaryIO, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, begin, end) of the contents of the boxes between two offsets."""
    for _ in range(_MOST):
        if begin + 8 > end:
            return
        file.seek(begin)
        head = file.read(16)
        length, inside = int.from_bytes(head[:4], "big"), begin + 8
        if length == 1:
            length, inside = int.from_bytes(head[8:16], "big"), begin + 16
        length = length or end - begin
        if length < 8:
            return
        yield head[4:8], inside, min(begin + length, end)
        begin += length


def _inside(file: BinaryIO, span: tuple[int, int], *path: bytes) -> Iterator[tuple[int, int]]:
    """Yield the spans of all boxes at a path."""
    if not path:
        yield span
        return
    for kind, begin, end in list(_boxes(file, *span)):
        if kind == path[0]:
            yield from _inside(file, (begin, end), *path[1:])


def _mp4(file: BinaryIO, size: int, track: int, width: int, height: int) -> Crop | None:
    videos = 0
    for span in _inside(file, (0, size), b"moov", b"trak", b"mdia"):
        handler = next(_inside(file, span, b"hdlr"), None)
        if handler is None:
            continue
        file.seek(handler[0] + 8)
        if file.read(4) != b"vide":
            continue
        videos += 1
        if videos - 1 < track:
            continue
        for entries in _inside(file, span, b"minf", b"stbl", b"stsd"):
            first = entries[0] + 8  # version, flags, count
            for clap in _inside(file, (first + _SAMPLE_ENTRY, entries[1]), b"clap"):
                file.seek(clap[0])
                return _clean_aperture(file.read(32), width, height)
        return None
    return None


def _clean_aperture(data: bytes, width: int, height: int) -> Crop | None:
    """Return the crop of a ``clap`` box: width, height and the offset of its centre, each a fraction (ISO 14496-12)."""
    numbers = [int.from_bytes(data[i : i + 4], "big", signed=i >= 16) for i in range(0, 32, 4)]
    w, h, dx, dy = (numbers[i] / numbers[i + 1] for i in range(0, 8, 2))
    if (round(w), round(h)) == (width, height):
        return None
    left, top = round((width - w) / 2 + dx), round((height - h) / 2 + dy)
    return Crop(left, top, width - left - round(w), height - top - round(h))


def _elements(file: BinaryIO, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (id, begin, end) of the contents of the EBML elements between two offsets."""
    for _ in range(_MOST):
        if begin >= end:
            return
        file.seek(begin)
        first = file.read(1)[0]
        file.seek(begin)
        kind = int.from_bytes(file.read(9 - first.bit_length()), "big")
        length = read_vint(file)
        inside = file.tell()
        yield kind, inside, end if length is None else min(end, inside + length)
        if length is None:
            return
        begin = inside + length


def _matroska(file: BinaryIO, size: int, track: int) -> Crop | None:
    spans = [(0, size)]
    for wanted in (0x18538067, 0x1654AE6B, 0xAE, 0xE0):  # segment, tracks, track entry, video
        found = []
        for span in spans:
            for kind, begin, end in _elements(file, *span):
                if kind == wanted:
                    found.append((begin, end))
                    if wanted in (0x18538067, 0x1654AE6B):  # there is one; what follows may be long
                        break
        spans = found
    if track >= len(spans):
        return None
    sides = {}
    for kind, begin, end in list(_elements(file, *spans[track])):
        if kind in _CROP_IDS:
            file.seek(begin)
            sides[_CROP_IDS[kind]] = int.from_bytes(file.read(min(end - begin, 8)), "big")
    return Crop(**sides)
