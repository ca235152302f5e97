"""Rerun's own tool must accept the recording and find the entities in it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from ptrack.exports.rerun import write_rerun


def _rerun(*words) -> str:
    done = subprocess.run([sys.executable, "-m", "rerun", "rrd", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_recording_is_valid_and_complete(tracks, tmp_path):
    frames = [(t, np.full((48, 64, 3), 40 * t, np.uint8)) for t in range(5)]
    write_rerun(tracks, tmp_path / "a.rrd", iter(frames))
    assert "verified without error" in _rerun("verify", tmp_path / "a.rrd")
    printed = _rerun("print", "-v", tmp_path / "a.rrd")
    for entity in ("/video", "/video/points", "/video/occluded", "/video/trails"):
        assert entity in printed
