import math
from dataclasses import replace

import pytest
import torch

from ptrack.config import to_mapping
from ptrack.data.samples import SampleKey
from ptrack.models.nano.config import NanoConfig
from ptrack.models.nano.model import NanoOutputs
from ptrack.models.nano.weights import packaged, read_weights, untrained
from ptrack.training import losses, run
from ptrack.training.config import build
from ptrack.training.losses import Targets
from ptrack.training.order import collate, one_clip
from ptrack.training.recipes import RunPlan, TrainRequest, default_values, merge, resolve
from ptrack.training.systems.nano import NanoSystem, frame_terms
from tests.training.scenes import PanningClips

SMALL = NanoConfig(
    input_size=(64, 64), dim=32, hidden=32, token=16, memory=4, radius=4, tune=True,
)  # fmt: skip


def moving_batch(clips: int, frames: int):
    source = PanningClips(clips, frames=frames, points=8)
    return collate([source[SampleKey(i)] for i in range(clips)])


def targets(xy, visible) -> Targets:
    """One clip, two frames, the query in the first."""
    n = len(xy)
    both = torch.stack([torch.tensor(xy)] * 2)[None]
    seen = torch.tensor([[[True] * n, visible]])
    return Targets(both, seen, torch.ones_like(seen), torch.zeros(1, n, dtype=torch.long))


def test_losses_by_hand():
    truth = targets([[10.0, 10.0], [30.0, 30.0]], [True, False])
    logits = torch.zeros(2, 3, 3)
    # (10, 10) px is cell (2, 2): the middle of a window that starts at (1, 1). Found 4 px to the right, then exactly.
    out = NanoOutputs(
        logits=logits,
        origin=torch.tensor([[1, 1], [1, 1]]),
        xy=torch.tensor([[[3.0, 2.0], [7.0, 7.0]], [[2.0, 2.0], [7.0, 7.0]]]),
        visibility_logit=torch.tensor([0.0, 0.0]),
        confidence_logit=torch.tensor([0.0, 0.0]),
        shown=torch.zeros(2, 2),
        visible=torch.zeros(2),
    )
    terms = frame_terms(out, truth, 1, losses.count(truth), (64, 64))
    assert float(terms["search"]) == pytest.approx(0.5 * math.log(9) / 2, rel=1e-5)
    assert float(terms["position"]) == pytest.approx(0.8 * 2 * 0.5 * (4 - 0.25) / 2, rel=1e-5)
    assert float(terms["visibility"]) == pytest.approx(8 * math.log(2), rel=1e-5)
    assert float(terms["confidence"]) == pytest.approx(4 * math.log(2), rel=1e-5)
    at_query = frame_terms(out, truth, 0, losses.count(truth), (64, 64))
    assert all(float(v) == 0 for v in at_query.values())


def test_lost_points_pull_little_and_windows_without_the_truth_not_at_all():
    truth = targets([[50.0, 10.0]], [True])
    out = NanoOutputs(
        logits=torch.zeros(1, 3, 3),
        origin=torch.tensor([[1, 1]]),
        xy=torch.tensor([[[2.0, 2.0]]]),
        visibility_logit=torch.zeros(1),
        confidence_logit=torch.zeros(1),
        shown=torch.zeros(1, 2),
        visible=torch.zeros(1),
    )
    terms = frame_terms(out, truth, 1, losses.count(truth), (64, 64))
    assert float(terms["search"]) == 0
    assert float(terms["position"]) == pytest.approx(0.05 * 2 * 0.5 * (40 - 0.25), rel=1e-5)


def test_what_is_trained_gets_a_gradient_and_the_backbone_none():
    torch.manual_seed(0)
    system = NanoSystem(untrained(SMALL))
    with torch.no_grad():
        for name, value in system.model.named_parameters():
            if not name.startswith(("backbone", "projection")):
                value.add_(0.05 * torch.randn_like(value))
    batch = moving_batch(2, 5)
    aims = system.targets(batch)
    sum(system(batch, aims, losses.count(aims), 0).values()).backward()
    for name, value in system.named_parameters():
        if name.startswith("model.backbone"):
            assert value.grad is None, name
        else:
            assert value.grad is not None, name
            assert float(value.grad.abs().max()) > 0, name


def test_the_batch_is_the_sum_of_its_clips():
    torch.manual_seed(0)
    system = NanoSystem(untrained(SMALL))
    batch = moving_batch(2, 4)
    counts = losses.count(system.targets(batch))
    whole = system(batch, system.targets(batch), counts, 0)
    parts = [system(one, system.targets(one), counts, 0) for one in (one_clip(batch, b) for b in range(2))]
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[0][name] + parts[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["nano_synthetic", "nano_synthetic_long"])
def test_the_shipped_weights_are_of_the_published_recipes(name):
    recipe = resolve(TrainRequest(recipe=name)).config.arch
    shipped, _ = packaged()
    assert to_mapping(shipped) | {"input_size": recipe["input_size"]} == recipe  # --quality sets that


def test_frozen_features_get_no_gradient():
    system = NanoSystem(untrained(replace(SMALL, tune=False)))
    assert not system.model.projection.requires_grad
    batch = moving_batch(1, 3)
    aims = system.targets(batch)
    sum(system(batch, aims, losses.count(aims), 0).values()).backward()
    assert system.model.refiner.move.weight.grad is not None


def test_a_run_writes_weights_that_track(tmp_path):
    arch = {"input_size": [64, 64], "dim": 32, "hidden": 32, "token": 16, "memory": 4}
    recipe = {
        "arch": arch, "max_steps": 3, "num_workers": 0, "save_dir": str(tmp_path / "c"), "log_dir": str(tmp_path / "l"),
        "data": {"sequence_length": 6, "num_points": 8, "image_size": [64, 64], "validation_clips": 2,
                 "supersampling": 1.0, "synthetic_clips": 3},
    }  # fmt: skip
    config = build(merge(default_values("nano"), recipe))
    result = run.train(RunPlan(config))
    assert result.steps == 3
    read, state = read_weights(tmp_path / "c" / "best.safetensors")
    assert read.dim == 32
    assert all(torch.isfinite(v).all() for v in state.values())
    resumed, _ = read_weights(tmp_path / "c" / "latest.pth")
    assert resumed == read
    again = resolve(TrainRequest(values={"init_from": str(tmp_path / "c" / "best.safetensors")}))
    assert again.config.model == "nano"
    system = run.build_system(again.config)
    for name, value in state.items():
        torch.testing.assert_close(system.model.state_dict()[name], value)
