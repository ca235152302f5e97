"""Track-On2 on a CPU in bfloat16 against float32: both take every frame in turns, on one thread, memory full.

    python -m scripts.bfloat16_ratio video.mp4 --points 64 --points 256 --frames 3

The weights are random: time does not depend on them, but how far the positions are apart does, so that the
distance is that of this network, not of a trained one. Times are those of the process, medians; one frame warms up.
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings

import numpy as np
import torch

import ptrack
from ptrack.bench.speed import Stages, spread_points
from ptrack.memory import MemoryMeter
from ptrack.models.base import OnlineModel
from ptrack.models.zoo import build

KINDS = ("float32", "bfloat16")


def measure(models: dict[str, OnlineModel], images: list[np.ndarray], count: int) -> None:
    """Track ``count`` points through the images with every model and print medians."""
    first, *rest = images
    stages = {kind: Stages(model, iter(rest), 1) for kind, model in models.items()}
    for stage in stages.values():
        stage.start(first, spread_points(count, (first.shape[0], first.shape[1])), 0)
    rows: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    distances: list[np.ndarray] = []
    for image in rest:
        positions: list[np.ndarray] = []
        for kind, stage in stages.items():
            start = time.process_time()
            features = stage.model.encode(torch.from_numpy(image)[None])[0]
            encoded = time.process_time()
            stage.state, out = stage.model.step(stage.state, features)
            rows[kind].append((encoded - start, time.process_time() - encoded))
            positions.append(out.xy.float().numpy())
        distances.append(np.linalg.norm(positions[0] - positions[1], axis=-1))
    medians = {kind: np.median(rows[kind][1:], axis=0) for kind in KINDS}
    for kind, (encode, step) in medians.items():
        print(f"{count} points, {kind}: encode {encode * 1e3:.0f} ms, step {step * 1e3:.0f} ms")
    ratio = medians["float32"] / medians["bfloat16"]
    p99 = [np.quantile(distances[0], 0.99), np.quantile(np.concatenate(distances), 0.99)]
    print(f"{count} points: ratio of encoding {ratio[0]:.2f}, of the step {ratio[1]:.2f}; 99th percentile of the")
    print(f"    distance {p99[0]:.2f} px in the first frame, {p99[1]:.2f} px in all {len(distances)}", flush=True)


def peak(model: OnlineModel, images: list[np.ndarray], count: int) -> float:
    """Track ``count`` points through the images and return the largest memory of the process, MB."""
    first, *rest = images
    meter = MemoryMeter()
    stage = Stages(model, iter(rest), 1)
    stage.start(first, spread_points(count, (first.shape[0], first.shape[1])), 0)
    for image in rest:
        stage.state, _ = model.step(stage.state, model.encode(torch.from_numpy(image)[None])[0])
    return meter.peak().process / 1e6


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    parser.add_argument("--points", type=int, action="append", required=True)
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--peak", choices=KINDS, help="the memory of this one alone, over two frames")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # that bfloat16 is slower here
    images = [f.rgb for f in itertools.islice(ptrack.read_frames(given.video), given.frames + 2)]
    if given.peak:
        model = build("track-on2-dinov2", device="cpu", dtype=given.peak, untrained=True).model
        with torch.inference_mode():
            for count in given.points:
                print(f"{count} points, {given.peak}: peak {peak(model, images[:2], count):.0f} MB", flush=True)
        return
    models = {k: build("track-on2-dinov2", device="cpu", dtype=k, untrained=True).model for k in KINDS}
    with torch.inference_mode():
        for count in given.points:
            measure(models, images, count)


if __name__ == "__main__":
    main()
