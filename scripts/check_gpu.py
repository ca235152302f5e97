"""Does everything that runs on a GPU give what the CPU gives, and how fast is it there: one command, two minutes.

python scripts/check_gpu.py
python scripts/check_gpu.py --video video.mp4

Each part reports what it found; a part that fails gives the reason, the others go on, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import torch

import ptrack
from ptrack.bench.speed import SpeedOptions, bench_speed
from ptrack.data.synthetic import SyntheticConfig, generate
from ptrack.models.nano.model import Nano

FRAMES, SIDE = 40, 16
PIXELS = 0.5  # by which a point may differ from the CPU's: convolutions are rounded otherwise there


def same_tracks(name: str, frames: np.ndarray, device: str) -> str:
    """Compare a model's tracks on the device with those on the CPU, and those of captured with those of plain steps."""
    tracker = ptrack.load(name, device=device)
    found = tracker.track(frames, grid=SIDE)
    summary = ""
    if isinstance(tracker.model, Nano) and device != "cpu":
        replay, plain = tracker.model.replay, ptrack.load(name, device=device)
        plain.model.replay.works = False
        difference = np.abs(plain.track(frames, grid=SIDE).tracks - found.tracks).max()
        summary = f"; {'captured' if replay.captured else 'NOT captured'}, {difference:.4f} px from plain steps"
        if not replay.captured or difference > 1e-3:
            raise ValueError(f"the captured step differs{summary}")
    few = frames[:8]
    error = np.linalg.norm(ptrack.load(name, device="cpu").track(few, grid=SIDE).tracks - found.tracks[:8], axis=-1)
    share = (error > PIXELS).mean()
    if share > 0.01:
        raise ValueError(f"{100 * share:.1f} % of the positions are more than {PIXELS} px from the CPU's")
    return f"median {np.median(error):.5f} px from the CPU, {100 * share:.2f} % more than {PIXELS} px{summary}"


def same_clips(device: str) -> str:
    """Compare rendered clips."""
    config = SyntheticConfig(frames=8, supersampling=1.25)
    here, there = generate(config, range(4), "cpu"), generate(config, range(4), device)
    if bool(there.overflow):
        raise ValueError("the room for intermediate results was too small")
    difference = (here.frames.float() - there.frames.cpu().float()).abs()
    move = (here.tracks - there.tracks.cpu()).norm(dim=-1)
    other = (here.visibility != there.visibility.cpu()).float().mean()
    summary = (
        f"colours {float(difference.mean()):.3f} of 255 apart, tracks {float(move.median()):.5f} px in the median, "
        f"visibility differs in {100 * float(other):.2f} %"
    )
    if difference.mean() > 1 or move.median() > 0.01 or other > 0.01:
        raise ValueError(summary)
    start = time.perf_counter()
    generate(SyntheticConfig(supersampling=1.25), range(10, 18), device).frames.cpu()
    return f"{summary}; {8 / (time.perf_counter() - start):.2f} clips/s of 24 frames, eight at once"


def speed(device: str, video: Path, **more: object) -> str:
    """Time one model."""
    options = SpeedOptions(devices=(device,), video=video, vit_unit=False, frames=60, seconds=30, **more)
    lines: list[str] = []
    bench_speed(options, lines.append)
    return " | ".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--video", type=Path, default=Path(str(resources.files("ptrack") / "assets" / "demo.mp4")))
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("error: There is no GPU that this PyTorch can use; try --device cpu to see what is checked.")
    frames = np.stack([f.rgb for _, f in zip(range(FRAMES), ptrack.read_frames(options.video), strict=False)])
    track_on = {"models": ("track-on2-dinov2",), "random_weights": True, "memories": (48,)}
    parts: dict[str, Callable[[], str]] = {
        "nano, tracks": lambda: same_tracks("nano", frames, options.device),
        "matching, tracks": lambda: same_tracks("matching", frames, options.device),
        "rendering": lambda: same_clips(options.device),
        **{
            f"nano, speed, {quality}": lambda quality=quality: speed(
                options.device, options.video, models=("nano",), quality=quality, batch=8
            )
            for quality in ("fast", "default", "best")
        },
        "Track-On2, speed": lambda: speed(options.device, options.video, **track_on),
        "TAPNext++, speed": lambda: speed(
            options.device, options.video, models=("tapnextpp", "tapnextpp-512"), random_weights=True
        ),
    }
    failed = 0
    for name, part in parts.items():
        start = time.perf_counter()
        try:
            summary = part()
        except Exception as error:
            failed += 1
            traceback.print_exc()
            summary = f"FAILED: {error}"
        print(f"{name} ({time.perf_counter() - start:.1f} s): {summary}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
