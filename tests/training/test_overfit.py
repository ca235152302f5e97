"""Both trackers learn: a small network overfits one clip to 95 delta-average within two minutes together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ptrack.data.samples import SampleKey, collate
from ptrack.training import config as configs
from ptrack.training import recipes, systems, validation
from ptrack.training.engine import Trainer
from ptrack.training.order import OrderedBatches
from tests.training.scenes import PanningClips

SMALL = {
    "transformer": {"levels": 3, "dim": 64, "heads": 4, "layers": 2, "iterations": 3, "dropout": 0.0},
    "track-on2": {
        **recipes.SMALL_TRACK_ON2, "input_size": [64, 64], "strides": [4, 8], "dropout": 0.0, "memory_mask": 0.0,
    },
}  # fmt: skip
STEPS = {"transformer": 170, "track-on2": 120}


@pytest.mark.parametrize("model", ["track-on2", "transformer"])
def test_one_clip_is_learnt_by_heart(tmp_path: Path, model: str) -> None:
    clips = PanningClips(length=1, frames=6, points=8, size=64, still=True)
    config = configs.build(
        {
            "model": model, "arch": SMALL[model], "pretrained": False, "batch_size": 1, "max_steps": STEPS[model],
            "lr": 1e-3, "warmup": 0.05, "weight_decay": 0.0, "num_workers": 0, "save_dir": str(tmp_path),
            "save_every": 1e9, "eval_every": 100_000, "checkpoint": False,
            "data": {"image_size": [64, 64], "sequence_length": 6},
        }
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        system = systems.build(config)
    batches = [collate([clips[SampleKey(0)]])]
    before = validation.scores(validation.validate(system, batches))
    Trainer(config, system, OrderedBatches(clips, 1)).run()
    after = validation.scores(validation.validate(system, batches))
    assert before["delta_avg"] < 75
    assert after["delta_avg"] >= 95
    assert after["occlusion_accuracy"] >= 95
