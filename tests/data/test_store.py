"""The clip type, its pictures, and the store's round trips."""

from __future__ import annotations

import re

import h5py
import numpy as np
import pytest

from ptrack.data import images
from ptrack.data.clips import ArrayFrames, BytesFrames, Clip, FileFrames
from ptrack.data.hdf5 import ClipStore, find_stores
from ptrack.data.inspect import clip_digest, contact_sheet, describe, verify
from ptrack.data.packing import PackedFrames
from ptrack.errors import DataError
from tests.data.helpers import jpeg, picture, raw_clip, write_store


def full_clip(**more) -> Clip:
    """Return a clip with every optional field."""
    rng = np.random.default_rng(9)
    t, n = 20, 300
    flags = lambda: rng.random((t, n)) < 0.5  # noqa: E731
    masks = BytesFrames([b"" if k % 3 else images.encode(picture(k), "png") for k in range(t)])
    depth = ArrayFrames(rng.integers(0, 65535, (t, 24, 32), dtype=np.uint16))
    values = {
        "fps": 29.97, "frame_ok": rng.random(t) < 0.9, "queries": rng.random((5, 3)), "query_track": np.arange(5),
        "vis_valid": flags(), "out_of_view": flags(), "occluded_label": flags(), "is_dynamic": rng.random(n) < 0.5,
        "track_ids": rng.permutation(n), "annotated_frames": [0, 7], "timestamps": np.arange(t) / 30,
        "intrinsics": rng.random((t, 3, 3)), "extrinsics": rng.random((t, 4, 4)), "trajs_3d": rng.random((t, n, 3)),
        "masks": masks, "depth": depth, "depth_scale": 0.5, "first_frame_number": 17, "coord_convention": "raster",
    }  # fmt: skip
    return raw_clip("full", frames=t, points=n, **values | more)


ARRAYS = (
    "tracks", "visibility", "valid", "frame_ok", "queries", "query_track", "vis_valid", "out_of_view", "occluded_label",
    "is_dynamic", "track_ids", "annotated_frames", "timestamps", "intrinsics", "extrinsics", "trajs_3d",
)  # fmt: skip


def test_everything_comes_back_float_exact(tmp_path):
    tracks = np.random.default_rng(1).normal(0, 1e3, (20, 300, 2)).astype(np.float32)
    tracks[3, 4] = np.nan
    tracks[5, 6, 1] = -np.inf
    clip = full_clip(tracks=tracks)
    back = ClipStore(write_store(tmp_path / "s.h5", [clip]))[0]
    for name in ARRAYS:
        got, wanted = getattr(back, name), getattr(clip, name)
        assert got.dtype == wanted.dtype, name
        assert got.tobytes() == wanted.tobytes(), name
    for t in range(clip.num_frames):
        np.testing.assert_array_equal(back.frames.rgb(t), clip.frames.rgb(t))
        assert back.masks.encoded(t)[1] == clip.masks.encoded(t)[1]
        assert back.masks.present(t) == (t % 3 == 0)
        np.testing.assert_array_equal(back.depth.values(t), clip.depth.values(t))
    fields = ("id", "source", "split", "name", "size", "fps", "depth_scale", "first_frame_number", "coord_convention")
    assert [getattr(back, f) for f in fields] == [getattr(clip, f) for f in fields]
    assert back.fps == 29.97
    assert clip_digest(back) == clip_digest(ClipStore(tmp_path / "s.h5")[0])
    with pytest.raises(DataError, match="no picture for frame 1"):
        back.masks.rgb(1)


def test_unknown_stays_unknown(tmp_path):
    back = ClipStore(write_store(tmp_path / "s.h5", [raw_clip()]))[0]
    for name in ("fps", "queries", "frame_ok", "masks", "depth", "trajs_3d", "first_frame_number"):
        assert getattr(back, name) is None
    assert back.coord_convention == "unknown"


@pytest.mark.parametrize("codec", ["raw", "png", "jpeg"])
def test_windows_equal_the_clip(tmp_path, codec):
    clip = raw_clip("x", frames=40, points=5000)
    store = ClipStore(write_store(tmp_path / "s.h5", [clip], codec))
    video = store[0].video()
    if codec != "jpeg":
        np.testing.assert_array_equal(video, clip.video())
    for start, stop, step in ((0, 40, 1), (3, 20, 1), (7, 31, 2), (0, 40, 7), (39, 40, 3)):
        window = store.window(0, start, stop, step)
        rows = np.arange(start, stop, step)
        assert window.codec == codec
        assert window.frame_ok.all()
        np.testing.assert_array_equal(window.tracks, clip.tracks[rows])
        np.testing.assert_array_equal(window.visibility, clip.visibility[rows])
        np.testing.assert_array_equal(window.valid, clip.valid[rows])
        np.testing.assert_array_equal(np.stack([window.rgb(k) for k in range(len(rows))]), video[rows])
    for bad in ((0, 41), (-1, 4), (5, 5)):
        with pytest.raises(DataError, match="not all in the clip of 40 frames"):
            store.window(0, *bad)


def test_looking_clips_up(tmp_path):
    store = ClipStore(write_store(tmp_path / "s.h5", [raw_clip("a"), raw_clip("b", seed=1)]))
    assert [clip.name for clip in store] == ["a", "b"]
    assert store[-1].name == "b"
    assert store["test/all/b"].name == "b"
    with pytest.raises(DataError, match="Did you mean 'test/all/a'"):
        store["test/all/aa"]
    write_store(tmp_path / "t.h5", [raw_clip("a")])
    both = ClipStore([tmp_path / "s.h5", tmp_path / "t.h5"])
    assert len(both) == 3
    with pytest.raises(DataError, match="in more than one file"):
        both["test/all/a"]
    assert find_stores(tmp_path) == find_stores(str(tmp_path / "*.h5")) == both.paths


def test_a_clip_checks_its_shapes():
    for wrong in (
        {"visibility": np.ones((10, 5))}, {"valid": np.ones((9, 6))}, {"fps": 1.0, "frame_ok": np.ones(9)},
        {"tracks": np.ones((10, 6))}, {"masks": BytesFrames([b""])}, {"coord_convention": "metric"},
        {"queries": np.ones((3, 3)), "query_track": np.ones(2)},
    ):  # fmt: skip
        with pytest.raises(DataError, match="test/all/clip"):
            raw_clip(**wrong)


def test_building_a_clip_changes_no_argument():
    tracks = np.full((2, 2, 2), np.inf)
    visible = np.ones((2, 2), np.uint8)
    clip = raw_clip(frames=2, points=2, tracks=tracks, visibility=visible)
    assert np.isinf(tracks).all()
    assert visible.all()
    assert not clip.visibility.any()
    assert not clip.finite.any()
    assert clip.tracks_filled.max() == 0


def test_grey_and_palette_pictures_are_expanded():
    import io

    from PIL import Image

    grey = Image.fromarray(picture(1)[..., 0])
    for image in (grey, grey.convert("P"), grey.convert("RGBA")):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        assert images.decode_rgb(buffer.getvalue()).shape == (24, 32, 3)
    np.testing.assert_array_equal(ArrayFrames(picture(1)[None, ..., 0]).rgb(0)[..., 2], picture(1)[..., 0])


def test_pictures_that_are_none(tmp_path):
    for call in (images.codec_of, images.decode_rgb, images.decode_values, images.size_of):
        with pytest.raises(DataError, match="picture"):
            call(b"nothing")
    with pytest.raises(DataError, match="cannot be decoded"):
        images.decode_values(jpeg(1)[:400])
    with pytest.raises(DataError, match="cannot be decoded"):
        images.decode_reduced(jpeg(1)[:400], (3, 4))
    with pytest.raises(DataError, match="Cannot read"):
        FileFrames([tmp_path / "absent.png"]).encoded(0)
    (tmp_path / "text.png").write_text("x")
    with pytest.raises(DataError, match="neither a JPEG nor a PNG"):
        FileFrames([tmp_path / "text.png"]).encoded(0)
    assert FileFrames([None]).encoded(0)[1] == b""
    with pytest.raises(DataError, match="Frames must be"):
        ArrayFrames(np.zeros((2, 3), np.uint8))


def test_reduced_decoding_is_about_the_half():
    data = jpeg(3, (480, 640))
    reduced = images.decode_reduced(data, (200, 300))
    assert reduced.size == (320, 240)
    full = images.decode_rgb(data).reshape(240, 2, 320, 2, 3).mean(axis=(1, 3))
    assert np.abs(np.asarray(reduced, np.float64) - full).mean() < 1.5


def test_encoding_keeps_colour_at_full_resolution():
    red = np.zeros((16, 16, 3), np.uint8)
    red[:, 7:8, 0] = 255  # a one-pixel line survives 4:4:4, not 4:2:0
    back = images.decode_rgb(images.encode(red, "jpeg", 95))
    assert back[:, 7, 0].min() > 200
    assert images.encode(red, "raw") == red.tobytes()


def test_description_and_verification(tmp_path):
    path = write_store(tmp_path / "s.h5", [full_clip(), raw_clip("small")])
    data = describe(path)
    assert (data["clips"], data["frames"], data["tracks"]) == (2, 30, 306)
    assert data["codecs"] == {"raw": 2}
    assert data["attributes"]["complete"] is True
    assert "float32 (20, 300, 2)" in data["arrays_of_first_clip"]["tracks"]
    assert data["rows"][1] == {"id": "test/all/small", "frames": 10, "tracks": 6, "height": 24, "width": 32}
    found = verify(path)
    assert found.problems == []
    assert found.frames == 30
    assert found.damaged == int((~full_clip().frame_ok).sum())


def test_verification_finds_damage(tmp_path):
    import h5py

    path = write_store(tmp_path / "s.h5", [raw_clip("a"), raw_clip("b", seed=1), raw_clip("c", seed=2)], "jpeg")
    before = verify(path)
    assert before.problems == []
    with h5py.File(path, "r+") as file:
        file["videos/000000/frames/data"][5:2000] = 0
        file["videos/000001/tracks"][0, 0] = np.nan
        file["videos/000001/visibility"][0, 0] = 1
        file["videos/000001/tracks"][0, 1] = np.inf
        del file["videos/000002/visibility"]
    after = verify(path)
    text = "\n".join(after.problems)
    assert "test/all/a: frame 0 cannot be decoded" in text
    assert "test/all/b: positions that are not finite are marked visible" in text
    assert "test/all/b: the tracks hold infinite values" in text
    assert "has no 'visibility'; convert it again" in text
    assert after.digest != before.digest


def test_contact_sheet(tmp_path):
    from PIL import Image

    tracks = np.full((8, 2, 2), 16.0)
    tracks[:, 1] = (8.0, 8.0)
    visible = np.ones((8, 2), bool)
    visible[:, 1] = False
    path = write_store(
        tmp_path / "s.h5",
        [
            raw_clip("größe 高", frames=8, points=2, tracks=tracks, visibility=visible),
            full_clip(),
            raw_clip("e", points=0),
        ],
    )
    out = contact_sheet(path, tmp_path / "sheet.png", rows=3, columns=4, width=128)
    sheet = np.asarray(Image.open(out).convert("RGB"))
    assert sheet.shape == (3 * (96 + 18), 4 * 128, 3)
    dot = sheet[18 + 64 - 1 : 18 + 64 + 2, 64 - 1 : 64 + 2]  # the visible point at (16, 16), four times enlarged
    assert np.ptp(dot.reshape(-1, 3), axis=0).max() == 0
    with pytest.raises(DataError, match="holds no clips"):
        contact_sheet(write_store(tmp_path / "none.h5", []), tmp_path / "x.png")


def test_packed_frames():
    frames = PackedFrames.join("png", [b"abc", b"", b"de"])
    assert len(frames) == 3
    assert [frames.encoded(t)[1] for t in range(3)] == [b"abc", b"", b"de"]
    assert not frames.present(1)


def read_all(path) -> None:
    """Read a store by every way there is."""
    describe(path)
    store = ClipStore(path)
    for clip in store:
        clip.frames.rgb(0)
    for i in range(len(store)):
        store.window(i, 0, 2).rgb(0)
    store.close()


ELSEWHERE = {
    "tracks": lambda group: group.__setitem__("tracks", h5py.ExternalLink("other.h5", "/x")),
    "visibility": lambda group: group.__setitem__("visibility", h5py.SoftLink("/videos/000000/valid")),
    "frames": lambda group: group.__setitem__("frames", group),
    "depth": lambda group: group.create_group("depth").create_group("data"),
    "is_dynamic": lambda group: group.create_group("is_dynamic"),
    "masks": lambda group: group.__setitem__("masks", [1, 2, 3]),
    "valid": lambda group: group.create_dataset("valid", (3, 1 << 40), "u1", chunks=(1, 1 << 20)),
    "fps": lambda group: group.create_dataset("fps", (1 << 40,), "f4"),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_store_that_leads_elsewhere_or_claims_too_much_is_refused(name, tmp_path):
    path = write_store(tmp_path / "s.h5", [raw_clip(frames=3)])
    with h5py.File(path, "r+") as file:
        group = file["videos/000000"]
        if name in group:
            del group[name]
        ELSEWHERE[name](group)
    with pytest.raises(DataError, match=r"s\.h5 (holds|claims|is damaged)"):
        read_all(path)


def test_damage_anywhere_in_a_store_is_one_sentence(tmp_path):
    path = write_store(tmp_path / "s.h5", [raw_clip(frames=3)])
    whole, damaged = path.read_bytes(), tmp_path / "b.h5"
    random = np.random.default_rng(5)
    failed = 0
    for case in range(40):
        data = bytearray(whole)
        data[random.integers(4096)] = random.integers(256)
        damaged.write_bytes(data if case % 4 else whole[: random.integers(len(whole))])
        try:
            read_all(damaged)
        except DataError as error:
            failed += 1
            words = str(error)
            assert re.fullmatch(r"[^\n]*b\.h5[^\n]*[^.]\.", words), words
    assert failed > 10
