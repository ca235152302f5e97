"""Track-On2's time, memory and positions on a CPU in one run: number types, and another checkout, in turns by frame.

    python -m scripts.track_on2_speed video.mp4 --points 64 --points 1024 --dtype bfloat16 --against ../older

Every number type, and the other checkout in float32, is a process of its own that waits while another works. Printed
are medians in ms after one frame that warms up, the memory of 72 frames full, and the peak memory of the process. The
weights are random, the same in all: time does not depend on them, but all cells of a correlation are nearly alike, so
that a distance in bfloat16 is that of this network, not of a trained one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

HEADINGS = (
    "points", "type", "encode", "step", "sum", "times as fast as float32", "as the other", "px, median", "px, 99 %",
    "px, most", "peak MB",
)  # fmt: skip
OTHER = "other checkout"


def work(frames: str, dtype: str, threads: int) -> None:
    """Answer each line of standard input, ``points frame``, by times, positions and memory; runs in any checkout."""
    import torch

    from ptrack.bench.speed import SpeedCase, SpeedOptions, fill_memory, load_model, spread_points

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")  # that bfloat16 is slower here
    images, case = np.load(frames), SpeedCase("track-on2-dinov2", 1, 72, "cpu", dtype, None)
    model = load_model(case, SpeedOptions(models=(case.model,), random_weights=True))[0]
    with torch.inference_mode():
        state, holds = model.init_state(), 0
        for line in sys.stdin:
            count, number = map(int, line.split())
            began = time.perf_counter()
            features = model.encode(torch.from_numpy(images[number])[None])[0]
            encoded = time.perf_counter()
            if fill := count != holds:
                points = torch.as_tensor(spread_points(count, images.shape[1:3]), dtype=torch.float32)
                state, holds = model.add(model.init_state(), features, points), count
            added = time.perf_counter()
            state, out = model.step(state, features)
            times = [encoded - began, time.perf_counter() - added]
            state = fill_memory(state, 72) if fill else state
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            print(json.dumps({"times": times, "xy": out.xy.float().tolist(), "peak": peak}), flush=True)


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start a worker on the ptrack of a folder."""
    from ptrack.bench.against import environment

    command = [sys.executable, str(Path(__file__).resolve()), "--work", *words]
    return subprocess.Popen(command, env=environment(folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(worker: subprocess.Popen[str], count: int, number: int) -> dict:
    """Let a worker track ``count`` points into a frame."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    print(count, number, file=worker.stdin, flush=True)
    return json.loads(worker.stdout.readline())


def table(workers: dict[str, subprocess.Popen[str]], count: int, frames: int) -> None:
    """Measure one number of points and print a row per worker."""
    answers: dict[str, list[dict]] = {name: [] for name in workers}
    for number in range(frames + 2):
        for name in workers if number % 2 else reversed(workers):
            answers[name].append(ask(workers[name], count, number))
    middle = {name: 1e3 * np.median([a["times"] for a in each[2:]], axis=0) for name, each in answers.items()}
    for name, each in answers.items():
        pairs = zip(each, answers["float32"], strict=True)
        apart = np.array([np.linalg.norm(np.subtract(a["xy"], b["xy"]), axis=-1) for a, b in pairs])
        total = middle[name].sum()
        times = [f"{t:.0f}" for t in (*middle[name], total)]
        ratios = [f"{middle[other].sum() / total:.2f}" if other in middle else "" for other in ("float32", OTHER)]
        far = [f"{np.quantile(apart, q):.5f}" for q in (0.5, 0.99, 1)]
        peak = f"{max(a['peak'] for a in each):.0f}"
        print("| " + " | ".join([str(count), name, *times, *ratios, *far, peak]) + " |", flush=True)


def main() -> None:
    """Read the options and measure."""
    if sys.argv[1:2] == ["--work"]:
        return work(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    import ptrack
    from ptrack.bench.against import HERE, checkout

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    parser.add_argument("--points", type=int, action="append", required=True)
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", action="append", default=[], help="besides float32")
    parser.add_argument("--against", type=Path, help="a checkout, in float32")
    given = parser.parse_args()
    other = checkout(given.against) if given.against else None
    images = [f.rgb for f in itertools.islice(ptrack.read_frames(given.video), given.frames + 2)]
    with tempfile.TemporaryDirectory() as place:
        frames, threads = f"{place}/frames.npy", str(given.threads)
        np.save(frames, np.stack(images))
        workers = {kind: start(HERE, frames, kind, threads) for kind in ("float32", *given.dtype)}
        if other:
            workers[OTHER] = start(other, frames, "float32", threads)
        print("| " + " | ".join(HEADINGS) + " |\n" + "|---" * len(HEADINGS) + "|")
        for count in given.points:
            table(workers, count, given.frames)
        for worker in workers.values():
            worker.communicate()


if __name__ == "__main__":
    main()
