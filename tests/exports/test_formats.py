from __future__ import annotations

import json
import re
import sys
import types
from dataclasses import replace

import numpy as np
import pytest

from ptrack.errors import OutputError, TracksError
from ptrack.exports import FORMATS, export, find_format, guess_format, load_any
from ptrack.exports.aftereffects import aftereffects_text, key_frames
from ptrack.exports.blender import blender_script
from ptrack.exports.coco import coco_document
from ptrack.exports.convert import with_rate
from tests.exports.make import H, W, example


@pytest.mark.parametrize(("name", "atol"), [("tapvid", 1e-5), ("cotracker", 1e-5)])
def test_array_round_trip(name, atol, tracks, tmp_path):
    path = tmp_path / "a.npz"
    export(tracks, path, name)
    assert guess_format(path).name == name
    back = load_any(path)
    np.testing.assert_allclose(back.tracks, tracks.tracks, atol=atol)
    np.testing.assert_array_equal(back.visible, tracks.visible)
    np.testing.assert_array_equal(back.pts_seconds, tracks.pts_seconds)
    assert (back.info.width, back.info.height, back.info.fps) == (W, H, 25)
    assert back.ids.tolist() == tracks.ids.tolist()


def test_tapvid_arrays(tracks, tmp_path):
    export(tracks, tmp_path / "a.npz", "tapvid")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as data:
        np.testing.assert_allclose(data["points"][2, 4] * [W, H], tracks.tracks[4, 2], atol=1e-5)
        assert data["occluded"][2].tolist() == [False, False, False, True, False]
        np.testing.assert_array_equal(data["query_points"][0], tracks.queries[0, [0, 2, 1]])


def test_cotracker_arrays_start_at_the_pixel_centre(tracks, tmp_path):
    export(tracks, tmp_path / "a.npz", "cotracker")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as data:
        assert data["pred_tracks"].shape == (1, 5, 3, 2)
        np.testing.assert_allclose(data["pred_tracks"][0, :, 0], tracks.tracks[:, 0] - 0.5, atol=1e-6)
        assert data["pred_visibility"].dtype == bool


def test_wrong_archives(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(TracksError, match="cannot be read as a NumPy archive"):
        load_any(tmp_path / "a.npz", "tapvid")
    np.savez(tmp_path / "b.npz", points=np.zeros((1, 2, 2)))
    with pytest.raises(TracksError, match="has no array 'occluded'"):
        load_any(tmp_path / "b.npz", "tapvid")
    np.savez(tmp_path / "c.npz", pred_tracks=np.zeros((1, 2, 3)), pred_visibility=np.zeros((1, 2)))
    with pytest.raises(TracksError, match="do not fit"):
        load_any(tmp_path / "c.npz", "cotracker")
    np.savez(tmp_path / "d.npz", pred_tracks=np.zeros((2, 3, 2)), pred_visibility=np.asarray([object()]))
    with pytest.raises(TracksError, match="holds Python objects in 'pred_visibility'"):
        load_any(tmp_path / "d.npz", "cotracker")


def test_coco(tracks):
    document = json.loads(json.dumps(coco_document(tracks), allow_nan=False))
    keypoints = np.asarray([a["keypoints"] for a in document["annotations"]]).reshape(5, 3, 3)
    present = np.isfinite(tracks.tracks).all(axis=2)
    np.testing.assert_allclose(keypoints[present][:, :2], tracks.tracks[present] - 0.5, atol=5e-5)  # pixel indices
    box = document["annotations"][4]["bbox"]  # continuous, from the image's corner
    np.testing.assert_allclose(box[:2], tracks.tracks[4].min(axis=0), atol=5e-5)
    np.testing.assert_allclose(box[2:], np.ptp(tracks.tracks[4], axis=0), atol=5e-5)
    assert [a["id"] for a in document["annotations"]] == [1, 2, 3, 4, 5]
    assert [a["image_id"] for a in document["annotations"]] == [i["id"] for i in document["images"]]
    assert all(type(v) is float for v in document["annotations"][0]["keypoints"][0:2])
    assert keypoints[0, 1].tolist() == [0, 0, 0]
    assert keypoints[3, 2, 2] == 1
    assert document["annotations"][0]["num_keypoints"] == 2
    assert document["categories"][0]["keypoints"] == tracks.ids.tolist()
    assert document["images"][1]["frame_index"] == 5


def test_coco_names_the_pictures_of_a_folder(tracks, tmp_path):
    from PIL import Image

    for i in range(12):  # natural order: shot 2 comes before shot 10
        Image.new("L", (4, 4)).save(tmp_path / f"shot {i}.png")
    expected = [f"shot {i}.png" for i in tracks.frame_index]
    for source in (tmp_path, tmp_path / "shot*.png"):
        document = coco_document(replace(tracks, info=replace(tracks.info, source=str(source))))
        assert [image["file_name"] for image in document["images"]] == expected
    (tmp_path / "shot 11.png").unlink()
    with pytest.raises(TracksError, match="holds 11 pictures, but the tracks have frame 11"):
        coco_document(replace(tracks, info=replace(tracks.info, source=str(tmp_path))))
    assert coco_document(tracks)["images"][0]["file_name"] == "000003.jpg"  # a video's frame


class _Blender:
    """A stand-in for Blender's ``bpy`` that records what the script does."""

    def __init__(self, size):
        self.made = {}
        self.size = size
        self.tracking = self
        self.tracks = self

    def new(self, name, frame):
        markers = self.made[name] = {}

        class Markers:
            def insert_frame(self, frame, co):
                markers[frame] = marker = type("Marker", (), {"co": co, "mute": False})()
                return marker

        return type("Track", (), {"markers": Markers()})()


class _Clips(list):
    def load(self, path):
        self.append(_Blender((W, H)))
        self.loaded = path
        return self[-1]


def _run_blender(text, size, screen=types.SimpleNamespace(areas=[]), clips=1):
    clip = _Blender(size)
    bpy = types.ModuleType("bpy")
    bpy.context = types.SimpleNamespace(screen=screen)
    bpy.data = types.SimpleNamespace(movieclips=_Clips([clip] * clips))
    sys.modules["bpy"] = bpy
    try:
        exec(compile(text, "tracks.py", "exec"), {})
    finally:
        del sys.modules["bpy"]
    return bpy.data.movieclips[0].made


def test_blender_script_makes_the_tracks(tracks):
    made = _run_blender(blender_script(tracks), (W, H))
    assert list(made) == tracks.ids.tolist()
    for n, name in enumerate(tracks.ids):
        for t, frame in enumerate(tracks.frame_index + 1):
            if np.isnan(tracks.tracks[t, n, 0]):
                assert frame not in made[name]
                continue
            x, y = made[name][frame].co
            np.testing.assert_allclose([x * W, (1 - y) * H], tracks.tracks[t, n], atol=1e-4)
            assert made[name][frame].mute == (not tracks.visible[t, n])


def test_blender_script_in_background_mode(tracks, tmp_path, monkeypatch):
    assert list(_run_blender(blender_script(tracks), (W, H), screen=None)) == tracks.ids.tolist()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="Open the movie clip"):
        _run_blender(blender_script(tracks), (W, H), screen=None, clips=0)
    (tmp_path / "clip.mp4").write_bytes(b"")
    script = blender_script(tracks)
    monkeypatch.chdir("/")  # Blender runs elsewhere
    assert list(_run_blender(script, (W, H), screen=None, clips=0)) == tracks.ids.tolist()


def test_blender_script_survives_hostile_names_and_another_clip():
    tracks = example(('"""', "\\", 'a"b\\"""\n{x}'))
    assert list(_run_blender(blender_script(tracks), (W, H))) == tracks.ids.tolist()
    with pytest.raises(RuntimeError, match="The clip is 10x10"):
        _run_blender(blender_script(tracks), (10, 10))


def _aftereffects(tracks):
    """Units per second and, per point, rows (unit, x, y) of keyframe data, read by its grammar."""
    head, *blocks = aftereffects_text(tracks).split("Motion Trackers\t")
    rate = float(re.search(r"\tUnits Per Second\t(\S+)\n", head)[1])
    points = []
    for block in blocks:
        name, columns, *rows = block.split("\n\n")[0].splitlines()
        if name.endswith("Feature Center"):
            assert columns == "\tFrame\tX pixels\tY pixels"
            points.append(np.asarray([line.split("\t")[1:] for line in rows], float).reshape(-1, 3))
    return rate, points


def test_aftereffects_text(tracks):
    text = aftereffects_text(tracks)
    assert text.startswith("Adobe After Effects 8.0 Keyframe Data\n\n\tUnits Per Second\t25\n\tSource Width\t64\n")
    assert text.rstrip().endswith("End of Keyframe Data")
    rows = _aftereffects(tracks)[1][1]
    np.testing.assert_array_equal(rows[:, 0], tracks.frame_index[2:])
    np.testing.assert_allclose(rows[:, 1:], tracks.tracks[2:, 1], atol=5e-5)
    percent = text.split("Track Point #3\tConfidence\n")[1].split("\n\n")[0].splitlines()[4]
    assert percent == "\t9\t25.00"


@pytest.mark.parametrize(
    ("rate", "stride", "stated"),
    [(30, 2, 15), (30, 1, 30), (30000 / 1001, 3, 0), (24, 5, 4.8), (12.5, 1, 12.5), (59.94, 4, 30)],
)
def test_aftereffects_keys_are_at_the_time_of_their_frames(rate, stride, stated):
    tracks = example(start=10, stride=stride)
    stamps = np.round(tracks.frame_index / rate, 4) + 0.5  # a file whose clock starts at half a second
    tracks = replace(tracks, pts_seconds=stamps, info=replace(tracks.info, fps=stated))
    found, points = _aftereffects(tracks)
    assert found == pytest.approx(rate, rel=2e-4)
    np.testing.assert_allclose(points[0][:, 0] / found, stamps - 0.5, atol=1e-3)


def test_aftereffects_keys_of_a_variable_rate_follow_the_stamps(tracks):
    stamps = np.asarray([0, 0.04, 0.5, 0.52, 1.0])
    rate, units = key_frames(replace(tracks, frame_index=np.arange(5), pts_seconds=stamps))
    np.testing.assert_allclose(units / rate, stamps, atol=0.5 / rate)
    assert (np.diff(units) > 0).all()
    assert _aftereffects(replace(tracks, frame_index=np.arange(5), pts_seconds=stamps))[0] == pytest.approx(rate)


def test_without_any_times_aftereffects_asks_for_the_rate(tracks, tmp_path):
    untimed = replace(tracks, pts_seconds=tracks.frame_index.astype(float), info=replace(tracks.info, fps=0.0))
    with pytest.raises(TracksError, match="give it with --fps"):
        export(untimed, tmp_path / "a.txt", "aftereffects")
    rate, units = key_frames(with_rate(untimed, 30.0))
    assert rate == 30
    np.testing.assert_array_equal(units, tracks.frame_index)
    with pytest.raises(TracksError, match="their own times"):
        with_rate(tracks, 30.0)
    with pytest.raises(TracksError, match="above 0"):
        with_rate(untimed, 0.0)


def test_every_format_states_its_origin_and_writes(tracks, tmp_path):
    for name, found in FORMATS.items():
        assert "(0, 0)" in found.origin, name
        if name.endswith("cornerpin"):
            continue  # of four points, see test_compositing
        path = tmp_path / f"{name}{found.suffix}"
        export(tracks, path, name)
        assert path.stat().st_size > 100, name
        if found.read is not None:
            np.testing.assert_allclose(load_any(path).tracks, tracks.tracks, atol=5e-4, err_msg=name)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["blender", "aftereffects", "nuke", "natron", "tapvid"])
def test_formats_that_need_the_frame_size_say_so(name, tracks, tmp_path):
    bare = replace(tracks, info=replace(tracks.info, width=0))
    with pytest.raises(TracksError, match="needs the frame size"):
        export(bare, tmp_path / "x", name)
    assert not (tmp_path / "x").exists()


def test_wrong_names_and_existing_files(tracks, tmp_path):
    with pytest.raises(TracksError, match="Did you mean 'napari'"):
        find_format("napary")
    with pytest.raises(TracksError, match="can only be written"):
        load_any(tmp_path / "x.nk", "nuke")
    with pytest.raises(TracksError, match="There is no file"):
        load_any(tmp_path / "x.h5")
    (tmp_path / "x.xyz").write_text("")
    with pytest.raises(TracksError, match="--from"):
        load_any(tmp_path / "x.xyz")
    with pytest.raises(OutputError, match="already exists"):
        export(tracks, tmp_path / "x.xyz", "napari")
    export(tracks, tmp_path / "x.xyz", "napari", overwrite=True)
    assert (tmp_path / "x.xyz").read_text().startswith("track_id,t,y,x,")


def test_long_and_single_frame_tracks(tmp_path):
    tracks = example(("a",))
    one = replace(tracks, tracks=tracks.tracks[:1], visibility=tracks.visibility[:1], confidence=tracks.confidence[:1],
                  frame_index=tracks.frame_index[:1], pts_seconds=tracks.pts_seconds[:1])  # fmt: skip
    long_index = np.arange(12_000)
    long = replace(
        tracks, tracks=np.full((12_000, 1, 2), 7.25, np.float32), visibility=np.ones((12_000, 1), np.float32),
        confidence=np.ones((12_000, 1), np.float32), frame_index=long_index, pts_seconds=long_index / 25,
    )  # fmt: skip
    for name, found in FORMATS.items():
        if name.endswith("cornerpin"):
            continue
        export(one, tmp_path / f"one_{name}{found.suffix}", name)
        export(long, tmp_path / f"long_{name}{found.suffix}", name)
        assert (tmp_path / f"long_{name}{found.suffix}").stat().st_size > 1000
