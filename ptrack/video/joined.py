"""Recordings joined byte for byte (``cat a.flv b.flv``) in formats whose reader stops at the end of the first one.

FFmpeg itself reads on in MPEG streams, Matroska, AVI, GIF, NUT and Ogg. In FLV, MP4, MOV and ASF a second header ends
the file for it, so the file is opened again from there.
"""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from ptrack.errors import InputError
from ptrack.video.container import open_container
from ptrack.video.frames import ReadOptions
from ptrack.video.probe import top_level_boxes

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

_FLV = b"\0\0\0\x09\0\0\0\0"  # after "FLV", the version and the flags: the header's size, no tag before
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")  # the identifier of a header object


def next_part(path: Path, format_name: str, after: int) -> int | None:
    """Return where the next recording in a file begins, None if there is no more.

    Args:
        path: the file.
        format_name: FFmpeg's name of its format.
        after: a byte of the recording before, behind its header.
    """
    if format_name.startswith("mov,"):
        with open(path, "rb") as file:
            boxes = top_level_boxes(file, os.path.getsize(path))
        begins = [0, *(end for _, end in boxes)]
        return next((at for at, (kind, _) in zip(begins, boxes, strict=False) if kind == b"ftyp" and at > after), None)
    if format_name not in ("flv", "asf") or after >= os.path.getsize(path):
        return None
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(b"FLV\x01" if format_name == "flv" else _ASF, after + 1)
        while at >= 0 and format_name == "flv" and data[at + 5 : at + 13] != _FLV:
            at = data.find(b"FLV\x01", at + 1)
    return at if at >= 0 else None


class _Tail(io.FileIO):
    """A file from a byte on, as a file of its own."""

    def __init__(self, path: Path, begin: int) -> None:
        super().__init__(path, "rb")
        self._begin = begin
        super().seek(begin)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:
            offset += self._begin
        return super().seek(offset, whence) - self._begin

    def tell(self) -> int:
        return super().tell() - self._begin


class JoinedPackets:
    """The packets of a video stream and of those that are joined on to it; iterate once.

    Args:
        container, stream: opened, before the first packet is read.
        path: the file.
        name: the file, as the user named it.
        options: how to open the later parts.

    Attributes:
        parts: how many recordings were read.
        unread: the byte at which a part begins that could not be opened.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, path: Path, name: str, options: ReadOptions
    ) -> None:
        self._container, self._stream, self._path, self._name, self._options = container, stream, path, name, options
        self._base = stream.time_base or Fraction(1)
        self._newest = 0  # the latest time so far, in the first part's ticks
        self._step = 0  # ticks that the last picture is shown
        self._at = 0  # the last byte that a packet came from
        self.parts = 1
        self.unread: int | None = None

    def __iter__(self) -> Iterator[Packet]:
        yield from self._packets(self._container, self._stream, 0)
        while (begin := next_part(self._path, self._container.format.name, self._at)) is not None:
            self._at = begin
            if self._options.strict:
                raise InputError(f"{self._name}: another recording begins at byte {begin}, after the first one's end.")
            try:
                container, stream = self._open(begin)
            except InputError:
                self.unread = begin
                return
            self.parts += 1
            with closing(container):
                yield from self._packets(container, stream, begin)

    def _open(self, begin: int) -> tuple[InputContainer, VideoStream]:
        import av

        try:
            return open_container(_Tail(self._path, begin), self._name, self._options)
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"{self._name} cannot be read from byte {begin} on.") from error

    def _packets(self, container: InputContainer, stream: VideoStream, begin: int) -> Iterator[Packet]:
        """Yield the packets of one part; later parts' times follow those of the part before."""
        scale = float((stream.time_base or self._base) / self._base)
        shift: int | None = None
        for packet in container.demux(stream):
            self._at = max(self._at, begin + (packet.pos or 0))
            first = packet.pts if packet.pts is not None else packet.dts
            if begin and packet.size and first is not None:
                if shift is None:
                    shift = self._newest + self._step - round(first * scale)
                packet.pts = None if packet.pts is None else round(packet.pts * scale) + shift
                packet.dts = None if packet.dts is None else round(packet.dts * scale) + shift
            if packet.size and packet.pts is not None:
                step = packet.pts - self._newest
                self._step = round((packet.duration or 0) * scale) or (step if step > 0 else self._step)
                self._newest += max(step, 0)
            yield packet
