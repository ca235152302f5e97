"""``ptrack analyze`` in this process, and every command of docs/analysis.md."""

import csv
import json

import numpy as np
import pytest

from ptrack.cli import app
from ptrack.tracks_io import load_tracks, save_tracks
from tests.analysis.make import circling, made
from tests.docs import commands


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command line in a folder with ``walk.tracks.h5``; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    xy = circling(60, 4, period=60)
    xy[30:, 3] += 25
    xy[10, 0] += 12
    save_tracks(made(xy, ["nose", "tail", "left", "right"]), "walk.tracks.h5")

    def call(*words):
        monkeypatch.setattr("sys.argv", ["ptrack", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            app.main()
        return (end.value.code or 0, *capsys.readouterr())

    return call


@pytest.mark.parametrize("command", commands("analysis.md"), ids=" ".join)
def test_commands_of_the_page(command, run):
    code, _, err = run(*command[1:])
    assert code == 0, err


def test_clean_writes_tracks_and_says_what_it_did(run):
    code, out, _ = run("analyze", "clean", "walk.tracks.h5", "out.csv")
    assert code == 0
    assert "1 outlier removed" in out
    assert out.splitlines()[-1] == "out.csv"
    assert load_tracks("out.csv").num_points == 4
    code, out, err = run("analyze", "clean", "walk.tracks.h5", "out.csv", "--overwrite", "--json")
    assert json.loads(out)["outliers"] == 1
    assert err == ""
    assert run("analyze", "clean", "walk.tracks.h5", "out.csv", "--overwrite", "--quiet") == (0, "", "")


def test_jumps_are_listed_and_tabled(run):
    code, out, err = run("analyze", "jumps", "walk.tracks.h5", "jumps.csv")
    assert code == 0
    assert out.splitlines()[1].split("\t")[:3] == ["30", "0.600", "right"]
    assert "3 jumps of 2 points" in err
    with open("jumps.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["frame"], rows[0]["id"]) == ("30", "right")
    assert json.loads(run("analyze", "jumps", "walk.tracks.h5", "--json")[1])["jumps"][0]["frame"] == 30


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("clean", "walk.tracks.h5", "walk.tracks.h5", "--overwrite"), "needs a file of its own"),
        (("clean", "walk.tracks.h5", "out.mp4"), "tracks files end in"),
        (("clean", "none.h5", "out.h5"), "none.h5"),
        (("clean", "walk.tracks.h5", "out.h5", "--smooth", "x"), "--smooth x: unknown"),
        (("jumps", "walk.tracks.h5", "walk.tracks.h5"), "walk.tracks.h5"),
    ],
)
def test_bad_input_is_one_sentence_and_no_file(words, message, run, tmp_path):
    before = np.sort([p.name for p in tmp_path.iterdir()])
    code, out, err = run("analyze", *words)
    assert (code, out) == (1, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert np.array_equal(before, np.sort([p.name for p in tmp_path.iterdir()]))
