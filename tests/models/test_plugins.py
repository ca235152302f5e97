"""Models of other packages: the example package, and packages that cannot be used."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import ptrack
from ptrack.cli.app import app
from ptrack.errors import ModelError
from ptrack.models import zoo
from ptrack.models.base import OnlineModel
from ptrack.video import open_writer
from tests.fakes import moving_frames

EXAMPLE = Path(__file__).parents[2] / "examples" / "ptrack-block-matching"
NAME = "block-matching"


def install(site: Path, name: str, points: dict[str, str]) -> None:
    """Write what pip writes of a package with entry points."""
    info = site / f"{name.replace('-', '_')}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    lines = [f"{key} = {value}" for key, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[ptrack.models]", *lines]) + "\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    zoo.models.cache_clear()
    before = set(sys.modules)
    yield tmp_path / "site"
    zoo.models.cache_clear()
    for module in set(sys.modules) - before:
        if module.split(".")[0] in ("ptrack_block_matching", "broken_models"):
            del sys.modules[module]


@pytest.fixture
def example(site: Path) -> Path:
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    shutil.copytree(EXAMPLE / "ptrack_block_matching", site / "ptrack_block_matching")
    install(site, project["name"], project["entry-points"]["ptrack.models"])
    return site


def test_the_example_package_is_listed_and_tracks(example: Path, tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["models", "--json"], catch_exceptions=False)
    packages = {m["name"]: m["package"] for m in json.loads(listed.stdout)}
    assert packages[NAME] == "ptrack-block-matching 0.1"
    assert packages["nano"] == "ptrack"
    tracker = ptrack.load(NAME, device="cpu")
    assert isinstance(tracker.model, OnlineModel)
    frames, queries = moving_frames(8, (48, 64)), [[0, 30, 20], [2, 20.5, 30.5]]
    tracks = tracker.track(frames, queries)
    truth = np.asarray(queries)[:, 1:] + [[7, 3.5], [5, 2.5]]
    assert np.abs(tracks.tracks[-1] - truth).max() < 2
    assert (tracks.info.model, tracks.visible[2:].all()) == (NAME, True)
    with pytest.raises(ModelError, match=r"has no option 'radios'.*'radius'"):
        ptrack.load(NAME, radios=3)
    with open_writer(tmp_path / "a.mp4", fps=8) as writer:
        for t, rgb in enumerate(frames):
            writer.write(rgb, t / 8)
    out = tmp_path / "a.tracks.h5"
    arguments = ["track", str(tmp_path / "a.mp4"), "--model", NAME, "--grid", "2", "--no-overlay", "--out", str(out)]
    CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert ptrack.load_tracks(out).info.model == NAME


def test_a_package_that_cannot_be_used_is_a_warning(example: Path) -> None:
    install(example, "broken-models", {"gone": "broken_models.nowhere:ENTRY", "odd": "broken_models:ODD"})
    (example / "broken_models.py").write_text("ODD = 3\n")
    with pytest.warns(UserWarning, match="broken-models") as caught:
        known = zoo.models()
    texts = sorted(str(w.message) for w in caught)
    assert [t.split("'")[1] for t in texts] == ["gone", "odd"]
    assert all(t.startswith("The package broken-models 0.1 offers the model") for t in texts)
    assert "ModelEntry" in texts[1]
    assert {NAME, "nano"} <= set(known)
    assert "gone" not in known


def test_names_are_taken_once_and_builders_must_exist(site: Path) -> None:
    (site / "broken_models").mkdir(parents=True)
    (site / "broken_models" / "__init__.py").write_text(
        "from ptrack.models.entry import ModelEntry\n"
        "def entry(name, builder='broken_models.none:build'):\n"
        "    return ModelEntry(name=name, summary='', licence='', weights='', builder=builder)\n"
        "ENTRIES = [entry('nano'), entry('mine')]\n"
        "WRONG = entry('other', 'no colon')\n"
    )
    install(site, "broken-models", {"a": "broken_models:ENTRIES", "b": "broken_models:WRONG"})
    with pytest.warns(UserWarning, match="broken-models") as caught:
        assert zoo.find("mine").package == "broken-models 0.1"
    texts = " ".join(str(w.message) for w in caught)
    assert "'nano' of broken-models 0.1 is left out: ptrack has one of that name" in texts
    assert "MODULE:FUNCTION" in texts
    assert zoo.find("nano").package == "ptrack"
    with pytest.raises(ModelError, match=r"'mine' of broken-models 0\.1 cannot be built \(ModuleNotFoundError"):
        ptrack.load("mine")


def test_other_packages_are_not_looked_for_when_nobody_asks(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptrack.models.plugins.entry_points", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert zoo.find("static").name == "static"
