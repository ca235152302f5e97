"""What a file's own bytes show where the decoder cannot: is it cut off, text, empty, an MP4 without its index?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

EBML = b"\x1aE\xdf\xa3"  # the first bytes of Matroska and WebM
MP4 = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")  # the kinds of box that such a file begins with
_SEGMENT = b"\x18S\x80g"
_MAX_BOXES = 200_000  # top-level MP4 boxes that are looked at; a day of one-second fragments has 172 800


def missing_bytes(path: Path | str) -> int:
    """Return the number of bytes the container promises beyond the end of the file; 0 if whole or unknown.

    Knows MP4/MOV (box sizes), Matroska/WebM (segment size) and RIFF (AVI). Other containers carry no total.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(12)
        if head[4:8] in MP4:
            promised = max((end for _, end in top_level_boxes(file, size)), default=0)
        elif head[:4] == EBML:
            promised = _segment_end(file)
        elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            promised = 8 + int.from_bytes(head[4:8], "little")
        else:
            promised = 0
    return max(0, promised - size)


def top_level_boxes(file: BinaryIO, size: int) -> list[tuple[bytes, int]]:
    """Return (type, end offset) of the top-level MP4 boxes; the last one may end beyond the file."""
    boxes: list[tuple[bytes, int]] = []
    at = 0
    while at + 8 <= size and len(boxes) < _MAX_BOXES:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:  # up to the end of the file
            length = size - at
        if length < 8 or not head[4:8].isalnum():
            break
        at += length
        boxes.append((head[4:8], at))
    return boxes


def _segment_end(file: BinaryIO) -> int:
    """Return where a Matroska file's segment ends, 0 if its size is left open (live recordings)."""
    file.seek(4)
    header = read_vint(file)
    if header is None:
        return 0
    file.seek(header, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return 0
    length = read_vint(file)
    return 0 if length is None else file.tell() + length


def read_vint(file: BinaryIO) -> int | None:
    """Read an EBML variable-length integer; None for "unknown" (all value bits set) or at the end of the file."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    extra = 8 - first[0].bit_length()
    rest = file.read(extra)
    bits = 7 * (extra + 1)
    value = int.from_bytes(first + rest, "big") & ((1 << bits) - 1)
    return None if len(rest) < extra or value == (1 << bits) - 1 else value


def why_unreadable(path: Path | str) -> str:
    """Return the rest of a sentence that begins with the file's name: what the file is, and what to do."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(4096)
        if head[4:8] in (b"ftyp", b"mdat", b"free", b"wide"):
            kinds = {kind for kind, _ in top_level_boxes(file, size)}
            if not kinds & {b"moov", b"moof"}:
                return (
                    "is an MP4 without its index (no 'moov' box): the recording or the copy was cut off. "
                    "Copy it again, or repair it with a tool such as untrunc"
                )
    if looks_like_text(head):
        return "holds text, not video. Give a video file, a folder of images or a GIF"
    return "is not a video that can be read, or it is damaged. Try to play it, or convert it to MP4 first"


def looks_like_text(head: bytes) -> bool:
    """Return whether the beginning of a file reads as plain text."""
    if b"\0" in head:
        return False
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # not merely a character cut in two at the end
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\r\n\t\f" for character in text)


def gif_size(head: bytes) -> tuple[int, int] | None:
    """Return (width, height) from the first ten bytes of a GIF, None if they are not one's."""
    if head[:6] not in (b"GIF87a", b"GIF89a"):
        return None
    return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")


def gif_lacks_delays(path: Path | str) -> bool:
    """Return whether a GIF has several pictures, not all with the control block that ffmpeg needs to split them."""
    with open(path, "rb") as file:
        head = file.read(13)
        if len(head) < 13:
            return False
        file.seek(_table(head[10]), os.SEEK_CUR)
        pictures, controlled, bare = 0, False, 0
        while kind := file.read(1):
            if kind == b"!":
                controlled |= file.read(1) == b"\xf9"
            elif kind == b",":
                descriptor = file.read(9)
                if len(descriptor) < 9:
                    break
                file.seek(_table(descriptor[8]) + 1, os.SEEK_CUR)
                pictures, bare, controlled = pictures + 1, bare + (not controlled), False
            else:
                break
            while length := file.read(1)[:1]:
                if length == b"\0":
                    break
                file.seek(length[0], os.SEEK_CUR)
    return pictures > 1 and bare > 0


def _table(flags: int) -> int:
    """Return the bytes of the colour table that a GIF's flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
