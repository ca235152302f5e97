from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import ptrack
from ptrack.cli.app import app
from ptrack.errors import TracksError
from ptrack.exports import export
from ptrack.exports.convert import convert_file, format_for, parse_size


def _run(*words):
    return CliRunner().invoke(app, ["convert", "tracks", *map(str, words)])


def test_there_and_back_through_deeplabcut(tracks, tmp_path):
    ptrack.save_tracks(tracks, tmp_path / "a.h5")
    done = _run(tmp_path / "a.h5", tmp_path / "b.csv", "--to", "dlc-csv")
    assert done.exit_code == 0, done.output
    assert "half a pixel less" in done.stderr
    done = _run(tmp_path / "b.csv", tmp_path / "c.h5", "--size", "64x48", "--json")
    assert json.loads(done.stdout)["format"] == "h5"
    back = ptrack.load_tracks(tmp_path / "c.h5")
    np.testing.assert_allclose(back.tracks, tracks.tracks, atol=5e-5)
    assert (back.info.width, back.info.height) == (64, 48)


def test_list_names_every_origin():
    done = _run("--list", "--json")
    formats = json.loads(done.stdout)
    assert {f["name"] for f in formats} >= {"h5", "csv", "tapvid", "dlc-h5", "sleap", "blender", "nuke"}
    assert all("(0, 0)" in f["origin"] for f in formats)


def test_a_missing_argument_and_an_existing_file(tracks, tmp_path):
    ptrack.save_tracks(tracks, tmp_path / "a.h5")
    assert isinstance(_run(tmp_path / "a.h5").exception, TracksError)
    done = _run(tmp_path / "a.h5", tmp_path / "a.h5")
    assert "already exists" in str(done.exception)
    assert _run(tmp_path / "a.h5", tmp_path / "a.csv").exit_code == 0
    assert _run(tmp_path / "a.h5", tmp_path / "a.csv", "--overwrite", "--quiet").stdout == ""


def test_endings_and_sizes():
    assert [format_for(n) for n in ("a.h5", "a.hdf5", "a.CSV", "a.nk", "a.py", "a.txt", "a.json", "a.npz")] == [
        "h5", "h5", "csv", "nuke", "blender", "aftereffects", "json", "npz",
    ]  # fmt: skip
    with pytest.raises(TracksError, match="--to"):
        format_for("a.xyz")
    assert parse_size("854x480") == (480, 854)
    for wrong in ("854", "0x3", "axb", "-3x4"):
        with pytest.raises(TracksError, match="WIDTHxHEIGHT"):
            parse_size(wrong)


def test_sleap_files_are_recognised_and_refused(tracks, tmp_path):
    ptrack.save_tracks(tracks, tmp_path / "a.h5")
    convert_file(tmp_path / "a.h5", tmp_path / "s.h5", to="sleap")
    with pytest.raises(TracksError, match="can only be written"):
        convert_file(tmp_path / "s.h5", tmp_path / "b.h5")


def test_an_ending_that_is_only_written_says_so(tracks, tmp_path):
    export(tracks, tmp_path / "a.nk", "nuke")
    with pytest.raises(TracksError, match=r"a\.nk.*nuke, nuke-cornerpin.*written but not read"):
        convert_file(tmp_path / "a.nk", tmp_path / "b.h5")
    (tmp_path / "a.xyz").write_text("")
    with pytest.raises(TracksError, match="not known"):
        convert_file(tmp_path / "a.xyz", tmp_path / "b.h5")
