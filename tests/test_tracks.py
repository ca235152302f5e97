import numpy as np
import pytest

from ptrack.errors import QueryError, TracksError
from ptrack.tracks import Queries, Tracks


def test_queries_copy_and_never_change_the_callers_array():
    rows = np.asarray([[0, 5, 6], [3, 1, 2]])
    queries = Queries(rows)
    assert rows.dtype == np.int64
    rows[0] = 9
    assert queries.points.tolist() == [[0, 5, 6], [3, 1, 2]]
    assert queries.points.dtype == np.float32
    assert queries.ids.tolist() == ["0", "1"]
    assert queries.t.tolist() == [0, 3]
    with pytest.raises(ValueError, match="read-only"):
        queries.points[0, 0] = 1


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[0, np.nan, 1]], "Query 0 .*NaN"),
        ([[0, 1, 1], [0, np.inf, 1]], "Query 1"),
        ([[-1, 1, 1]], "starts at frame -1"),
        ([[0.5, 1, 1]], "starts at frame 0.5"),
        ([[1, 2]], r"shape \(N, 3\)"),
        ([1, 2, 3], r"shape \(N, 3\)"),
        ([["a", 2, 3]], "must be numbers"),
        ("abc", "must be numbers"),
    ],
)
def test_queries_refuse_nonsense(rows, words):
    with pytest.raises(QueryError, match=words):
        Queries(rows)


def test_queries_ids():
    assert Queries([[0, 1, 1], [0, 1, 1]], ["paw", 7]).ids.tolist() == ["paw", "7"]
    with pytest.raises(QueryError, match="'a' is used more than once"):
        Queries([[0, 1, 1], [0, 2, 2]], ["a", "a"])
    with pytest.raises(QueryError, match="1 ids for 2 points"):
        Queries([[0, 1, 1], [0, 2, 2]], ["a"])


def test_queries_inside_the_frame():
    Queries([[0, 0, 0], [0, 64, 48]]).check_inside((48, 64))
    with pytest.raises(QueryError, match=r"Query 1 at x=65, y=3 \(and 1 more\) lies outside the 64x48 frame"):
        Queries([[0, 1, 1], [0, 65, 3], [0, 3, -1]]).check_inside((48, 64))


def test_queries_sizes():
    assert len(Queries(np.zeros((0, 3)))) == 0
    assert len(Queries([])) == 0
    assert len(Queries(np.ones((10_000, 3)))) == 10_000


def test_queries_grid_and_concatenate():
    grid = Queries.grid(2, (48, 64), t=4)
    assert grid.points.tolist() == [[4, 16, 12], [4, 48, 12], [4, 16, 36], [4, 48, 36]]
    with pytest.raises(QueryError, match="at least 1"):
        Queries.grid(0, (48, 64))
    named = Queries.concatenate([Queries([[0, 1, 1]], ["a"]), Queries([[0, 2, 2]], ["b"])])
    assert named.ids.tolist() == ["a", "b"]
    clash = Queries.concatenate([Queries([[0, 1, 1]]), Queries([[0, 2, 2]])])
    assert clash.ids.tolist() == ["0", "1"]
    assert len(Queries.concatenate([])) == 0


def make(t=3, n=2, **changes):
    values = {
        "tracks": np.zeros((t, n, 2), np.float32),
        "visibility": np.full((t, n), 0.5, np.float32),
        "confidence": np.ones((t, n), np.float32),
        "queries": np.zeros((n, 3), np.float32),
        "ids": np.asarray([f"p{i}" for i in range(n)]),
        "frame_index": np.arange(t),
        "pts_seconds": np.arange(t) / 25,
    }
    return Tracks(**(values | changes))


def test_tracks_check_their_shapes():
    tracks = make()
    assert (tracks.num_frames, tracks.num_points) == (3, 2)
    assert tracks.visible.all()
    with pytest.raises(TracksError, match="'confidence' has the shape"):
        make(confidence=np.ones((3, 1), np.float32))
    with pytest.raises(TracksError, match="'tracks'"):
        make(tracks=np.zeros((3, 2), np.float32))


def test_tracks_select():
    assert make().select(["p1"]).ids.tolist() == ["p1"]
    with pytest.raises(TracksError, match="no point with the id 'zz'"):
        make().select(["zz"])
