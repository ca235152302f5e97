"""DeepLabCut's consumer is pandas: what it reads must be what was written."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ptrack.exports import export


def _check(frame: pd.DataFrame, tracks, atol: float) -> None:
    assert frame.columns.names == ["scorer", "bodyparts", "coords"]
    assert list(dict.fromkeys(frame.columns.get_level_values("bodyparts"))) == tracks.ids.tolist()
    np.testing.assert_array_equal(frame.index, tracks.frame_index)
    for n, name in enumerate(tracks.ids):
        np.testing.assert_allclose(frame["ptrack"][name]["x"], tracks.tracks[:, n, 0] - 0.5, atol=atol)
        np.testing.assert_allclose(frame["ptrack"][name]["y"], tracks.tracks[:, n, 1] - 0.5, atol=atol)
        np.testing.assert_allclose(frame["ptrack"][name]["likelihood"], tracks.visibility[:, n], atol=1e-6)


def test_pandas_reads_the_h5_with_and_without_the_key(tracks, tmp_path):
    path = tmp_path / "dlc.h5"
    export(tracks, path, "dlc-h5")
    _check(pd.read_hdf(path), tracks, 0)
    _check(pd.read_hdf(path, "df_with_missing"), tracks, 0)


def test_pandas_reads_the_csv(tracks, tmp_path):
    path = tmp_path / "dlc.csv"
    export(tracks, path, "dlc-csv")
    _check(pd.read_csv(path, header=[0, 1, 2], index_col=0), tracks, 5e-5)


def test_pandas_reads_napari_rows_sorted(tracks, tmp_path):
    path = tmp_path / "napari.csv"
    export(tracks, path, "napari")
    frame = pd.read_csv(path)
    data = frame[["track_id", "t", "y", "x"]].to_numpy()  # what viewer.add_tracks takes
    assert data.shape == (13, 4)
    assert (np.diff(data[:, 0] * 1000 + data[:, 1]) > 0).all()
    first = data[data[:, 0] == 0]
    np.testing.assert_allclose(first[:, [3, 2]], tracks.tracks[:, 0] - 0.5, atol=5e-5)


@pytest.mark.parametrize("count", [1, 400])
def test_one_and_many_points(count, tmp_path):
    from tests.exports.make import example

    tracks = example(tuple(f"p{i}" for i in range(count)))
    export(tracks, tmp_path / "many.h5", "dlc-h5")
    _check(pd.read_hdf(tmp_path / "many.h5"), tracks, 0)
