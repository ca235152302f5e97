"""Nuke, After Effects corner pins, Natron and trajectories, read back by the grammar that each tool documents."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from ptrack import save_tracks
from ptrack.cli.app import app
from ptrack.errors import TracksError
from ptrack.exports import export
from ptrack.exports.corners import corner_order
from ptrack.exports.natron import natron_script
from ptrack.exports.nuke import nuke_script
from ptrack.exports.trajectories import trajectories
from tests.exports.make import H, example


def _tcl(text):
    """The words of a TCL list: braces nest, quotes and bare words do not; a braced word is a list again."""
    words, i = [], 0
    while i < len(text):
        if text[i].isspace():
            i += 1
        elif text[i] == "{":
            depth, j = 1, i + 1
            while depth:
                depth += {"{": 1, "}": -1}.get(text[j], 0)
                j += 1
            words.append(_tcl(text[i + 1 : j - 1]))
            i = j
        elif text[i] == '"':
            j = text.index('"', i + 1)
            words.append(text[i + 1 : j])
            i = j + 1
        else:
            j = i
            while j < len(text) and not text[j].isspace():
                assert text[j] not in "{}"
                j += 1
            words.append(text[i:j])
            i = j
    return words


def _node(text):
    """Class and knobs of the one node of a Nuke script."""
    kind, body = _tcl(text)
    return kind, dict(zip(body[::2], body[1::2], strict=True))


def _keys(curve):
    """frame -> value of {curve K x1001 12.5 13 x1005 14}: a bare value belongs to the frame after the last one."""
    found, frame = {}, None
    assert not curve or curve[0] == "curve"
    for word in curve[1:]:
        if word.startswith("x") and word[1:].lstrip("-").isdigit():
            frame = int(word[1:])
        elif not word.isalpha():  # a letter is the kind of interpolation
            found[frame] = float(word)
            frame += 1
    return found


@pytest.mark.parametrize("first", [1, 1001])
def test_nuke_holds_all_points_in_one_tracker(first):
    tracks = example(("nose", "left ear", 'a "b" [c] {d} $e\\', "p3", "p4", "p5"))
    kind, knobs = _node(nuke_script(tracks, first))
    assert kind == "Tracker4"
    (tables, columns, rows), headings, table = knobs["tracks"]
    names = [heading[3] for heading in headings]
    assert [int(tables), int(columns), int(rows)] == [1, len(names), 6] == [1, 31, len(table)]
    assert names[:4] == ["enable", "name", "track_x", "track_y"]
    for n, row in enumerate(table):
        assert len(row) == 31
        cells = dict(zip(names, row, strict=True))
        xs, ys = _keys(cells["track_x"]), _keys(cells["track_y"])
        known = np.flatnonzero(np.isfinite(tracks.tracks[:, n, 0]))
        assert list(xs) == list(ys) == (tracks.frame_index[known] + first).tolist()
        np.testing.assert_allclose(list(xs.values()), tracks.tracks[known, n, 0], atol=1e-4)
        np.testing.assert_allclose(H - np.asarray(list(ys.values())), tracks.tracks[known, n, 1], atol=1e-4)
        assert list(_keys(cells["enable"]).values()) == [1]
    assert [row[1] for row in table[:3]] == ["nose", "left ear", "a _b_ _c_ _d_ _e_"]


def test_a_point_without_positions_is_switched_off_in_nuke(tracks):
    xy = tracks.tracks.copy()
    xy[:, 1] = np.nan
    row = _node(nuke_script(replace(tracks, tracks=xy)))[1]["tracks"][2][1]
    assert _keys(row[0]) == {1: 0.0}
    assert row[2] == row[3] == []


def _pin(order=(0, 1, 2, 3)):
    """Five frames of a moving quad whose points come in ``order``; the fourth frame lacks a corner."""
    tracks = example(("a", "b", "c", "d"))
    quad = np.asarray([[10, 8], [50, 10], [52, 40], [8, 42]], float)  # clockwise from the upper left
    xy = quad + (np.arange(5)[:, None] * [1.25, 0.5])[:, None]
    xy[3, 2] = np.nan
    return replace(tracks, tracks=xy[:, list(order)].astype(np.float32)), xy


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)])
def test_corner_pins_put_each_corner_in_its_place(order, tmp_path):
    tracks, xy = _pin(order)
    rows = [0, 1, 2, 4]
    export(tracks, tmp_path / "c.nk", "nuke-cornerpin", start_frame=1001)
    kind, knobs = _node((tmp_path / "c.nk").read_text())
    assert kind == "CornerPin2D"
    for number, (corner, whole) in enumerate([(3, (0, 0)), (2, (64, 0)), (1, (64, 48)), (0, (0, 48))], start=1):
        xs, ys = (_keys(curve) for curve in knobs[f"to{number}"])
        assert list(xs) == (tracks.frame_index[rows] + 1001).tolist()
        np.testing.assert_allclose(list(xs.values()), xy[rows, corner, 0], atol=1e-4)
        np.testing.assert_allclose(H - np.asarray(list(ys.values())), xy[rows, corner, 1], atol=1e-4)
        assert tuple(map(int, knobs[f"from{number}"])) == whole

    export(tracks, tmp_path / "c.txt", "aftereffects-cornerpin")
    text = (tmp_path / "c.txt").read_text()
    assert "\tUnits Per Second\t25\n" in text
    blocks = text.split("Effects\tCorner Pin #1\t")[1:]
    assert [b.split("\n")[0] for b in blocks] == ["Upper Left #2", "Upper Right #3", "Lower Left #4", "Lower Right #5"]
    for block, corner in zip(blocks, (0, 1, 3, 2), strict=True):
        lines = block.split("\n\n")[0].splitlines()
        assert lines[1] == "\tFrame\tX pixels\tY pixels"
        keys = np.asarray([line.split("\t")[1:] for line in lines[2:]], float)
        np.testing.assert_array_equal(keys[:, 0], tracks.frame_index[rows])
        np.testing.assert_allclose(keys[:, 1:], xy[rows, corner], atol=1e-4)


@pytest.mark.parametrize("name", ["nuke-cornerpin", "aftereffects-cornerpin"])
def test_a_corner_pin_needs_four_corners(name, tracks, tmp_path):
    with pytest.raises(TracksError, match="exactly 4 points.*have 3"):
        export(tracks, tmp_path / "x", name)
    pin, _ = _pin()
    nowhere = pin.tracks.copy()
    nowhere[:, 0] = np.nan
    with pytest.raises(TracksError, match="all 4 points have a position"):
        export(replace(pin, tracks=nowhere), tmp_path / "x", name)
    with pytest.raises(TracksError, match="four-sided figure"):
        corner_order(np.asarray([[0, 0], [10, 0], [5, 3], [5, 10.0]]))
    assert not (tmp_path / "x").exists()


class _Natron:
    """Stands in for Natron's ``app``, its node, tracker and tracks: keeps the keys of every track by frame."""

    def __init__(self):
        self.tracks, self.label, self.keys = [], "", {}
        self.tracker = self

    def createNode(self, kind):  # noqa: N802 - Natron's name
        assert kind == "fr.inria.built-in.Tracker"
        return self

    def setLabel(self, label):  # noqa: N802
        self.label = label

    def createTrack(self):  # noqa: N802
        self.tracks.append(_Natron())
        return self.tracks[-1]

    def getParam(self, name):  # noqa: N802
        assert name == "centerPoint"
        return self

    def setValueAtTime(self, value, time, dimension):  # noqa: N802
        self.keys.setdefault(time, [None, None])[dimension] = value


def test_natron_script_makes_the_tracks(tracks):
    hostile = replace(tracks, ids=np.asarray(["nose", '"""', "größe\\"]))
    app = _Natron()
    exec(compile(natron_script(hostile, 1001), "tracks.py", "exec"), {"app": app})
    assert [track.label for track in app.tracks] == hostile.ids.tolist()
    for n, track in enumerate(app.tracks):
        known = np.flatnonzero(np.isfinite(tracks.tracks[:, n, 0]))
        assert list(track.keys) == (tracks.frame_index[known] + 1001).tolist()
        places = np.asarray(list(track.keys.values()))
        np.testing.assert_allclose(places * [1, -1] + [0, H], tracks.tracks[known, n], atol=1e-4)


def test_trajectories_have_a_place_for_every_frame(tracks, tmp_path):
    export(tracks, tmp_path / "t.json", "trajectories")
    found = json.loads((tmp_path / "t.json").read_text())
    assert [len(point) for point in found] == [5, 5, 5]
    places = np.asarray([[[p["x"], p["y"]] for p in point] for point in found]).transpose(1, 0, 2)
    present = np.isfinite(tracks.tracks)
    np.testing.assert_allclose(places[present], tracks.tracks[present], atol=1e-4)
    np.testing.assert_array_equal(places[0, 1], places[2, 1])  # before its start: where it starts
    gone = tracks.tracks.copy()
    gone[:, 0], gone[4, 2] = np.nan, np.nan
    held = trajectories(replace(tracks, tracks=gone))
    assert len(held) == 2
    assert held[1][4] == held[1][3]
    with pytest.raises(TracksError, match="at least one point"):
        trajectories(replace(tracks, tracks=np.full_like(gone, np.nan)))


def test_the_start_frame_of_the_command(tracks, tmp_path):
    save_tracks(tracks, tmp_path / "a.h5")
    words = ["convert", "tracks", str(tmp_path / "a.h5")]
    done = CliRunner().invoke(app, [*words, str(tmp_path / "a.nk"), "--start-frame", "1001"])
    assert done.exit_code == 0, done.output
    assert "curve x1004 " in (tmp_path / "a.nk").read_text()
    done = CliRunner().invoke(app, [*words, str(tmp_path / "b.csv"), "--to", "napari", "--start-frame", "1001"])
    assert "these do: nuke, nuke-cornerpin, natron" in str(done.exception)
    assert not (tmp_path / "b.csv").exists()
