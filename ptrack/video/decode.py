"""The timeline of a video stream: every frame the stream holds, the undecodable ones included.

The packets' presentation times are the truth about which frames exist. While nothing is damaged, a packet that gives no
picture is left alone (codecs have invisible packets). From an error until the next key picture, every packet whose time
has passed without a picture is a lost frame. This holds with frame threads too, which report errors some packets late.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_BEGIN_WITH_KEY = frozenset(["mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "asf", "gif", "ogg", "nut"])
_RHYTHM = 8  # so many evenly spaced frames before the damage call a rate constant
_LONGEST_GAP = 1000  # frames; a longer gap is a jump of the clock, not a loss
_REORDER = 8  # frames held back while damaged: broken references make decoders give pictures out of order


class Step(NamedTuple):
    """One frame of the stream in presentation order."""

    ticks: int  # presentation time in units of the stream's time base
    frame: VideoFrame | None  # None: it exists but cannot be decoded


class Timeline:
    """Decodes a stream from the container's present position to its end; iterate once.

    Attributes:
        broken_off: reading ended with an error rather than at the end of the file.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, *, cut: bool = False) -> None:
        """``cut``: the file is known to end early, so what is lost at its very end is not filled with placeholders."""
        self._container, self._stream = container, stream
        self._cut = cut
        self._waiting: list[int] = []  # times of packets without a picture yet, sorted
        self._unusable: set[int] = set()  # times of packets that the demuxer calls corrupt
        self._damaged = False
        # Broadcasts may begin between key frames; what comes before the first one was never decodable and is left out.
        self._begun = container.format.name in _BEGIN_WITH_KEY
        self._silent = 0  # packets that gave no picture though nothing was damaged
        self._untimed_losses = 0
        self._last: int | None = None  # time of the last step given
        self._in_rhythm = 0  # frames that came at the nominal rate; hugely negative once one did not
        self._latest = -round(self._period())  # time of the last picture from the decoder
        self.broken_off = False

    def __iter__(self) -> Iterator[Step]:
        held: list[tuple[int, int, VideoFrame]] = []
        for number, frame in enumerate(self._pictures()):
            heapq.heappush(held, (self._time_of(frame), number, frame))
            while held and (not self._damaged or len(held) > _REORDER):
                yield from self._show(*heapq.heappop(held))
        while held:
            yield from self._show(*heapq.heappop(held))
        self._place_losses()
        yield from self._lost_at_the_end()

    def _lost_at_the_end(self) -> Iterator[Step]:
        """Yield the frames after the last picture, unless the file is cut there.

        Frame threads do not report an error in the last packets. So they count as lost too where every packet before
        had its picture.
        """
        if self._cut or self.broken_off or not (self._damaged or self._silent == 0):
            return
        for ticks in self._waiting:
            if self._last is None or ticks > self._last:
                yield Step(ticks, None)

    def _packets(self) -> Iterator[Packet]:
        """Yield packets; a read error ends them like the end of the file, after the decoder is flushed."""
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                self.broken_off = True
                return
            if packet is None:
                return
            yield packet

    def _pictures(self) -> Iterator[VideoFrame]:
        import av

        for packet in self._packets():
            self._note(packet)
            if packet.is_corrupt and self._cut:
                continue  # the half packet at the cut: decoding it would drop the good frames still inside the decoder
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self._damaged = True
                self._untimed_losses += packet.pts is None and packet.size > 0
                continue
            yield from frames
        if self.broken_off:
            try:
                yield from self._stream.decode(None)
            except av.FFmpegError:
                self._damaged = True

    def _note(self, packet: Packet) -> None:
        """Remember which time a packet promises a picture for."""
        self._begun |= packet.is_keyframe
        if packet.pts is None or not packet.size or packet.is_discard or not self._begun:
            return
        insort(self._waiting, packet.pts)
        if packet.is_corrupt:
            self._damaged = True
            self._unusable.add(packet.pts)

    def _period(self) -> float:
        """Return the nominal time between frames in ticks."""
        rate, base = self._stream.guessed_rate or self._stream.average_rate, self._stream.time_base
        return max(1.0, float(1 / (rate * base))) if rate and base else 1.0

    def _time_of(self, frame: VideoFrame) -> int:
        """Return a frame's time; streams without times get even ones, with room for the frames lost before."""
        if frame.pts is None:
            self._place_losses()
        self._latest = frame.pts if frame.pts is not None else self._latest + round(self._period())
        return self._latest

    def _place_losses(self) -> None:
        """Give lost frames of a stream without times their times."""
        for _ in range(self._untimed_losses):
            self._latest += round(self._period())
            insort(self._waiting, self._latest)
        self._untimed_losses = 0

    def _watch_rhythm(self, ticks: int) -> None:
        """Learn whether frames follow each other at the nominal rate."""
        if self._last is not None:
            even = abs(ticks - self._last - self._period()) <= max(1.0, 0.05 * self._period())
            self._in_rhythm = self._in_rhythm + 1 if even else -1_000_000

    def _between(self, ticks: int) -> Iterator[Step]:
        """Yield the frames whose packets were lost with the container's structure, if the rate was constant before."""
        if self._last is None or self._in_rhythm < _RHYTHM:
            return
        missing = round((ticks - self._last) / self._period()) - 1
        if missing > _LONGEST_GAP:
            return
        step = (ticks - self._last) / (missing + 1)
        for i in range(1, missing + 1):
            yield Step(self._last + round(i * step), None)

    def _show(self, ticks: int, _: int, frame: VideoFrame) -> Iterator[Step]:
        """Yield the frames lost before this one, then the frame itself."""
        if self._last is not None and ticks <= self._last:
            return  # its place in time is taken: a picture of a broken group that came too late
        passed = bisect_left(self._waiting, ticks)
        if self._damaged:
            for lost in self._waiting[:passed]:
                if self._last is None or lost > self._last:
                    yield from self._between(lost)
                    yield Step(lost, None)
                    self._last = lost
            yield from self._between(ticks)
        else:
            self._silent += passed
            self._watch_rhythm(ticks)
        del self._waiting[: passed + (passed < len(self._waiting) and self._waiting[passed] == ticks)]
        if self._damaged and frame.key_frame and ticks not in self._unusable:
            self._damaged = any(later in self._unusable for later in self._waiting)
        self._last = ticks
        if ticks not in self._unusable:
            yield Step(ticks, frame)
        elif not self._cut:
            yield Step(ticks, None)
