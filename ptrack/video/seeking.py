"""Any frame of a video file by its number, decoded from the key frame before it.

The numbers come from the packets alone: their presentation times in order are the frames. That holds for MP4, MOV and
Matroska files whose packets all have a time of their own. Of others ``SeekableVideo.open`` returns None: their frames
have to be counted by decoding.

Letters: T frames.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from ptrack.video.frames import FrameSource

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

    from ptrack.video.files import VideoFile

_CONTAINERS = frozenset(["mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"])
_LEAD = 16  # frames decoded before the wanted ones: the first ones of an open group need the group before
_NEAR = 64  # frames ahead up to which the open decoder goes on instead of seeking


class NumberedFrame(NamedTuple):
    """One decoded picture."""

    index: int  # frame number in the source
    rgb: np.ndarray  # (H, W, 3) uint8


class PacketStamps(NamedTuple):
    """What the packets state of T frames, in the order of their presentation."""

    ticks: np.ndarray  # (T,) int64 presentation times in the stream's time base, ascending
    keys: np.ndarray  # (T,) bool, frames that can be decoded alone


def packet_stamps(container: InputContainer, stream: VideoStream) -> PacketStamps | None:
    """Return when all frames are presented and which are key frames; reads no picture.

    None where packets do not describe the frames: other containers, packets without a time, with a shared one or called
    corrupt, a decoding time that steps back, a first packet that is no key frame.
    """
    import av

    if container.format.name not in _CONTAINERS:
        return None
    stamps: list[int] = []
    keys: set[int] = set()
    last: int | None = None
    try:
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard:
                continue
            if not _plain(packet, last) or (not stamps and not packet.is_keyframe):
                return None
            last = packet.dts if packet.dts is not None else last
            stamps.append(packet.pts or 0)
            if packet.is_keyframe:
                keys.add(stamps[-1])
    except av.FFmpegError:
        return None
    found = np.unique(np.asarray(stamps, dtype=np.int64))
    if not 0 < len(found) == len(stamps):
        return None
    return PacketStamps(found, np.isin(found, np.fromiter(keys, np.int64, len(keys))))


def _plain(packet: Packet, last: int | None) -> bool:
    """Return whether a packet's times are what they should be; ``last`` is the decoding time before."""
    steps_back = last is not None and packet.dts is not None and packet.dts < last
    return packet.pts is not None and not packet.is_corrupt and not steps_back


class SeekableVideo:
    """Random access to the frames of a video file; one thread at a time.

    Args:
        source: the file; only its opening and its conversion of pictures are used.
        stamps: of ``packet_stamps``.
    """

    def __init__(self, source: VideoFile, stamps: PacketStamps) -> None:
        self._source, self._stamps = source, stamps.ticks
        self.key_frames = np.flatnonzero(stamps.keys)  # (K,) int64, numbers of the frames that can be decoded alone
        self._running: Generator[NumberedFrame] | None = None
        self._next = 0  # the frame that the running decoder gives next, at the earliest

    @classmethod
    def open(cls, source: FrameSource) -> Self | None:
        """Return access to a source; None if its packets do not describe its frames, or it has several parts."""
        from ptrack.video.files import VideoFile

        if not isinstance(source, VideoFile):
            return None
        container, stream = source.open_stream()
        with closing(container):
            stamps = packet_stamps(container, stream)
        return None if stamps is None or source.is_joined() else cls(source, stamps)

    def __len__(self) -> int:
        return len(self._stamps)

    def frames(self, begin: int, end: int) -> list[NumberedFrame]:
        """Return the frames ``begin .. end - 1`` in order; those that cannot be decoded are left out."""
        end = min(end, len(self))
        if self._running is None or not self._next <= begin <= self._next + _NEAR:
            self.close()
            self._running = self._decoded(begin)
        found: list[NumberedFrame] = []
        for frame in self._running:
            self._next = frame.index + 1
            if begin <= frame.index < end:
                found.append(frame)
            if frame.index >= end - 1:
                return found
        self.close()
        return found

    def single(self, indices: np.ndarray) -> Iterator[NumberedFrame]:
        """Yield some of the ``key_frames``, decoding no others; those that cannot be decoded are left out.

        The file is read once, from its beginning, and only the packets of these frames are decoded.
        """
        import av

        wanted = {int(self._stamps[i]) for i in indices}
        container, stream = self._source.open_stream()
        with closing(container):
            try:
                for packet in container.demux(stream):
                    if packet.pts not in wanted and packet.size:
                        continue
                    # Emptied after each: its order among pictures of other groups means nothing to the decoder.
                    for picture in (*packet.decode(), *stream.codec_context.decode(None)):
                        if picture.pts in wanted and not picture.is_corrupt:
                            index = int(np.searchsorted(self._stamps, picture.pts))
                            yield NumberedFrame(index, self._source.convert(picture))
                    stream.codec_context.flush_buffers()
            except av.FFmpegError:
                return  # what was decoded until here is good

    def seconds(self, index: int) -> float:
        """Return when a frame is presented, on the source's own clock."""
        return self._source.seconds_of(int(self._stamps[index]))

    def close(self) -> None:
        """Close the file."""
        if self._running is not None:
            self._running.close()
        self._running = None

    def _decoded(self, begin: int) -> Generator[NumberedFrame]:
        """Yield the frames from ``begin`` on, decoded from the key frame before it."""
        import av

        container, stream = self._source.open_stream()
        with closing(container):
            try:
                container.seek(int(self._stamps[max(0, begin - _LEAD)]), stream=stream, backward=True)
                for picture in container.decode(stream):
                    index = -1 if picture.pts is None else int(np.searchsorted(self._stamps, picture.pts))
                    known = 0 <= index < len(self) and self._stamps[index] == picture.pts
                    if known and index >= begin and not picture.is_corrupt:
                        yield NumberedFrame(index, self._source.convert(picture))
            except av.FFmpegError:
                return  # what was decoded until here is good
