"""Exported models: the graphs' modules, the example that runs them, and one small graph through onnxruntime."""

from __future__ import annotations

import ast
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ptrack.cli.app import main
from ptrack.deploy import export, ptrack_onnx
from ptrack.deploy.graphs import Graphs, graphs_of
from ptrack.errors import ModelError
from ptrack.models.backbones.lite0 import packaged_weights
from ptrack.models.entry import LoadedModel
from ptrack.models.nano.consensus import Consensus
from ptrack.models.nano.matching import MATCHING
from ptrack.models.nano.model import Nano
from ptrack.models.zoo import find
from ptrack.tracking.tracker import Tracker
from tests.models.test_nano import SMALL, scrambled
from tests.models.test_online import _model

QUERIES = np.array([[0, 20.0, 30.0], [0, 81.5, 60.0], [0, 45.5, 33.0], [2, 10.0, 12.0], [3, 90.0, 70.0]], np.float32)


@pytest.fixture
def frames() -> np.ndarray:
    """(T, H, W, 3): a texture that moves by 4 px along x in some frames and by 30 px in one."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (20, 40, 3), dtype=np.uint8).repeat(6, 0).repeat(6, 1)
    return np.stack([texture[10:106, x : x + 120] for x in (10, 14, 18, 48, 52)])


class Session:
    """A graph's module called as onnxruntime calls the graph, on tensors that it would have written."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            return [x.numpy() for x in self.module(*(torch.from_numpy(x) for x in inputs.values()))]


def example(graphs: Graphs, model: Any) -> Any:
    """Return the example's tracker on the modules themselves."""
    tracker: Any = object.__new__(ptrack_onnx.Tracker)
    tracker.about = export.describe(graphs, LoadedModel(model=model))
    tracker.encoder, tracker.graph = Session(graphs.encoder), Session(graphs.step)
    tracker.state, tracker.rows = None, []
    return tracker


def tracked(tracker: Any, frames: np.ndarray) -> np.ndarray:
    """Return (T, N, 4) of the example, NaN before a point's frame."""
    rows = np.full((len(frames), len(QUERIES), 4), np.nan)
    for t, frame in enumerate(frames):
        new = [i for i, q in enumerate(QUERIES) if q[0] == t]
        for name, row in tracker.step(frame, QUERIES[new, 1:], [str(i) for i in new]).items():
            rows[t, int(name)] = row
    return rows


def wanted(model: Any, frames: np.ndarray) -> np.ndarray:
    tracker = Tracker(model)
    tracker.add(QUERIES)
    steps = [tracker.step(frame) for frame in frames]
    rows = np.stack([np.column_stack([s.positions, s.visibility, s.confidence]) for s in steps])
    return np.where(np.isnan(rows[..., :1]), np.nan, rows)


MODELS = {
    "nano": lambda: scrambled(replace(SMALL, wide_radius=12, wide_speed=1.0)),
    "track-on2": lambda: _model().fold(),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_what_is_traced_tracks_as_the_model_does(name, frames, monkeypatch):
    """In the branches for graphs: points join late, the state is empty at first, Track-On2 has its support grid."""
    model: Any = MODELS[name]()
    reference = wanted(model, frames)
    graphs = graphs_of(find(name), LoadedModel(model=model))
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    found = tracked(example(graphs, model), frames)
    np.testing.assert_allclose(found, reference, atol=2e-3)


def test_a_graph_runs_in_onnxruntime_with_any_number_of_points_and_any_size(tmp_path, frames, monkeypatch):
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)  # millions of lines for pytest to keep
    weights = packaged_weights()
    model = Nano(replace(MATCHING, input_size=(32, 48), radius=4), weights, name="matching").eval()
    graphs = graphs_of(find("matching"), LoadedModel(model=model))
    export.write(graphs, export.describe(graphs, LoadedModel(model=model)), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    found = tracked(ptrack_onnx.Tracker(tmp_path / "out", 1), frames)
    np.testing.assert_allclose(found[..., :2], wanted(model, frames)[..., :2], atol=2e-3)


def test_the_description_names_every_input():
    model = scrambled(SMALL)
    graphs = graphs_of(find("nano"), LoadedModel(model=model))
    about = export.describe(graphs, LoadedModel(model=model, weights_sha256="ab"))
    assert json.loads(json.dumps(about)) == about
    assert about["opset"] == export.OPSET
    assert about["weights_sha256"] == "ab"
    assert [s["first"] for s in about["state"] if s["first"]] == ["map", "grey"]
    assert len({id(s.example) for s in graphs.state}) == len(graphs.state)  # one tensor for two would be one input


def test_the_example_needs_nothing_but_numpy_onnxruntime_and_av():
    text = Path(ptrack_onnx.__file__).read_text()
    imports = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {(n.names[0].name if isinstance(n, ast.Import) else n.module or "").partition(".")[0] for n in imports}
    assert names - sys.stdlib_module_names == {"numpy", "onnxruntime", "av"}
    assert len(text.splitlines()) <= 100


def refused(monkeypatch: pytest.MonkeyPatch, capsys: Any, *words: str) -> str:
    monkeypatch.setattr("sys.argv", ["ptrack", "export", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("nanoo", "There is no model 'nanoo'. Did you mean 'nano'?"),
        ("static", "The model 'static' cannot be exported"),
        ("track-on2", "give them with --checkpoint FILE"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(tmp_path, monkeypatch, capsys, model, sentence):
    assert sentence in refused(monkeypatch, capsys, "--model", model, "--out", str(tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.txt").touch()
    assert "is not empty" in refused(monkeypatch, capsys, "--out", str(tmp_path))
    assert "is a file" in refused(monkeypatch, capsys, "--out", str(tmp_path / "mine.txt"))
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_missing_package_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    shown = refused(monkeypatch, capsys, "--out", str(tmp_path / "out"))
    assert "Exporting needs onnx and onnxscript; install with: pip install 'pointtrack[onnx]'." in shown


def test_nano_at_two_sizes_is_refused(tmp_path):
    members = Consensus([scrambled(), scrambled()])
    with pytest.raises(ModelError, match="--quality best.*use default or fast"):
        graphs_of(find("nano"), LoadedModel(model=members))
