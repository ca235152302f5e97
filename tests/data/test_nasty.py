"""Damaged and odd input: one clear sentence each, and everything else is converted."""

from __future__ import annotations

import pickle
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptrack.batch.converting import worker_loader
from ptrack.data import pickles
from ptrack.data.clips import BytesFrames, Clip
from ptrack.data.convert import ConvertOptions, convert, dry_run
from ptrack.data.hdf5 import ClipStore
from ptrack.data.inspect import verify
from ptrack.data.sources import open_dataset
from ptrack.errors import DataError, OutputError
from tests.data.helpers import jpeg, picture, write_simple


@pytest.fixture
def root(tmp_path) -> Path:
    """A dataset with one good video; tests add bad ones beside it."""
    write_simple(tmp_path / "data", "good", seed=1)
    return tmp_path / "data"


def converted(root: Path, **options):
    """Convert, and return the store and the report; the good video must always be there and sound."""
    out = root.parent / "out.h5"
    report = convert(open_dataset("point-odyssey", root), out, ConvertOptions(**options))
    store = ClipStore(out)
    assert "good" in store.names
    assert verify(out).problems == []
    return store, report


def reason(report, name: str) -> str:
    """Return why the clip of a name was skipped."""
    return dict(report.skipped)[f"point-odyssey/all/{name}"]


def test_missing_annotation(root):
    (write_simple(root, "bad") / "anno.npz").unlink()
    store, report = converted(root)
    assert "anno.npz or annot.npz or annotations.npz is missing" in reason(report, "bad")
    assert store.names == ["good"]


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_unreadable_annotation(root, content):
    (write_simple(root, "bad") / "anno.npz").write_bytes(content)
    _, report = converted(root)
    assert "cannot be read" in reason(report, "bad")


def test_annotation_cut_in_the_middle(root):
    path = write_simple(root, "bad", points=500) / "anno.npz"
    path.write_bytes(path.read_bytes()[:3000])
    _, report = converted(root)
    assert "cannot be read" in reason(report, "bad")


def test_annotation_without_tracks(root):
    np.savez(write_simple(root, "bad") / "anno.npz", visibs=np.ones((6, 4)))
    _, report = converted(root)
    assert "has no 'trajs_2d' (it has visibs)" in reason(report, "bad")


def test_annotation_with_objects_is_not_unpickled(root):
    np.savez(
        write_simple(root, "bad") / "anno.npz", trajs_2d=np.array([Canary()], dtype=object), visibs=np.ones((6, 4))
    )
    Canary.touched = False
    _, report = converted(root)
    assert "objects in 'trajs_2d'" in reason(report, "bad")
    assert not Canary.touched


def test_optional_arrays_may_hold_none(root):
    """PointOdyssey's scenes without cameras or 3-D tracks hold None there."""
    path = write_simple(root, "bare") / "anno.npz"
    with np.load(path) as file:
        arrays = dict(file)
    none = np.array([None], dtype=object)
    np.savez(path, **arrays, trajs_3d=none, intrinsics=none, extrinsics=np.array(None, dtype=object))
    store, report = converted(root)
    assert report.skipped == []
    clip = store["point-odyssey/all/bare"]
    np.testing.assert_array_equal(clip.tracks, arrays["trajs_2d"].astype(np.float32))
    assert clip.trajs_3d is None
    assert clip.extrinsics is None
    np.savez(path, **(arrays | {"visibs": none}))
    assert "'visibs'" in reason(converted(root, overwrite=True)[1], "bare")


def test_wrong_shapes(root):
    write_simple(root, "bad", trajs_2d=np.zeros((6, 4, 3)))
    _, report = converted(root)
    assert "(T, N, 2) and (T, N) are needed" in reason(report, "bad")


@pytest.mark.parametrize("change", [1, -1])
def test_frame_count_differs_from_annotation(root, change):
    folder = write_simple(root, "bad", frames=6)
    if change > 0:
        (folder / "frames" / "frame_000006.jpg").write_bytes(jpeg(1))
    else:
        (folder / "frames" / "frame_000005.jpg").unlink()
    _, report = converted(root)
    assert f"there are {6 + change} frames but the annotation has 6" in reason(report, "bad")


def test_gap_in_the_numbering_is_never_closed_silently(root):
    (write_simple(root, "bad", frames=6) / "frames" / "frame_000002.jpg").unlink()
    _, report = converted(root)
    assert "Frame 2 is missing" in reason(report, "bad")


def test_one_number_twice(root):
    folder = write_simple(root, "bad", frames=6)
    (folder / "frames" / "frame_000002.png").write_bytes(jpeg(1))
    _, report = converted(root)
    assert "are both frame 2" in reason(report, "bad")


def test_no_frames(root):
    folder = write_simple(root, "bad", frames=2)
    for path in (folder / "frames").iterdir():
        path.unlink()
    _, report = converted(root)
    assert "There are no frames" in reason(report, "bad")


def test_hidden_and_foreign_files_are_ignored(root):
    folder = write_simple(root, "other")
    (folder / "frames" / ".frame_000009.jpg").write_bytes(b"x")
    (folder / "frames" / "Thumbs.db").write_bytes(b"x")
    (root / ".hidden").mkdir()
    (root / "readme.txt").write_text("x")
    store, report = converted(root)
    assert store.names == ["good", "other"]
    assert report.skipped == []


def test_truncated_jpeg_is_marked_and_the_clip_kept(root):
    folder = write_simple(root, "cut", frames=6, seed=4)
    path = folder / "frames" / "frame_000003.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    store, report = converted(root)
    assert report.skipped == []
    ((clip_id, frame, why),) = report.damaged
    assert (clip_id, frame) == ("point-odyssey/all/cut", 3)
    assert "cannot be decoded" in why
    clip = store[clip_id]
    assert clip.frame_ok.tolist() == [True, True, True, False, True, True]
    assert clip.frames.encoded(3)[1] == whole[: len(whole) // 2]
    assert clip.video()[3].max() == 0
    assert clip.video()[4].max() > 0
    with pytest.raises(DataError, match="cannot be decoded"):
        clip.frames.rgb(3)


def test_truncated_jpeg_strict(root):
    path = write_simple(root, "cut") / "frames" / "frame_000000.jpg"
    path.write_bytes(path.read_bytes()[:300])
    store, report = converted(root, strict=True)
    assert "frame 0 is damaged" in reason(report, "cut")
    assert store.names == ["good"]


def test_damaged_frames_when_recoding_become_black(root):
    path = write_simple(root, "cut") / "frames" / "frame_000002.jpg"
    path.write_bytes(b"\xff\xd8\xff nothing")
    store, report = converted(root, codec="raw")
    assert [d[1] for d in report.damaged] == [2]
    clip = store["point-odyssey/all/cut"]
    assert clip.frames.rgb(2).max() == 0
    assert not clip.frame_ok[2]


def test_all_frames_damaged(root):
    for path in (write_simple(root, "bad") / "frames").iterdir():
        path.write_bytes(b"not a picture")
    _, report = converted(root)
    assert "No frame can be read" in reason(report, "bad")


def test_changing_frame_size(root):
    (write_simple(root, "bad") / "frames" / "frame_000004.jpg").write_bytes(jpeg(1, (30, 32)))
    _, report = converted(root)
    assert "frame 4 is 32x30 pixels but the clip is 32x24" in reason(report, "bad")


def test_not_finite_and_far_coordinates(root):
    tracks = np.full((6, 4, 2), 5.0)
    tracks[1, 0] = np.nan
    tracks[2, 1, 0] = np.inf
    tracks[3, 2] = (-1e6, 1e12)
    tracks[4, 3] = (1e300, 1.0)  # beyond float32
    write_simple(root, "odd", trajs_2d=tracks, visibs=np.ones((6, 4), bool))
    store, _ = converted(root)
    clip = store["point-odyssey/all/odd"]
    assert not clip.visibility[[1, 2, 4], [0, 1, 3]].any()
    assert not clip.valid[[1, 2, 4], [0, 1, 3]].any()
    assert clip.visibility.sum() == 24 - 3
    assert np.isnan(clip.tracks[2, 1, 0])
    assert clip.tracks[2, 1, 1] == 5
    np.testing.assert_array_equal(clip.tracks[3, 2], np.float32([-1e6, 1e12]))


def test_float64_and_flags_of_any_type(root):
    tracks = np.random.default_rng(0).uniform(0, 20, (6, 4, 2))
    write_simple(root, "wide", trajs_2d=tracks, visibs=np.full((6, 4), 2, np.int64), valids=np.ones((6, 4)))
    store, _ = converted(root)
    clip = store["point-odyssey/all/wide"]
    np.testing.assert_array_equal(clip.tracks, tracks.astype(np.float32))
    assert clip.visibility.all()


def test_zero_points_and_zero_visible_points_are_data(root):
    write_simple(root, "empty", trajs_2d=np.zeros((6, 0, 2)), visibs=np.zeros((6, 0), bool))
    write_simple(root, "unseen", visibs=np.zeros((6, 4), bool))
    store, report = converted(root)
    assert report.skipped == []
    assert store["point-odyssey/all/empty"].tracks.shape == (6, 0, 2)
    assert not store["point-odyssey/all/unseen"].visibility.any()
    window = store.window("point-odyssey/all/empty", 1, 4)
    assert window.tracks.shape == (3, 0, 2)


def test_spaces_and_unicode_in_names(root):
    names = ["two words", "größe 高さ", "quote'\"", "emoji 🐎"]
    for i, name in enumerate(names):
        write_simple(root, name, seed=i + 2)
    store, _ = converted(root)
    assert set(store.names) == {"good", *names}
    assert store["point-odyssey/all/größe 高さ"].name == "größe 高さ"


def test_same_name_in_two_splits_is_two_clips(tmp_path):
    write_simple(tmp_path / "data" / "train", "walk", seed=1)
    write_simple(tmp_path / "data" / "val", "walk", seed=2)
    convert(open_dataset("point-odyssey", tmp_path / "data"), tmp_path / "o.h5", ConvertOptions())
    store = ClipStore(tmp_path / "o.h5")
    assert store.ids == ["point-odyssey/train/walk", "point-odyssey/val/walk"]
    assert not np.array_equal(store[0].tracks, store[1].tracks)


def test_equal_ids_are_numbered(tmp_path):
    example = {"video": np.zeros((3, 8, 8, 3), np.uint8), "points": np.ones((1, 3, 2)), "occluded": np.zeros((1, 3))}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tapvid_davis.pkl").write_bytes(pickle.dumps({"cow": example}))
    report = convert(open_dataset("tapvid-davis", tmp_path), tmp_path / "o.h5", ConvertOptions())
    assert ClipStore(tmp_path / "o.h5").ids == ["tapvid-davis/eval/cow", "tapvid-davis/eval/cow#2"]
    assert "the later one is stored as 'tapvid-davis/eval/cow#2'" in report.notes[0]


def test_mixed_codecs_ask_for_one():
    png = __import__("ptrack.data.images", fromlist=["encode"]).encode(picture(1), "png")
    frames = BytesFrames([jpeg(0), png])
    from ptrack.data.packing import pack

    clip = Clip.build(
        id="x", source="s", split="a", name="x", frames=frames, size=(24, 32), tracks=np.zeros((2, 1, 2)),
        visibility=np.ones((2, 1)),
    )  # fmt: skip
    with pytest.raises(DataError, match="mix jpeg and png"):
        pack(clip)
    assert pack(clip, "png").clip.frames.codec == "png"


# --- pickles -----------------------------------------------------------------------------------------------------


class Canary:
    """Notes whether unpickling ran it."""

    touched = False

    def __reduce__(self):
        return _touch, ()


def _touch():
    Canary.touched = True


class Command:
    """Would run a command when it is unpickled."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self):
        import os

        return os.system, (self.text,)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_malicious_pickle_is_refused_and_the_rest_converted(tmp_path, protocol):
    proof = tmp_path / "proof"
    example = {"video": np.zeros((3, 8, 8, 3), np.uint8), "points": np.ones((1, 3, 2)), "occluded": np.zeros((1, 3))}
    (tmp_path / "in").mkdir()
    bad = {"cow": example, "evil": Command(f"touch {proof}")}
    (tmp_path / "in" / "robotap_split0.pkl").write_bytes(pickle.dumps(bad, protocol=protocol))
    (tmp_path / "in" / "robotap_split1.pkl").write_bytes(pickle.dumps({"dog": example}))
    report = convert(open_dataset("robotap", tmp_path / "in"), tmp_path / "o.h5", ConvertOptions())
    ((name, why),) = report.skipped
    assert name == "robotap/eval/robotap_split0"
    assert "system'" in why
    assert "Nothing of it was executed" in why
    assert not proof.exists()
    assert ClipStore(tmp_path / "o.h5").names == ["robotap_split1_dog"]


@pytest.mark.parametrize(
    "payload",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n(S'1'\nS'x'\ntR.",
        b"cnumpy\nload\n(S'/etc/passwd'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n(S'x'\ntR.",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
        b"\x80\x02X\x01\x00\x00\x00aQ.",
    ],
)
def test_every_other_name_is_refused(tmp_path, payload):
    path = tmp_path / "x.pkl"
    path.write_bytes(payload)
    with pytest.raises(DataError, match="Nothing of it was executed"):
        pickles.load_pickle(path)


def test_arrays_and_containers_of_every_protocol_are_read(tmp_path):
    value = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3), "bytes": [b"\xff\x00", np.bytes_(b"x")],
        "n": np.float64(2.5), "s": np.array([b"ab", b"c"], dtype="S3"), "t": (1, "ü", None, True, {1, 2}),
        "big": np.zeros(70_000),
    }  # fmt: skip
    for protocol in range(6):
        path = tmp_path / f"{protocol}.pkl"
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        back = pickles.load_pickle(path)
        np.testing.assert_array_equal(back["a"], value["a"])
        assert back["bytes"][0] == b"\xff\x00"
        assert back["t"] == value["t"]
        assert back["s"].tolist() == [b"ab", b"c"]


def test_damaged_and_missing_pickles(tmp_path):
    whole = pickle.dumps({"a": np.arange(100)})
    (tmp_path / "cut.pkl").write_bytes(whole[:-40])
    (tmp_path / "text.pkl").write_bytes(b"hello")
    for name in ("cut.pkl", "text.pkl"):
        with pytest.raises(DataError, match="cannot be read as a pickle"):
            pickles.load_pickle(tmp_path / name)
    with pytest.raises(DataError, match="There is no pickle"):
        pickles.load_pickle(tmp_path / "absent.pkl")


def test_malicious_npy_is_refused(tmp_path):
    folder = tmp_path / "in" / "0001"
    (folder / "frames").mkdir(parents=True)
    np.save(folder / "0001.npy", np.array({"coords": Canary()}, dtype=object), allow_pickle=True)
    Canary.touched = False
    source = open_dataset("kubric", tmp_path / "in")
    with pytest.raises(DataError, match="None of the 1 clips .* Nothing of it was executed"):
        convert(source, tmp_path / "o.h5", ConvertOptions())
    assert not Canary.touched
    assert list(tmp_path.glob("*.h5")) == []


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ({"points": np.ones((1, 3, 2)), "occluded": np.zeros((1, 3))}, "malformed"),
        (
            {"video": np.zeros((3, 8, 8, 3), np.uint8), "points": np.ones((1, 2, 2)), "occluded": np.zeros((1, 2))},
            "3 frames",
        ),
        ({"video": np.zeros((3, 8, 8, 3)), "points": np.ones((1, 3, 2)), "occluded": np.zeros((1, 3))}, "float64"),
        ({"video": [b"junk"] * 3, "points": np.ones((1, 3, 2)), "occluded": np.zeros((1, 3))}, "No frame can be read"),
        ([1, 2], "malformed"),
    ],
)
def test_malformed_examples(tmp_path, example, words):
    good = {"video": np.zeros((3, 8, 8, 3), np.uint8), "points": np.ones((1, 3, 2)), "occluded": np.zeros((1, 3))}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"bad": example, "good": good}))
    report = convert(open_dataset("tapvid-davis", tmp_path / "x.pkl"), tmp_path / "o.h5", ConvertOptions())
    assert words in report.skipped[0][1]
    assert ClipStore(tmp_path / "o.h5").names == ["good"]


# --- options -----------------------------------------------------------------------------------------------------


def test_existing_output_is_refused_first(root):
    converted(root)
    with pytest.raises(OutputError, match="already exists"):
        convert(open_dataset("point-odyssey", root), root.parent / "out.h5", ConvertOptions())
    convert(open_dataset("point-odyssey", root), root.parent / "out.h5", ConvertOptions(overwrite=True))


def test_selection_limits_and_shards(root):
    for i in range(6):
        write_simple(root, f"v{i}", seed=i)
    source = open_dataset("point-odyssey", root)
    out = root.parent / "s.h5"
    report = convert(source, out, ConvertOptions(clips=("v[0-3]", "good"), limit=4, shards=3))
    assert [Path(f).name for f in report.files] == [f"s-0000{i}-of-00003.h5" for i in range(3)]
    store = ClipStore(root.parent / "s-*.h5")
    assert store.names == ["good", "v0", "v1", "v2"]
    assert report.clips == 4
    assert report.frames == 24
    assert report.points == 16
    with pytest.raises(DataError, match="no clip 'v9'.*Did you mean"):
        convert(source, out, ConvertOptions(clips=("v9",)))
    with pytest.raises(OutputError, match="name the output .h5"):
        convert(source, root.parent / "out.zip", ConvertOptions())
    with pytest.raises(DataError, match="--shards must be"):
        ConvertOptions(shards=0)
    with pytest.raises(DataError, match="--limit"):
        ConvertOptions(limit=0)


def test_workers_give_the_same_file(root):
    for i in range(3):
        write_simple(root, f"v{i}", seed=i)
    (write_simple(root, "bad") / "anno.npz").unlink()
    source = open_dataset("point-odyssey", root)
    one = convert(source, root.parent / "one.h5", ConvertOptions())
    two = convert(source, root.parent / "two.h5", ConvertOptions(), loader=worker_loader(2))
    assert one.skipped == two.skipped
    assert (root.parent / "one.h5").read_bytes() == (root.parent / "two.h5").read_bytes()
    assert verify(root.parent / "one.h5").digest == verify(root.parent / "two.h5").digest
    assert ClipStore(root.parent / "two.h5").ids == ClipStore(root.parent / "one.h5").ids


def test_dry_run_writes_nothing_and_tells_the_same(root):
    (write_simple(root, "bad") / "anno.npz").unlink()
    cut = write_simple(root, "cut") / "frames" / "frame_000001.jpg"
    cut.write_bytes(cut.read_bytes()[:200])
    before = sorted(root.parent.rglob("*"))
    report = dry_run(open_dataset("point-odyssey", root), ConvertOptions())
    assert sorted(root.parent.rglob("*")) == before
    assert (report.clips, report.frames, len(report.skipped), len(report.damaged)) == (2, 12, 1, 1)
    strict = dry_run(open_dataset("point-odyssey", root), ConvertOptions(strict=True))
    assert (strict.clips, len(strict.skipped)) == (1, 2)


# --- full disk ---------------------------------------------------------------------------------------------------

FULL = """
import resource, sys
from ptrack.data.convert import ConvertOptions, convert
from ptrack.data.sources import open_dataset
from ptrack.errors import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    convert(open_dataset("point-odyssey", sys.argv[1]), sys.argv[2], ConvertOptions())
except OutputError as error:
    print(error)
    sys.exit(7)
"""


def test_full_disk_keeps_what_was_written_and_goes_on(root):
    """A limit on the size of files stands in for the end of the disk: the system itself refuses the write."""
    for i in range(5):
        write_simple(root, f"v{i}", seed=i, size=(120, 160))
    out = root.parent / "o.h5"
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(root), str(out), "30000"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 7, run.stderr
    assert "run the same command again to go on" in run.stdout
    assert "Traceback" not in run.stderr
    assert not out.exists()
    report = convert(open_dataset("point-odyssey", root), out, ConvertOptions())
    assert 0 < report.kept < 6
    assert report.clips == 6
    clean = root.parent / "clean.h5"
    convert(open_dataset("point-odyssey", root), clean, ConvertOptions())
    assert verify(out).digest == verify(clean).digest
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
