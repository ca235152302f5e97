"""The timeline of a video stream: every picture the decoder gives, in its order, and a gap for each that is lost.

The packets' presentation times are the truth about which pictures exist. No picture is thrown away because of its time:
times that would step back are held at the last one. While nothing is damaged, a packet that gives no picture is left
alone (codecs have invisible packets). From an error until the next key picture, every packet whose time has passed
without a picture is a lost frame. This holds with frame threads too, which report errors a few packets late.

AVI and ASF store one stamp per packet, in the order of decoding. Where pictures are reordered, the first picture shown
then gets the earliest of these times, the second the next one, and so on.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from ptrack.video.clock import StreamClock

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_BEGIN_WITH_KEY = frozenset(["mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "asf", "gif", "ogg", "nut"])
_RHYTHM = 8  # so many evenly spaced frames before the damage call a rate constant
_LONGEST_GAP = 1000  # frames; a longer gap is a jump of the clock, not a loss
_REORDER = 8  # frames held back while damaged: broken references make decoders give pictures out of order
_MOST_DOUBT = 16  # pictures held until it is known which order the stamps are in; H.264 reorders no more


class _Promise(NamedTuple):
    """A picture that a packet promises; sorted by time, then in the order of decoding."""

    ticks: int
    number: int
    key: bool = False


class TimelineStep(NamedTuple):
    """One frame of the stream in presentation order."""

    ticks: int  # presentation time in units of the stream's time base; never less than the step before's
    frame: VideoFrame | None  # None: it exists but cannot be decoded


def nominal_rate(stream: VideoStream) -> float | None:
    """Return the frames per second that a stream's header promises, None if it does not."""
    rate = stream.guessed_rate or stream.average_rate
    return float(rate) if rate else None


class Timeline:
    """Decodes a stream from the container's present position to its end; iterate once.

    Args:
        container, stream: opened, before the first packet is read.
        cut: the file is known to end early, so what is lost at its very end is not filled with placeholders.
        untimed: the stream's stamps are made up; frames come at ``rate``.
        rate: frames per second of a stream without stamps; that of its header if None.
        source: the stream's packets; the container is asked for them if None.
        second: ticks of a second in these packets; those of the stream's time base if None.

    Attributes:
        clock: what was wrong with the stamps.
        broken_off: reading ended with an error rather than at the end of the file.
        packets: packets that promised a picture.
        hidden: packets that the container marks as not to be shown (trimmed MP4).
        held_back: pictures whose time lay before the last one's and was raised to it.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        *,
        cut: bool = False,
        untimed: bool = False,
        rate: float | None = None,
        source: Iterable[Packet] | None = None,
        second: float | None = None,
    ) -> None:
        self._source, self._stream = container.demux(stream) if source is None else source, stream
        self._cut = cut
        second = second or (float(1 / stream.time_base) if stream.time_base else 1.0)
        rate = rate or nominal_rate(stream)
        self._period = max(1.0, second / rate) if rate else 1.0  # nominal ticks between pictures
        self.clock = StreamClock(self._period, second, untimed)
        self._waiting: list[_Promise] = []  # of packets without a picture yet, sorted
        self._unusable: set[int] = set()  # times of packets that the demuxer calls corrupt
        self._damaged = False
        # Broadcasts may begin between key frames; what comes before the first one was never decodable and is left out.
        self._begun = container.format.name in _BEGIN_WITH_KEY
        self._silent = 0  # packets that gave no picture though nothing was damaged
        self._untimed_losses = 0
        self._newest: int | None = None  # latest presentation time among the packets
        self._reordered = False  # packets' times have stepped back: they are true presentation times
        self._in_turn = False  # stamps are in the order of decoding: each picture takes the earliest that is left
        self._last: int | None = None  # time of the last step given
        self._in_rhythm = 0  # frames that came at the nominal rate; hugely negative once one did not
        self._latest = -round(self._period)  # time of the last picture from the decoder
        self.broken_off = False
        self.packets = self.hidden = self.held_back = 0

    def __iter__(self) -> Iterator[TimelineStep]:
        held: list[tuple[int, int, VideoFrame]] = []
        for number, (ticks, frame) in enumerate(self._timed()):
            heapq.heappush(held, (ticks, number, frame))
            while held and (self._in_turn or not self._damaged or len(held) > _REORDER):
                yield from self._show(*heapq.heappop(held))
        while held:
            yield from self._show(*heapq.heappop(held))
        if not self._in_turn:
            self._place_losses()
        yield from self._lost_at_the_end()

    def _lost_at_the_end(self) -> Iterator[TimelineStep]:
        """Yield the frames after the last picture, unless the file is cut there.

        Frame threads do not report an error in the last packets. So they count as lost too where every packet before
        had its picture.
        """
        if self._cut or self.broken_off or not (self._damaged or self._silent == 0):
            return
        for ticks, *_ in self._waiting[: self._untimed_losses] if self._in_turn else self._waiting:
            if self._last is None or ticks >= self._last:
                yield TimelineStep(ticks, None)

    # -- packets and pictures ------------------------------------------------------------------------------------

    def _packets(self) -> Iterator[Packet]:
        """Yield packets; a read error ends them like the end of the file, after the decoder is flushed."""
        import av

        packets = iter(self._source)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                self.broken_off = True
                return
            if packet is None:
                return
            self._stream = packet.stream  # a joined recording, or a camera that came back, has a decoder of its own
            yield packet

    def _pictures(self) -> Iterator[VideoFrame]:
        """Yield pictures in the decoder's order."""
        import av

        for packet in self.clock.packets(self._packets()):
            self._note(packet)
            if packet.is_corrupt and self._cut:
                continue  # the half packet at the cut: decoding it would drop the good frames still inside the decoder
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self._damaged = True
                self._untimed_losses += (self._in_turn or packet.pts is None) and packet.size > 0
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
        self._in_turn |= self.clock.untimed
        self.hidden += packet.is_discard
        if not packet.size or packet.is_discard or not self._begun:
            return
        self.packets += 1
        if packet.pts is None:
            return
        self._reordered |= self._newest is not None and packet.pts < self._newest
        self._newest = packet.pts if self._newest is None else max(self._newest, packet.pts)
        insort(self._waiting, _Promise(packet.pts, self.packets, packet.is_keyframe))
        if packet.is_corrupt:
            self._damaged = True
            self._unusable.add(packet.pts)

    # -- times ---------------------------------------------------------------------------------------------------

    def _timed(self) -> Iterator[tuple[int, VideoFrame]]:
        """Yield pictures in the decoder's order with their times."""
        held: list[VideoFrame] = []
        for frame in self._pictures():
            held.append(frame)
            if not self._in_doubt(held):
                yield from ((self._time_of(one), one) for one in held)
                held = []
        yield from ((self._time_of(one), one) for one in held)

    def _in_doubt(self, held: list[VideoFrame]) -> bool:
        """Return whether more pictures are needed to know what the stamps of the held ones mean.

        A picture later than a packet that was fed before means either an invisible packet, or that the stamps are in
        the order of decoding; then the next pictures' stamps step back.
        """
        if self._in_turn or self._damaged or self._reordered or not self._stream.codec_context.reorder_depth:
            return False
        stamps = [frame.pts for frame in held if frame.pts is not None]
        if len(stamps) < len(held) or not self._waiting or stamps[0] <= self._waiting[0].ticks:
            return False
        self._in_turn = any(after < before for before, after in pairwise(stamps))
        return not self._in_turn and len(held) < _MOST_DOUBT

    def _time_of(self, frame: VideoFrame) -> int:
        """Return a picture's time; one without a stamp comes a period after the last, with room for those lost."""
        if self._in_turn:
            at = min(self._untimed_losses, len(self._waiting) - 1)
            self._untimed_losses = 0
            self._latest = self._waiting[at].ticks if self._waiting else self._latest + round(self._period)
            return self._latest
        if frame.pts is None:
            self._place_losses()
        self._latest = frame.pts if frame.pts is not None else self._latest + round(self._period)
        return self._latest

    def _place_losses(self) -> None:
        """Give lost frames without stamps their times."""
        for _ in range(self._untimed_losses):
            self._latest += round(self._period)
            insort(self._waiting, _Promise(self._latest, self.packets))
        self._untimed_losses = 0

    def _watch_rhythm(self, ticks: int) -> None:
        """Learn whether frames follow each other at the nominal rate."""
        if self._last is not None:
            even = abs(ticks - self._last - self._period) <= max(1.0, 0.05 * self._period)
            self._in_rhythm = self._in_rhythm + 1 if even else -1_000_000

    def _between(self, ticks: int) -> Iterator[TimelineStep]:
        """Yield the frames whose packets were lost with the container's structure, if the rate was constant before."""
        if self._last is None or self._in_rhythm < _RHYTHM:
            return
        missing = round((ticks - self._last) / self._period) - 1
        if not 0 < missing <= _LONGEST_GAP:
            return
        step = (ticks - self._last) / (missing + 1)
        for i in range(1, missing + 1):
            yield TimelineStep(self._last + round(i * step), None)

    # -- steps ---------------------------------------------------------------------------------------------------

    def _show(self, ticks: int, _: int, frame: VideoFrame) -> Iterator[TimelineStep]:
        """Yield the frames lost before this one, then the frame itself."""
        passed, promised = self._find(ticks, frame.key_frame)
        before = self._last is not None and ticks <= self._last
        if self._damaged and before and not promised:
            return  # its packet was given up as lost and has its placeholder: a broken group's picture came too late
        if self._damaged:
            yield from self._lost_before(ticks, self._waiting[:passed])
        else:
            self._silent += passed
            self._watch_rhythm(ticks)
        del self._waiting[: passed + promised]
        if self._damaged and frame.key_frame and ticks not in self._unusable:
            self._damaged = any(later.ticks in self._unusable for later in self._waiting)
        self.held_back += self._last is not None and ticks < self._last
        self._last = ticks if self._last is None else max(ticks, self._last)
        if ticks not in self._unusable:
            yield TimelineStep(self._last, frame)
        elif not self._cut:
            yield TimelineStep(self._last, None)

    def _find(self, ticks: int, key: bool) -> tuple[int, bool]:
        """Return the number of promises before the one that a picture keeps, and whether there is one.

        Of several with its time, a key picture keeps that of the key packet, others the first in decoding order.
        """
        passed = bisect_left(self._waiting, (ticks,))
        same = bisect_left(self._waiting, (ticks + 1,)) - passed
        if key:
            passed += next((i for i in range(same) if self._waiting[passed + i].key), 0)
        return passed, same > 0

    def _lost_before(self, ticks: int, passed: list[_Promise]) -> Iterator[TimelineStep]:
        """Yield the frames that were lost before a picture: those of passed packets, and those of vanished ones."""
        for lost, *_ in passed:
            if self._last is None or lost >= self._last:
                yield from self._between(lost)
                yield TimelineStep(lost, None)
                self._last = lost
        yield from self._between(ticks)
