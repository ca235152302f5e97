"""How old results are when they are published: a stream on this machine, tracked as ``ptrack live`` does it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ptrack.bench.beacon import age_of, read_mark
from ptrack.errors import ConfigError, InputError
from ptrack.live.capture import Capture, CaptureOptions
from ptrack.live.publish import LinesTo, LiveFrame
from ptrack.live.request import LiveRequest, connector
from ptrack.live.session import Ages, LiveOptions, run_live
from ptrack.tracking.load import load
from ptrack.tracks import Queries

WARMUP_SECONDS = 2.0  # of the stream that are not counted: opening it takes up to a second, which is caught up


@dataclass(frozen=True, kw_only=True)
class LiveBenchOptions:
    """What to measure."""

    model: str = "nano"
    quality: str | None = None
    points: int = 8  # per side of a grid
    rates: tuple[float, ...] = (15.0, 30.0, 60.0)  # pictures per second
    seconds: float = 10.0  # per rate, after the warm-up
    size: tuple[int, int] = (480, 640)  # (H, W) of the pictures
    device: str = "auto"

    def __post_init__(self) -> None:
        if not all(0 < rate <= 1000 for rate in self.rates):
            raise ConfigError(f"--rate {self.rates}: give pictures per second above 0 and up to 1000.")
        if min(self.size) < 32 or self.size[1] < 80 or self.size[0] % 2 or self.size[1] % 2:
            raise ConfigError(f"--size {self.size[1]}x{self.size[0]}: give even numbers of at least 80x32.")


@dataclass(frozen=True, kw_only=True)
class LiveRow:
    """One rate."""

    model: str
    points: int
    rate: float  # pictures per second that were sent
    tracked: float  # frames per second that were tracked
    sent: int  # pictures, warm-up included
    came: int  # pictures that came, warm-up included
    dropped: int  # after the warm-up
    latency_ms: dict[str, float]  # from making a picture to the message about it: p50, p95, p99
    age_ms: dict[str, float]  # of messages, from the picture's coming out of the decoder


class _Meter:
    """Reads the time in every picture after the warm-up."""

    def __init__(self) -> None:
        self.latency, self.age = Ages(), Ages()
        self.began: float | None = None
        self.frames = self.unread = 0
        self.dropped_before: int | None = None
        self.last = (0.0, 0)  # monotonic seconds and drops at the last frame

    def see(self, rgb: np.ndarray, frame: LiveFrame) -> None:
        """Take note of a tracked picture."""
        now = time.monotonic()
        self.began = now if self.began is None else self.began
        if now - self.began < WARMUP_SECONDS:
            return
        if self.dropped_before is None:
            self.dropped_before, self.first = frame.dropped, now
        self.frames += 1
        self.last = now, frame.dropped
        self.age.add(frame.age_ms)
        stamp = read_mark(rgb)
        if stamp is None:
            self.unread += 1
        else:
            self.latency.add(age_of(stamp, now) * 1000)

    def percentiles(self, ages: Ages) -> dict[str, float]:
        return {f"p{p}": round(ages.percentile(p / 100), 1) for p in (50, 95, 99)}


def bench_live(options: LiveBenchOptions, report: Callable[[str], None] = lambda text: None) -> list[LiveRow]:
    """Measure every rate, one after the other.

    Raises:
        ModelError, DeviceError: the model cannot be built.
        InputError: the stream cannot be opened.
    """
    tracker = load(options.model, device=options.device, quality=options.quality)
    rows = []
    for rate in options.rates:
        row = _measure(options, tracker, rate)
        rows.append(row)
        latency = ", ".join(f"{name} {value:.0f}" for name, value in row.latency_ms.items())
        report(f"{rate:g}/s: {row.tracked:.1f}/s tracked, {row.dropped} dropped, latency {latency} ms")
    return rows


def _measure(options: LiveBenchOptions, tracker: Any, rate: float) -> LiveRow:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    total = WARMUP_SECONDS + options.seconds + 1.0
    h, w = options.size
    command = [sys.executable, "-m", "ptrack.bench.beacon", address, str(rate), str(total), f"{w}x{h}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    sender = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    try:
        capture = Capture(_patient(address), CaptureOptions(reconnect=False))
        meter = _Meter()
        grid = Queries.grid(options.points, (capture.info.height, capture.info.width))
        run_live(tracker, capture, grid, LiveOptions(), publishers=[LinesTo(os.devnull)], on_picture=meter.see)
        sent = int(sender.communicate(timeout=10)[0] or 0)
    finally:
        sender.kill()
        sender.wait()
    if meter.dropped_before is None:
        raise InputError("The measured time was over before a picture came; give more --seconds.")
    seconds = max(meter.last[0] - meter.first, 1e-9)
    return LiveRow(
        model=tracker.model.name,
        points=len(grid),
        rate=rate,
        tracked=round((meter.frames - 1) / seconds, 2),
        sent=sent,
        came=capture.came,
        dropped=meter.last[1] - meter.dropped_before,
        latency_ms=meter.percentiles(meter.latency),
        age_ms=meter.percentiles(meter.age),
    )


def _patient(address: str) -> Callable[[], Any]:
    """Return what opens the stream, waiting for the sender to be there."""
    connect = connector(LiveRequest(source=address))

    def opened() -> Any:
        end = time.monotonic() + 60
        while True:
            try:
                return connect()
            except InputError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    return opened


def to_mapping(options: LiveBenchOptions, rows: list[LiveRow]) -> dict[str, Any]:
    """Return plain JSON values."""
    return {"options": {**asdict(options), "size": list(options.size)}, "rows": [asdict(row) for row in rows]}
