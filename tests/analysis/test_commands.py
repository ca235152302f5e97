"""``ptrack analyze`` in this process, and every command of docs/analysis.md."""

import csv
import json

import numpy as np
import pytest

from ptrack.cli import app
from ptrack.tracks_io import load_tracks, save_tracks
from tests.analysis.make import circling, made
from tests.analysis.test_suggest import scene, write
from tests.docs import blocks, commands


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command line in a folder with ``walk.tracks.h5``; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    xy = circling(60, 4, period=60)
    xy[30:, 3] += 25
    xy[10, 0] += 12
    save_tracks(made(xy, ["nose", "tail", "left", "right"]), "walk.tracks.h5")
    wall = np.random.default_rng(0).uniform(50, 350, (1, 30, 2)) + 2.0 * np.arange(20)[:, None, None]
    save_tracks(made(wall), "wall.tracks.h5")
    write("walk.mp4", [scene(t // 4, t) for t in range(20)])

    def call(*words):
        monkeypatch.setattr("sys.argv", ["ptrack", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            app.main()
        return (end.value.code or 0, *capsys.readouterr())

    return call


def test_the_commands_of_the_page_in_their_order(run):
    for command in commands("analysis.md"):
        code, _, err = run(*command[1:])
        assert code == 0, (command, err)


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


def test_measures_are_tabled_plotted_and_summarised(run, tmp_path):
    outputs = ("--summary", "sum.csv", "--plot", "plot.png")
    asked = ("--scale", "2px/mm", "--distance", "nose,tail", "--angle", "left,nose,right")
    code, out, err = run("analyze", "measure", "walk.tracks.h5", "walk.csv", *asked, *outputs)
    assert code == 0
    assert out.splitlines()[0].split("\t")[:4] == ["quantity", "id", "unit", "frames"]
    assert "Times are the tracks' own." in err
    with open("walk.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60 * (4 + 1 + 1)
    assert (rows[4]["id"], rows[4]["x_mm"], rows[5]["id"]) == ("nose-tail", "", "left-nose-right")
    assert float(rows[0]["x_mm"]) == pytest.approx(130)
    assert rows[0]["acceleration_mm_per_s2"] == ""  # needs both neighbours
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    document = json.loads(run("analyze", "measure", "walk.tracks.h5", "--json", *asked)[1])
    with open("sum.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(document["summary"]) == 4 * 4 + 2


def test_a_corner_pin_and_a_table_of_homographies(run):
    pin = ("--corners", "100,80 300,80 300,200 100,200")
    code, out, _ = run("analyze", "planar", "wall.tracks.h5", "pin.csv", *pin, "--table", "plane.csv")
    assert code == 0
    assert "Reference: frame 0, 30 points." in out
    assert load_tracks("pin.csv").tracks[5, 0] == pytest.approx([110, 90], abs=0.01)
    with open("plane.csv", newline="") as file:
        assert float(list(csv.DictReader(file))[5]["to_reference_02"]) == pytest.approx(-10, abs=0.05)
    frames = json.loads(run("analyze", "planar", "wall.tracks.h5", "--background", "--json")[1])["frames"]
    assert len(frames[3]["from_reference"]) == 9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("clean", "walk.tracks.h5", "walk.tracks.h5", "--overwrite"), "needs a file of its own"),
        (("clean", "walk.tracks.h5", "out.mp4"), "tracks files end in"),
        (("clean", "none.h5", "out.h5"), "none.h5"),
        (("clean", "walk.tracks.h5", "out.h5", "--smooth", "x"), "--smooth x: unknown"),
        (("jumps", "walk.tracks.h5", "walk.tracks.h5"), "walk.tracks.h5"),
        (("measure", "walk.tracks.h5", "out.csv"), "Measuring needs a scale"),
        (("measure", "walk.tracks.h5", "out.csv", "--scale", "0px/mm"), "above 0"),
        (("measure", "walk.tracks.h5", "out.csv", "--scale", "px", "--plot", "a.mp4"), "a plot ends in"),
        (("measure", "walk.tracks.h5", "out.csv", "--scale", "px", "--summary", "out.csv"), "a file of its own"),
        (("measure", "walk.tracks.h5", "out.csv", "--scale", "px", "--distance", "nose,x"), "id 'x'"),
        (("planar", "walk.tracks.h5", "out.h5"), "A corner pin needs both"),
        (("planar", "walk.tracks.h5", "--region", "nose,tail,left"), "needs at least 4"),
        (("planar", "walk.tracks.h5", "--region", "nose", "--background"), "leave --region out"),
    ],
)
def test_bad_input_is_one_sentence_and_no_file(words, message, run, tmp_path):
    before = np.sort([p.name for p in tmp_path.iterdir()])
    code, out, err = run("analyze", *words)
    assert (code, out) == (1, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert np.array_equal(before, np.sort([p.name for p in tmp_path.iterdir()]))


def test_the_python_of_the_page(run, tmp_path):
    scope = {"tracks": load_tracks("wall.tracks.h5")}
    exec(blocks("analysis.md", "python")[0], scope)
    assert scope["speed"].shape == (20, 30)
    assert scope["corners"].num_points == 4
    assert len(scope["to_label"]) == 4
