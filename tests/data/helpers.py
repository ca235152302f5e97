"""Small datasets and clips that the tests make for themselves."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ptrack.data.clips import ArrayFrames, Clip
from ptrack.data.packing import pack
from ptrack.data.store_writer import StoreWriter

DATASETS = Path(__file__).parent / "fixtures" / "datasets"


def picture(seed: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """Return a smooth (H, W, 3) uint8 picture, so that JPEG keeps it well."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def jpeg(seed: int, size: tuple[int, int] = (24, 32)) -> bytes:
    """Return a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture(seed, size)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_simple(
    root: Path, name: str, frames: int = 6, points: int = 4, size: tuple[int, int] = (24, 32), seed: int = 0,
    **arrays: Any,
) -> Path:  # fmt: skip
    """Write a video in the simple layout; ``arrays`` replace or add to those of anno.npz."""
    folder = root / name
    (folder / "frames").mkdir(parents=True)
    for t in range(frames):
        (folder / "frames" / f"frame_{t:06d}.jpg").write_bytes(jpeg(seed * 1000 + t, size))
    rng = np.random.default_rng(seed)
    anno: dict[str, Any] = {
        "trajs_2d": rng.uniform(0, min(size), (frames, points, 2)).astype(np.float32),
        "visibs": rng.random((frames, points)) < 0.8,
    }
    np.savez(folder / "anno.npz", **anno | arrays)
    return folder


def raw_clip(
    name: str = "clip", frames: int = 10, points: int = 6, size: tuple[int, int] = (24, 32), seed: int = 0, **more: Any
) -> Clip:
    """Return a clip with raw frames and random tracks."""
    rng = np.random.default_rng(seed)
    video = (
        np.stack([picture(seed * 1000 + t, size) for t in range(frames)]) if frames else np.zeros((0, *size, 3), "u1")
    )
    values: dict[str, Any] = {
        "tracks": rng.uniform(0, min(size), (frames, points, 2)),
        "visibility": rng.random((frames, points)) < 0.8,
    }
    fixed = {"id": f"test/all/{name}", "source": "test", "split": "all", "name": name}
    return Clip.build(**fixed | {"frames": ArrayFrames(video), "size": size} | values | more)


def write_store(path: Path, clips: list[Clip], codec: Any = "keep") -> Path:
    """Write clips into a finished store."""
    writer = StoreWriter(path.with_name("." + path.name), {"source": "test"})
    for clip in clips:
        writer.add(pack(clip, codec).clip)
    writer.finish([c.id for c in clips], path)
    writer.close()
    return path
