"""What can be wrong in each published layout: one sentence, and the other clips are converted."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ptrack.data.convert import ConvertOptions, convert
from ptrack.data.hdf5 import ClipStore
from ptrack.data.sources import open_dataset
from ptrack.errors import DataError
from tests.data.helpers import DATASETS


def changed(tmp_path: Path, folder: str) -> Path:
    """Return a copy of a tiny dataset that may be damaged."""
    return Path(shutil.copytree(DATASETS / folder, tmp_path / folder))


def skipped(root: Path, source: str, left: int) -> str:
    """Convert; exactly one clip must be skipped and ``left`` converted. Return why."""
    report = convert(open_dataset(source, root), root.parent / "o.h5", ConvertOptions())
    assert len(ClipStore(root.parent / "o.h5")) == left
    ((_, reason),) = report.skipped
    return reason


def test_kubric_annotation_missing_or_of_another_kind(tmp_path):
    root = changed(tmp_path, "kubric_cotracker3")
    (root / "0000" / "0000.npy").unlink()
    assert "There is no .npy file" in skipped(root, "kubric", 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros(3), "holds no dict"),
        ({"coords": np.zeros((2, 12, 2))}, "has no 'visibility'"),
        ({"coords": np.zeros((2, 12, 2)), "visibility": np.zeros((12, 2))}, "do not fit together"),
        ({"coords": np.zeros((2, 9, 2)), "visibility": np.zeros((2, 9))}, "12 frames but the annotation has 9"),
    ],
)
def test_kubric_annotation_that_does_not_fit(tmp_path, content, words):
    root = changed(tmp_path, "kubric_cotracker3")
    np.save(root / "0001" / "0001.npy", content, allow_pickle=True)
    assert words in skipped(root, "kubric", 1)


def test_kubric_damaged_npy(tmp_path):
    root = changed(tmp_path, "kubric_cotracker3")
    (root / "0001" / "0001.npy").write_bytes(b"\x93NUMPY nothing")
    assert "cannot be read as a NumPy array" in skipped(root, "kubric", 1)


def test_kubric_in_split_folders(tmp_path):
    shutil.copytree(DATASETS / "kubric_cotracker3" / "0000", tmp_path / "k" / "val" / "0000")
    shutil.copytree(DATASETS / "kubric_cotracker3" / "0001", tmp_path / "k" / "train" / "0001")
    assert [r.id for r in open_dataset("kubric", tmp_path / "k").refs()] == ["kubric/train/0001", "kubric/val/0000"]


def edit_list(root: Path, change) -> None:
    path = root / "valid" / "frame_annotations_valid.jgz"
    entries = json.loads(gzip.decompress(path.read_bytes()))
    change(entries)
    path.write_bytes(gzip.compress(json.dumps(entries).encode()))


def test_dynamic_replica_damaged_list(tmp_path):
    root = changed(tmp_path, "dynamic_replica")
    (root / "valid" / "frame_annotations_valid.jgz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="cannot be read as a list of frames"):
        convert(open_dataset("dynamic-replica", root), tmp_path / "o.h5", ConvertOptions())


def test_dynamic_replica_missing_field(tmp_path):
    root = changed(tmp_path, "dynamic_replica")
    edit_list(root, lambda entries: entries[3].pop("frame_timestamp"))
    assert "is malformed (KeyError: 'frame_timestamp')" in skipped(root, "dynamic-replica", 1)


def test_dynamic_replica_trajectory_that_would_run_code(tmp_path):
    class Canary:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "proof"),)

    root = changed(tmp_path, "dynamic_replica")
    torch.save({"traj_2d": Canary()}, sorted(root.rglob("*.pth"))[0])
    assert "Nothing of it was executed" in skipped(root, "dynamic-replica", 1)
    assert not (tmp_path / "proof").exists()


def test_dynamic_replica_points_change_in_number(tmp_path):
    root = changed(tmp_path, "dynamic_replica")
    path = sorted(root.rglob("*.pth"))[2]
    content = torch.load(path, weights_only=True)
    torch.save({k: v[:-1] if k != "img" else v for k, v in content.items()}, path)
    assert "trajectory files of" in skipped(root, "dynamic-replica", 1)


def test_badja_frames_that_are_not_distributed(tmp_path):
    root = changed(tmp_path, "badja")
    shutil.rmtree(root / "extra_videos")
    assert "is missing" in skipped(root, "badja", 2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "has no frames"),
        ("not json", "cannot be read"),
        ('[{"image_path": "a/b.jpg", "segmentation_path": "c", "joints": [], "visibility": []}]', "joints"),
    ],
)
def test_badja_labels(tmp_path, content, words):
    root = changed(tmp_path, "badja")
    (root / "joint_annotations" / "dog.json").write_text(content)
    assert words in skipped(root, "badja", 2)


def test_badja_frames_named_otherwise(tmp_path):
    root = changed(tmp_path, "badja")
    path = root / "joint_annotations" / "dog.json"
    path.write_text(path.read_text().replace("00000.jpg", "first.jpg"))
    assert "named by their number" in skipped(root, "badja", 2)


def test_kinetics_rows_that_are_no_triples(tmp_path):
    root = changed(tmp_path, "tapvid_kinetics_raw")
    path = root / "tapvid_kinetics.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0] + ",1", *lines[1:]]))
    report = convert(open_dataset("tapvid-kinetics", root), tmp_path / "o.h5", ConvertOptions())
    assert "are not equally many triples" in report.skipped[0][1]
    assert len(ClipStore(tmp_path / "o.h5")) == 1


def test_kinetics_table_that_is_none(tmp_path):
    (tmp_path / "tapvid_kinetics.csv").write_text("id,1\n")
    with pytest.raises(DataError, match="The table .* cannot be read"):
        open_dataset("tapvid-kinetics", tmp_path).refs()


def test_ego_points_without_labels(tmp_path):
    root = changed(tmp_path, "ego_points")
    folder = sorted(p for p in root.iterdir() if p.is_dir())[0]
    np.savez(folder / "annot.npz", trajs_2d=np.zeros((12, 5, 2)))
    assert "has no 'valids'" in skipped(root, "ego-points", 1)


def test_odd_values_never_stop_the_run(tmp_path):
    root = changed(tmp_path, "simple")
    with np.load(root / "video_000" / "anno.npz") as anno:
        arrays = dict(anno)
    np.savez(root / "video_000" / "anno.npz", **arrays, fps=np.asarray("fast"))
    assert "cannot be read (ValueError" in skipped(root, "point-odyssey", 1)


def test_unknown_codec():
    with pytest.raises(DataError, match="--codec must be keep, jpeg, png or raw, not 'webp'"):
        ConvertOptions(codec="webp")
