"""``ptrack convert`` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from ptrack.cli.app import app
from ptrack.data.hdf5 import ClipStore
from tests.data.helpers import DATASETS, write_simple

run = CliRunner().invoke


def ok(*words: object):
    result = run(app, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    return result


def test_list():
    lines = ok("convert", "--list").stdout.splitlines()
    assert lines[0].split("\t") == ["name", "dataset", "layout"]
    assert {line.split("\t")[0] for line in lines[1:]} >= {"tapvid-davis", "point-odyssey", "folder", "synthetic"}
    document = json.loads(ok("convert", "--list", "--json").stdout)
    assert len(document) == len(lines) - 1


def test_without_a_command_it_shows_its_help():
    result = run(app, ["convert"])
    assert result.exit_code == 2
    assert "point-odyssey" in result.stdout


def test_a_dataset_inspected_and_verified(tmp_path):
    out = tmp_path / "d.h5"
    result = ok("convert", "tapvid-davis", DATASETS / "tapvid_davis" / "tapvid_davis.pkl", out)
    assert "Wrote 2 clips, 22 frames, 11 points" in result.stdout
    assert ClipStore(out).names == ["bike-tiny", "goat-tiny"]
    shown = ok("convert", "inspect", out, "--sheet", tmp_path / "s.png").stdout
    assert "clips: 2" in shown
    assert "array tracks: float32 (10, 6, 2)" in shown
    assert (tmp_path / "s.png").stat().st_size > 1000
    assert json.loads(ok("convert", "inspect", out, "--json").stdout)["frames"] == 22
    assert "2 clips, 22 frames, 0 marked as damaged, 0 problems" in ok("convert", "verify", out).stdout
    assert json.loads(ok("convert", "verify", out, "--json").stdout)["problems"] == []


def test_verify_fails_for_a_damaged_store(tmp_path):
    import h5py

    out = tmp_path / "d.h5"
    ok("convert", "point-odyssey", DATASETS / "simple", out, "--quiet")
    with h5py.File(out, "r+") as file:
        file["videos/000000/frames/data"][:100] = 0
    result = run(app, ["convert", "verify", str(out)])
    assert result.exit_code == 1
    assert "frame 0 cannot be decoded" in result.stderr


def test_skipped_clips_are_named_and_make_the_exit_code(tmp_path):
    write_simple(tmp_path / "in", "good")
    (write_simple(tmp_path / "in", "bad") / "anno.npz").write_bytes(b"x")
    cut = write_simple(tmp_path / "in", "cut") / "frames" / "frame_000001.jpg"
    cut.write_bytes(cut.read_bytes()[:200])
    result = run(app, ["convert", "point-odyssey", str(tmp_path / "in"), str(tmp_path / "o.h5"), "--json"])
    assert result.exit_code == 1
    assert "point-odyssey/all/bad: skipped. " in result.stderr
    assert "anno.npz cannot be read as an annotation" in result.stderr
    assert "point-odyssey/all/cut: frame 1 is damaged and marked." in result.stderr
    document = json.loads(result.stdout)
    assert document["clips"] == 2
    assert document["skipped"][0][0] == "point-odyssey/all/bad"


def test_dry_run_shards_and_selection(tmp_path):
    for i in range(4):
        write_simple(tmp_path / "in", f"v{i}", seed=i)
    result = ok("convert", "point-odyssey", tmp_path / "in", tmp_path / "o.h5", "--dry-run")
    assert "Would write 4 clips, 24 frames" in result.stdout
    assert not list(tmp_path.glob("*.h5"))
    ok("convert", "point-odyssey", tmp_path / "in", tmp_path / "o.h5", "--shards", 2, "--clips", "v0, v2,v3")
    assert ClipStore(tmp_path / "o-*.h5").names == ["v0", "v2", "v3"]


def test_synthetic(tmp_path):
    words = ["convert", "synthetic", tmp_path / "s.h5", "--clips", 2, "--frames", 4, "--size", 48, "--points", 20]
    assert "Wrote 2 clips, 8 frames, 40 points" in ok(*words).stdout
    store = ClipStore(tmp_path / "s.h5")
    assert store.ids == ["synthetic/train/seed0_0000000", "synthetic/train/seed0_0000001"]
    assert store[1].frames.rgb(3).shape == (48, 48, 3)
    assert store[0].masks is not None
    again = ["convert", "synthetic", tmp_path / "t.h5", "--clips", 1, "--start", 1, *words[5:]]
    ok(*again)
    assert (ClipStore(tmp_path / "t.h5")[0].tracks == store[1].tracks).all()


@pytest.mark.parametrize("words", [["tapvid-davis", "absent.pkl"], ["folder", "absent"]])
def test_errors_are_one_line(tmp_path, words):
    start = "from ptrack.cli.app import command; command()"
    command = [sys.executable, "-c", start, "convert", *words, str(tmp_path / "o.h5")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.strip() == f"error: There is no folder or file {words[1]}."
    assert result.stdout == ""


def test_help_needs_no_heavy_package():
    code = "import sys, ptrack.cli.app; print([m for m in ('torch', 'numpy', 'h5py', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
