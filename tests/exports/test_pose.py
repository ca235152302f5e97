from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptrack.errors import TracksError
from ptrack.exports import export, load_any
from ptrack.exports.deeplabcut import read_dlc_csv, read_dlc_h5
from tests.exports.make import example

DATA = Path(__file__).parent / "data"  # written by pandas 3.1.1 with PyTables from tests.exports.make.example()


def _tree(path):
    """Everything of a file: attributes of all groups and datasets, and the datasets' values."""
    found = {}
    with h5py.File(path, "r") as file:

        def visit(name, item):
            values = item[()].tolist() if isinstance(item, h5py.Dataset) else None
            found[name] = ({k: str(v) for k, v in item.attrs.items()}, values)

        found["/"] = ({k: str(v) for k, v in file.attrs.items()}, None)
        file.visititems(visit)
    return found


def test_the_h5_has_the_attributes_that_pandas_writes(tracks, tmp_path):
    export(tracks, tmp_path / "dlc.h5", "dlc-h5")
    ours, theirs = _tree(tmp_path / "dlc.h5"), _tree(DATA / "pandas_fixed.h5")
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name][0] == theirs[name][0], name
    np.testing.assert_array_equal(ours["df_with_missing/block0_values"][1], theirs["df_with_missing/block0_values"][1])
    np.testing.assert_array_equal(ours["df_with_missing/axis1"][1], tracks.frame_index)


@pytest.mark.parametrize("name", ["pandas_fixed.h5", "pandas_table.h5", "pandas.csv"])
def test_files_written_by_pandas_come_back(name, tracks):
    back = load_any(DATA / name)
    np.testing.assert_allclose(back.tracks, tracks.tracks, atol=1e-5)
    np.testing.assert_allclose(back.visibility, tracks.visibility, atol=1e-6)
    assert back.ids.tolist() == tracks.ids.tolist()
    np.testing.assert_array_equal(back.frame_index, tracks.frame_index)
    np.testing.assert_allclose(back.queries, tracks.queries, atol=1e-5)


@pytest.mark.parametrize(("name", "suffix"), [("dlc-h5", ".h5"), ("dlc-csv", ".csv")])
def test_round_trip(name, suffix, tracks, tmp_path):
    path = tmp_path / f"x{suffix}"
    export(tracks, path, name)
    back = load_any(path)
    np.testing.assert_allclose(back.tracks, tracks.tracks, atol=5e-5)
    assert np.isnan(back.tracks[:2, 1]).all()
    assert (back.visibility[:2, 1] == 0).all()


@pytest.mark.parametrize(("name", "suffix"), [("dlc-h5", ".h5"), ("dlc-csv", ".csv"), ("sleap", ".h5")])
def test_no_points_at_all(name, suffix, tmp_path):
    export(example(()), tmp_path / f"none{suffix}", name)
    assert (tmp_path / f"none{suffix}").stat().st_size > 0


def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "bomb.h5"
    path.write_bytes((DATA / "pandas_table.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        file["df_with_missing/table"].attrs["values_block_0_kind"] = np.void(pickle.dumps(Bomb(), 0))
    with pytest.raises(TracksError, match="asks for .*open.*more than plain text and numbers"):
        read_dlc_h5(path)
    assert not (tmp_path / "ran").exists()


def test_wrong_files_say_what_is_wrong(tmp_path):
    (tmp_path / "a.csv").write_text("frame,id,x,y\n0,a,1,2\n")
    with pytest.raises(TracksError, match="is no DeepLabCut table"):
        read_dlc_csv(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("scorer,s,s\nbodyparts,a,a\ncoords,x,y\n0,1,two\n")
    with pytest.raises(TracksError, match="something else than numbers"):
        read_dlc_csv(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text("scorer,s,s\nbodyparts,a,a\ncoords,x,z\n0,1,2\n")
    with pytest.raises(TracksError, match="has no column"):
        read_dlc_csv(tmp_path / "c.csv")
    (tmp_path / "d.csv").write_text("scorer,s,s\nbodyparts,a,a\ncoords,x,x\n0,1,2\n")
    with pytest.raises(TracksError, match="more than once"):
        read_dlc_csv(tmp_path / "d.csv")
    with pytest.raises(TracksError, match="There is no file of tracks"):
        read_dlc_csv(tmp_path / "missing.csv")
    (tmp_path / "e.h5").write_bytes(b"not hdf5")
    with pytest.raises(TracksError, match="cannot be read as a DeepLabCut table"):
        read_dlc_h5(tmp_path / "e.h5")


def test_dlc_without_likelihood_counts_as_visible(tmp_path):
    (tmp_path / "l.csv").write_text("scorer,me,me\nbodyparts,a,a\ncoords,x,y\n0,1,2\n1,,\n")
    back = read_dlc_csv(tmp_path / "l.csv")
    np.testing.assert_allclose(back.tracks[0, 0], [1.5, 2.5])
    assert back.visibility.ravel().tolist() == [1, 0]


def test_sleap_layout(tracks, tmp_path):
    export(tracks, tmp_path / "s.h5", "sleap")
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["tracks"].shape == (1, 2, 3, 12)
        np.testing.assert_allclose(file["tracks"][0, :, 0, 3], tracks.tracks[0, 0] - 0.5)
        assert np.isnan(file["tracks"][0, :, :, 4]).all()
        assert file["track_occupancy"][:, 0].tolist() == [0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
        assert [n.decode() for n in file["node_names"]] == tracks.ids.tolist()
