"""Tracks in Python and notebooks."""

import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from ptrack.errors import TracksError
from ptrack.tracks import TracksInfo
from tests.analysis.make import circling, made

THREE = made(circling(50, 3), ["nose", "tail", "2"])


def test_points_are_taken_by_id_and_by_bool():
    assert THREE["tail"].ids.tolist() == ["tail"]
    assert THREE[2].ids.tolist() == ["2"]  # ids are text, numbers are their text
    assert THREE[["2", "nose"]].ids.tolist() == ["2", "nose"]
    assert np.array_equal(THREE[["2", "nose"]].tracks, THREE.tracks[:, [2, 0]])
    assert THREE[np.array([True, False, True])].ids.tolist() == ["nose", "2"]
    assert THREE[[]].num_points == 0
    assert "tail" in THREE
    assert "paw" not in THREE


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ("paw", "no point with the id 'paw'"),
        (["nose", 7], "no point with the id '7'"),
        (np.array([True]), "1 bools for 3 points"),
        (slice(0, 2), "takes ids or a bool per point"),
    ],
)
def test_points_that_do_not_exist(ids, words):
    with pytest.raises(TracksError, match=words):
        THREE[ids]
    with pytest.raises(TypeError):
        iter(THREE)


def test_one_frame_by_number_and_by_time():
    xy, visibility, confidence = THREE.at(7)
    assert np.array_equal(xy, THREE.tracks[7])
    assert visibility.shape == confidence.shape == (3,)
    assert np.array_equal(THREE.at(seconds=0.141)[0], THREE.tracks[7])
    xy[:] = 0
    assert THREE.tracks[7].any()  # a copy
    for wrong, words in (({"t": 50}, "frames 0 to 49"), ({"t": -1}, "no frame -1"), ({}, "either t"),
                         ({"t": 1, "seconds": 1}, "either t")):  # fmt: skip
        with pytest.raises(TracksError, match=words):
            THREE.at(**wrong)
    with pytest.raises(TracksError, match="hold no frame"):
        replace_rows(THREE, 0).at(0)


def replace_rows(tracks, rows):
    fields = ("tracks", "visibility", "confidence", "frame_index", "pts_seconds")
    return replace(tracks, **{name: getattr(tracks, name)[:rows] for name in fields})


def test_points_of_the_same_frames_are_joined():
    joined = THREE.concatenate([THREE[["2"]], THREE[["nose"]]])
    assert joined.ids.tolist() == ["2", "nose"]
    assert np.array_equal(joined.tracks, THREE.tracks[:, [2, 0]])
    assert THREE.concatenate([THREE, THREE]).ids.tolist() == [str(i) for i in range(6)]
    warned = replace(THREE["nose"], info=replace(THREE.info, warnings=("w",), model="m"))
    assert THREE.concatenate([THREE["tail"], warned]).info == replace(THREE.info, warnings=("w",), model="m")
    with pytest.raises(TracksError, match="same frames"):
        THREE.concatenate([THREE, replace_rows(THREE, 9)])
    with pytest.raises(TracksError, match="same frame size"):
        THREE.concatenate([THREE, replace(THREE, info=TracksInfo(width=1, height=1))])
    with pytest.raises(TracksError, match="no tracks to join"):
        THREE.concatenate([])


def test_one_line_says_what_they_are():
    assert repr(THREE) == "Tracks(50 frames x 3 points, 640x480 px, 50 fps, source='made.mp4', 100% visible)"
    assert repr(replace(THREE[[]], info=TracksInfo())) == (
        "Tracks(50 frames x 0 points, frame size unknown, nothing to see)"
    )


class Balanced(HTMLParser):
    """Checks that every element that is opened is closed, and counts them."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_notebook_shows_a_summary_and_a_picture():
    wild = replace(THREE, ids=np.asarray(["<b>", "&", "c"]), info=replace(THREE.info, source="<script>.mp4"))
    page = wild._repr_html_()
    assert "<script>" not in page
    assert "<b>" not in page
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert parser.seen.count("path") == 3
    assert "svg" not in made(np.full((4, 2, 2), np.nan))._repr_html_()
    gap = circling(20, 1)
    gap[8:12] = np.nan
    assert made(gap)._repr_html_().count("M") == 2  # the path is broken where nothing is known
    assert len(made(np.random.default_rng(0).uniform(0, 400, (3000, 500, 2)))._repr_html_()) < 500_000


def test_a_table_of_pandas():
    pd = pytest.importorskip("pandas")
    table = THREE.to_pandas()
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == ["frame", "time_s", "id", "x", "y", "visibility", "confidence", "visible"]
    row = table[(table.id == "tail") & (table.frame == 9)].iloc[0]
    assert (row.x, row.y, row.time_s) == (*THREE.tracks[9, 1], THREE.pts_seconds[9])
    assert len(THREE[[]].to_pandas()) == 0


def test_without_pandas_there_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(TracksError, match="needs pandas, which is not installed: pip install pandas"):
        THREE.to_pandas()
