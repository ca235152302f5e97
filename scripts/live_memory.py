"""Two hours of a live stream at 30 frames/s, faster than real time: memory and disk per frame, and a plot of them.

    python -m scripts.live_memory docs/images/live_memory.png

216 000 frames of 160x120 go through ``run_live`` as a camera's would: points are lost, removed and added all the time,
the tracks file is cut every half hour of the stream, and every frame is published as a JSON line.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from ptrack.live.capture import Capture, CaptureOptions
from ptrack.live.points import PointOptions
from ptrack.live.publish import LinesTo, LiveFrame
from ptrack.live.recorder import Recorder
from ptrack.live.session import LiveOptions, live_info, run_live
from ptrack.tracking.tracker import Tracker
from ptrack.tracks import Queries
from tests.live.simulated import RATE, SIZE, Simulated, Watchful

EVERY = 1000  # frames between two looks at the memory


def resident() -> float:
    """Return the memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plot", type=Path)
    parser.add_argument("--frames", type=int, default=216_000)
    arguments = parser.parse_args()
    memory: list[float] = []

    def measure(frame: LiveFrame) -> None:
        if frame.frame % EVERY == 0:
            memory.append(resident())

    tracker = Tracker(Watchful())
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        capture = Capture(lambda: Simulated(arguments.frames), CaptureOptions(realtime=False))
        recorder = Recorder(Path(name) / "live.tracks.h5", live_info(tracker, capture), split=1800.0)
        points = PointOptions(max_lost=30, min_coverage=0.7, grid=8)
        report = run_live(
            tracker, capture, Queries.grid(8, SIZE), LiveOptions(points=points),
            on_frame=measure, publishers=[LinesTo(os.devnull)], recorder=recorder,
        )  # fmt: skip
        disk = sum(path.stat().st_size for path in report.tracks) / 2**20
    settled = memory[len(memory) // 10 :]
    print(f"{report.frames} frames in {time.monotonic() - start:.0f} s, {report.added} points added, "
          f"{report.removed} removed, {len(report.tracks)} files of {disk:.0f} MiB")  # fmt: skip
    print(
        f"memory after a tenth {settled[0]:.1f} MiB, at the end {settled[-1]:.1f} MiB, at most {max(settled):.1f} MiB"
    )

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
    axes.plot(np.arange(len(memory)) * EVERY / RATE / 3600, memory, linewidth=1.2)
    axes.set(xlabel="hours of the stream", ylabel="memory (MiB)", ylim=(0, max(memory) * 1.15))
    axes.grid(alpha=0.3)
    figure.savefig(arguments.plot, dpi=110)


if __name__ == "__main__":
    main()
