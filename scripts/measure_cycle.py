"""How well tracks of unlabelled videos close: forward to a later frame, from there back with fresh templates.

python scripts/measure_cycle.py --model nano --model matching a.mp4 b.mp4

A 12x12 grid of the first frame is tracked to the middle and to the end of the first 49 frames; a new tracker starts
there, at the positions found, and tracks back. "closes": share of points that come back within 1, 2, 4, 8 and 16 px of
256x256 (mean of the five shares). "and seen": of all points, called visible in the later frame, too. A point that
disappears cannot close; a tracker that slips and stays there does not close either, because its new template is wrong.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import ptrack
from ptrack.tracking.tracker import Tracker

SIDE, FRAMES = 12, 49
THRESHOLDS = (1, 2, 4, 8, 16)


def closing(tracker: Tracker, frames: np.ndarray) -> tuple[float, float, float]:
    """Return the shares visible, closing, and both."""
    height, width = frames.shape[1:3]
    x, y = ((np.arange(SIDE) + 0.5) * n / SIDE for n in (width, height))
    start = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    first = np.zeros((len(start), 1))
    there = tracker.track(frames, np.c_[first, start])
    back = tracker.track(np.ascontiguousarray(frames[::-1]), np.c_[first, there.tracks[-1]])
    error = np.linalg.norm((back.tracks[-1] - start) * [256 / width, 256 / height], axis=-1)
    seen = there.visibility[-1] >= tracker.model.threshold
    near = np.stack([error < k for k in THRESHOLDS])
    return float(seen.mean()), float(near.mean()), float((near & seen).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--model", action="append", help="may be repeated")
    parser.add_argument("--checkpoint", type=Path)
    arguments = parser.parse_args()
    for model in arguments.model or ["nano"]:
        tracker = ptrack.load(model, checkpoint=arguments.checkpoint)
        rows = []
        for video in arguments.videos:
            frames = np.stack([frame.rgb for frame, _ in zip(ptrack.read_frames(video), range(FRAMES), strict=False)])
            rows += [closing(tracker, frames[: len(frames) // 2 + 1]), closing(tracker, frames)]
        visible, closes, both = 100 * np.mean(rows, axis=0)
        print(f"{model}: visible {visible:.1f}, closes {closes:.1f}, closes and seen {both:.1f} %", flush=True)


if __name__ == "__main__":
    main()
