"""Render clips on the CPU cores while nano trains on one GPU: the recipes nano_gpu and nano_gpu_encoder side by side.

python scripts/train_nano_gpu.py --out OUT --workers 14 --minutes 12 --actors DIR --textures DIR

Both trainings may be stopped and resumed (ptrack train --resume OUT/tracker) while renderers run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
from pathlib import Path

from ptrack.data.pool import render_for
from ptrack.data.synthetic import SyntheticConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/ptrack-clips"), help="of the rendered clips")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    parser.add_argument("--minutes", type=float, default=8.0, help="of rendering")
    parser.add_argument("--frames", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--actors", help="folder with more actors")
    parser.add_argument("--textures", help="folder with more photos")
    parser.add_argument("--set", action="append", default=[], help="key=value of both recipes")
    o = parser.parse_args()
    world = SyntheticConfig(
        frames=o.frames, height=256, width=256, points=256, supersampling=1.25, seed=o.seed, actors_dir=o.actors,
        textures_dir=o.textures,
    )  # fmt: skip
    spawn = multiprocessing.get_context("spawn")
    jobs = [(o.minutes, world, o.folder, i, o.workers) for i in range(o.workers)]
    renderers = [spawn.Process(target=render_for, args=job, daemon=True) for job in jobs]
    for renderer in renderers:
        renderer.start()
    shared = [f"data.pool.folder={o.folder}", *([f"data.textures={o.textures}"] if o.textures else []), *o.set]

    def train(recipe: str, name: str, *sets: str) -> subprocess.Popen[bytes]:
        words = [word for value in (*shared, *sets) for word in ("--set", value)]
        place = ["--save-dir", str(o.out / name), "--log-dir", str(o.out / name / "logs")]
        return subprocess.Popen([sys.executable, "-m", "ptrack", "train", "--config", recipe, *place, *words])

    encoder = train("nano_gpu_encoder", "encoder")
    tracker = train("nano_gpu", "tracker", f"encoder_from={o.out / 'encoder' / 'best.safetensors'}")
    sys.exit(tracker.wait() or encoder.wait())


if __name__ == "__main__":
    main()
