"""Small moving scenes with known tracks for the tests of pictures, pages and servers."""

from __future__ import annotations

import numpy as np

from ptrack.tracks import Tracks, TracksInfo
from ptrack.video import open_writer

W, H, FPS = 96, 64, 20.0
CELL = 16  # pixels of a bit in the numbered frames


def make_tracks(t: int = 12, n: int = 6, **info) -> Tracks:
    """Points on a grid that move right by 1.5 and down by 0.5 pixels a frame; point 1 is occluded from frame 6 on,
    point 2 starts at frame 3."""
    start = np.stack([8 + 12 * np.arange(n) % (W - 20), 6 + 7 * np.arange(n) % (H - 16)], axis=1).astype(np.float32)
    xy = start[None] + np.arange(t, dtype=np.float32)[:, None, None] * np.float32([1.5, 0.5])
    visibility = np.full((t, n), 0.9, np.float32)
    if n > 1:
        visibility[6:, 1] = 0.2
    first = np.zeros(n, np.float32)
    if n > 2 and t > 3:
        xy[:3, 2], visibility[:3, 2], first[2] = np.nan, 0, 3
    values = {"source": "clip.mp4", "width": W, "height": H, "fps": FPS, **info}
    return Tracks(
        tracks=xy, visibility=visibility, confidence=visibility * np.float32(0.9),
        queries=np.column_stack([first, xy[first.astype(int), np.arange(n)]]).astype(np.float32),
        ids=np.asarray([f"p{i}" for i in range(n)], dtype=np.str_), frame_index=np.arange(t),
        pts_seconds=np.arange(t) / FPS, info=TracksInfo(**values),
    )  # fmt: skip


def numbered_frame(number: int) -> np.ndarray:
    """(H, W, 3): the number in binary as 16-pixel black and white cells, lowest bit at the left."""
    bits = (number >> np.arange(W // CELL)) & 1
    row = np.repeat(bits * 200 + 20, CELL).astype(np.uint8)
    return np.repeat(np.broadcast_to(row[None, :, None], (H, W, 3)).copy(), 1, axis=0)


def textured_frame(t: int) -> np.ndarray:
    """(H, W, 3): smooth texture that moves as ``make_tracks`` says."""
    y, x = np.mgrid[0:H, 0:W].astype(np.float64)
    x, y = x - 1.5 * t, y - 0.5 * t
    waves = [np.sin(x / 3 + y / 7), np.sin(x / 5 - y / 4 + 1), np.sin(x / 9 + y / 2.5 + 2)]
    return (
        np.stack([127 + 60 * a + 60 * b for a, b in zip(waves, waves[1:] + waves[:1], strict=True)], axis=-1)
        .clip(0, 255)
        .astype(np.uint8)
    )


def write_clip(path, frames) -> None:
    with open_writer(path, fps=FPS, crf=10) as writer:
        for frame in frames:
            writer.write(frame)
