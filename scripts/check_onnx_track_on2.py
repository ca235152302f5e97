"""Track-On2 of the published size exported and compared: onnxruntime against PyTorch, frame by frame, random weights.

python -m scripts.check_onnx_track_on2 video.mp4 --frames 4 --grid 3
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import ptrack
from ptrack import geometry
from ptrack.deploy.export import describe, write
from ptrack.deploy.graphs import graphs_of
from ptrack.deploy.ptrack_onnx import Tracker as OnnxTracker
from ptrack.models.zoo import build, find
from ptrack.tracking.tracker import Tracker


def main() -> None:
    """Export, track twice, print the largest difference of every frame."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    parser.add_argument("--model", default="track-on2-dinov2")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--grid", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    loaded = build(given.model, device="cpu", dtype="float32", untrained=True)
    images = [f.rgb for f in itertools.islice(ptrack.read_frames(given.video), given.frames)]
    height, width = images[0].shape[:2]
    points = geometry.grid_points(given.grid, (height, width))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        out = Path(folder) / "graphs"
        graphs = graphs_of(find(given.model), loaded)
        write(graphs, describe(graphs, loaded), out, lambda text: print(text, flush=True))
        size = sum(file.stat().st_size for file in out.iterdir()) / 1e6
        print(f"exported in {time.perf_counter() - start:.0f} s, {size:.0f} MB", flush=True)
        theirs = OnnxTracker(out, threads=1)
        ours = Tracker(loaded.model)
        ours.add(points)
        for t, image in enumerate(images):
            names = [str(i) for i in range(len(points))] if t == 0 else []
            start = time.process_time()
            found = np.array(list(theirs.step(image, points if t == 0 else (), names).values()))
            halfway = time.process_time()
            expected = ours.step(image)
            done = time.process_time()
            pixels = np.abs(found[:, :2] - expected.positions).max()
            visibility = np.abs(found[:, 2] - expected.visibility).max()
            moved = np.abs(expected.positions - points).max()
            print(f"frame {t}: {pixels:.5f} px, visibility {visibility:.1e}, moved {moved:.0f} px", end="; ")
            print(f"onnxruntime {halfway - start:.2f} s, PyTorch {done - halfway:.2f} s", flush=True)


if __name__ == "__main__":
    main()
