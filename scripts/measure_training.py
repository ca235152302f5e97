"""How far 300 steps on rendered scenes cut the validation error: scores before and after, as one line of JSON.

python scripts/measure_training.py --model transformer
python scripts/measure_training.py --model track-on2 --size 64 --frames 5 --stride 1 --batch 1 --validation 12

The validation clips show photos and actors of no training clip. ``static`` is the score of leaving every point at its
query, which is what an untrained transformer does.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch

from ptrack.data.samples import SampleKey, TrainingBatch, collate
from ptrack.training import data, validation
from ptrack.training.config import TrainConfig, build
from ptrack.training.engine import Trainer
from ptrack.training.logging import PlainLines
from ptrack.training.recipes import default_values, merge
from ptrack.training.run import build_system
from ptrack.training.systems import PredictedTracks


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        config = recipe(arguments, folder)
        clips, system = data.open_data(config), build_system(config)
        assert clips.valid is not None
        shown = [clips.valid[SampleKey(i)] for i in range(len(clips.valid))]
        batches = [collate([sample]) for sample in shown]
        before = validation.scores(validation.validate(system, batches))
        started, worked = time.perf_counter(), time.process_time()
        Trainer(config, system, clips.batches, listeners=[PlainLines(print)]).run()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
        after = validation.scores(validation.validate(system, batches))
    print(json.dumps({
        **vars(arguments), "static": static_scores(batches), "before": before, "after": after,
        "ratio": after["error"] / before["error"], "seconds": round(seconds), "cpu_seconds": round(cpu_seconds),
        "threads": torch.get_num_threads(),
    }))  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="transformer", choices=["transformer", "track-on2"])
    parser.add_argument("--backbone", default="lite0", help="of the transformer; ResNets start from scratch")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", type=int, default=128, help="pixels")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--stride", type=int, default=3, help="rendered frames per frame: more motion")
    parser.add_argument("--points", type=int, default=24)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--validation", type=int, default=16, help="clips")
    return parser.parse_args()


def recipe(arguments: argparse.Namespace, folder: str) -> TrainConfig:
    """Return the configuration of a model that is small enough for two cores."""
    size = [arguments.size] * 2
    small: dict[str, dict[str, Any]] = {
        "transformer": {"backbone": arguments.backbone, "levels": 3, "dim": 128, "layers": 2, "dropout": 0.0},
        "track-on2": {"input_size": size, "strides": [4, 8]},
    }
    values = {
        "arch": small[arguments.model], "lr": arguments.lr, "warmup": 0.05, "batch_size": arguments.batch,
        "pretrained": arguments.model == "transformer" and arguments.backbone == "lite0",
        "max_steps": arguments.steps, "save_dir": folder, "num_workers": arguments.workers, "save_every": 1e9,
        "data": {
            "sequence_length": arguments.frames, "stride": arguments.stride, "num_points": arguments.points,
            "image_size": size, "validation_clips": arguments.validation, "supersampling": 1.0, "query": "first",
            "synthetic_clips": arguments.steps * arguments.batch,
        },
    }  # fmt: skip
    return build(merge(default_values(arguments.model), values))


def static_scores(batches: Sequence[TrainingBatch]) -> dict[str, float]:
    """Return the scores of points that stay at their query and are always visible."""
    total = torch.zeros(validation.SUMS, dtype=torch.float64)
    for batch in batches:
        xy = batch.queries[:, None, :, 1:].expand_as(batch.tracks)
        total += validation.score_sums(PredictedTracks(xy, torch.ones_like(xy[..., 0])), batch, 0.5)
    return validation.scores(total)


if __name__ == "__main__":
    main()
