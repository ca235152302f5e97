"""Every tiny dataset in its published layout converts, and reads back as what the reference readers saw."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from ptrack.data.convert import ConvertOptions, convert
from ptrack.data.hdf5 import ClipStore
from ptrack.data.inspect import verify
from ptrack.data.packing import pack
from ptrack.data.sources import names, open_dataset, source_class
from ptrack.errors import DataError
from tests.data.helpers import DATASETS

CONTRACT = DATASETS / "expected" / "contract"
VIDEOS = json.loads((CONTRACT / "index.json").read_text())["videos"]
SOURCES = {
    "pointodyssey": "point-odyssey",
    "pointodyssey_legacy": "point-odyssey",
    "simple": "point-odyssey",
    "tapvid_davis": "tapvid-davis",
    "tapvid_kinetics": "tapvid-kinetics",
    "tapvid_rgb_stacking": "tapvid-rgb-stacking",
    "robotap": "robotap",
    "kubric_cotracker3": "kubric",
    "dynamic_replica": "dynamic-replica",
    "ego_points": "ego-points",
    "k_epic": "k-epic",
    "badja": "badja",
}
MAIN = {"tracks", "finite", "visibility", "valid", "size_hw", "num_frames", "codec", "frame_sha256"}


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, ClipStore]:
    """All tiny datasets, converted."""
    root = tmp_path_factory.mktemp("converted")
    found = {}
    for folder, name in SOURCES.items():
        report = convert(open_dataset(name, DATASETS / folder), root / f"{folder}.h5", ConvertOptions())
        assert report.skipped == []
        assert report.damaged == []
        found[folder] = ClipStore(root / f"{folder}.h5")
    return found


def test_the_contract_covers_every_dataset(stores):
    assert {v["dataset"] for v in VIDEOS.values()} == set(SOURCES)
    assert sum(len(s) for s in stores.values()) == len(VIDEOS) == 26


@pytest.mark.parametrize("file", sorted(VIDEOS))
def test_converted_equals_recorded(stores, file):
    video = VIDEOS[file]
    store = stores[video["dataset"]]
    clip = store[f"{SOURCES[video['dataset']]}/{video['split']}/{video['name']}"]
    with np.load(CONTRACT / file) as wanted:
        assert clip.size == tuple(wanted["size_hw"])
        assert clip.num_frames == wanted["num_frames"]
        np.testing.assert_array_equal(clip.finite, wanted["finite"])
        np.testing.assert_array_equal(clip.visibility, wanted["visibility"])
        np.testing.assert_array_equal(clip.valid, wanted["valid"])
        assert clip.tracks.dtype == np.float32
        assert np.abs(clip.tracks_filled - wanted["tracks"]).max() <= 1e-4
        pictures = [clip.frames.encoded(t) for t in range(clip.num_frames)]
        assert {codec for codec, _ in pictures} == {str(wanted["codec"])}
        hashes = [hashlib.sha256(data).hexdigest()[:16] for _, data in pictures]
        assert hashes == wanted["frame_sha256"].tolist()
        for name in set(wanted.files) - MAIN:
            got = np.asarray(getattr(clip, name), np.float64)
            np.testing.assert_allclose(got, wanted[name].astype(np.float64), atol=1e-5, err_msg=name)


@pytest.mark.parametrize("folder", sorted(SOURCES))
def test_converting_again_gives_identical_files(stores, folder, tmp_path):
    source = open_dataset(SOURCES[folder], DATASETS / folder)
    convert(source, tmp_path / f"{folder}.h5", ConvertOptions())
    assert (tmp_path / f"{folder}.h5").read_bytes() == stores[folder].paths[0].read_bytes()
    assert verify(tmp_path / f"{folder}.h5").problems == []


def test_the_original_and_the_store_hold_the_same(stores):
    for folder, name in SOURCES.items():
        for clip in open_dataset(name, DATASETS / folder):
            stored = stores[folder][clip.id]
            np.testing.assert_array_equal(stored.tracks, clip.tracks)
            np.testing.assert_array_equal(stored.video(), clip.video())


def test_kinetics_from_csv_and_videos_equals_the_reference_generator(tmp_path):
    root = DATASETS / "tapvid_kinetics_raw"
    report = convert(open_dataset("tapvid-kinetics", root), tmp_path / "k.h5", ConvertOptions())
    assert [reason.split(" of ")[0] for _, reason in report.skipped] == ["The video notdownload_000000_000010.mp4"]
    store = ClipStore(tmp_path / "k.h5")
    assert store.names == ["abcdefghijk_000010_000020", "Zz_-0123456_000003_000013"]
    for i, path in enumerate(sorted((root / "expected_pickles").glob("*.pkl"))):
        (example,) = pickle.loads(path.read_bytes())
        clip = store[i]
        scaled = example["points"].transpose(1, 0, 2) * (clip.size[1], clip.size[0])
        np.testing.assert_allclose(clip.tracks, scaled, atol=1e-3)
        np.testing.assert_array_equal(clip.visibility, ~example["occluded"].T)
        assert clip.fps == 25
        assert clip.frames.encoded(0)[0] == "jpeg"


def test_coordinate_conventions_are_noted(stores):
    noted = {folder: store[0].coord_convention for folder, store in stores.items()}
    assert {f for f, c in noted.items() if c == "raster"} == {
        "tapvid_davis", "tapvid_rgb_stacking", "robotap", "kubric_cotracker3",
    }  # fmt: skip
    assert {f for f, c in noted.items() if c == "pixel_index"} == {"tapvid_kinetics", "badja"}


def test_cameras_project_the_world_onto_the_tracks(stores):
    clip = stores["pointodyssey"]["point-odyssey/test/ani_tiny_a"]
    world = np.concatenate([clip.trajs_3d, np.ones((*clip.trajs_3d.shape[:2], 1))], -1)
    camera = np.einsum("tij,tnj->tni", clip.extrinsics, world)[..., :3]
    image = np.einsum("tij,tnj->tni", clip.intrinsics, camera)
    error = np.abs(image[..., :2] / image[..., 2:] - clip.tracks)[clip.valid]
    assert np.median(error) < 1e-4


def test_side_pictures(stores):
    odyssey = stores["pointodyssey"]["point-odyssey/test/ani_tiny_a"]
    assert odyssey.masks.values(0).shape[:2] == odyssey.size
    badja = stores["badja"]["badja/eval/bear"]
    mask = badja.masks.rgb(0)
    assert mask.shape == (*badja.size, 3)
    assert (mask[..., 0] > 0).any()
    assert odyssey.depth is None


def test_depth_is_stored_when_asked_for(tmp_path):
    source = open_dataset("point-odyssey", DATASETS / "pointodyssey", depth=True)
    convert(source, tmp_path / "d.h5", ConvertOptions(limit=1))
    clip = ClipStore(tmp_path / "d.h5")[0]
    assert clip.depth.values(0).dtype == np.uint16
    assert clip.depth_scale == pytest.approx(1000 / 65535)
    replica = open_dataset("dynamic-replica", DATASETS / "dynamic_replica", depth=True)
    convert(replica, tmp_path / "r.h5", ConvertOptions(limit=1))
    metres = ClipStore(tmp_path / "r.h5")[0].depth.values(0).view(np.float16)
    assert np.isfinite(metres).all()


@pytest.mark.parametrize("name", [n for n in names() if n != "synthetic"])
def test_a_folder_of_something_else_is_a_sentence(name, tmp_path):
    with pytest.raises(DataError, match="holds nothing of"):
        open_dataset(name, tmp_path).refs()
    with pytest.raises(DataError, match="There is no folder or file"):
        open_dataset(name, tmp_path / "absent")


def test_unknown_source_names_the_nearest():
    with pytest.raises(DataError, match="Did you mean 'tapvid-davis'"):
        source_class("tapvid-dvis")


def test_point_odyssey_root_may_be_a_split_or_one_sequence():
    root = DATASETS / "pointodyssey"
    assert {r.split for r in open_dataset("point-odyssey", root / "test").refs()} == {"test"}
    (ref,) = open_dataset("point-odyssey", root / "test" / "ani_tiny_a").refs()
    assert ref.id == "point-odyssey/test/ani_tiny_a"
    (ref,) = open_dataset("point-odyssey", DATASETS / "simple" / "video_000").refs()
    assert ref.id == "point-odyssey/all/video_000"


def test_recoding(tmp_path):
    simple = open_dataset("point-odyssey", DATASETS / "simple")
    davis = open_dataset("tapvid-davis", DATASETS / "tapvid_davis")
    for source in (simple, davis):
        original = next(iter(source)).video()
        for codec in ("png", "raw", "jpeg"):
            path = tmp_path / f"{source.name}-{codec}.h5"
            convert(source, path, ConvertOptions(codec=codec))
            clip = ClipStore(path)[0]
            assert clip.frames.encoded(0)[0] == codec
            if codec == "jpeg" and source is davis:
                assert 0 < np.abs(clip.video().astype(int) - original).mean() < 2
            else:
                np.testing.assert_array_equal(clip.video(), original)
    kept = ClipStore(tmp_path / "point-odyssey-jpeg.h5")[0]
    assert kept.frames.encoded(3) == next(iter(simple)).frames.encoded(3)  # JPEG stays the file's own bytes


def test_packing_in_memory_equals_the_store(tmp_path):
    clip = next(iter(open_dataset("robotap", DATASETS / "robotap")))
    packed = pack(clip, "png")
    np.testing.assert_array_equal(packed.clip.video(), clip.video())
    assert packed.damaged == ()


def test_paths_of_sources_are_plain(tmp_path):
    assert isinstance(source_class("folder")(tmp_path).root, Path)
