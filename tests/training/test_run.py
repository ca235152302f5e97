"""Whole runs: the command lines of the original program, resuming, files, logs, pictures, and bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torchvision.models import resnet18, resnet50
from typer.testing import CliRunner

from ptrack.cli.app import app
from ptrack.data.loading.dataset import ClipDataset
from ptrack.data.samples import SampleKey
from ptrack.errors import CheckpointError, ConfigError, DataError
from ptrack.models.backbones.lite0 import Lite0, packaged_weights
from ptrack.training import config as configs
from ptrack.training import data, recipes, run
from ptrack.training.config import TrainConfig
from ptrack.training.data import SyntheticClips
from ptrack.training.logging import JsonLog
from ptrack.training.recipes import RunPlan, TrainRequest, merge, resolve

SIMPLE = Path(__file__).parents[1] / "data" / "fixtures" / "datasets" / "simple"
CUT = ["arch.dim=32", "arch.layers=1", "arch.iterations=1", "data.image_size=[64,64]"]
QUICK = ["--max-steps", "1", "--num-workers", "0", *(word for key in CUT for word in ("--set", key))]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the tiny data set, caches of its own, and made-up ImageNet weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hub = tmp_path / "hub"
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(hub))
    (hub / "checkpoints").mkdir(parents=True)
    shutil.copytree(SIMPLE, tmp_path / "pointodyssey")
    return tmp_path


def imagenet(here: Path, name: str = "resnet18") -> None:
    file = {"resnet18": "resnet18-f37072fd.pth", "resnet50": "resnet50-11ad3fa6.pth"}[name]
    model = {"resnet18": resnet18, "resnet50": resnet50}[name]()
    torch.save(model.state_dict(), here / "hub" / "checkpoints" / file)


def train(*arguments: str):
    return CliRunner().invoke(app, ["train", *arguments], catch_exceptions=False)


def small(folder: Path, **changes: object) -> TrainConfig:
    values = {
        "model": "transformer", "pretrained": False, "max_steps": 2, "num_workers": 0, "save_dir": str(folder / "c"),
        "log_dir": str(folder / "l"), "arch": {"levels": 2, "dim": 32, "heads": 2, "layers": 1, "iterations": 1},
        "data": {"root": str(SIMPLE), "image_size": [32, 32], "sequence_length": 4},
    }  # fmt: skip
    return configs.build(merge(values, changes))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--data_root pointodyssey", {"batch_size": 4, "epochs": 50, "lr": 1e-4}),
        (
            "--data_root pointodyssey --batch_size 8 --epochs 100 --lr 5e-5 --sequence_length 12 --num_points 16 "
            "--image_size 64 --save_dir ./my_checkpoints --log_dir ./my_logs",
            {"batch_size": 8, "epochs": 100, "lr": 5e-5, "save_dir": "./my_checkpoints"},
        ),
        ("--data_root pointodyssey --backbone resnet50", {"pretrained": True}),
        ("--data_root pointodyssey --no_pretrained", {"pretrained": False}),
        ("--data_root pointodyssey --video_dirs video_000,video_001", {"num_workers": 0}),
    ],
)
def test_the_original_command_lines_run(here: Path, line: str, expected: dict) -> None:
    if "--no_pretrained" not in line:
        imagenet(here, "resnet50" if "resnet50" in line else "resnet18")
    result = train(*line.split(), *QUICK)
    assert result.exit_code == 0, result.output
    folder = here / expected.get("save_dir", "checkpoints")
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["model"] == "transformer"
    assert {k: saved[k] for k in expected} == expected
    for name in ("latest.pth", "best.pth", "best.safetensors", "visualizations/history.png"):
        assert (folder / name).stat().st_size > 1000, name
    assert torch.load(folder / "latest.pth", weights_only=True)["config"] == saved


def test_the_original_resume_line_goes_on(here: Path) -> None:
    assert train("--data_root", "pointodyssey", "--no_pretrained", *QUICK).exit_code == 0
    line = "--data_root pointodyssey --resume checkpoints/latest.pth --max-steps 3"
    result = train(*line.split())
    assert result.exit_code == 0, result.output
    assert "Going on after step 1 of 3" in result.output
    records = [json.loads(text) for text in (here / "logs" / "training.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "step"] == [1, 2, 3]
    with pytest.raises(CheckpointError, match="backbone resnet18 → resnet34"):
        train("--resume", "checkpoints", "--backbone", "resnet34")
    with pytest.raises(CheckpointError, match="another architecture"):
        train("--resume", "checkpoints", "--model", "track-on2")


def test_without_imagenet_weights_the_error_says_what_to_do(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(CheckpointError, match=r"resnet18-f37072fd\.pth.*--backbone lite0.*--no-pretrained"):
        train("--data-root", "pointodyssey", *QUICK)


def test_help_shows_the_defaults() -> None:
    text = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200"}).output
    for default in ("(8)", "(nano; transformer if there is a data set)", "(1e-4)", "(./checkpoints)", "(60s)"):
        assert default in text


@pytest.mark.parametrize("command", ["train", "eval"])
def test_torchrun_takes_no_option_for_one_of_its_own(command: str) -> None:
    """It reads abbreviations of its options anywhere, as ``--run`` of ``--run-path``."""
    import typer
    from torch.distributed.run import get_args_parser

    parameters = typer.main.get_command(app).commands[command].params
    options = [o for p in parameters for o in (*p.opts, *p.secondary_opts) if o.startswith("-")]
    for option in options:
        line = [command, option, "x"]
        assert get_args_parser().parse_args(["-m", "ptrack", *line]).training_script_args == line


def test_every_option_has_both_spellings() -> None:
    import typer

    command = typer.main.get_command(app).commands["train"]
    all_of = [o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("--")]
    long = [o for o in all_of if "-" in o.removeprefix("--")]
    assert {"--data-root", "--batch-size", "--no-pretrained"} <= set(long)
    assert {"--" + o.removeprefix("--").replace("-", "_") for o in long} <= set(all_of)


def test_train_alone_is_nano_on_rendered_scenes() -> None:
    plan = resolve(TrainRequest())
    assert plan.config.model == "nano"
    assert plan.config.data.root is None
    assert resolve(TrainRequest({"model": "track-on2"})).config.arch["dim"] == 64
    assert resolve(TrainRequest({"data": {"root": "x.h5"}})).config.model == "transformer"
    assert resolve(TrainRequest({"model": "track-on2", "data": {"root": "x.h5"}})).config.arch["dim"] == 64


def test_fine_tuning_has_defaults_that_learn_on_few_clips() -> None:
    tuned = resolve(TrainRequest({"init_from": "nano", "data": {"root": "my.h5"}})).config
    assert (tuned.model, tuned.lr, tuned.warmup, tuned.ema) == ("nano", 5e-4, 0.0, 0.9)
    assert tuned.max_steps is not None
    assert resolve(TrainRequest({"init_from": "nano", "lr": 1e-5})).config.lr == 1e-5
    assert resolve(TrainRequest()).config.lr == 1e-3


def test_published_recipes_resolve() -> None:
    for name, model in [
        ("transformer_point_odyssey", "transformer"), ("track_on2_kubric_dinov2", "track-on2"),
        ("track_on2_kubric_dinov3", "track-on2"), ("nano_synthetic", "nano"), ("nano_synthetic_long", "nano"),
        ("nano_gpu", "nano"), ("nano_gpu_encoder", "nano-encoder"),
    ]:  # fmt: skip
        config = resolve(TrainRequest(recipe=name)).config
        assert config.model == model
    published = resolve(TrainRequest(recipe="track_on2_kubric_dinov3", sets=["lr=1e-3", "data.num_points=7"])).config
    assert (published.arch["backbone"], published.arch["dim"], published.data.sequence_length) == (
        "dinov3_s_plus",
        256,
        48,
    )
    assert (published.lr, published.data.num_points, published.arch["memory"]) == (1e-3, 7, 24)
    assert resolve(TrainRequest(recipe="nano_synthetic")).config == resolve(TrainRequest()).config
    with pytest.raises(ConfigError, match="Did you mean 'nano_synthetic'"):
        resolve(TrainRequest(recipe="nano_synthetics"))


def test_published_recipes_are_found_when_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tomllib

    wheel = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "targets"
    ]
    inside = tmp_path / wheel["wheel"]["force-include"]["configs"]
    shutil.copytree(Path(__file__).parents[2] / "configs", inside)
    monkeypatch.setattr(recipes, "__file__", str(tmp_path / "ptrack" / "training" / "recipes.py"))
    assert recipes.recipe_folder() == inside / "train"
    assert resolve(TrainRequest(recipe="nano_synthetic")).config.model == "nano"


def test_track_on2_answers_to_its_earlier_name(tmp_path: Path) -> None:
    assert resolve(TrainRequest({"model": "online"})).config.model == "track-on2"
    (tmp_path / "old.yaml").write_text("model: online\n")
    assert resolve(TrainRequest(recipe=str(tmp_path / "old.yaml"))).config.model == "track-on2"


def test_a_resolved_configuration_can_be_given_again(tmp_path: Path) -> None:
    config = small(tmp_path)
    run.write_config(tmp_path / "again.yaml", config)
    assert resolve(TrainRequest(recipe=str(tmp_path / "again.yaml"))).config == config


def test_unknown_keys_in_a_file_are_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("model: transformer\nlearning_rates: 3\n")
    with pytest.raises(ConfigError, match=r"bad\.yaml: unknown key 'learning_rates'.* 'lr'"):
        resolve(TrainRequest(recipe=str(tmp_path / "bad.yaml")))
    with pytest.raises(ConfigError, match="--model must be one of"):
        resolve(TrainRequest({"model": "cnn"}))


def test_logs_and_pictures_can_be_read(tmp_path: Path) -> None:
    import imageio.v3 as imageio
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = small(tmp_path, ema=0.5)
    assert run.train(RunPlan(config)).steps == 2
    events = EventAccumulator(str(tmp_path / "l")).Reload()
    wanted = {"train/loss", "train/loss/position", "train/learning_rate", "train/gradient_norm", "train/memory_mib",
              "train/clips_per_second", "validation/delta_avg"}  # fmt: skip
    assert wanted <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("train/loss")] == [1, 2]
    assert {"prediction", "attention_time", "attention_points"} <= set(events.Tags()["images"])
    lines = [json.loads(text) for text in (tmp_path / "l" / "training.jsonl").read_text().splitlines()]
    steps = [r for r in lines if r["kind"] == "step"]
    logged = [pytest.approx(e.value, rel=1e-6) for e in events.Scalars("train/loss")]
    assert [r["loss"] for r in steps] == logged
    for name in ("prediction_000002", "attention_time_000002", "attention_points_000002", "history"):
        picture = imageio.imread(tmp_path / "c" / "visualizations" / f"{name}.png")
        assert picture.ndim == 3
        assert picture.std() > 5  # not blank


def test_a_log_forgets_the_steps_that_a_kill_lost(tmp_path: Path) -> None:
    log = tmp_path / "training.jsonl"
    log.write_text('{"kind": "step", "step": 1}\n{"kind": "step", "step": 2}\n{"kind": "st')
    JsonLog(tmp_path, step=1).close()
    assert log.read_text() == '{"kind": "step", "step": 1}\n'
    JsonLog(tmp_path).close()
    assert log.read_text() == ""


def test_trained_weights_track_and_start_other_runs(tmp_path: Path) -> None:
    import ptrack

    config = small(tmp_path, max_steps=1)
    run.train(RunPlan(config))
    frames = np.random.default_rng(0).integers(0, 256, (10, 40, 48, 3), dtype=np.uint8)
    queries = np.asarray([[0, 10, 10], [2, 30, 20]], np.float32)
    results = []
    for name in ("best.safetensors", "best.pth"):
        tracker = ptrack.load("transformer", checkpoint=tmp_path / "c" / name, device="cpu")
        results.append(tracker.track(frames, queries))
        assert results[-1].tracks.shape == (10, 2, 2)
        assert np.isnan(results[-1].tracks[:2, 1]).all()
        np.testing.assert_array_equal(results[-1].tracks[2, 1], [30, 20])
    np.testing.assert_allclose(results[0].tracks, results[1].tracks, atol=1e-4)
    for source in ("best.safetensors", "latest.pth"):
        again = small(tmp_path / "again", init_from=str(tmp_path / "c" / source))
        system = run.build_system(again)
        saved = torch.load(tmp_path / "c" / "latest.pth", weights_only=True)["model"]
        assert all(torch.equal(v, saved[k]) for k, v in system.model.state_dict().items())
    named = resolve(TrainRequest({"init_from": str(tmp_path / "c" / "best.safetensors"), "lr": 1e-5})).config
    assert (named.model, named.arch, named.lr) == ("transformer", config.arch, 1e-5)
    other = small(tmp_path / "other", init_from=str(tmp_path / "c" / "best.safetensors"), arch={"layers": 2})
    with pytest.raises(CheckpointError, match=r"another architecture: missing blocks\.1"):
        run.build_system(other)
    with pytest.raises(CheckpointError, match="no such file or model"):
        run.build_system(small(tmp_path / "other", init_from="nanoo"))
    with pytest.raises(CheckpointError, match="no published weights"):
        ptrack.load("transformer", device="cpu")
    with pytest.raises(CheckpointError, match="cannot|no weights"):
        resolve(TrainRequest({"init_from": "static"}))
    (tmp_path / "bad.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(CheckpointError, match="bad"):
        ptrack.load("transformer", checkpoint=tmp_path / "bad.safetensors", device="cpu")


def test_track_on2_trains_and_exports(tmp_path: Path) -> None:
    from ptrack.models.online.weights import read_checkpoint

    arch = {"backbone": "resnet18", "input_size": [32, 32], "strides": [4, 8], "dim": 32, "memory": 3, "candidates": 4,
            "decoder_layers": 1, "rerank_layers": 1, "head_layers": 1, "hidden": 32}  # fmt: skip
    values = configs.configs.to_mapping(small(tmp_path, max_steps=1)) | {"model": "track-on2", "arch": arch}
    config = configs.build(values)
    run.train(RunPlan(config))
    weights_file = tmp_path / "c" / "best.safetensors"
    assert read_checkpoint(weights_file).config.dim == 32
    again = resolve(TrainRequest({"init_from": str(weights_file)})).config
    assert again.arch == config.arch
    state = run.build_system(again).model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in read_checkpoint(weights_file).state.items())


def test_published_backbones_fill_track_on2(here: Path) -> None:
    imagenet(here)
    config = resolve(TrainRequest({"model": "track-on2", "pretrained": True})).config
    stem = run.build_system(config).model.backbone.encoder.stem[0].weight
    saved = torch.load(here / "hub" / "checkpoints" / "resnet18-f37072fd.pth", weights_only=True)
    assert torch.equal(stem, saved["conv1.weight"])
    lite = {"model": "track-on2", "pretrained": True, "arch": {"backbone": "lite0"}}
    packaged = run.build_system(configs.build(lite)).model.backbone.encoder.net.stem.weight
    assert torch.equal(packaged, Lite0(packaged_weights()).stem.weight)


def test_other_data_are_scored_while_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = data.convert_to_cache(SIMPLE, lambda _: None)
    config = small(tmp_path, max_steps=1, eval_data=str(store))
    run.train(RunPlan(config))
    last = [json.loads(t) for t in (tmp_path / "l" / "training.jsonl").read_text().splitlines()][-1]
    assert 0 <= last["custom/average_pts_within_thresh"] <= 100
    with pytest.raises(ConfigError, match="NAME:PATH"):
        run.train(RunPlan(small(tmp_path, eval_data="davis.zip")))


def test_data_sets_are_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    notes: list[str] = []
    train, valid = data.open_samples(small(tmp_path), notes.append)
    assert len(train) == 1
    assert isinstance(train, ClipDataset)
    assert isinstance(valid, ClipDataset)
    assert train.store.names[train.clips[0]] != valid.store.names[valid.clips[0]]
    assert any("Converting" in s for s in notes)
    notes.clear()
    data.open_samples(small(tmp_path), notes.append)
    assert not any("Converting" in s for s in notes)
    converted = next((tmp_path / "cache").rglob("*.h5"))
    for root in (converted, converted.parent, f"{converted.parent}/*.h5"):
        assert len(data.open_samples(small(tmp_path, data={"root": str(root)}))[0]) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [({"root": "nowhere"}, "no data set nowhere"), ({"videos": ["video_00"]}, r"Did you mean 'video_00[01]'")],
)
def test_missing_data_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict, words: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=words):
        data.open_samples(small(tmp_path, data=change))


def test_a_data_set_without_usable_clips_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "empty"
    root.mkdir()
    with pytest.raises(DataError):
        data.open_samples(small(tmp_path, data={"root": str(root)}))
    video = shutil.copytree(SIMPLE / "video_001", root / "video")
    tracks = np.load(video / "anno.npz")
    np.savez(video / "anno.npz", trajs_2d=tracks["trajs_2d"][:, :0], visibs=tracks["visibs"][:, :0])
    with pytest.raises(DataError, match="none has two frames and a point"):
        data.open_samples(small(tmp_path, data={"root": str(root)}))


def test_rendered_clips_are_new_in_every_epoch_and_the_same_when_asked_again(tmp_path: Path) -> None:
    config = small(tmp_path, data={"root": None, "synthetic_clips": 3, "validation_clips": 2, "supersampling": 1.0})
    train, valid = data.open_samples(config)
    assert isinstance(train, SyntheticClips)
    assert valid is not None
    assert (len(train), len(valid)) == (3, 2)
    first, again, later = (train[SampleKey(1, e)] for e in (0, 0, 1))
    assert first.frames.shape == (4, 32, 32, 3)
    assert torch.equal(first.frames, again.frames)
    assert torch.equal(first.tracks, again.tracks)
    assert not torch.equal(first.frames, later.frames)
    assert first.visibility[0].all()


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(here: Path) -> None:
    line = ["train", "--data-root", "pointodyssey", "--no-pretrained", "--image-size", "64", "--epochs", "500",
            "--num-workers", "1", "--set", "arch.dim=32", "--set", "arch.layers=1", "--eval-every", "9999"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "ptrack", *line], stderr=subprocess.PIPE, text=True, cwd=here,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    log = here / "logs" / "training.jsonl"
    for _ in range(1200):
        if log.exists() and '"kind": "step"' in log.read_text():  # notes come before training listens for signals
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in words
    assert "ptrack train --resume checkpoints/latest.pth" in words
    done = torch.load(here / "checkpoints" / "latest.pth", weights_only=True)["step"]
    assert done >= 1


def test_lists() -> None:
    from ptrack.cli.train import names

    assert names("a, b/c/,d") == ["a", "c", "d"]
    assert names(None) is None


def test_training_speed_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    arch = "{input_size: [32, 32], strides: [4, 8], dim: 32, hidden: 32, candidates: 4}"
    line = ["bench", "train", "--steps", "1", "--warmup", "1", "--out", str(out), "--device", "cpu", "--set",
            f"arch={arch}", "--set", "data.image_size=[32,32]", "--set", "data.num_points=3",
            "--set", "data.query=first", "--set", "data.sequence_length=3"]  # fmt: skip
    result = CliRunner().invoke(app, line, catch_exceptions=False)
    assert result.exit_code == 0
    measured = json.loads(out.read_text())
    assert json.loads(result.stdout.splitlines()[-1]) == measured
    assert measured["speedup"] == pytest.approx(measured["plain_seconds"] / measured["seconds"])
    assert measured["clips_per_second"] > 0


def test_the_plain_loop_computes_the_same_loss(tmp_path: Path) -> None:
    from ptrack.bench.train import plain_step, random_batch
    from ptrack.training import losses
    from ptrack.training.step import Precision

    arch = {"backbone": "resnet18", "input_size": [32, 32], "strides": [4, 8], "dim": 32, "memory": 3, "candidates": 4,
            "hidden": 32}  # fmt: skip
    values = {"model": "track-on2", "pretrained": False, "arch": arch, "batch_size": 2,
              "data": {"image_size": [32, 32], "sequence_length": 3, "num_points": 4}}  # fmt: skip
    config = configs.build(values)
    system = run.build_system(config).eval()
    batch = random_batch(config, torch.device("cpu"))
    targets = system.targets(batch)
    wanted = sum(float(v.detach()) for v in system(batch, targets, losses.count(targets), 0).values())
    optimizer = torch.optim.SGD(system.parameters(), lr=0.0)
    assert plain_step(system, batch, optimizer, Precision(None), 1.0) == pytest.approx(wanted, rel=1e-5)
