"""The adapter against a small stand-in of napari-deeplabcut 0.4.0: its data types, its registry, its worker's calls.

``scripts/check_napari_deeplabcut.py`` runs the same in the real one.
"""

from __future__ import annotations

import sys
import tomllib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from ptrack.errors import ModelError, QueryError
from ptrack.integrations import napari_deeplabcut as adapter
from ptrack.tracking.tracker import Tracker
from tests.fakes import DriftModel

ROOT = Path(__file__).parents[2]
VIDEO = np.zeros((6, 48, 64, 3), np.uint8)
SEEDS = np.array([[0, 20.0, 30.0], [0, 10.5, 12.25]])  # (frame, y, x)


@dataclass
class TrackingWorkerData:
    tracker_name: str
    video: np.ndarray
    keypoints: np.ndarray
    keypoint_features: Any
    keypoint_range: tuple[int, int]
    backward_tracking: bool
    reference_frame_index: int | None = None


@dataclass(frozen=True)
class TrackingModelInputs:
    video: np.ndarray
    keypoints: np.ndarray
    metadata: dict[str, Any]


@dataclass
class RawModelOutputs:
    keypoints: np.ndarray
    keypoint_features: dict[str, Any]


@dataclass(frozen=True)
class TrackingWorkerOutput:
    keypoints: np.ndarray
    keypoint_features: Any


def expand_query_features_over_time(seed: Any, *, frame_ids: Any, visibility: Any, tracker_name: str) -> dict[str, Any]:
    assert visibility.shape == (len(frame_ids), len(seed["label"]))
    return {
        "label": np.tile(seed["label"], len(frame_ids)),
        "tracking_frame": np.repeat(frame_ids, len(seed["label"])),
        "tracking_visible": visibility.ravel(),
        "tracking_tracker_name": tracker_name,
    }


class TrackingModel(ABC):
    name: str
    info_text: str

    def __init__(self, cfg: Any) -> None:
        if not isinstance(cfg, TrackingWorkerData):
            raise ValueError("cfg must be an instance of TrackingWorkerData")
        self.cfg = cfg
        self.device = self.auto_set_device()
        self.model = self.load_model(self.device)

    auto_set_device = load_model = prepare_inputs = run = prepare_outputs = validate_outputs = abstractmethod(
        lambda self, *_, **__: None
    )


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Put the stand-in where napari-deeplabcut would be; DriftModel in the place of what is loaded."""
    known: dict[str, Any] = {"Cotracker 3": {}}

    def register_backbone(name: str) -> Any:
        return lambda cls: known.setdefault(name, {"class": cls})["class"]

    data, models, widgets = (ModuleType(name) for name in ("data", "models", "_widgets"))
    for kind in (TrackingModelInputs, RawModelOutputs, TrackingWorkerOutput, expand_query_features_over_time):
        setattr(data, kind.__name__, kind)
    models.TrackingModel, models.register_backbone = TrackingModel, register_backbone
    widgets.TrackingControls = SimpleNamespace
    core = ModuleType("core")
    core.data, core.models = data, models
    names = {"": ModuleType("napari_deeplabcut"), ".tracking": ModuleType("tracking"), ".tracking.core": core}
    names |= {".tracking.core.data": data, ".tracking.core.models": models, ".tracking._widgets": widgets}
    for name, module in names.items():
        monkeypatch.setitem(sys.modules, f"napari_deeplabcut{name}", module)
    monkeypatch.setattr("ptrack.tracking.load.load", lambda model, **options: Tracker(DriftModel()))
    return known


def work(registry: dict[str, Any], cfg: TrackingWorkerData, stop: Any = lambda: False) -> Any:
    """What the worker does with a model of the list."""
    model = registry[cfg.tracker_name]["class"](cfg)
    inputs = model.prepare_inputs(cfg)
    calls: list[tuple[int, int]] = []
    raw = model.run(inputs, lambda now, total: calls.append((now, total)), stop)
    if raw is None:
        return None
    output = model.prepare_outputs(raw, cfg)
    assert model.validate_outputs(inputs, output)[0]
    assert calls[-1] == (len(cfg.video), len(cfg.video))
    return output


def data_of(backward: bool = False, **changes: Any) -> TrackingWorkerData:
    features = {"label": np.array(["nose", "tail"])}
    made = TrackingWorkerData("ptrack", VIDEO, SEEDS, features, (4, 10), backward)
    return TrackingWorkerData(**{**vars(made), **changes})


@pytest.mark.parametrize("backward", [False, True])
def test_keypoints_follow_in_naparis_coordinates(registry: dict[str, Any], backward: bool) -> None:
    adapter.register()
    assert {"Cotracker 3", "ptrack", "ptrack (fast)", "ptrack (best)"} == set(registry)
    out = work(registry, data_of(backward))
    assert out.keypoints.shape == (12, 3)
    assert out.keypoints[:, 0].tolist() == np.repeat(np.arange(4, 10), 2).tolist()
    steps = np.repeat(np.arange(6)[:: -1 if backward else 1], 2)[:, None]
    truth = np.tile(SEEDS[:, 1:], (6, 1)) + steps * [0.5, 1.0]  # (y, x): DriftModel moves by 1 in x, 0.5 in y
    np.testing.assert_allclose(out.keypoints[:, 1:], truth, atol=1e-5)
    assert out.keypoint_features["label"].tolist() == ["nose", "tail"] * 6
    assert out.keypoint_features["tracking_tracker_name"] == "ptrack"
    first = out.keypoint_features["tracking_confidence"][steps[:, 0] == 0]
    assert first.tolist() == [1.0, 1.0]  # the frame with the keypoints, whichever end it is
    assert out.keypoint_features["tracking_visible"].all()


def test_the_slice_is_read_frame_by_frame_and_may_be_grey_or_stopped(registry: dict[str, Any]) -> None:
    adapter.register("mine", "matching", device="cpu")
    read = []

    class Lazy:
        def __len__(self) -> int:
            return 6

        def __iter__(self) -> Any:
            for t in range(6):
                read.append(t)
                yield VIDEO[t, ..., 0]

    assert work(registry, data_of(tracker_name="mine", video=Lazy())).keypoints.shape == (12, 3)
    read.clear()
    assert work(registry, data_of(tracker_name="mine", video=Lazy()), stop=lambda: len(read) > 3) is None
    assert max(read) < 5


def test_a_lost_point_stays_where_it_was_and_is_not_visible() -> None:
    class Lost(DriftModel):
        def step(self, state: Any, features: Any) -> Any:
            state, out = super().step(state, features)
            out.xy[0] = np.nan if self.stepped > 2 else out.xy[0]
            return state, out

    found = adapter.track_slice(Tracker(Lost()), VIDEO, SEEDS[:, 1:])
    assert found is not None
    np.testing.assert_array_equal(found.yx[2:, 0], np.tile(found.yx[1, 0], (4, 1)))
    assert found.visible[:, 0].tolist() == [True, True, False, False, False, False]
    assert found.visible[:, 1].all()


def test_a_keypoint_outside_is_an_error_and_other_packages_are_asked_for_by_name(
    registry: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(QueryError, match="outside the 64x48 frame"):
        adapter.track_slice(Tracker(DriftModel()), VIDEO, np.array([[20.0, 70.0]]))
    monkeypatch.setitem(sys.modules, "napari_deeplabcut.tracking.core.data", None)
    with pytest.raises(ModelError, match="pip install napari-deeplabcut"):
        adapter.register()


def test_napari_finds_the_widget_by_the_manifest(registry: dict[str, Any]) -> None:
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["napari.manifest"]
    module, _, file = entry["pointtrack"].partition(":")
    folder = Path(import_module(module).__file__ or "").parent
    manifest = yaml.safe_load((folder / file).read_text())["contributions"]
    command = manifest["commands"][0]
    assert manifest["widgets"][0]["command"] == command["id"]
    module, _, name = command["python_name"].partition(":")
    assert getattr(import_module(module), name) is SimpleNamespace
    assert "ptrack" in registry  # asking for the widget has added the models
    assert not hasattr(adapter, "Nothing")
