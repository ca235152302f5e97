"""Makes small clips whose frames carry their own number, so that tests know which picture they were given."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 8  # a row of blocks along the top: white is 1, black is 0, lowest bit first


def numbered(number: int, width: int = 128, height: int = 96) -> np.ndarray:
    """Return a textured (H, W, 3) picture with ``number`` written in blocks along its top quarter."""
    rng = np.random.default_rng(1)
    blocks = rng.integers(40, 216, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    texture = blocks.repeat(8, 0).repeat(8, 1)
    picture = np.roll(texture, 2 * number, axis=1)[:height, :width].copy()
    step = width // BITS
    for bit in range(BITS):
        picture[: height // 4, bit * step : (bit + 1) * step] = 255 * (number >> bit & 1)
    return picture


def number_of(rgb: np.ndarray) -> int:
    """Return the number that ``numbered`` wrote, from a decoded picture of any size."""
    height, width = rgb.shape[:2]
    levels = rgb[height // 8, (np.arange(BITS) * 2 + 1) * width // (2 * BITS)].mean(axis=-1)
    return int((levels > 128) @ (1 << np.arange(BITS)))


def quadrants(width: int = 128, height: int = 96) -> np.ndarray:
    """Return a picture with red upper left, green upper right, blue lower left and white lower right."""
    picture = np.full((height, width, 3), 255, np.uint8)
    picture[: height // 2, : width // 2] = 255, 0, 0
    picture[: height // 2, width // 2 :] = 0, 255, 0
    picture[height // 2 :, : width // 2] = 0, 0, 255
    return picture


def corner_colours(rgb: np.ndarray) -> str:
    """Return the colours of the four quarters, row by row, as letters: "RGBW" for ``quadrants``."""
    height, width = rgb.shape[:2]
    names = {(1, 0, 0): "R", (0, 1, 0): "G", (0, 0, 1): "B", (1, 1, 1): "W"}
    centres = [rgb[height * y // 4, width * x // 4] for y in (1, 3) for x in (1, 3)]
    return "".join(names.get(tuple(int(v > 128) for v in c), "?") for c in centres)


def write_clip(
    path: Path,
    pictures: Sequence[np.ndarray] | int = 30,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    source_format: str = "rgb24",
    ticks: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 30),
    gop: int = 12,
    codec_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    sar: Fraction | None = None,
    rotation: tuple[int, bool] | None = None,
) -> Path:
    """Encode pictures, or that many numbered ones; ``rotation`` is (degrees, hflip) of the display matrix."""
    if isinstance(pictures, int):
        pictures = [numbered(i) for i in range(pictures)]
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=round(1 / time_base), options=codec_options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base, stream.time_base = pix_fmt, time_base, time_base
        stream.codec_context.gop_size = gop
        if sar is not None:
            stream.codec_context.sample_aspect_ratio = sar
        if rotation is not None:
            stream.set_display_rotation(rotation[0], hflip=rotation[1])
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format=source_format)
            frame.pts, frame.time_base = i if ticks is None else ticks[i], time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def packets(path: Path) -> list[tuple[int, int, int, bool]]:
    """Return (pts in ticks, byte offset of its payload, bytes, key) of every packet in decoding order."""
    data = path.read_bytes()
    with av.open(str(path)) as container:
        return [
            (p.pts, data.find(bytes(p)[:64], max(0, p.pos or 0)), p.size, p.is_keyframe)
            for p in container.demux(video=0)
            if p.size
        ]


def damage(path: Path, number: int, seed: int = 0) -> int:
    """Overwrite packet ``number`` (in decoding order) with noise; return the frame number it held."""
    where = packets(path)
    pts, offset, size, _ = where[number]
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    return sorted(p for p, *_ in where).index(pts)


def cut(path: Path, share: float) -> Path:
    """Keep only the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path
