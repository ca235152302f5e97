"""Which files of a folder are its frames, and the warnings about others."""

from __future__ import annotations

import pytest
from PIL import Image

from ptrack.errors import InputError
from ptrack.video import open_source, read_frames
from ptrack.video.listing import in_folder

from . import clips


def fill(folder, names):
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        if name.lower().endswith((".jpg", ".png")):
            Image.fromarray(clips.numbered(i)).save(folder / name)
        else:
            (folder / name).write_bytes(b"\0\0\0\x18ftypheic")
    return folder


def texts_of(folder):
    return [w.removeprefix(f"{folder}: ") for w in in_folder(folder).warnings]


@pytest.mark.parametrize("names", [["①1.jpg", "①2.jpg"], ["²1.jpg", "²2.jpg"], ["٣1.jpg", "٣2.jpg"]])
def test_digits_that_python_does_not_count_with(tmp_path, names):
    assert [clips.number_of(f.rgb) for f in open_source(fill(tmp_path / "d", names))] == [0, 1]


def test_pictures_of_other_formats_are_named(tmp_path):
    folder = fill(tmp_path / "phone", ["IMG_0.JPG", "IMG_1.HEIC", "IMG_2.JPG", "IMG_3.HEIC", "IMG_4.JPG", "notes.txt"])
    source = read_frames(folder, fps=2.0)
    assert len(list(source)) == 3
    assert len(source.warnings) == 1
    assert "2 pictures are left out, of the format .heic (IMG_1.HEIC first), which cannot be read" in source.warnings[0]


def test_raw_files_beside_their_jpeg_are_not(tmp_path):
    assert texts_of(fill(tmp_path / "f", ["D1.JPG", "D1.ARW", "D2.JPG", "D2.ARW"])) == []
    assert "1 picture is left out, of the format .arw (D3.ARW first)" in texts_of(fill(tmp_path / "f", ["D3.ARW"]))[0]


@pytest.mark.parametrize("suffix", ["exr", "dpx", "heic"])
def test_a_folder_of_another_format_is_named(tmp_path, suffix):
    folder = fill(tmp_path / "f", [f"plate.100{i}.{suffix}" for i in range(4)])
    with pytest.raises(InputError, match=rf"holds 4 \.{suffix} files, which cannot be read\. Convert them"):
        open_source(folder)
    with pytest.raises(InputError, match=rf"holds 4 \.{suffix} files"):
        open_source(f"{folder}/plate.*.{suffix}")


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([0, 1, 2, 5, 6, 7, 8, 9], "2 numbers (3 to 4) are missing"),
        ([0, 1, 2, 4, 5], "number 3 is missing"),
        ([1, 2, 3, 5, 6, 7, 10], "3 numbers (4 first) are missing"),
        ([0, 10, 20, 40, 50], "number 30 is missing"),
        ([0, 10, 20, 30], None),
        ([1, 2], None),
        ([1403636579, 1403636629, 1403636681, 1403637020, 1403637071], None),  # times as names
    ],
)
def test_missing_numbers(tmp_path, numbers, expected):
    texts = texts_of(fill(tmp_path / "f", [f"shot2_{n:04d}.png" for n in numbers]))
    assert len(texts) == (expected is not None)
    assert expected is None or texts[0].startswith(expected)


def test_names_without_a_common_counter(tmp_path):
    assert texts_of(fill(tmp_path / "f", ["a1_1.png", "a2_1.png", "a3_7.png", "b.png"])) == []


def test_a_folder_without_times_warns_of_the_rate_that_is_assumed(tmp_path):
    folder = fill(tmp_path / "f", ["1.png", "2.png", "3.png"])
    source = open_source(folder)
    assert source.warnings == [
        f"{folder}: it carries no times; 25 frames per second are assumed. Give fps to change that."
    ]
    assert read_frames(folder, fps=25.0).warnings == []
