"""Two hundred short clips, ten of them broken, and ``ptrack track`` over them as a user starts it; for ``scripts/``."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from ptrack.video import open_writer
from tests.cli.helpers import PTRACK


def make_clips(folder: Path, good: int, bad: int, frames: int = 12) -> None:
    folder.mkdir()
    for i in range(good):
        texture = np.kron(
            np.random.default_rng(i).integers(0, 255, (24, 28, 3), np.uint8), np.ones((6, 6, 1), np.uint8)
        )
        with open_writer(folder / f"clip{i:03d}.mp4", fps=25) as writer:
            for t in range(frames):
                at = t % 40  # the texture is 40 pixels wider than a frame
                writer.write(np.ascontiguousarray(texture[at : at + 96, at : at + 128]), t / 25)
    for i in range(bad):
        whole = (folder / "clip000.mp4").read_bytes()
        (folder / f"bad{i:03d}.mp4").write_bytes([b"words", b"", whole[:200], bytes(3000)][i % 4])


def start(out: Path | str, clips: Path | str, *options: str) -> subprocess.Popen[bytes]:
    command = [*PTRACK, "track", str(clips), "--out", str(out), "--grid", "8", "-q", *options]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def states(out: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in out.glob("*.status.json")]


def outputs(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if not path.name.endswith(".json")}


def timed(out: Path | str, clips: Path | str, *options: str) -> float:
    begin = time.perf_counter()
    start(out, clips, *options).wait()
    return time.perf_counter() - begin


def check(what: str, holds: bool) -> None:
    print(f"{what}: {'ok' if holds else 'NOT SO'}", flush=True)
    if not holds:
        sys.exit(1)
