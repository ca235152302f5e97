"""The loop: equal losses over resumes, precisions and processes; saving, stopping, bad numbers."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ptrack.cli.train import describe_best
from ptrack.data.samples import collate
from ptrack.errors import CheckpointError, ConfigError, DataError, Interrupted, OutputError
from ptrack.models.layers.dropout import by_clip
from ptrack.models.offline.weights import read_weights
from ptrack.processes import Group
from ptrack.training import config as configs
from ptrack.training import losses, order, state, systems
from ptrack.training.config import TrainConfig
from ptrack.training.engine import Trainer, TrainingFailed, TrainResult
from ptrack.training.recipes import merge
from ptrack.training.schedules import Average, derive_seed, learning_rate
from tests.training.scenes import PanningClips

ARCH = {
    "levels": 2,
    "dim": 32,
    "heads": 2,
    "layers": 1,
    "iterations": 2,
    "radius": 2,
    "window": 4,
    "input_size": [32, 32],
}


def settings(folder: Path, **changes: object) -> TrainConfig:
    values = {
        "model": "transformer", "arch": ARCH, "pretrained": False, "batch_size": 2, "epochs": 2, "lr": 1e-3,
        "num_workers": 0, "save_dir": str(folder), "save_every": 1e9, "ema": 0.9, "amp": "off",
        "data": {"image_size": [32, 32], "sequence_length": 4},
    }  # fmt: skip
    return configs.build(merge(values, changes))


def clips(**changes: object) -> PanningClips:
    return replace(PanningClips(length=6, size=32), **changes)


class Recorder:
    """Remembers what it hears; may act on it."""

    def __init__(self, act=None) -> None:
        self.steps, self.scores, self.notes, self.act = [], [], [], act

    def on_step(self, record) -> None:
        self.steps.append(record)
        if self.act:
            self.act(record)

    def on_validation(self, record, system) -> None:
        self.scores.append(record)

    def on_note(self, text: str) -> None:
        self.notes.append(text)


def trainer(config: TrainConfig, train=None, valid=None, **arguments) -> Trainer:
    """Without clips given: six to train on, two to validate on."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        system = systems.build(config)
    if train is None:
        train, valid = clips(), clips(seed=9, length=2)
    batches = order.OrderedBatches(
        train, config.batch_size, grad_accum=config.grad_accum, seed=config.seed, workers=config.num_workers,
        group=arguments.get("group"),
    )  # fmt: skip
    return Trainer(config, system, batches, valid, **arguments)


@pytest.mark.parametrize("changes", [{}, {"num_workers": 2}, {"amp": "bf16"}, {"grad_accum": 2, "batch_size": 1}])
def test_a_resumed_run_has_the_same_losses_bit_for_bit(tmp_path: Path, changes: dict) -> None:
    whole = trainer(settings(tmp_path / "whole", **changes)).run()
    total = len(whole.losses)

    def interrupt(record) -> None:
        if record.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    config = settings(tmp_path / "parts", **changes)
    listener = Recorder(interrupt)
    with pytest.raises(Interrupted) as stopped:
        trainer(config, listeners=[listener]).run()
    assert stopped.value.exit_code == 143
    assert "--resume" in str(stopped.value)
    saved, _, remarks = state.resume(tmp_path / "parts" / "latest.pth")
    assert remarks == []
    second = trainer(config)
    second.restore(saved)
    rest = second.run()
    first = [r.result.loss for r in listener.steps]
    assert len(first) < total
    assert first + rest.losses == whole.losses
    one, two = state.read(whole.latest), state.read(rest.latest)
    for name, value in one.model.items():
        assert torch.equal(value, two.model[name]), name
    assert one.ema is not None
    assert two.ema is not None
    assert all(torch.equal(v, two.ema[k]) for k, v in one.ema.items())
    assert one.history == two.history


def test_the_random_state_of_the_process_is_left_alone(tmp_path: Path) -> None:
    run = trainer(settings(tmp_path, max_steps=1))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run.run()
    assert torch.equal(torch.get_rng_state(), before)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.training.test_engine import Recorder, settings, trainer
from ptrack.training import state
folder, kill_at = Path(sys.argv[1]), int(sys.argv[2])
config = settings(folder, num_workers=2, amp="bf16", save_every=0.0)
def act(record):
    print(f"{record.step} {record.result.loss.hex()}", flush=True)
    if record.step == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
run = trainer(config, listeners=[Recorder(act)])
if (folder / "latest.pth").exists():
    run.restore(state.resume(folder)[0])
run.run()
"""


def _python(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"} | (env or {}),
        cwd=Path(__file__).parents[2], timeout=300, check=False,
    )  # fmt: skip


def test_killed_at_a_random_step_and_resumed_gives_the_same_losses(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        step = int(torch.randint(2, 6, ()))
    killed = _python("-c", KILLED, str(tmp_path / "killed"), str(step))
    assert killed.returncode == -signal.SIGKILL
    resumed = _python("-c", KILLED, str(tmp_path / "killed"), "0")
    whole = _python("-c", KILLED, str(tmp_path / "whole"), "0")
    assert resumed.returncode == whole.returncode == 0, resumed.stderr + whole.stderr
    losses_of = [dict(line.split() for line in run.stdout.splitlines()) for run in (killed, resumed, whole)]
    assert losses_of[0] | losses_of[1] == losses_of[2]
    assert len(losses_of[2]) == 6
    assert int(min(losses_of[1], key=int)) >= step  # it went on, and did not start anew


SHARED = """
import sys
from pathlib import Path
from tests.test_processes import gloo_threads
from tests.training.test_engine import Recorder, clips, settings, trainer
from ptrack.processes import joined
with joined("cpu") as group:
    batch = 4 // group.world
    # A small rate: at 1e-3, Adam has scaled float32's rounding up to 3e-5 of the gradient's norm by the seventh step.
    config = settings(
        Path(sys.argv[1]), batch_size=batch, arch={"dropout": 0.2}, grad_accum=int(sys.argv[2]), lr=1e-5
    )
    r = Recorder()
    result = trainer(config, clips(length=16), clips(seed=9, length=3), group=group, listeners=[r]).run()
    if group.first:
        for record in r.steps:
            print(record.result.loss, record.result.grad_norm)
        for record in r.scores:
            print(*(record.scores[k] for k in sorted(record.scores)))
assert not gloo_threads()
"""


@pytest.mark.parametrize("grad_accum", ["1", "2"])
def test_two_processes_equal_one_with_the_double_batch(tmp_path: Path, grad_accum: str) -> None:
    one = _python("-c", SHARED, str(tmp_path / "one"), grad_accum)
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    two = _python(*launch, str(tmp_path / "two"), grad_accum, env={"PYTHONPATH": str(Path(__file__).parents[2])})
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    numbers = [[[float(v) for v in line.split()] for line in run.stdout.splitlines()] for run in (one, two)]
    assert len(numbers[0]) == len(numbers[1]) == (8 if grad_accum == "1" else 4) + 2
    for a, b in zip(*numbers, strict=True):
        assert b == pytest.approx(a, rel=1e-4, abs=1e-5)  # other dropout would be off by 1e-2


@pytest.mark.parametrize("model", ["transformer", "track-on2"])
def test_the_gradient_of_a_batch_is_the_sum_over_its_clips(tmp_path: Path, model: str) -> None:
    """One optimisation step of the batched model equals the per-clip one, dropout and hidden memory included."""
    online = {
        "backbone": "resnet18", "strides": [4, 8], "dim": 32, "heads": 2, "memory": 3, "candidates": 4,
        "decoder_layers": 2, "rerank_layers": 1, "head_layers": 2, "hidden": 64, "memory_mask": 0.2,
    }  # fmt: skip
    arch = ARCH if model == "transformer" else {**online, "input_size": [32, 32]}
    values = {
        "model": model, "pretrained": False, "arch": {**arch, "dropout": 0.2},
        "data": {"image_size": [32, 32], "sequence_length": 4},
    }  # fmt: skip
    torch.manual_seed(0)
    system = systems.build(configs.build(values))
    system.train()
    for module in system.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # in training mode it couples the clips of a batch
    with torch.no_grad():
        for parameter in system.parameters():  # heads start at zero and would pass no gradient on
            parameter.add_(0.02 * torch.randn(parameter.shape))
    scene = clips(speed=1.0)
    batch = collate([scene[order.SampleKey(i)] for i in range(3)])

    def gradients(parts) -> dict[str, torch.Tensor]:
        system.zero_grad()
        counts = losses.count(system.targets(batch))
        first = 0
        for part in parts:
            torch.manual_seed(5)
            with by_clip(range(first, first + len(part.clip_ids))):
                torch.stack(list(system(part, system.targets(part), counts, 7).values())).sum().backward()
            first += len(part.clip_ids)
        return {n: p.grad.clone() for n, p in system.named_parameters() if p.grad is not None}

    whole = gradients([batch])
    separate = gradients([order.one_clip(batch, b) for b in range(3)])
    assert whole.keys() == separate.keys()
    assert sum(g.abs().sum().item() > 0 for g in whole.values()) > 0.9 * len(whole)
    largest = max(g.norm() for g in whole.values())
    for name, value in whole.items():
        assert (separate[name] - value).norm() <= 1e-4 * largest, name  # float32: sums in another order


def test_checkpoints_rotate_and_a_damaged_one_is_skipped(tmp_path: Path) -> None:
    config = settings(tmp_path, save_every=0.0, keep=3, max_steps=5)
    trainer(config).run()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["best.pth", "best.safetensors", "latest.pth", "previous-1.pth", "previous-2.pth"]
    latest = tmp_path / "latest.pth"
    latest.write_bytes(latest.read_bytes()[: latest.stat().st_size // 2])
    saved, used, remarks = state.resume(latest)
    assert used.name == "previous-1.pth"
    assert len(remarks) == 1
    assert "damaged" in remarks[0]
    assert saved.step == 5
    (tmp_path / "previous-1.pth").write_bytes(b"")
    assert state.resume(tmp_path)[1].name == "previous-2.pth"
    (tmp_path / "previous-2.pth").unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        state.resume(latest)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        state.resume(tmp_path / "nowhere")


def test_checkpoints_are_plain_tensors_and_containers(tmp_path: Path) -> None:
    result = trainer(settings(tmp_path, max_steps=1)).run()
    values = torch.load(result.latest, weights_only=True)
    assert values["config"]["arch"]["dim"] == 32
    assert values["rng"]["seed"] == 0
    assert {"optimizer", "model", "ema", "scaler", "step", "epoch_step"} <= set(values)


def test_other_files_are_not_resumed(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="--init-from"):
        state.resume(tmp_path / "other.pth")
    torch.save({"format": "ptrack-training", "version": 99}, tmp_path / "new.pth")
    with pytest.raises(CheckpointError, match="another version"):
        state.resume(tmp_path / "new.pth")


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    a, b = settings(tmp_path), settings(tmp_path, arch={"layers": 3})
    plain = [configs.configs.to_mapping(c) for c in (a, b)]
    state.check_same_architecture(plain[0], plain[0], tmp_path)
    with pytest.raises(CheckpointError, match="layers 1 → 3"):
        state.check_same_architecture(plain[0], plain[1], tmp_path)


def test_bad_clips_are_named_and_skipped_until_the_limit(tmp_path: Path) -> None:
    listener = Recorder()
    run = trainer(settings(tmp_path / "a"), clips(poison=(3,)), listeners=[listener])
    result = run.run()
    skipped = [r for r in listener.steps if not r.result.done]
    assert len(skipped) == 2  # once in each of two epochs
    assert all(r.result.bad_clips == ("panning/3",) for r in skipped)
    assert sum("panning/3" in note for note in listener.notes) == 2
    assert all(torch.isfinite(p).all() for p in run.system.parameters())
    assert result.steps == 6
    everywhere = clips(poison=tuple(range(6)))
    with pytest.raises(TrainingFailed, match="3 steps in a row"):
        trainer(settings(tmp_path / "b", nan_limit=3, epochs=9), everywhere).run()
    assert state.read(tmp_path / "b" / "latest.pth").step == 3


def test_a_small_data_set_lowers_the_batch_size_and_says_so(tmp_path: Path) -> None:
    listener = Recorder()
    result = trainer(settings(tmp_path, batch_size=40, max_steps=2), listeners=[listener]).run()
    assert result.steps == 2
    assert "too small for batches of 40" in listener.notes[0]
    assert "batches of 6." in listener.notes[0]
    with pytest.raises(DataError, match="fewer than the 8"):
        order.fit_batch(6, 1, Group(0, 4), 2)


def test_a_full_disk_is_a_sentence_and_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: writing fails in the same place."""
    run = trainer(settings(tmp_path, max_steps=1))
    run.save()
    before = (tmp_path / "latest.pth").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"^Cannot write .*latest\.pth: File too large\.$"):
            run.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "latest.pth").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


class Canary:
    def __reduce__(self) -> tuple:
        return os.system, ("touch canary",)


def test_a_checkpoint_that_asks_for_code_is_called_that(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": "ptrack-training", "model": Canary()}, tmp_path / "latest.pth")
    with pytest.raises(CheckpointError, match=r"holds more than weights .*'posix\.system'.*nothing in it was run"):
        state.resume(tmp_path / "latest.pth")
    assert not (tmp_path / "canary").exists()


def test_a_place_that_cannot_be_written_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    listener = Recorder()
    with pytest.raises(OutputError):
        trainer(settings(tmp_path / "file"), listeners=[listener]).run()
    assert listener.steps == []


def test_validation_uses_the_averaged_weights_and_keeps_the_best(tmp_path: Path) -> None:
    listener = Recorder()
    result = trainer(settings(tmp_path, eval_every=2), listeners=[listener]).run()
    assert [r.step for r in listener.scores] == [2, 4, 6]
    assert listener.scores[0].best
    assert set(listener.scores[0].scores) == {"delta_avg", "occlusion_accuracy", "jaccard", "error"}
    assert (tmp_path / "best.safetensors").exists()
    assert result.best["score"] == max(r.scores["delta_avg"] for r in listener.scores)
    best = state.read(tmp_path / "best.pth")
    assert best.step == result.best["step"]
    assert best.ema is not None
    assert any(not torch.equal(best.ema[k], v) for k, v in best.model.items())


def test_the_start_of_a_fine_tuning_is_validated_and_stays_the_best_until_it_is_beaten(tmp_path: Path) -> None:
    config = settings(tmp_path, init_from="some.safetensors", eval_every=2, lr=1e-12)
    listener = Recorder()
    result = trainer(config, listeners=[listener]).run()
    assert [r.step for r in listener.scores] == [0, 2, 4, 6]
    assert [r.best for r in listener.scores] == [True, False, False, False]
    assert result.best["step"] == 0
    assert result.start == result.best["score"]
    assert "before training" in describe_best(result)
    beaten = replace(result, best={"score": result.best["score"] + 1, "step": 4.0})
    assert describe_best(beaten).endswith(f"after step 4, {result.start:.2f} before training")


def test_without_clips_to_validate_on_the_last_weights_are_kept(tmp_path: Path) -> None:
    listener = Recorder()
    run = trainer(settings(tmp_path, epochs=1), clips(), listeners=[listener])
    result = run.run()
    assert (result.best, listener.scores) == ({}, [])
    assert "nothing to validate on" in listener.notes[0]
    _, kept = read_weights(tmp_path / "best.safetensors")
    assert run.average is not None
    assert all(torch.equal(v, run.average.values[k]) for k, v in kept.items())


def test_a_further_data_set_is_scored(tmp_path: Path) -> None:
    listener = Recorder()
    run = trainer(
        settings(tmp_path, max_steps=1), clips(), listeners=[listener], evaluate=lambda s: {"x/delta_avg": 3.0}
    )
    assert run.run().best["score"] == 3.0
    assert listener.scores[0].scores == {"x/delta_avg": 3.0}


def test_learning_rates() -> None:
    rates = [learning_rate(s, 100, 1.0, warmup=0.1) for s in range(101)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0, abs=1e-12)
    assert rates[:11] == sorted(rates[:11])
    assert learning_rate(77, 100, 0.3, schedule="constant") == 0.3


def test_seeds_depend_on_every_part() -> None:
    seeds = {derive_seed(0), derive_seed(1), derive_seed(0, "a"), derive_seed(0, "a", 1), derive_seed(0, "a", 2)}
    assert len(seeds) == 5
    assert all(0 <= s < 2**63 for s in seeds)


def test_the_average_moves_towards_the_weights_and_comes_back() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = Average(model, 0.5)
    torch.nn.init.ones_(model.weight)
    average.update(model, 1000)
    assert average.values["weight"].item() == 0.5
    with average.applied(model):
        assert model.weight.item() == 0.5
    assert model.weight.item() == 1.0


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_clip_is_used_once_per_epoch_whatever_the_processes(world: int) -> None:
    parts = [order.step_batches(13, 2, Group(r, world), 1, 0, 4) for r in range(world)]
    used = [key.index for batches in parts for batch in batches for key in batch]
    assert len(used) == len(set(used)) == 13 // (2 * world) * 2 * world
    one = order.step_batches(13, 2 * world, Group(), 1, 0, 4)
    for step, batch in enumerate(one[: len(parts[0])]):
        assert sorted(batch) == sorted(key for p in parts for key in p[step])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", 0), ("lr", 0.0), ("ema", 1.0), ("amp", "half"), ("schedule", "step"), ("model", "cnn"),
        ("max_steps", 0), ("num_workers", -1), ("warmup", 1.0),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        settings(tmp_path, **{key: value})


def test_unknown_settings_are_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'batch_size'"):
        settings(tmp_path, batchsize=3)
    with pytest.raises(ConfigError, match="Did you mean 'layers'"):
        settings(tmp_path, arch={"layer": 3})
    with pytest.raises(ConfigError, match="Did you mean 'num_points'"):
        settings(tmp_path, data={"numpoints": 3})


def test_half_precision_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fp16"):
        trainer(settings(tmp_path, amp="fp16"))


def test_results_are_data(tmp_path: Path) -> None:
    result = trainer(settings(tmp_path, max_steps=1)).run()
    assert isinstance(result, TrainResult)
    assert json.dumps({"steps": result.steps, "best": result.best})
