"""The floor beside the speed, and two checkouts in turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from ptrack.bench import against
from ptrack.bench.floor import PeakSpeed, floor_of
from ptrack.cli.app import app, main
from ptrack.errors import ConfigError
from ptrack.models.layers.linear import Linear, linear

run = CliRunner()
PEAK = PeakSpeed(gflops=1.0, gigabytes=1.0)


def test_operations_and_bytes_are_those_of_the_layers() -> None:
    model, x, state = Linear(32, 64), torch.randn(10, 32), torch.zeros(25)
    with torch.inference_mode():
        least = floor_of(lambda: linear(x, model.weight, model.bias, "relu"), model, x, lambda: state, PEAK)
    assert least.gflop == pytest.approx(2 * 10 * 32 * 64 / 1e9)
    assert least.megabytes == pytest.approx(4 * (32 * 64 + 64 + 320 + 2 * 25) / 1e6)
    assert least.seconds == pytest.approx(max(least.gflop, least.megabytes / 1e3))


def test_the_floor_and_the_instruction_set_stand_beside_the_measurement(tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    words = ["bench", "speed", "--model", "matching", "--points", "4", "--frames", "1", "--warmup", "1"]
    shown = run.invoke(app, [*words, "--size", "64x48", "--device", "cpu", "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    document = json.loads(out.read_text())
    row = document["results"][0]
    assert document["machine"]["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert shown.stdout.startswith(f"{torch.get_num_threads()} thread")
    assert f"floor {1e3 * row['floor_seconds']:.1f}" in shown.stdout
    assert 1 < row["gflop"] < 10  # encoding 512x384 alone takes some GFLOP
    assert 0 < row["floor_seconds"] < row["median"]["encode"] + row["median"]["step"]


def _row(seconds: float) -> dict[str, Any]:
    stages = {"encode": seconds / 2, "step": seconds / 2}
    return {"model": "m", "dtype": "float32", "points": 4, "memory": None, "latency_median": seconds, "median": stages}


def test_two_checkouts_take_turns_and_ratios_are_those_of_neighbours() -> None:
    order, seconds = [], iter([2.0, 4.0, 3.0, 1.0, 1.0, 3.0])  # other, this, this, other, other, this

    def measure(folder: Path) -> list[dict[str, Any]]:
        order.append(folder)
        return [_row(next(seconds))]

    other = Path("other")
    (ratio,) = against.in_turns(measure, other, 3, lambda _: None)
    here = against.HERE
    assert order == [other, here, here, other, other, here]
    assert (ratio.lowest, ratio.median, ratio.highest) == (1 / 3, 1 / 3, 0.5)
    assert "0.333 times as fast" in str(ratio)


def test_the_other_checkout_is_run_from_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "ptrack").mkdir()
    (tmp_path / "ptrack" / "__init__.py").touch()
    (tmp_path / "ptrack" / "__main__.py").write_text(
        "import json, sys\nopen(sys.argv[-1], 'w').write(json.dumps({'results': [{'words': sys.argv[1:-2]}]}))\n"
    )
    (row,) = against._run(against.checkout(tmp_path), ["--points", "4"])
    assert row["words"] == ["bench", "speed", "--points", "4"]


@pytest.mark.parametrize(("folder", "sentence"), [("", "there is no ptrack in it"), (str(against.HERE), "that runs")])
def test_what_is_no_other_checkout_is_refused(tmp_path: Path, folder: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        against.checkout(Path(folder or tmp_path))


def test_a_checkout_that_fails_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "ptrack").mkdir()
    (tmp_path / "ptrack" / "__init__.py").touch()
    (tmp_path / "ptrack" / "__main__.py").write_text("raise SystemExit('nothing works')\n")
    monkeypatch.setattr("sys.argv", ["ptrack", "bench", "speed", "--against", str(tmp_path), "--rounds", "1"])
    with pytest.raises(SystemExit):
        main()
    assert "failed: nothing works" in capsys.readouterr().err
