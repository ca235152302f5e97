"""Gradients flow where the published recipe says, and the vision transformer stays as it was."""

from __future__ import annotations

from pathlib import Path

import torch

from ptrack.data.samples import SampleKey, collate
from ptrack.processes import Group
from ptrack.training import config as configs
from ptrack.training import systems
from ptrack.training.step import Precision, Stepper
from tests.training.scenes import PanningClips


def test_every_part_but_the_vision_transformer_learns(tmp_path: Path) -> None:
    config = configs.build(
        {
            "model": "track-on2", "arch": {"input_size": [64, 64], "memory": 3, "candidates": 4}, "pretrained": False,
            "data": {"image_size": [64, 64], "sequence_length": 3}, "save_dir": str(tmp_path),
        }
    )  # fmt: skip
    assert config.arch["backbone"] == "dinov2_s"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        system = systems.build(config).train()
        for parameter in system.parameters():  # the injectors' gains start at zero and hide what lies behind them
            if parameter.ndim == 1 and parameter.requires_grad and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
        clips = PanningClips(length=2, frames=3, points=48, size=64)  # enough that some patches are within 8 px
        batch = collate([clips[SampleKey(0)], clips[SampleKey(1)]])
        before = {n: p.detach().clone() for n, p in system.named_parameters()}
        trainable = [p for p in system.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=1e-3, weight_decay=0.0)
        result = Stepper(system, system, optimizer, Precision(None), Group(), 1.0, 0)([batch], 0, 1e-3)
    assert result.done
    assert set(result.terms) == {"L_p", "L_p2", "L_vis", "L_o", "L_u", "L_topk_u", "L_topk_rank"}
    moved = {n for n, p in system.named_parameters() if not torch.equal(p, before[n])}
    vit = {n for n in before if ".vit." in n}
    assert len(vit) > 100
    assert not moved & vit
    idle = {"model.reranking_head.score_layer.bias"}  # a bias common to all candidates cancels in their softmax
    assert set(before) - vit - moved - idle == set()
