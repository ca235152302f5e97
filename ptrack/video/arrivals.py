"""Packets of a stream without times, stamped when they arrive."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

TICKS = 1_000_000  # per second, of the stamps
_MOST_WAITING = 64 << 20  # bytes of packets held until they are decoded


class ArrivingPackets:
    """The packets of a stream without times, each stamped when it arrives, however late it is decoded.

    A thread reads them from the beginning; it waits while ``_MOST_WAITING`` bytes are not yet decoded.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container, self._stream = container, stream
        self._ready: deque[Packet] = deque()
        self._bytes = 0
        self._error: Exception | None = None
        self._over = self._stop = False
        self._change = threading.Condition()
        self._begin = time.monotonic()
        threading.Thread(target=self._work, name="ptrack-camera", daemon=True).start()

    def _work(self) -> None:
        try:
            for packet in self._container.demux(self._stream):
                packet.pts = packet.dts = round((time.monotonic() - self._begin) * TICKS)
                with self._change:
                    self._change.wait_for(lambda: self._stop or self._bytes < _MOST_WAITING)
                    if self._stop:
                        break
                    self._ready.append(packet)
                    self._bytes += packet.size
                    self._change.notify_all()
        except Exception as error:  # handed to the reader
            self._error = error
        with self._change:
            self._over = True
            self._change.notify_all()
            if self._stop:
                self._container.close()

    def __iter__(self) -> Iterator[Packet]:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._ready or self._over)
                if not self._ready:
                    if self._error is not None:
                        raise self._error
                    return
                packet = self._ready.popleft()
                self._bytes -= packet.size
                self._change.notify_all()
            yield packet

    def stop(self) -> None:
        """End reading; the container is closed now, or by the thread once the camera sends or falls silent."""
        with self._change:
            if not self._stop and self._over:
                self._container.close()
            self._stop = True
            self._change.notify_all()
