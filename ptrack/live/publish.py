"""What is published of every frame: JSON lines on a file, pipe or TCP port, and OSC over UDP."""

from __future__ import annotations

import json
import re
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

import numpy as np

from ptrack.errors import ConfigError, OutputError, reason

MOST_WAITING = 1 << 20  # bytes that wait for a slow reader of a TCP port; then it misses frames
PACKET_BYTES = 1400  # of an OSC bundle: fits one Ethernet frame
_FORBIDDEN = re.compile(r"[\s#*,/?\[\]{}]|[^\x21-\x7e]")  # in an OSC address


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """The points of one frame."""

    frame: int  # number of all frames that came, the dropped ones included, from 0
    time: float  # when the frame came, in seconds since 1970
    age_ms: float  # from its coming to this message
    width: int  # pixels that positions refer to
    height: int
    dropped: int  # frames that came before this one and were not tracked
    ids: tuple[str, ...]
    positions: np.ndarray  # (N, 2) float32 raster pixels; NaN where unknown
    visible: np.ndarray  # (N,) bool: the visibility reaches the model's threshold
    visibility: np.ndarray  # (N,) float32 probability
    confidence: np.ndarray  # (N,) float32 probability

    def to_json(self) -> str:
        """Return one line of JSON, without a line break; unknown positions are null."""
        xy = [place if all(v == v for v in place) else None for place in _rounded(self.positions, 2)]
        data = {
            "frame": self.frame,
            "time": round(self.time, 4),
            "age_ms": round(self.age_ms, 2),
            "size": [self.width, self.height],
            "dropped": self.dropped,
            "ids": list(self.ids),
            "xy": xy,
            "visible": self.visible.tolist(),
            "visibility": _rounded(self.visibility, 3),
            "confidence": _rounded(self.confidence, 3),
        }
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _rounded(values: np.ndarray, digits: int) -> list[Any]:
    return np.round(values.astype(np.float64), digits).tolist()


class Publisher(Protocol):
    """Somewhere that every frame is published to."""

    def send(self, frame: LiveFrame) -> None:
        """Publish a frame; raises OutputError when nothing more can be sent there."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class LinesTo:
    """JSON lines into a file or, for ``-``, onto standard output."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._file: IO[str] = sys.stdout
        if target != "-":
            try:
                self._file = Path(target).open("w", encoding="utf-8", buffering=1)  # noqa: SIM115 - see close
            except OSError as error:
                raise OutputError(f"Cannot write {target}: {error.strerror or error}.") from error

    def send(self, frame: LiveFrame) -> None:
        """Write one line at once."""
        try:
            self._file.write(frame.to_json() + "\n")
            self._file.flush()
        except OSError as error:
            what = "standard output" if self.target == "-" else self.target
            raise OutputError(f"Cannot write {what}: {error.strerror or error}.") from error

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self.target != "-":
            self._file.close()


@dataclass
class _Reader:
    connection: socket.socket
    waiting: bytes = b""
    missed: int = 0


class LinesOnPort:
    """JSON lines for everybody who connects to a TCP port. A slow reader misses frames and delays nobody.

    Args:
        host, port: where to listen; port 0 takes a free one.
        note: called with sentences for the user.
    """

    def __init__(self, host: str, port: int, note: Callable[[str], None] = lambda text: None) -> None:
        self._note = note
        try:
            self._server = socket.create_server((host, port))
        except (OSError, OverflowError) as error:
            raise OutputError(f"Cannot listen on tcp://{host}:{port}: {reason(error)}. Choose another port.") from error
        self._server.setblocking(False)
        self.port: int = self._server.getsockname()[1]
        self._readers: list[_Reader] = []

    def send(self, frame: LiveFrame) -> None:
        """Give a line to every reader that keeps up."""
        with suppress(BlockingIOError):
            connection, _ = self._server.accept()
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._readers.append(_Reader(connection))
        if not self._readers:
            return
        line = (frame.to_json() + "\n").encode()
        self._readers = [reader for reader in self._readers if self._sent(reader, line)]

    def _sent(self, reader: _Reader, line: bytes) -> bool:
        """Send what waits and the line, as much as the connection takes; return False if the reader has gone."""
        if len(reader.waiting) + len(line) <= MOST_WAITING:
            reader.waiting += line
        else:
            if reader.missed == 0:
                self._note("A reader of the TCP port is too slow and misses frames.")
            reader.missed += 1
        try:
            sent = reader.connection.send(reader.waiting)
        except BlockingIOError:
            return True
        except OSError:
            reader.connection.close()
            return False
        reader.waiting = reader.waiting[sent:]
        return True

    def close(self) -> None:
        """Disconnect all readers."""
        for reader in self._readers:
            reader.connection.close()
        self._server.close()


# -- OSC 1.0 (opensoundcontrol.org): texts end in 0 and fill up to 4 bytes, numbers are big-endian ---------------------


def _osc_text(text: str) -> bytes:
    data = text.encode("utf-8", "replace") + b"\0"
    return data + b"\0" * (-len(data) % 4)


def osc_message(address: str, types: str, *values: Any) -> bytes:
    """Return one OSC message; ``types`` of ``i`` (int32), ``f`` (float32), ``d`` (float64) and ``s`` (text)."""
    parts = [_osc_text(address), _osc_text("," + types)]
    for kind, value in zip(types, values, strict=True):
        parts.append(_osc_text(value) if kind == "s" else struct.pack(f">{kind}", value))
    return b"".join(parts)


def osc_bundles(messages: Sequence[bytes]) -> list[bytes]:
    """Return bundles to be acted on at once, each of at most PACKET_BYTES where its messages allow."""
    head = _osc_text("#bundle") + struct.pack(">Q", 1)
    bundles, current = [], head
    for message in messages:
        element = struct.pack(">i", len(message)) + message
        if len(current) > len(head) and len(current) + len(element) > PACKET_BYTES:
            bundles.append(current)
            current = head
        current += element
    return [*bundles, current]


class OscTo:
    """OSC over UDP: ``/ptrack/frame`` and, for every point whose position is known, ``/ptrack/point/ID``."""

    def __init__(self, host: str, port: int) -> None:
        try:
            family, _, _, _, self._address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        except (OSError, OverflowError) as error:
            raise OutputError(f"--osc {host}:{port}: there is no such host ({error}).") from error
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def send(self, frame: LiveFrame) -> None:
        """Send the frame in one or more packets; what the network does not take is lost, as UDP is."""
        for packet in osc_bundles(frame_messages(frame)):
            with suppress(OSError):
                self._socket.sendto(packet, self._address)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def frame_messages(frame: LiveFrame) -> list[bytes]:
    """Return a frame's OSC messages."""
    counts = frame.width, frame.height, len(frame.ids), frame.dropped
    number = frame.frame & 0x7FFFFFFF
    messages = [osc_message("/ptrack/frame", "idfiiii", number, frame.time, frame.age_ms, *counts)]
    values = zip(frame.ids, frame.positions.tolist(), frame.visibility.tolist(), frame.confidence.tolist(), strict=True)
    for name, (x, y), visibility, confidence in values:
        if x == x and y == y:
            address = f"/ptrack/point/{_FORBIDDEN.sub('_', name)}"
            messages.append(osc_message(address, "ffffi", x, y, visibility, confidence, number))
    return messages


def host_and_port(text: str, option: str) -> tuple[str, int]:
    """Parse ``HOST:PORT``, for IPv6 ``[::1]:PORT``; raises ConfigError."""
    try:
        parts = urlsplit(f"//{text}")
        if parts.hostname and parts.port is not None and not parts.path:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise ConfigError(f"{option} {text}: write HOST:PORT, for example 127.0.0.1:9000.")


def lines_publisher(target: str, note: Callable[[str], None] = lambda text: None) -> Publisher:
    """Return the publisher of ``--jsonl``: ``-``, a file, or ``tcp://HOST:PORT``.

    Raises:
        ConfigError, OutputError: a malformed address, or it cannot be written.
    """
    if target.startswith("tcp://"):
        return LinesOnPort(*host_and_port(target[6:].rstrip("/"), "--jsonl tcp://"), note)
    if "://" in target:
        raise ConfigError(f"--jsonl {target}: write -, a file name, or tcp://HOST:PORT.")
    return LinesTo(target)
