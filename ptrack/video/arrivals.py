"""Packets of a stream without times, stamped when they arrive."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ptrack.video.prefetch import ReadAhead

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

TICKS = 1_000_000  # per second, of the stamps
_MOST_WAITING = 64 << 20  # bytes of packets held until they are decoded


class ArrivingPackets(ReadAhead["Packet"]):
    """The packets of a stream without times, each stamped when it arrives, however late it is decoded.

    Reading begins at once. ``close`` waits for nothing: the container is closed then, or by the thread once the camera
    sends or falls silent.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        super().__init__(
            _stamped(container, stream),
            "ptrack-camera",
            size=lambda packet: packet.size,
            max_bytes=_MOST_WAITING,
            patience=0,
            release=container.close,
        )
        self.start()


def _stamped(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    begin = time.monotonic()
    for packet in container.demux(stream):
        packet.pts = packet.dts = round((time.monotonic() - begin) * TICKS)
        yield packet
