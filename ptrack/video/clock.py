"""One clock for a whole stream: the stamps of its packets, mended before they reach the decoder.

Recordings joined byte for byte, cameras that restart and damaged headers give stamps that leap. A decoder does not
mind, but times would step back. So a part that begins on another clock is joined on to the part before, a single
impossible stamp is replaced by its neighbours', and streams without stamps get even ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.packet import Packet

FAR = 1800.0  # seconds; a longer step ahead is a jump of the clock (if it is also more than FAR_STEPS long)
FAR_STEPS = 1000  # nominal periods; slow time-lapse recordings step far too
_DOUBTFUL = 1.0  # seconds, and
_DOUBTFUL_STEPS = 10  # nominal periods; after a longer step ahead the next stamp decides whether this one was wrong
_PROBED = 8  # packets without any stamp until a stream counts as one without stamps
# Periods, and seconds, that a stamp may lie behind the newest one: H.264 reorders up to 16 pictures; decoding times
# should never step back, but for containers without them (Matroska) they are guesses.
_SLACK = {"dts": (8, 0.0), "pts": (32, 1.0)}


class StreamClock:
    """Puts the stamps of a stream's packets on one clock that does not jump.

    Args:
        period: nominal ticks between pictures.
        second: ticks of a second.
        untimed: the stamps are made up (by ffmpeg, for formats without any); even ones take their place.

    Attributes:
        jumps: how often the stream's own clock started again or leapt.
        wrong: how many single packets had an impossible stamp.
        first_jump, first_wrong: the time of the first of them, in ticks of the joined clock.
        untimed: the stream carries no stamps; its packets got even ones in the order of decoding.
    """

    def __init__(self, period: float, second: float, untimed: bool = False) -> None:
        self._period, self._second = period, second
        self._far = max(FAR * second, FAR_STEPS * period)
        self._doubtful = max(_DOUBTFUL * second, _DOUBTFUL_STEPS * period)
        self._step = period  # the last plain step between packets
        self._offset = 0  # what is added to the stamps of the present part
        self._last: dict[str, int] = {}  # the last stamp of this part as it was stored: "dts", "pts"
        self._highest = 0  # latest presentation time so far, on the joined clock
        self._number = 0  # packets so far
        self._ahead: deque[Packet] = deque()
        self.jumps = self.wrong = 0
        self.first_jump = self.first_wrong = 0
        self.untimed = untimed

    @property
    def mended(self) -> bool:
        """Whether times differ from the stored stamps."""
        return bool(self.jumps or self.wrong)

    def packets(self, source: Iterable[Packet]) -> Iterator[Packet]:
        """Yield the packets of ``source`` with mended stamps; they are changed in place."""
        packets = iter(source)
        while (packet := self._ahead.popleft() if self._ahead else next(packets, None)) is not None:
            if packet.size:
                self._mend(packet, packets)
                self._number += 1
            yield packet

    def _peek(self, packets: Iterator[Packet], count: int) -> list[Packet]:
        """Return up to ``count`` of the packets that follow; they stay to be given."""
        while len(self._ahead) < count and (packet := next(packets, None)) is not None:
            self._ahead.append(packet)
        return [packet for packet in self._ahead if packet.size][:count]

    def _mend(self, packet: Packet, packets: Iterator[Packet]) -> None:
        if self._number == 0 and not self.untimed and _unstamped(packet):
            self.untimed = all(map(_unstamped, self._peek(packets, _PROBED)))
        if self.untimed:
            packet.pts = packet.dts = round(self._number * self._period)
            return
        step = self._step_out_of_line(packet)
        if step:
            following = self._peek(packets, 1)
            jumps = not 0 < step <= self._far
            if not self._step_out_of_line(following[0]) if following else jumps:
                self._replace(packet, following)
                return
            if jumps:
                self._join(packet)
        elif packet.pts is not None and packet.dts is not None and abs(packet.pts - packet.dts) > self._far:
            self._note_wrong(round(self._highest + self._step))
            packet.pts = None
        self._remember(packet)

    def _step_out_of_line(self, packet: Packet) -> float:
        """Return the ticks by which a stamp lies back or doubtfully far ahead of the last one; else 0."""
        for kind, (periods, seconds) in _SLACK.items():
            stamp, last = getattr(packet, kind), self._last.get(kind)
            if stamp is not None and last is not None:
                slack = max(periods * self._period, seconds * self._second)
                return 0 if last - slack <= stamp <= last + self._doubtful else stamp - last
        return 0

    def _join(self, packet: Packet) -> None:
        """Let a new part begin one step after the latest picture of the part before."""
        first = packet.pts if packet.pts is not None else packet.dts
        begin = round(self._highest + self._step)
        self._offset = begin - (first or 0)
        self._last.clear()
        self.first_jump = self.first_jump if self.jumps else begin
        self.jumps += 1

    def _replace(self, packet: Packet, following: list[Packet]) -> None:
        """Give a lone packet with an impossible stamp a time between its neighbours'."""
        kind = "dts" if packet.dts is not None and "dts" in self._last else "pts"
        at = self._last[kind] + round(self._step)
        if following and (after := getattr(following[0], kind)) is not None:
            at = max(self._last[kind], min(at, after))
        shift = at - getattr(packet, kind) + self._offset
        packet.pts = None if packet.pts is None else packet.pts + shift
        packet.dts = None if packet.dts is None else packet.dts + shift
        self._note_wrong(at + self._offset)

    def _note_wrong(self, ticks: int) -> None:
        self.first_wrong = self.first_wrong if self.wrong else ticks
        self.wrong += 1

    def _remember(self, packet: Packet) -> None:
        """Note a packet's stamps, then bring them on to the joined clock."""
        if packet.dts is not None:
            step = packet.dts - self._last.get("dts", packet.dts)
            self._step = step if step > 0 else self._step
            self._last["dts"] = packet.dts
            packet.dts += self._offset
        if packet.pts is not None:
            self._last["pts"] = max(packet.pts, self._last.get("pts", packet.pts))
            packet.pts += self._offset
            self._highest = packet.pts if self._number == 0 else max(self._highest, packet.pts)


def _unstamped(packet: Packet) -> bool:
    return packet.pts is None and packet.dts is None
