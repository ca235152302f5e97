"""How well tracks of unlabelled videos close: forward to a later frame, from there back with new templates.

python scripts/measure_cycle.py --model nano --model matching a.mp4 b.mp4

A 12x12 grid of the first frame is tracked to the middle and to the end of the first 49 frames; a new tracker starts
there, at the positions found, inside the frame or not, and tracks back. "closes": share of points that come back within
1, 2, 4, 8 and 16 px of 256x256 (mean of the five shares). "and seen": of all points, called visible in the later frame,
too. A tracker that slips and stays there does not close: its new template is wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import ptrack
from ptrack.geometry import grid_points
from ptrack.models.base import OnlineModel, StepOutput

SIDE, FRAMES = 12, 49
THRESHOLDS = (1, 2, 4, 8, 16)


def tracked(model: OnlineModel, features: Sequence[Any], start: Tensor) -> StepOutput:
    """Return where points of the first frame are in the last."""
    state = model.add(model.init_state(), features[0], start)
    for feature in features:
        state, out = model.step(state, feature)
    return out


@torch.inference_mode()
def closing(model: OnlineModel, frames: np.ndarray) -> list[tuple[float, float, float]]:
    """Return the shares visible, closing, and both, of each of the two later frames."""
    height, width = frames.shape[1:3]
    start = torch.from_numpy(grid_points(SIDE, (height, width)))
    features = [model.encode(torch.from_numpy(frame[None]))[0] for frame in frames]
    rows = []
    for last in (len(frames) // 2, len(frames) - 1):
        there = tracked(model, features[: last + 1], start)
        back = tracked(model, features[last::-1], there.xy)
        error = ((back.xy.cpu() - start) * torch.tensor([256 / width, 256 / height])).norm(dim=-1)
        seen = there.visibility.cpu() >= model.threshold
        near = torch.stack([error < k for k in THRESHOLDS]).float()
        rows.append((float(seen.float().mean()), float(near.mean()), float((near * seen).mean())))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--model", action="append", help="may be repeated")
    parser.add_argument("--checkpoint", type=Path)
    arguments = parser.parse_args()
    for name in arguments.model or ["nano"]:
        model = ptrack.load(name, checkpoint=arguments.checkpoint).model
        rows = []
        for video in arguments.videos:
            frames = np.stack([frame.rgb for frame, _ in zip(ptrack.read_frames(video), range(FRAMES), strict=False)])
            rows += closing(model, frames)
        visible, closes, both = 100 * np.mean(rows, axis=0)
        print(f"{name}: visible {visible:.1f}, closes {closes:.1f}, closes and seen {both:.1f} %", flush=True)


if __name__ == "__main__":
    main()
