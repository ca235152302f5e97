"""A stream on this machine whose pictures carry the time they were made: H.264 in MPEG-TS over TCP, at a fixed rate.

Run as ``python -m ptrack.bench.beacon ADDRESS RATE SECONDS WIDTHxHEIGHT``; prints how many pictures were sent.
"""

from __future__ import annotations

import sys
import time
from fractions import Fraction
from typing import Any

import numpy as np

BLOCK = 8  # pixels per side of a bit, which lossy coding leaves readable
COLUMNS, ROWS = 10, 4  # of bits: 32 of the time and 8 that check them
UNIT = 1e-4  # seconds per count of the time
_WRAP = 1 << 32


def stamp_of(seconds: float) -> int:
    """Return the 32-bit stamp of a time of ``time.monotonic``, which all processes of a machine share."""
    return int(seconds / UNIT) % _WRAP


def age_of(stamp: int, now: float) -> float:
    """Return how many seconds before ``now`` a stamp was made."""
    return ((stamp_of(now) - stamp + _WRAP // 2) % _WRAP - _WRAP // 2) * UNIT


def _check(stamp: int) -> int:
    return sum((stamp >> shift) & 0xFF for shift in (0, 8, 16, 24)) * 37 % 251


def mark(rgb: np.ndarray, stamp: int) -> None:
    """Write a stamp into the upper left corner of an (H, W, 3) uint8 picture, in place."""
    number = stamp << 8 | _check(stamp)
    bits = np.asarray([number >> i & 1 for i in range(COLUMNS * ROWS)], np.uint8).reshape(ROWS, COLUMNS)
    rgb[: ROWS * BLOCK, : COLUMNS * BLOCK] = np.kron(bits * 220 + 16, np.ones((BLOCK, BLOCK), np.uint8))[..., None]


def read_mark(rgb: np.ndarray) -> int | None:
    """Return the stamp of an (H, W, 3) picture, None if there is none that can be read."""
    if rgb.shape[0] < ROWS * BLOCK or rgb.shape[1] < COLUMNS * BLOCK:
        return None
    corner = rgb[: ROWS * BLOCK, : COLUMNS * BLOCK].mean(axis=2)
    means = corner.reshape(ROWS, BLOCK, COLUMNS, BLOCK)[:, 2:-2, :, 2:-2].mean(axis=(1, 3)).ravel()
    number = sum(1 << i for i, value in enumerate(means) if value > 127)
    stamp = number >> 8
    return stamp if number & 0xFF == _check(stamp) else None


def pictures(size: tuple[int, int], seed: int = 0) -> Any:
    """Return a function of the frame number that gives (H, W, 3) uint8 pictures of a texture that moves."""
    h, w = size
    rng = np.random.default_rng(seed)
    blocks = rng.integers(40, 216, (h // 8 + 18, w // 8 + 18, 3), np.uint8)
    texture = np.kron(blocks, np.ones((8, 8, 1), np.uint8))

    def picture(number: int) -> np.ndarray:
        x, y = (round(64 + 60 * np.sin(number / 40)), round(64 + 60 * np.cos(number / 50)))
        return np.ascontiguousarray(texture[y : y + h, x : x + w])

    return picture


def send(address: str, rate: float, seconds: float, size: tuple[int, int]) -> int:
    """Send pictures of (H, W) pixels until the time is over or nobody listens; returns how many were sent."""
    import av

    picture = pictures(size)
    target = f"{address}?listen=1" if address.startswith("tcp://") else address
    sent = 0
    with av.open(target, "w", format="mpegts", options={"flush_packets": "1", "muxdelay": "0"}) as out:
        stream: Any = out.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], "yuv420p"
        stream.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "18"}
        stream.codec_context.gop_size = max(1, round(rate / 2))
        stream.thread_count = 1
        try:
            begin = time.monotonic()
            while sent / rate < seconds:
                time.sleep(max(0.0, begin + sent / rate - time.monotonic()))
                rgb = picture(sent)
                mark(rgb, stamp_of(time.monotonic()))
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                frame.pts, frame.time_base = sent, 1 / stream.codec_context.framerate
                out.mux(stream.encode(frame))
                sent += 1
        except (BrokenPipeError, ConnectionError):
            return sent
    return sent


if __name__ == "__main__":
    width, _, height = sys.argv[4].partition("x")
    print(send(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), (int(height), int(width))), flush=True)
