"""DeepLabCut's tables as their users have them. The .h5 files in data/ were written by pandas 3 with PyTables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptrack.errors import TracksError
from ptrack.exports import load_any

DATA = Path(__file__).parent / "data"
HEAD = "bodyparts,nose,nose,nose,tail,tail,tail\ncoords,x,y,likelihood,x,y,likelihood\n"
ROWS = "0,10.25,20.5,0,40.25,30.5,0\n1,12.25,21.5,1,,,1\n"


def read(tmp_path, text: str, name: str = "t.csv"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return load_any(tmp_path / name)


@pytest.mark.parametrize("animal", ["single", "individual_0"])
def test_a_table_with_one_named_individual_is_a_table_of_one_animal(animal, tmp_path):
    named = "individuals," + ",".join([animal] * 6)
    for back in (
        read(tmp_path, f"scorer,s,s,s,s,s,s\n{named}\n{HEAD}{ROWS}"),
        load_any(DATA / "one_individual.h5"),
    ):
        assert back.ids.tolist() == ["nose", "tail"]
        np.testing.assert_allclose(back.tracks[0], [[10.75, 21.0], [40.75, 31.0]])
        assert back.frame_index[:2].tolist() == [0, 1]


@pytest.mark.parametrize("form", ["csv", "one name", "h5"])
def test_labels_made_by_people_are_frames_by_the_names_of_their_pictures(form, tmp_path):
    head = "scorer{0},me,me\nbodyparts{0},nose,nose\ncoords{0},x,y\n"
    rows = "labeled-data{0}vid{0}img007.png,12.25,21.5\nlabeled-data{0}vid{0}img002.png,10.25,20.5\n"
    back = {
        "csv": lambda: read(tmp_path, head.format(",,") + rows.format(",")),
        "one name": lambda: read(tmp_path, head.format("") + rows.format("/")),
        "h5": lambda: load_any(DATA / "collected.h5"),
    }[form]()
    assert back.frame_index[:2].tolist() == [2, 7]
    np.testing.assert_allclose(back.tracks[:2, 0], [[10.75, 21.0], [12.75, 22.0]])
    assert "names of the labelled pictures" in back.info.warnings[0]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("vid/img1.png,1,2\nother/img2.png,1,2\n", r"pictures of 2 videos \(other, vid\)"),
        ("vid/first.png,1,2\n", "'vid/first.png', in which there is no frame number"),
        ("0,1\n", "has 2 cells in row 4 where the header has 3"),
        ("0,1,2,3\n", "has 4 cells in row 4"),
        ("3,1,2\n3,1,2\n", "do not rise"),
        ("0,1,1e999\n0.5,1,2\n", "no frame number|rise"),
    ],
)
def test_rows_that_are_no_frames_are_sentences(rows, words, tmp_path):
    with pytest.raises(TracksError, match=words):
        read(tmp_path, f"scorer,s,s\nbodyparts,a,a\ncoords,x,y\n{rows}")


def test_several_animals_are_named(tmp_path):
    named = "individuals,m1,m1,m1,m2,m2,m2"
    with pytest.raises(TracksError, match=r"holds 2 individuals \(m1, m2\).*df\.xs\('m1'"):
        read(tmp_path, f"scorer,s,s,s,s,s,s\n{named}\n{HEAD}{ROWS}")


@pytest.mark.parametrize(
    "text", ["scorer,a\n", "scorer,a\nscorer,a\ncoords,x\n", "scorer,a,b\nbodyparts,a\ncoords,x\n"]
)
def test_broken_headers_are_sentences(text, tmp_path):
    with pytest.raises(TracksError, match="is no DeepLabCut table|differ in length"):
        read(tmp_path, text)
