import json

import h5py
import numpy as np
import pytest

import ptrack
from ptrack import fileio
from ptrack.errors import OutputError, TracksError
from ptrack.tracks import Tracks, TracksInfo
from ptrack.tracks_h5 import PER_FRAME, TracksWriter
from ptrack.tracks_io import load_tracks, save_tracks


def example(t=5, n=3, seed=0) -> Tracks:
    rng = np.random.default_rng(seed)
    tracks = rng.normal(50, 20, (t, n, 2)).astype(np.float32)
    tracks[0, 1:] = np.nan
    visibility = rng.random((t, n)).astype(np.float32)
    queries = np.column_stack([[0, 1, 1], tracks[[0, 1, 1], [0, 1, 2]]]).astype(np.float32)[:n]
    return Tracks(
        tracks=tracks,
        visibility=visibility,
        confidence=rng.random((t, n)).astype(np.float32),
        queries=queries,
        ids=np.asarray(["0", "left paw", "口"][:n]),
        frame_index=np.arange(t) * 2 + 7,
        pts_seconds=np.arange(t) / 29.97 + 0.1,
        info=TracksInfo(
            ptrack_version="1", model="m", width=100, height=90, fps=29.97, source="a b.mp4", warnings=("one", "two")
        ),
    )


def assert_equal(a: Tracks, b: Tracks, info: bool = True) -> None:
    for name in (*PER_FRAME, "queries", "ids"):
        left, right = getattr(a, name), getattr(b, name)
        assert left.dtype.kind == right.dtype.kind, name
        np.testing.assert_array_equal(left, right, err_msg=name)
    if info:
        assert a.info == b.info


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".json", ".csv", ".hdf5"])
def test_round_trip_is_exact(tmp_path, suffix):
    tracks = example()
    path = ptrack.save_tracks(tracks, tmp_path / f"käse und brot{suffix}")
    back = ptrack.load_tracks(path)
    assert_equal(tracks, back, info=suffix != ".csv")
    assert back.tracks.dtype == np.float32


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".json"])
def test_round_trip_of_nothing(tmp_path, suffix):
    none = example().select([])
    save_tracks(none, tmp_path / f"none{suffix}")
    assert load_tracks(tmp_path / f"none{suffix}").tracks.shape == (5, 0, 2)


def test_csv_is_the_long_table(tmp_path):
    path = save_tracks(example(), tmp_path / "a.csv")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "frame,time_s,id,x,y,visibility,confidence,width,height"
    assert lines[2].startswith("7,0.1,left paw,,,")
    assert lines[2].endswith(",100,90")
    assert len(lines) == 1 + 5 * 3


def test_json_holds_no_nan(tmp_path):
    path = save_tracks(example(), tmp_path / "a.json")
    data = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda c: pytest.fail(c))
    assert data["tracks"][0][1] == [None, None]


def test_names_in_hdf5(tmp_path):
    path = save_tracks(example(), tmp_path / "a.h5")
    with h5py.File(path) as file:
        assert set(file) == {*PER_FRAME, "queries", "ids"}
        assert file.attrs["complete"]
        assert file.attrs["model"] == "m"
        assert file.attrs["schema_version"] == 1


def test_existing_output_is_kept_unless_asked(tmp_path):
    path = save_tracks(example(), tmp_path / "a.npz")
    with pytest.raises(OutputError, match="already exists"):
        save_tracks(example(seed=1), path, overwrite=False)
    assert_equal(load_tracks(path), example())


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(TracksError, match=r"\.h5, \.npz, \.csv or \.json"):
        load_tracks(tmp_path / "a.mat")
    with pytest.raises(TracksError, match="There is no tracks file"):
        load_tracks(tmp_path / "a.h5")
    for name in ("a.h5", "a.npz", "a.json"):
        (tmp_path / name).write_text("nonsense, not tracks")
        with pytest.raises(TracksError, match=name):
            load_tracks(tmp_path / name)
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(TracksError, match="no column 'frame'"):
        load_tracks(tmp_path / "a.csv")
    np.savez(tmp_path / "b.npz", other=np.zeros(3))
    with pytest.raises(TracksError, match="holds no ptrack tracks"):
        load_tracks(tmp_path / "b.npz")
    cut = save_tracks(example(), tmp_path / "c.npz")
    cut.write_bytes(cut.read_bytes()[:-200])
    with pytest.raises(TracksError, match=r"c\.npz"):
        load_tracks(cut)
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(TracksError, match=r"d\.h5 holds no ptrack tracks"):
        load_tracks(tmp_path / "d.h5")


def test_a_newer_schema_is_refused(tmp_path):
    path = save_tracks(example(), tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(TracksError, match="schema version 99"):
        load_tracks(path)


def test_pickled_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", tracks=np.asarray([{"a": 1}], dtype=object))
    with pytest.raises(TracksError, match=r"a\.npz"):
        load_tracks(tmp_path / "a.npz")


def write_rows(writer, tracks, rows):
    for row in rows:
        writer.append(*(getattr(tracks, name)[row] for name in PER_FRAME))


def test_growing_file_is_readable_after_every_flush(tmp_path):
    tracks = example(t=70)
    path = tmp_path / "p.h5"
    writer = TracksWriter(path, tracks.queries, tracks.ids, tracks.info)
    write_rows(writer, tracks, range(40))
    writer.flush()
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())  # what a kill would leave
    partial = load_tracks(copy)
    np.testing.assert_array_equal(partial.tracks, tracks.tracks[:40])
    writer.close()


def test_reopened_file_equals_an_uninterrupted_one(tmp_path):
    tracks = example(t=70)
    writer = TracksWriter(tmp_path / "p.h5", tracks.queries, tracks.ids, tracks.info)
    write_rows(writer, tracks, range(50))
    writer.close()
    writer = TracksWriter.reopen(tmp_path / "p.h5", 33)
    write_rows(writer, tracks, range(33, 70))
    writer.finish(tracks.info)
    assert_equal(load_tracks(tmp_path / "p.h5"), tracks)
    with pytest.raises(TracksError, match="holds 70 frames where 99"):
        TracksWriter.reopen(tmp_path / "p.h5", 99)
    (tmp_path / "bad.h5").write_bytes(b"no")
    with pytest.raises(TracksError, match="cannot be continued"):
        TracksWriter.reopen(tmp_path / "bad.h5", 1)


def test_rewrite_changes_only_the_chosen_points(tmp_path):
    tracks = example()
    path = save_tracks(tracks, tmp_path / "p.h5")
    writer = TracksWriter.reopen(path, 5)
    chosen = np.asarray([False, True, False])
    writer.rewrite(2, chosen, (np.float32([[1, 2]]), np.float32([0.3]), np.float32([0.4])))
    writer.finish(tracks.info)
    back = load_tracks(path)
    assert back.tracks[2, 1].tolist() == [1, 2]
    np.testing.assert_array_equal(back.tracks[2, [0, 2]], tracks.tracks[2, [0, 2]])
    np.testing.assert_array_equal(back.tracks[3:], tracks.tracks[3:])


def test_csv_holds_the_frame_size_and_others_say_that_they_do_not(tmp_path):
    back = load_tracks(save_tracks(example(), tmp_path / "a.csv"))
    assert (back.info.width, back.info.height) == (100, 90)
    (tmp_path / "b.csv").write_text("frame,time_s,id,x,y\n1,0.04,a,3,4\n0,0,a,1,2\n")
    back = load_tracks(tmp_path / "b.csv")
    assert (back.info.width, back.frame_index.tolist(), back.tracks[0, 0].tolist()) == (0, [0, 1], [1, 2])
    assert "does not hold the frame size" in back.info.warnings[0]


def test_one_run_at_a_time_writes_a_file(tmp_path):
    tracks = example()
    writer = TracksWriter(tmp_path / "p.h5", tracks.queries, tracks.ids, tracks.info)
    with pytest.raises(OutputError, match="being written by another process"):
        TracksWriter(tmp_path / "p.h5", tracks.queries, tracks.ids, tracks.info)
    with pytest.raises(OutputError, match="being written by another process"):
        TracksWriter.reopen(tmp_path / "p.h5", 0)
    writer.close()
    TracksWriter.reopen(tmp_path / "p.h5", 0).close()


def test_files_where_locks_are_refused_are_written_and_read(tmp_path, monkeypatch):
    import fcntl

    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert_equal(load_tracks(save_tracks(example(), tmp_path / "a.h5")), example())


def test_a_planted_link_is_not_written_through(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "p.h5").symlink_to(tmp_path / "precious")
    with pytest.raises(TracksError, match="cannot be continued.*symbolic links"):
        TracksWriter.reopen(tmp_path / "p.h5", 0)
    TracksWriter(tmp_path / "p.h5", example().queries, example().ids, example().info).close()
    assert not (tmp_path / "p.h5").is_symlink()
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_full_disk_is_one_sentence_and_loses_nothing_that_was_written(tmp_path, monkeypatch):
    def full(path, size):
        raise OSError(28, "No space left on device")

    tracks = example()
    writer = TracksWriter(tmp_path / "p.h5", tracks.queries, tracks.ids, tracks.info)
    write_rows(writer, tracks, range(3))
    writer.flush()
    with monkeypatch.context() as patch:
        patch.setattr(fileio, "check_space", full)
        write_rows(writer, tracks, range(3, 5))
        with pytest.raises(OutputError, match=r"p\.h5: No space left on device; .* left on the disk.*--resume"):
            writer.flush()
        writer.close()
        with pytest.raises(OutputError, match=r"Cannot write [^ ]*/a\.h5: No space left.*Free space\.$"):
            save_tracks(tracks, tmp_path / "a.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.h5"]
    writer = TracksWriter.reopen(tmp_path / "p.h5", 3)
    write_rows(writer, tracks, range(3, 5))
    writer.finish(tracks.info)
    assert_equal(load_tracks(tmp_path / "p.h5"), tracks)
