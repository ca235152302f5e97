"""Many tracks files into another format, as a user asks for it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ptrack.batch import exporting
from ptrack.batch.executors import InProcess
from ptrack.batch.work import WorkSpec
from ptrack.cli.app import app
from ptrack.errors import InputError, OutputError, PTrackError, TracksError
from ptrack.tracks_io import load_tracks, save_tracks
from tests.exports.make import example


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder as a batch leaves it: tracks, an overlay, status files."""
    (tmp_path / "results").mkdir()
    for name in ("a", "b"):
        save_tracks(example(("x", "y")), tmp_path / f"results/{name}.tracks.h5")
        (tmp_path / f"results/{name}.status.json").write_text("{}")
    (tmp_path / "results/a.overlay.mp4").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def convert(*words):
    return CliRunner().invoke(app, ["convert", "tracks", *words])


def test_a_folder_with_a_damaged_file_and_again(place):
    Path("results/bad.tracks.h5").write_text("no tracks")
    done = convert("results", "tables", "--to", "csv", "--report", "report.json")
    assert done.exit_code == 1
    assert "2 done, 1 failed" in done.stdout
    assert "results/bad.tracks.h5" in done.stderr
    assert sorted(p.name for p in Path("tables").glob("*.csv")) == ["a.csv", "b.csv"]
    assert json.loads(Path("report.json").read_text())["counts"] == {"done": 2, "failed": 1}
    original = load_tracks("results/a.tracks.h5")
    assert load_tracks("tables/a.csv").num_points == original.num_points
    before = Path("tables/b.csv").stat().st_mtime_ns
    save_tracks(example(("x", "y", "z")), Path("results/bad.tracks.h5"))
    save_tracks(example(("x",)), Path("results/a.tracks.h5"))
    again = convert("results", "tables", "--to", "csv")
    assert again.exit_code == 0
    assert "2 done, 1 unchanged" in again.stdout
    assert "results/a.tracks.h5: done again, the source has changed" in again.stderr
    assert Path("tables/b.csv").stat().st_mtime_ns == before


def test_workers_get_the_request_and_a_pattern_finds_files(place, monkeypatch):
    made = []
    monkeypatch.setattr(
        exporting,
        "local_processes",
        lambda make, place, workers: InProcess(made.append(workers) or WorkSpec(make=make, place=place)),
    )
    done = convert("results/*.tracks.h5", "out", "--to", "npz", "--workers", "2")
    assert (done.exit_code, made) == (0, [2])
    assert sorted(p.name for p in Path("out").glob("*.npz")) == ["a.npz", "b.npz"]


@pytest.mark.parametrize(
    ("words", "kind", "sentence"),
    [
        (["results", "out"], TracksError, "with --to"),
        (["results", "out", "--to", "cvs"], TracksError, "cvs"),
        (["results", "out.csv", "--to", "csv"], OutputError, "name a folder"),
        (["results/*.mat", "out", "--to", "csv"], InputError, "finds no file"),
        (["results", "out", "--to", "csv", "--from", "coco"], InputError, "holds no"),
        (["results", "out", "--to", "csv", "--workers", "0"], TracksError, "--workers 0"),
        (["results/a.tracks.h5", "a.csv", "--report", "r", "--workers", "2"], TracksError, "--workers and --report"),
        (["results", "out", "--to", "csv", "--report", "a.txt"], OutputError, "--report a.txt"),
    ],
)
def test_bad_requests_are_one_sentence_and_write_nothing(place, words, kind, sentence):
    done = convert(*words)
    assert isinstance(done.exception, PTrackError)
    assert isinstance(done.exception, kind)
    assert sentence in str(done.exception)
    assert [p.name for p in place.iterdir()] == ["results"]
