"""Many videos on the command line, in the tests' own process except for one run with workers."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptrack.cli import app
from ptrack.cli.batch import MOST_BARS
from ptrack.video import open_writer
from tests.cli.terminal import in_terminal

ARGUMENTS = ["--grid", "2", "--model", "static", "--no-overlay"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    for i in range(3):
        (tmp_path / "clips").mkdir(exist_ok=True)
        with open_writer(tmp_path / f"clips/c{i}.mp4", fps=25) as writer:
            for t in range(4):
                writer.write(np.full((48, 64, 3), 20 * t + i, np.uint8), t / 25)
    (tmp_path / "clips/bad.mp4").write_text("no video")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_app(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["ptrack", *map(str, arguments)])
    capsys.readouterr()
    code = 0
    try:
        app.main()
    except SystemExit as end:
        code = end.code or 0
    seen = capsys.readouterr()
    return code, seen.out, seen.err


def test_workers_report_and_status(place, monkeypatch, capsys):
    arguments = ["track", "clips", *ARGUMENTS, "--out", "out", "--workers", 1, "--report", "report.csv"]
    code, out, err = run_app(monkeypatch, capsys, *arguments)
    assert code == 1
    assert "clips/c0.mp4: 4 points, 4 frames" in out
    assert "3 done, 1 failed" in out
    assert err.count("warning: clips/bad.mp4 holds text") == 1
    assert Path("report.csv").read_text().splitlines()[1].startswith("bad,clips/bad.mp4,failed")
    code, out, _ = run_app(monkeypatch, capsys, "batch", "status", "out", "--report", "all.json")
    assert code == 1
    assert out.splitlines()[0] == "3 done, 1 failed"
    assert "failed: clips/bad.mp4 holds text" in out
    assert json.loads(Path("all.json").read_text())["counts"] == {"done": 3, "failed": 1}
    os.remove("clips/bad.mp4")
    code, out, _ = run_app(monkeypatch, capsys, "track", "clips", *ARGUMENTS, "--out", "out", "--json")
    assert code == 0
    document = json.loads(out)
    assert [s["state"] for s in document["sources"]] == ["unchanged"] * 3
    assert document["counts"] == {"unchanged": 3}


REST = """
import sys
from ptrack.cli.app import main
sys.argv[0] = "ptrack"
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
assert "torch" not in sys.modules
"""


def test_a_run_with_nothing_to_do_loads_no_torch(place, monkeypatch, capsys):
    os.remove("clips/bad.mp4")
    arguments = ["track", "clips", *ARGUMENTS, "--out", "out", "--workers", "2"]
    assert run_app(monkeypatch, capsys, *arguments[:-2])[0] == 0
    done = subprocess.run([sys.executable, "-c", REST, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "3 unchanged" in done.stdout


def test_list_and_dry_run(place, monkeypatch, capsys):
    entries = ["clips/c0.mp4", "clips/none.mp4", "clips/c0.mp4", "clips/c1.mp4\tother", "clips/bad.mp4"]
    Path("list.txt").write_text("\n".join(entries))
    arguments = ["track", "--list", "list.txt", *ARGUMENTS, "--out", "out"]
    code, out, err = run_app(monkeypatch, capsys, *arguments, "--dry-run")
    assert code == 0
    assert out.splitlines()[-1] == "dry run: 4 to do, 0 done"
    assert "(1 left out)" in err
    assert not Path("out").exists()
    code, _, err = run_app(monkeypatch, capsys, *arguments)
    assert code == 1
    assert "There is no file or folder clips/none.mp4" in err
    assert "clips/bad.mp4 holds text" in err
    assert sorted(p.name for p in Path("out").glob("*.h5")) == ["c0.tracks.h5", "other.tracks.h5"]


@pytest.mark.parametrize("columns", [40, 80])
def test_a_terminal_shows_bars_and_ends_clean(place, monkeypatch, columns):
    seen = in_terminal(["track", "clips", *ARGUMENTS, "--out", "out"], monkeypatch, columns)
    assert seen.code == 1
    assert "Traceback" not in seen.raw
    assert "videos" in seen.raw
    assert "Summary" in seen.text
    assert "1 of 4 sources failed" in seen.text
    head = next(line for line in seen.text.splitlines() if line.lstrip().startswith("source"))
    assert head.split() == (["source", "frames", "points"] if columns == 80 else ["source"]) + ["seconds", "result"]
    assert re.search(r"c0\.mp4 .* c0\.tracks\.h5", seen.text)  # whole names in a narrow terminal too
    assert MOST_BARS < 24


BAD = {
    "camera": (["--camera", "0", "--workers", "2"], "A camera is tracked alone"),
    "list": (["--list", "none.txt"], "--list none.txt cannot be read"),
    "shard": (["clips", "--shard", "4/3"], "--shard 4/3"),
    "retries": (["clips", "--retries", "-1"], "--retries -1"),
    "timeout": (["clips", "--timeout", "0"], "--timeout 0"),
    "workers": (["clips", "--workers", "0"], "--workers 0"),
    "report": (["clips", "--report", "a.txt"], "--report a.txt"),
    "model": (["clips", "--model", "nani"], "Did you mean 'nano'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_sentence_and_write_nothing(place, monkeypatch, capsys, name):
    arguments, sentence = BAD[name]
    code, _, err = run_app(monkeypatch, capsys, "track", *arguments)
    assert code == 1
    assert sentence in err
    assert err.count("\n") == 1
    assert sorted(p.name for p in place.iterdir()) == ["clips"]


def test_status_of_a_folder_without_any(place, monkeypatch, capsys):
    code, _, err = run_app(monkeypatch, capsys, "batch", "status", "clips")
    assert code == 1
    assert "holds no status files" in err
