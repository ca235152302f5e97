import os
import subprocess
import sys
from pathlib import Path

import pytest

from ptrack.errors import OutputError
from ptrack.tracking.request import TrackRequest, output_paths, resolve, source_stem


@pytest.mark.parametrize(
    ("source", "stem"),
    [
        ("a/my clip.v2.mp4", "my clip.v2"),
        ("-dash.mp4", "-dash"),
        ("shots/frame_*.png", "frame"),
        ("shots/%05d.png", "shots"),
        ("shots/*.png", "shots"),
        ("rtsp://host:554/live", "camera-host-554-live"),
    ],
)
def test_stems(source, stem):
    assert source_stem(source) == stem


def test_camera_and_folder_stems(tmp_path, monkeypatch):
    assert source_stem("0", camera=True) == "camera-0"
    (tmp_path / "shots").mkdir()
    monkeypatch.chdir(tmp_path / "shots")
    assert source_stem(".") == "shots"


@pytest.mark.parametrize(
    ("options", "tracks", "overlay"),
    [
        ({}, "v.tracks.h5", "v.overlay.mp4"),
        ({"format": "csv"}, "v.tracks.csv", "v.overlay.mp4"),
        ({"out": Path("r/x.npz")}, "r/x.npz", "r/x.overlay.mp4"),
        ({"out": Path("r/x.tracks.h5"), "overlay": False}, "r/x.tracks.h5", None),
        ({"out": Path("r")}, "r/v.tracks.h5", "r/v.overlay.mp4"),
    ],
)
def test_output_paths(options, tracks, overlay):
    made = output_paths(TrackRequest(sources=["v.mp4"], **options), "v.mp4")
    assert made == (Path(tracks), Path(overlay) if overlay else None)


@pytest.mark.parametrize("letter", ["a", "é", "鼠"])
def test_long_names_leave_room_and_stay_apart(letter, tmp_path, monkeypatch):
    from ptrack.tracking.partial import check_outputs, state_path

    monkeypatch.chdir(tmp_path)
    stem = letter * (250 // len(letter.encode()))
    one, two = (output_paths(TrackRequest(sources=["v"]), f"{stem[:-1]}{end}.mp4") for end in "xy")
    assert one != two
    for path in (*one, *two):
        assert len(os.fsencode(path.name)) <= 255
    assert not check_outputs(*one, overwrite=False, resume=False)
    state_path(one[0]).touch()
    with pytest.raises(OutputError, match="longer than 244 bytes; give a shorter one"):
        check_outputs(Path("a" * 250 + ".h5"), None, overwrite=False, resume=False)


def test_patterns_are_names_where_such_files_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["Title [id1].mp4", "Title [id2].mp4", "take*1.mp4", "a%1d.mp4"]
    for name in names:
        Path(name).touch()
    assert [source_stem(name) for name in names] == [name[:-4] for name in names]


def test_unknown_format():
    with pytest.raises(OutputError, match="--format mat: choose one of h5"):
        output_paths(TrackRequest(sources=["v.mp4"], format="mat"), "v.mp4")


def test_demo_is_the_packaged_clip_unless_a_file_has_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(resolve("demo")).is_file()
    (tmp_path / "demo").touch()
    assert resolve("demo") == "demo"


def test_a_request_needs_no_torch():
    code = "import sys, ptrack.tracking.request; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
