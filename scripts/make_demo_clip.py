"""Render the packaged demo clip: textured things that turn and pass in front of each other over a moving ground.

Everything comes from a seeded random generator: no picture of anybody else's is needed. Run from the repository root::

    python scripts/make_demo_clip.py ptrack/assets/demo.mp4 --overwrite
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptrack.video import open_writer

WIDTH, HEIGHT, FPS, SECONDS = 512, 288, 24, 3.0
OVERSAMPLE = 2  # pictures are rendered this much larger and averaged down: smooth edges
SEED = 20

Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (u, v) -> distance to the outline, negative inside
Path2D = Callable[[float], tuple[float, float, float, float]]  # t in 0..1 -> x, y, angle, scale


@dataclass(frozen=True)
class Thing:
    """A flat textured thing that moves."""

    texture: np.ndarray  # (S, S, 3) float32, tiles
    shape: Shape
    path: Path2D
    shadow: float = 0.0  # how far its shadow falls, pixels


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Return (size, size) noise in [0, 1] that tiles, with ``cells`` bumps per side."""
    grid = rng.random((cells, cells)).astype(np.float32)
    at = np.arange(size, dtype=np.float32) * cells / size
    low, part = at.astype(int), at % 1
    part = part * part * (3 - 2 * part)
    rows = grid[low] * (1 - part[:, None]) + grid[(low + 1) % cells] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, (low + 1) % cells] * part


def mosaic(rng: np.random.Generator, size: int, stones: int, palette: list[str], joint: str) -> np.ndarray:
    """Return a (size, size, 3) tiling texture of irregular stones: many corners, no two alike."""
    seeds = rng.random((stones, 2)).astype(np.float32) * size
    colours = np.array([[int(p[i : i + 2], 16) for i in (0, 2, 4)] for p in palette], np.float32)
    tint = colours[rng.integers(0, len(palette), stones)] * rng.uniform(0.82, 1.12, (stones, 1)).astype(np.float32)
    axis = np.arange(size, dtype=np.float32)
    wobble = [(smooth_noise(rng, size, 12) - 0.5) * size / 22 for _ in range(2)]
    nearest = np.full((2, size, size), np.inf, np.float32)  # distances to the nearest two stones
    owner = np.zeros((size, size), np.int64)
    for number, (x, y) in enumerate(seeds):
        dx = np.abs((axis[None, :] + wobble[0] - x + size / 2) % size - size / 2)
        dy = np.abs((axis[:, None] + wobble[1] - y + size / 2) % size - size / 2)
        distance = np.hypot(dx, dy)
        closer = distance < nearest[0]
        nearest[1] = np.where(closer, nearest[0], np.minimum(nearest[1], distance))
        nearest[0] = np.where(closer, distance, nearest[0])
        owner[closer] = number
    grain = sum(smooth_noise(rng, size, c) * w for c, w in ((24, 0.5), (64, 0.3), (128, 0.2)))
    picture = tint[owner] * (0.55 + 0.85 * np.asarray(grain))[..., None]
    gap = np.clip((nearest[1] - nearest[0]) / (size / 110), 0, 1)[..., None]
    ground = np.array([int(joint[i : i + 2], 16) for i in (0, 2, 4)], np.float32)
    return (ground + (picture - ground) * gap).astype(np.float32)


def sample(texture: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the tiling texture at (u, v) in texels, bilinear."""
    size = len(texture)
    u0, v0 = np.floor(u).astype(int), np.floor(v).astype(int)
    a, b = (u - u0)[..., None], (v - v0)[..., None]
    u0, v0, u1, v1 = u0 % size, v0 % size, (u0 + 1) % size, (v0 + 1) % size
    top = texture[v0, u0] * (1 - a) + texture[v0, u1] * a
    return top * (1 - b) + (texture[v1, u0] * (1 - a) + texture[v1, u1] * a) * b


def disc(radius: float) -> Shape:
    return lambda u, v: np.hypot(u, v) - radius


def ring(radius: float, thickness: float) -> Shape:
    return lambda u, v: np.abs(np.hypot(u, v) - radius) - thickness / 2


def tile(half_width: float, half_height: float, corner: float) -> Shape:
    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        x, y = np.abs(u) - half_width + corner, np.abs(v) - half_height + corner
        return np.hypot(np.maximum(x, 0), np.maximum(y, 0)) + np.minimum(np.maximum(x, y), 0) - corner

    return distance


def ground(u: np.ndarray, _: np.ndarray) -> np.ndarray:
    return np.full_like(u, -1e3)


def scene() -> list[Thing]:
    """Return the things from back to front."""
    rng = np.random.default_rng(SEED)
    slate = mosaic(rng, 640, 300, ["5b7083", "6d8496", "7f95a3", "4f6172", "8a9c9a", "768a7c"], "2c3742")
    ember = mosaic(rng, 320, 230, ["e4572e", "f3a712", "f0c808", "d1495b", "fff1d0"], "4a1c12")
    reef = mosaic(rng, 320, 230, ["17bebb", "2e86ab", "a1e8cc", "f6f7eb", "0b5563"], "06303a")
    plum = mosaic(rng, 256, 230, ["8f2d56", "d81159", "ffbc42", "e9d6ec", "5f0f40"], "2b0620")
    moss = mosaic(rng, 256, 190, ["386641", "6a994e", "a7c957", "f2e8cf", "bc4749"], "16291a")
    tau = 2 * np.pi
    return [
        Thing(slate, ground, lambda t: (256 - 46 * t, 144 + 14 * np.sin(tau * t / 2), 0.05 * t, 1 + 0.06 * t)),
        Thing(moss, ring(44, 30), lambda t: (404, 150 + 62 * np.sin(tau * (t - 0.1)), -1.2 * t, 1.0), 5),
        Thing(ember, disc(78), lambda t: (150 + 34 * t, 160 - 8 * np.sin(tau * t), 1.35 * t - 0.2, 1.0), 7),
        Thing(
            reef, tile(62, 44, 14), lambda t: (430 - 150 * t, 78 + 20 * np.sin(tau * t * 0.7), 0.5 - 0.8 * t, 1.0), 9
        ),
        Thing(
            plum,
            disc(33),
            lambda t: (30 + 440 * t, 214 - 96 * np.sin(np.pi * t), 3.4 * t, 1 + 0.1 * np.sin(np.pi * t)),
            12,
        ),
    ]


def render(things: list[Thing], t: float) -> np.ndarray:
    """Return the (HEIGHT, WIDTH, 3) uint8 picture at ``t`` in [0, 1]."""
    n = OVERSAMPLE
    x = ((np.arange(WIDTH * n) + 0.5) / n)[None, :]
    y = ((np.arange(HEIGHT * n) + 0.5) / n)[:, None]
    picture = np.zeros((HEIGHT * n, WIDTH * n, 3))
    for thing in things:
        cx, cy, angle, scale = thing.path(t)
        cos, sin = np.cos(angle) / scale, np.sin(angle) / scale

        def local(dx: np.ndarray, dy: np.ndarray, cos: float = cos, sin: float = sin) -> tuple[np.ndarray, np.ndarray]:
            return dx * cos + dy * sin, dy * cos - dx * sin

        if thing.shadow:
            away = thing.shape(*local(x - cx - thing.shadow * 0.6, y - cy - thing.shadow))
            picture *= (1 - 0.45 * np.clip(0.5 - away / (1.5 * thing.shadow), 0, 1))[..., None]
        u, v = local(x - cx, y - cy)
        inside = np.nonzero(thing.shape(u, v) < 0)
        depth = np.clip(-thing.shape(u, v)[inside] / 5, 0, 1)[:, None]  # rims a little darker: the things look thick
        picture[inside] = sample(thing.texture, u[inside], v[inside]) * (0.7 + 0.3 * depth)
    small = picture.reshape(HEIGHT, n, WIDTH, n, 3).mean(axis=(1, 3))
    return np.clip(small + 0.5, 0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--crf", type=int, default=21, help="H.264 quality; 21 keeps the clip below 500 KB")
    options = parser.parse_args()
    things, count = scene(), round(SECONDS * FPS)
    with open_writer(options.output, fps=FPS, overwrite=options.overwrite, crf=options.crf) as writer:
        for number in range(count):
            writer.write(render(things, number / (count - 1)))
    print(f"{options.output}: {count} frames, {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
