"""How much faster an exported encoder is in onnxruntime than in PyTorch: both take every frame in turns, on one thread.

    ptrack export --model nano --out nano_onnx
    python scripts/onnx_encoder_ratio.py nano_onnx video.mp4 --frames 30

Times are those of the process, medians over the frames after two that warm up.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ptrack
from ptrack.deploy.ptrack_onnx import Tracker


def main() -> None:
    """Track nothing: encode every frame twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("video")
    parser.add_argument("--frames", type=int, default=30)
    given = parser.parse_args()
    torch.set_num_threads(1)
    about = json.loads((given.folder / "model.json").read_text(encoding="utf-8"))
    model: Any = ptrack.load(about["model"], device="cpu").model
    session = Tracker(given.folder, threads=1).encoder
    times: list[tuple[float, float]] = []
    for frame in itertools.islice(ptrack.read_frames(given.video), given.frames + 2):
        start = time.process_time()
        with torch.inference_mode():
            ours = model.encode(torch.from_numpy(frame.rgb)[None])[0]
        halfway = time.process_time()
        found: Any = session.run(None, {"frame": frame.rgb[None]})
        times.append((halfway - start, time.process_time() - halfway))
        name = about["features"][0]["name"]
        print(f"{name}: largest difference {np.abs(found[0] - np.asarray(getattr(ours, name))).max():.1e}, {times[-1]}")
    torch_s, onnx_s = np.median(times[2:], axis=0)
    print(f"PyTorch {torch_s * 1e3:.0f} ms, onnxruntime {onnx_s * 1e3:.0f} ms, ratio {torch_s / onnx_s:.2f}")


if __name__ == "__main__":
    main()
