"""How far 300 steps on rendered scenes cut the validation error: scores before and after, as one line of JSON.

python scripts/measure_training.py --model transformer --steps 300
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time

import torch

from ptrack.training import data, order, validation
from ptrack.training.config import build, default_values, merge
from ptrack.training.engine import Trainer
from ptrack.training.logging import PlainLines
from ptrack.training.run import build_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="transformer", choices=["transformer", "online"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--points", type=int, default=24)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--validation", type=int, default=16, help="clips")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        transformer = {"levels": 3, "dim": 64, "layers": 2, "iterations": 3}
        online = {"input_size": [arguments.size] * 2, "strides": [4, 8]}
        small = transformer if arguments.model == "transformer" else online
        recipe = {
            "arch": small, "pretrained": False, "lr": arguments.lr, "warmup": 0.05, "batch_size": arguments.batch,
            "max_steps": arguments.steps, "save_dir": folder, "num_workers": arguments.workers, "save_every": 1e9,
            "data": {
                "sequence_length": arguments.frames, "num_points": arguments.points, "image_size": [arguments.size] * 2,
                "validation_clips": arguments.validation, "supersampling": 1.0, "query": "first",
                "synthetic_clips": arguments.steps * arguments.batch,
            },
        }  # fmt: skip
        config = build(merge(default_values(arguments.model), recipe))
        clips, system = data.open_data(config), build_system(config)
        assert clips.valid is not None
        shown = [clips.valid[order.SampleKey(i)] for i in range(len(clips.valid))]
        batches = [order.collate([sample]) for sample in shown]
        before = validation.scores(validation.validate(system, batches))
        started = time.perf_counter()
        Trainer(config, system, data.RunData(clips.train), listeners=[PlainLines(print)]).run()
        seconds = time.perf_counter() - started
        after = validation.scores(validation.validate(system, batches))
    print(json.dumps({"model": arguments.model, "steps": arguments.steps, "before": before, "after": after,
                      "seconds": round(seconds), "threads": torch.get_num_threads()}))  # fmt: skip


if __name__ == "__main__":
    main()
