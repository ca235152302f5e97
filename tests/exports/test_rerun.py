from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from ptrack.errors import OutputError
from ptrack.exports.rerun import write_rerun


def test_without_the_sdk_a_sentence_says_what_to_install(tracks, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(OutputError, match=r"pip install 'pointtrack\[rerun\]'"):
        write_rerun(tracks, tmp_path / "a.rrd")
    assert not list(tmp_path.iterdir())


class _Recording:
    """Stands in for rerun.RecordingStream: keeps what was logged at which frame."""

    made: list[_Recording] = []  # noqa: RUF012

    def __init__(self, name):
        self.name, self.logged, self.time = name, [], {}
        self.made.append(self)

    def save(self, path):
        self.path = path

    def set_time(self, timeline, **value):
        self.time[timeline] = next(iter(value.values()))

    def log(self, path, what):
        self.logged.append((dict(self.time), path, what))

    def flush(self):
        with open(self.path, "w") as file:
            file.write("recording")

    def disconnect(self):
        pass


def test_what_is_logged(tracks, tmp_path, monkeypatch):
    fake = types.ModuleType("rerun")
    fake.RecordingStream = _Recording
    fake.Points2D = lambda xy, **more: ("points", xy, more)
    fake.LineStrips2D = lambda strips, **more: ("strips", strips, more)
    fake.EncodedImage = lambda **more: ("image", more)
    monkeypatch.setitem(sys.modules, "rerun", fake)
    write_rerun(tracks, tmp_path / "a.rrd", [(1, np.zeros((48, 64, 3), np.uint8))])
    assert (tmp_path / "a.rrd").read_text() == "recording"
    logged = _Recording.made[-1].logged
    points = {at["frame"]: what for at, path, what in logged if path == "video/points"}
    assert list(points) == tracks.frame_index.tolist()
    np.testing.assert_array_equal(points[3][1], tracks.tracks[0, [0, 2]])
    assert points[11][2]["labels"] == tracks.ids.tolist()
    hidden = {at["frame"]: what for at, path, what in logged if path == "video/occluded"}
    np.testing.assert_array_equal(hidden[9][1], tracks.tracks[3, [2]])
    assert [at["frame"] for at, path, _ in logged if path == "video"] == [5]
    strips = [what for _, path, what in logged if path == "video/trails"]
    assert len(strips[0][1]) == 0
    assert strips[1][1][0].shape == (2, 2)


def test_trails_break_where_rows_are_not_joined(tracks):
    from dataclasses import replace

    from ptrack.exports.rerun import _trails
    from ptrack.viz.recent import joined_steps

    walk = np.arange(5, dtype=np.float32)[:, None, None] * np.float32([1, 0]) + np.float32([10, 10])
    xy = np.repeat(walk, 3, axis=1)
    xy[2:, 1] += 30  # a jump
    visibility = np.ones((5, 3), np.float32)
    visibility[1, 2] = 0
    made = replace(tracks, tracks=xy, visibility=visibility)
    strips, owners = _trails(made, 4, 10, joined_steps(made))
    assert owners.tolist() == [0, 1, 2]
    assert [len(strip) for strip in strips] == [5, 3, 3]
    assert len(_trails(made, 4, 2, joined_steps(made))[0][0]) == 3
