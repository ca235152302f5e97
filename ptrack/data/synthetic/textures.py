"""Textures of the synthetic world: photos and patterns as tiles that repeat without a mirror, with mip levels.

A strip is a tile with all its mip levels side by side, each framed by one pixel of its own wrapped border, so that
bilinear sampling needs no special case at the edges: (3, 258, 516) for a tile of 256 pixels.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from ptrack.errors import DataError

TILE = 256  # pixels
LEVELS = 6  # 256 ... 8 pixels
STRIP_HEIGHT = TILE + 2
STRIP_WIDTH = sum((TILE >> level) + 2 for level in range(LEVELS))
LEVEL_START = tuple(sum((TILE >> k) + 2 for k in range(level)) + 1 for level in range(LEVELS))  # x of a level's pixels


@lru_cache(maxsize=192)  # 0.4 MB each
def photo_strip(path: Path) -> np.ndarray:
    """Return the strip of a photo, (3, STRIP_HEIGHT, STRIP_WIDTH) uint8.

    Raises:
        DataError: the file is not a readable picture.
    """
    import imageio.v3 as iio

    try:
        photo = np.asarray(iio.imread(path))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} is not a readable picture: {error}.") from error
    if photo.ndim == 2:  # grey photos are coloured, by their name
        rng = np.random.default_rng(zlib.crc32(path.stem.encode()))
        return strip(repeating(_ramp(rng, photo / 255, 3).astype(np.float32)))
    return strip(repeating(photo[..., :3].astype(np.float32) / 255))


@lru_cache(maxsize=64)
def procedural_strip(kind: str, variant: int) -> np.ndarray:
    """Return the strip of a pattern of ``PROCEDURAL``, (3, STRIP_HEIGHT, STRIP_WIDTH) uint8."""
    rng = np.random.default_rng([PROCEDURAL.index(kind), variant])
    return strip(np.clip(_PATTERNS[kind](rng), 0, 1).astype(np.float32))


def repeating(photo: np.ndarray) -> np.ndarray:
    """Return the middle of a photo (h, w, 3) as a (TILE, TILE, 3) tile whose opposite borders meet.

    The picture's last fifth is faded into what lies before its first pixel: nothing is mirrored.
    """
    for axis in (0, 1):
        photo = np.moveaxis(_fade(np.moveaxis(photo, axis, 0)), 0, axis)
    return np.clip(photo, 0, 1)


def _fade(photo: np.ndarray) -> np.ndarray:
    """Resample along the first axis to TILE plus the overlap, then fade the surplus over the beginning."""
    extra = round(TILE * 0.2)
    long = _resample(photo, TILE + extra)
    ramp = np.linspace(0, 1, extra + 2, dtype=np.float32)[1:-1].reshape(-1, *[1] * (photo.ndim - 1))
    ramp = ramp * ramp * (3 - 2 * ramp)
    head = long[:extra] * ramp + long[TILE:] * (1 - ramp)
    return np.concatenate([head, long[extra:TILE]])


def _resample(photo: np.ndarray, size: int) -> np.ndarray:
    """Resample the middle of the first axis (at most twice as long as the result would need) linearly to ``size``."""
    at = (np.arange(size, dtype=np.float32) + 0.5) * (len(photo) / size) - 0.5
    low = np.clip(np.floor(at).astype(np.int64), 0, len(photo) - 1)
    high = np.minimum(low + 1, len(photo) - 1)
    part = np.clip(at - low, 0, 1).reshape(-1, *[1] * (photo.ndim - 1))
    return photo[low] * (1 - part) + photo[high] * part


def strip(tile: np.ndarray) -> np.ndarray:
    """Return the strip of a tile (TILE, TILE, 3) float32 in [0, 1], as uint8."""
    out = np.zeros((STRIP_HEIGHT, STRIP_WIDTH, 3), np.float32)
    for level in range(LEVELS):
        size, x = TILE >> level, LEVEL_START[level]
        out[: size + 2, x - 1 : x + size + 1] = np.pad(tile, ((1, 1), (1, 1), (0, 0)), mode="wrap")
        tile = tile.reshape(size // 2, 2, size // 2, 2, 3).mean((1, 3))
    return np.ascontiguousarray((out * 255 + 0.5).astype(np.uint8).transpose(2, 0, 1))


def _noise(rng: np.random.Generator, slope: float = 1.4) -> np.ndarray:
    """Periodic noise (TILE, TILE) in [0, 1] whose amplitude falls with frequency to the power ``slope``."""
    fy, fx = np.fft.fftfreq(TILE)[:, None] * TILE, np.fft.rfftfreq(TILE)[None] * TILE
    amplitude = np.maximum(np.hypot(fx, fy), 1) ** -slope
    spectrum = amplitude * np.exp(2j * np.pi * rng.random(amplitude.shape))
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(TILE, TILE))
    return np.clip(0.5 + field / (5 * field.std() + 1e-9), 0, 1)


def _ramp(rng: np.random.Generator, value: np.ndarray, colours: int = 3) -> np.ndarray:
    """Colour a (TILE, TILE) value in [0, 1] along a few random colours."""
    table = rng.random((colours, 3)) * 0.8 + 0.1
    knots = np.linspace(0, 1, colours)
    return np.stack([np.interp(value, knots, table[:, c]) for c in range(3)], -1)


def _axes() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.meshgrid(np.arange(TILE) / TILE, np.arange(TILE) / TILE, indexing="ij")
    return x, y


def _grainy(rng: np.random.Generator, tile: np.ndarray, amount: float = 0.25) -> np.ndarray:
    """Multiply by fine noise so that no area is without texture."""
    return tile * (1 - amount + 2 * amount * _noise(rng, 0.8))[..., None]


def _clouds(rng: np.random.Generator) -> np.ndarray:
    return _ramp(rng, _noise(rng, rng.uniform(0.9, 1.8)), 4)


def _marble(rng: np.random.Generator) -> np.ndarray:
    x, y = _axes()
    turns = rng.integers(1, 4, 2)
    phase = turns[0] * x + turns[1] * y + 3 * _noise(rng, 1.5)
    return _grainy(rng, _ramp(rng, 0.5 + 0.5 * np.sin(2 * np.pi * phase), 3), 0.15)


def _checker(rng: np.random.Generator) -> np.ndarray:
    x, y = _axes()
    n = 2 * int(rng.integers(1, 6))
    return _grainy(rng, _ramp(rng, (np.floor(x * n) + np.floor(y * n)) % 2, 2))


def _stripes(rng: np.random.Generator) -> np.ndarray:
    x, y = _axes()
    turns = rng.integers(0, 6, 2) + np.array([1, 0])
    phase = (turns[0] * x + turns[1] * y + rng.uniform(0, 0.3) * _noise(rng)) % 1
    return _grainy(rng, _ramp(rng, np.floor(phase * 4) / 3, 4))


def _scatter(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest of ``count`` random points on the torus, and its number: two (TILE, TILE) arrays."""
    points = rng.random((count, 2)).astype(np.float32)
    axis = (np.arange(TILE, dtype=np.float32) + 0.5) / TILE
    away = np.abs(axis[:, None, None] - points)  # (TILE, count, 2)
    away = np.minimum(away, 1 - away) ** 2
    squared = away[:, None, :, 1] + away[None, :, :, 0]  # (TILE, TILE, count)
    index = squared.argmin(-1)
    return np.sqrt(np.take_along_axis(squared, index[..., None], -1)[..., 0]), index


def _dots(rng: np.random.Generator) -> np.ndarray:
    count = int(rng.integers(20, 120))
    distance, index = _scatter(rng, count)
    radius = (rng.random(count) * 0.4 + 0.15) / np.sqrt(count)
    spots = rng.random((count, 3))[index]
    return _grainy(rng, np.where((distance < radius[index])[..., None], spots, rng.random(3)))


def _cells(rng: np.random.Generator) -> np.ndarray:
    count = int(rng.integers(15, 150))
    distance, index = _scatter(rng, count)
    return _grainy(rng, _palette(rng, count)[index] * np.clip(1.2 - distance * np.sqrt(count), 0.2, 1)[..., None])


def _palette(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return ``count`` colours around two random ones, (count, 3)."""
    base = rng.random((2, 3))
    mix = rng.random((count, 1))
    return np.clip(base[0] * mix + base[1] * (1 - mix) + rng.normal(0, 0.06, (count, 3)), 0, 1)


def _bricks(rng: np.random.Generator) -> np.ndarray:
    x, y = _axes()
    rows, columns = 2 * int(rng.integers(2, 6)), int(rng.integers(2, 5))
    row = np.floor(y * rows).astype(np.int64)
    along = (x * columns + 0.5 * (row % 2)) % columns
    number = row * columns + np.floor(along).astype(np.int64)
    gap = np.minimum(along % 1, 1 - along % 1) / columns < 0.008
    gap |= np.minimum((y * rows) % 1, 1 - (y * rows) % 1) / rows < 0.008
    return _grainy(rng, np.where(gap[..., None], rng.random(3), _palette(rng, rows * columns)[number]), 0.35)


def _grain(rng: np.random.Generator) -> np.ndarray:
    return _ramp(rng, _noise(rng, rng.uniform(0.3, 0.9)), 2)


def _wood(rng: np.random.Generator) -> np.ndarray:
    x, _ = _axes()
    rings = rng.integers(6, 16) * x + 4 * _noise(rng, 2.0)
    base = np.array([0.55, 0.36, 0.2]) * rng.uniform(0.6, 1.4, 3)
    return _grainy(rng, (0.7 + 0.3 * np.sin(2 * np.pi * rings))[..., None] * base, 0.3)


def _letters(rng: np.random.Generator) -> np.ndarray:
    """Random glyph-like marks on plain ground: print, labels, signs."""
    n = int(rng.integers(6, 20))
    cell = rng.random((n * 6, n * 5)) < 0.5
    cell[::6] = False
    cell[:, ::5] = False
    index = (np.arange(TILE) * len(cell)) // TILE, (np.arange(TILE) * cell.shape[1]) // TILE
    marks = cell[index[0]][:, index[1]]
    return _grainy(rng, np.where(marks[..., None], rng.random(3) * 0.5, rng.random(3) * 0.5 + 0.5), 0.15)


_DRAWN = (_clouds, _marble, _checker, _stripes, _dots, _bricks, _cells, _grain, _letters, _wood)
_PATTERNS = {draw.__name__.removeprefix("_"): draw for draw in _DRAWN}
PROCEDURAL = tuple(_PATTERNS)
