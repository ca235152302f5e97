import json
import os
import shutil
import signal
import subprocess
import time

import h5py
import numpy as np
import pytest

from ptrack.tracks_io import load_tracks
from ptrack.video import open_source, open_writer
from tests.cli.helpers import ptrack, start
from tests.fakes import moving_frames
from tests.test_tracks_io import assert_equal


@pytest.fixture
def inside(monkeypatch, capsys):
    """Run ``ptrack`` in this process, which has torch loaded already."""

    def call(*arguments, cwd):
        from ptrack.cli.app import main

        monkeypatch.chdir(cwd)
        monkeypatch.setattr("sys.argv", ["ptrack", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return call


def write_clip(path, frames):
    with open_writer(path, fps=25) as writer:
        for t, rgb in enumerate(frames):
            writer.write(rgb, t / 25)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "my clip.mp4", moving_frames(10, (96, 128)))


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    frames = np.concatenate([moving_frames(50, (96, 128), seed) for seed in range(3)])
    return write_clip(tmp_path_factory.mktemp("clips") / "long.mp4", frames)


def test_demo_end_to_end(tmp_path):
    done = ptrack("track", "demo", "--grid", "4", "--end", "12", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("demo: 16 points, 12 frames")
    assert "model nano on cpu" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo.overlay.mp4", "demo.tracks.h5"]
    tracks = load_tracks(tmp_path / "demo.tracks.h5")
    assert np.isfinite(tracks.tracks).all()
    assert tracks.visible.mean() > 0.7
    with open_source(tmp_path / "demo.overlay.mp4") as overlay:
        assert (overlay.info.width, overlay.info.height) == (tracks.info.width, tracks.info.height)
        assert sum(1 for _ in overlay) == 12


def test_json_quiet_and_formats(inside, clip, tmp_path):
    done = inside("track", clip, "--point", "30,30", "--format", "csv", "--no-overlay", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["sources"][0]["ok"]
    assert document["sources"][0]["tracks"] == "my clip.tracks.csv"
    assert (tmp_path / "my clip.tracks.csv").read_text().startswith("frame,time_s,id")
    quiet = inside("track", clip, "--point", "30,30", "--out", "a.npz", "--no-overlay", "-q", cwd=tmp_path)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_several_sources_one_fails(clip, tmp_path):
    other = shutil.copy(clip, tmp_path / "-dash ü.mp4")
    bad = tmp_path / "bad.mp4"
    bad.write_text("not a video")
    done = ptrack(
        "track", "--grid", "2", "--out", tmp_path / "out", "--json", "--", clip, bad, other.name, cwd=tmp_path
    )
    assert done.returncode == 1
    results = json.loads(done.stdout)["sources"]
    assert [r["ok"] for r in results] == [True, False, True]
    assert "bad.mp4" in results[1]["error"]
    assert "1 of 3 sources failed" in done.stderr
    names = {"my clip.tracks.h5", "my clip.overlay.mp4", "-dash ü.tracks.h5", "-dash ü.overlay.mp4"}
    assert {p.name for p in (tmp_path / "out").iterdir() if not p.name.endswith(".status.json")} == names


def test_dry_run_writes_nothing(inside, clip, tmp_path):
    done = inside("track", clip, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0
    assert "dry run: 256 points, 128x96" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_folder_of_images_and_max_size(inside, tmp_path):
    with open_writer(tmp_path / "shots") as writer:
        for rgb in moving_frames(4, (96, 128)):
            writer.write(rgb)
    done = ptrack(
        *("track", "shots", "--point", "100,80", "--max-size", "64", "--no-overlay", "--fps", "10", "--range", "0,255"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    tracks = load_tracks(tmp_path / "shots.tracks.h5")
    assert tracks.pts_seconds.tolist() == pytest.approx([0, 0.1, 0.2, 0.3])
    assert (tracks.info.width, tracks.info.height) == (128, 96)  # coordinates stay those of the original
    assert tracks.tracks[0, 0].tolist() == [100, 80]
    assert np.abs(tracks.tracks[3, 0] - [103, 81.5]).max() < 3


BAD = {
    "missing": (["none.mp4"], "none.mp4"),
    "no name": ([""], "name of a source is empty"),
    "a dead link": (["dead.mp4"], "dead.mp4. Check the name: it is a link to something that does not exist."),
    "name too long": (["a" * 300 + ".mp4"], "is too long for a file"),
    "mask name too long": (["ok.mp4", "--mask", "a" * 300], "File name too long"),
    "nothing named": ([], "Name at least one"),
    "model": (["ok.mp4", "--model", "matchin"], "Did you mean 'matching'"),
    "quality": (["ok.mp4", "--quality", "fastest"], "fast, default, best"),
    "quality of matching": (["ok.mp4", "--model", "matching", "--quality", "fast"], "no option 'quality'"),
    "point": (["ok.mp4", "--point", "500,3"], "outside the 128x96 frame"),
    "grid": (["ok.mp4", "--grid", "0"], "--grid 0"),
    "too many points": (
        ["ok.mp4", "--grid", "2000"],
        "4,000,000 points are more than the 10,000 of --max-points; their",
    ),
    "far too many points": (["ok.mp4", "--grid", "10000000"], "would take 1600000000.0 MB per frame"),
    "resume and overwrite": (["ok.mp4", "--resume", "--overwrite"], "give one of them"),
    "queries": (["ok.mp4", "--queries", "none.csv"], "no query file none.csv"),
    "format": (["ok.mp4", "--format", "mat"], "--format mat"),
    "out suffix": (["ok.mp4", "--out", "a.mat"], "a.mat"),
    "disagree": (["ok.mp4", "--out", "a.csv", "--format", "npz"], "disagree"),
    "device": (["ok.mp4", "--device", "gpu"], "Did you mean 'cuda'?"),
    "option": (["ok.mp4", "--memory", "5"], "no option 'memory'"),
    "same output": (["ok.mp4", "sub/ok.mp4"], "would both be written"),
    "file for many": (["ok.mp4", "sub/ok.mp4", "--out", "a.h5"], "name a folder"),
    "empty": (["empty.mp4"], "empty.mp4"),
    "text": (["text.mp4"], "text.mp4"),
    "folder": (["sub2"], "sub2"),
    "read-only": (["ok.mp4", "--out", "/proc/a.h5"], "/proc/a.h5"),
    "stride": (["ok.mp4", "--stride", "0"], "stride"),
    "range": (["ok.mp4", "--range", "0-255"], "--range 0-255: give two numbers"),
    "range order": (["ok.mp4", "--range", "9,5"], "The range must be two numbers, the lower one first, not 9 and 5"),
    "fps": (["ok.mp4", "--fps", "0"], "The frame rate must be above 0"),
    "max pixels": (["ok.mp4", "--max-pixels", "100"], "128x96 has 12,288 pixels, more than the limit of 100"),
}


@pytest.fixture(scope="module")
def place(clip, tmp_path_factory):
    place = tmp_path_factory.mktemp("bad")
    for name in ("sub", "sub2"):
        (place / name).mkdir()
    shutil.copy(clip, place / "ok.mp4")
    shutil.copy(clip, place / "sub/ok.mp4")
    (place / "empty.mp4").touch()
    (place / "dead.mp4").symlink_to("gone.mp4")
    (place / "text.mp4").write_text("words")
    return place


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_writes_nothing(place, name, monkeypatch, capsys):
    from ptrack.cli.app import main

    arguments, words = BAD[name]
    before = sorted(place.rglob("*"))
    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.argv", ["ptrack", "track", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    assert stop.value.code == 1
    assert err.startswith("error: ")
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "document"),
    [
        (["none.mp4"], {"sources": [{"ok": False, "source": "none.mp4", "error": "none.mp4"}]}),
        (
            ["ok.mp4", "--model", "matchin"],
            {"sources": [{"ok": False, "source": "ok.mp4", "error": "Did you mean 'matching'"}]},
        ),
    ],
)
def test_a_failure_is_part_of_the_json_document(place, monkeypatch, capsys, arguments, document):
    from ptrack.cli.app import main

    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.argv", ["ptrack", "track", *arguments, "--json"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    out, err = capsys.readouterr()
    assert err.startswith("error: ")
    (found,), (wanted,) = json.loads(out)["sources"], document["sources"]
    assert wanted["error"] in found["error"]
    assert {**found, "error": ""} == {**wanted, "error": ""}


def test_existing_output_is_kept_without_overwrite(inside, clip, tmp_path):
    (tmp_path / "my clip.tracks.h5").write_text("precious")
    done = inside("track", clip, "--grid", "2", "--no-overlay", cwd=tmp_path)
    assert done.returncode == 1
    assert "--overwrite" in done.stderr
    assert (tmp_path / "my clip.tracks.h5").read_text() == "precious"
    assert inside("track", clip, "--grid", "2", "--no-overlay", "--overwrite", cwd=tmp_path).returncode == 0


def wait_for_rows(process, partial, rows):
    for _ in range(1200):
        assert process.poll() is None, process.communicate()
        if partial.exists():
            try:
                with h5py.File(partial, "r") as file:
                    if file["tracks"].shape[0] >= rows:
                        return
            except (OSError, KeyError):
                pass  # being written right now
        time.sleep(0.05)
    pytest.fail("no rows were written")


def test_kill_9_then_resume_equals_a_whole_run(long_clip, tmp_path):
    fast = ["--quality", "fast", "--no-overlay", "--backward"]  # 101 points: frames are encoded ahead in a thread
    arguments = ["track", long_clip, "--grid", "10", "--point", "30,30@120", *fast]
    process = start(*arguments, cwd=tmp_path)
    state = tmp_path / "long.tracks.partial.state"
    while not state.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert state.exists()
    partial = load_tracks(tmp_path / "long.tracks.partial.h5")
    assert 0 < partial.num_frames <= 150
    done = ptrack(*arguments, "--resume", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sources"][0]["resumed_from"] > 0
    assert ptrack(*arguments, "--out", tmp_path / "whole.h5", cwd=tmp_path).returncode == 0
    assert_equal(load_tracks(tmp_path / "long.tracks.h5"), load_tracks(tmp_path / "whole.h5"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["long.tracks.h5", "whole.h5"]
    again = ptrack(*arguments, "--resume", cwd=tmp_path)
    assert "complete already" in again.stdout


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_finish_the_frame_and_say_how_to_go_on(long_clip, tmp_path, signum, code):
    process = start("track", long_clip, "--grid", "12", cwd=tmp_path)
    while not (tmp_path / "long.tracks.partial.state").exists() and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signum)
    err = process.communicate()[1]
    assert process.returncode == code, err
    assert "--resume" in err
    assert "Traceback" not in err
    assert load_tracks(tmp_path / "long.tracks.partial.h5").num_frames > 0
    assert not (tmp_path / "long.overlay.mp4").exists()
    assert not [p for p in tmp_path.iterdir() if ".tmp" in p.name]


def test_a_closed_pipe_is_no_error(clip, tmp_path):
    process = start("track", clip, "--grid", "2", "--no-overlay", cwd=tmp_path)
    process.stdout.close()
    assert process.wait() == 0
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
