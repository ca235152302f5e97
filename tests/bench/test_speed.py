"""Speed measurement: what is run and reported, never how fast."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ptrack.bench import speed
from ptrack.bench.speed import STAGES, SpeedCase, SpeedOptions, bench_speed, fill_memory, spread_points
from ptrack.cli.app import app
from ptrack.errors import ConfigError, ModelError
from ptrack.memory import MemoryMeter
from ptrack.models.online.state import OnlineState

TINY = (48, 64, 4)
run = CliRunner()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return speed.write_clip(tmp_path / "clip.mp4", TINY)


def test_every_combination_is_measured_once(clip: Path) -> None:
    lines: list[str] = []
    options = SpeedOptions(
        models=("static", "matching"), points=(4, 9), sizes=(None, (32, 32)), memories=(8, 16), frames=3, warmup=1,
        video=clip, devices=("cpu",),
    )  # fmt: skip
    report = bench_speed(options, lines.append)
    assert len(report.rows) == len(lines) == 8  # neither model has a memory: its sizes make no difference
    assert {(r.model, r.points, r.height) for r in report.rows} == {
        (m, n, h) for m in options.models for n in (4, 9) for h in (48, 32)
    }
    for row in report.rows:
        assert set(row.median) == set(row.p95) == set(STAGES)
        assert row.frames == len(row.rss_trace_mb) == 3
        assert all(row.p95[s] >= row.median[s] >= 0 for s in STAGES)
        assert row.latency_p95 >= row.latency_median >= max(row.median.values())
        assert row.frames_per_second > 0
        assert row.vit_multiple is None
    text = json.dumps(report.to_mapping(), allow_nan=False)
    assert json.loads(text)["machine"]["threads"] == torch.get_num_threads()


def test_stages_take_the_time_they_take(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that a stage moves itself shows each second under the right name."""
    from ptrack.models.baselines import StaticModel

    now = [0.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    encode, step = StaticModel.encode, StaticModel.step

    def slow_encode(self: Any, frames: Any) -> Any:
        now[0] += 4.0
        return encode(self, frames)

    def slow_step(self: Any, state: Any, features: Any) -> Any:
        now[0] += 2.0
        return step(self, state, features)

    monkeypatch.setattr(StaticModel, "encode", slow_encode)
    monkeypatch.setattr(StaticModel, "step", slow_step)
    options = SpeedOptions(models=("static",), points=(4,), frames=4, warmup=1, video=clip, batch=2)
    (row,) = bench_speed(options).rows
    assert row.median == {"decode": 0, "transfer": 0, "encode": 2.0, "step": 2.0, "write": 0}  # a batch of two shares 4
    assert row.latency_median == 4.0
    assert row.frames_per_second == 0.25
    options = SpeedOptions(models=("static",), points=(4,), frames=50, warmup=1, video=clip, seconds=1)
    assert bench_speed(options).rows[0].frames == speed.LEAST


def test_frames_of_a_short_video_go_round(clip: Path) -> None:
    with speed.FrameFeed(SpeedOptions(video=clip)) as feed:
        frames = feed.frames(None)
        seen = [next(frames) for _ in range(6)]
    assert {f.shape for f in seen} == {(48, 64, 3)}
    np.testing.assert_array_equal(seen[0], seen[4])
    assert (seen[0] != seen[1]).any()


def test_frames_of_davis(tmp_path: Path) -> None:
    davis = Path(__file__).parent.parent / "data" / "fixtures" / "datasets" / "tapvid_davis" / "tapvid_davis.pkl"
    report = bench_speed(SpeedOptions(models=("static",), points=(5,), frames=2, warmup=1, davis=davis))
    assert (report.rows[0].height, report.rows[0].width) == (64, 80)
    with speed.FrameFeed(SpeedOptions()) as made_up:
        assert next(made_up.frames(None)).shape == (480, 854, 3)


def test_the_memory_is_filled_at_once() -> None:
    state = OnlineState.empty(6, 4, torch.device("cpu")).add(torch.ones(1, 3, 4))
    with torch.inference_mode():
        state = state.remember(torch.full((1, 3, 4), 5.0))
        full = fill_memory(state, 6)
    window = full.window()
    assert window.tokens.shape == (1, 3, 6, 4)
    assert window.ignore is None
    assert (window.tokens == 5).all()
    assert fill_memory("anything else", 6) == "anything else"


@pytest.mark.parametrize("count", [1, 2, 10, 256, 257])
def test_points_are_spread(count: int) -> None:
    points = spread_points(count, (48, 64))
    assert points.shape == (count, 2)
    assert len(np.unique(points, axis=0)) == count
    assert (points > 0).all()
    assert (points < [64, 48]).all()


def test_random_weights_are_labelled(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ptrack.models.online import config

    small = config.OnlineConfig(
        backbone="resnet18", input_size=(64, 64), dim=32, heads=2, memory=4, candidates=4, decoder_layers=1,
        rerank_layers=1, head_layers=1, hidden=64,
    )  # fmt: skip
    monkeypatch.setattr("ptrack.models.online.load.DINOV2", small)
    monkeypatch.setattr(speed, "vit_seconds", lambda device: 0.5)
    options = SpeedOptions(
        models=("track-on2-dinov2",), points=(4,), memories=(6,), random_weights=True, frames=2, warmup=1, video=clip
    )
    (row,) = bench_speed(options).rows
    assert row.weights == "random"
    assert row.memory == 6
    assert row.vit_seconds == 0.5
    work = row.median["transfer"] + row.median["encode"] + row.median["step"]
    assert row.vit_multiple == pytest.approx(work / 0.5, rel=0.5)
    assert "random weights" in speed.summary(row)
    assert "plain ViT" in speed.summary(row)
    with pytest.raises(ModelError, match="no model 'track-on3'"):
        speed.load_model(SpeedCase("track-on3", 1, None, "cpu", "auto", None), options)


def test_the_yardstick_is_a_real_forward() -> None:
    assert speed.vit_seconds(torch.device("cpu"), rounds=1) > 0


def test_memory_meter_sees_an_allocation() -> None:
    meter = MemoryMeter()
    before = meter.now()
    size = 64_000_000
    with mmap.mmap(-1, size) as block:  # fresh pages from the kernel: malloc may hand out pages that are resident
        for page in range(0, size, mmap.PAGESIZE):
            block[page] = 1
        assert meter.peak().process >= meter.now() >= before + 0.9 * size
    assert meter.peak().gpu == 0


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        SpeedOptions(frames=0)
    with pytest.raises(ConfigError, match="not both"):
        SpeedOptions(video=Path("a"), davis=Path("b"))


def test_command_ends_with_one_line_of_json(clip: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "s.json", tmp_path / "p.png"
    arguments = ["bench", "speed", "--model", "static", "--compare", "matching", "--n-sqrt", "2", "--points", "9"]
    arguments += ["--video", str(clip), "--size", "64x32", "--frames", "2", "--warmup", "1", "--out", str(out)]
    result = run.invoke(app, [*arguments, "--plot", str(plot)], catch_exceptions=False)
    assert result.exit_code == 0
    lines = result.stdout.strip().splitlines()
    data = json.loads(lines[-1])
    assert data == json.loads(out.read_text())
    assert [(r["model"], r["points"], r["width"]) for r in data["results"]] == [
        ("static", 9, 64), ("static", 4, 64), ("matching", 9, 64), ("matching", 4, 64)
    ]  # fmt: skip
    assert len(lines) == 6  # the machine first
    assert plot.read_bytes()[:4] == b"\x89PNG"
    from ptrack.errors import OutputError

    with pytest.raises(OutputError, match="already exists"):
        run.invoke(app, arguments, catch_exceptions=False)
    with pytest.raises(ConfigError, match="WIDTHxHEIGHT"):
        run.invoke(app, ["bench", "speed", "--size", "big"], catch_exceptions=False)


def test_tapnext_is_measured_with_random_weights(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ptrack.models.tapnext import load
    from tests.parity.tapnext.recorded import TINY

    monkeypatch.setattr(load, "TapNextConfig", lambda input_size: TINY)
    options = SpeedOptions(models=("tapnextpp",), points=(4,), random_weights=True, frames=2, warmup=1, video=clip)
    (row,) = bench_speed(options).rows
    assert (row.model, row.weights, row.memory, row.vit_seconds) == ("tapnextpp", "random", None, None)
    assert row.median["step"] > 0
