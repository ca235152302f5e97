"""PNG sequences come whole into their folder, or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from ptrack.errors import OutputError
from ptrack.video import open_source, open_writer
from tests.video import clips
from tests.video.writing.test_containers import contents

UNEVEN = [0.0, 0.1, 0.15, 0.5, 0.52, 1.0]


@pytest.mark.parametrize("target", ["new", "present", "deep/er", "p/x_%04d.png", "x_%d.png"])
def test_png_sequences(tmp_path, target):
    (tmp_path / "present").mkdir()
    (tmp_path / "present" / "other.txt").write_text("stays")
    with open_writer(tmp_path / target) as writer:
        for i in range(12):
            writer.write(clips.numbered(i, 64, 48), i / 10)
    folder = (tmp_path / target).parent if "%" in target else tmp_path / target
    names = sorted(p.name for p in folder.glob("*.png"))
    expected = target.split("/")[-1] if "%" in target else "%06d.png"
    assert names == sorted(expected % i for i in range(12))
    frames = list(open_source(f"{folder}/*.png"))
    assert all(np.array_equal(f.rgb, clips.numbered(i, 64, 48)) for i, f in enumerate(frames))
    assert not [p for p in tmp_path.rglob("*") if "tmp" in p.name]
    assert (tmp_path / "present" / "other.txt").exists()


def test_png_sequence_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_writer("a_%02d.png") as writer:
        writer.write(clips.numbered(0))
    assert contents(tmp_path) == ["a_00.png"]


def test_png_overwrite_replaces_the_whole_sequence(tmp_path):
    for count, overwrite in ((5, False), (3, True)):
        with open_writer(tmp_path / "f", overwrite=overwrite) as writer:
            for i in range(count):
                writer.write(clips.numbered(i))
    assert contents(tmp_path / "f") == ["000000.png", "000001.png", "000002.png"]
    with pytest.raises(OutputError, match="already holds 000000"):
        open_writer(tmp_path / "f")


@pytest.mark.parametrize("name", ["a.webm", "a.txt", "a.png", "a_%d_%d.png"])
def test_unknown_formats(tmp_path, name):
    with pytest.raises(OutputError):
        open_writer(tmp_path / name)
    assert contents(tmp_path) == []
