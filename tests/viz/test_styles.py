"""Pictures of every style against stored ones, and the numbers behind them.

The stored pictures are written by ``python -m tests.viz.test_styles`` and were looked at.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptrack.errors import ConfigError, TracksError
from ptrack.homography import apply, ransac
from ptrack.viz import homography, layouts, palette
from ptrack.viz.painter import PaintOptions, TracksPainter, View, whole_frame
from ptrack.viz.style import OverlayStyle
from tests.viz.scenes import H, W, make_tracks

GOLDEN = Path(__file__).parent / "golden"


def _ground(height: int = H, width: int = W) -> np.ndarray:
    """A grey ramp with a bright corner."""
    ramp = np.linspace(40, 120, width)[None, :, None] + np.zeros((height, 1, 3))
    ramp[: height // 3, : width // 3] = 230
    return ramp.astype(np.uint8)


def _scene():
    """A grid that the camera moves by (1.5, 0.5) a frame (points 3 to 14), and three points that move down besides."""
    tracks = make_tracks(12, 15)
    grid = np.stack(np.meshgrid([8, 28, 48, 66], [6, 24, 42]), axis=-1).reshape(-1, 2)
    start = np.concatenate([[[20, 12], [38, 18], [56, 14]], grid]).astype(np.float32)
    time = np.arange(12, dtype=np.float32)[:, None, None]
    xy = start + time * np.float32([1.5, 0.5])
    xy[:, :3] += time * np.float32([0, 2])
    xy[:3, 2] = np.nan
    queries = tracks.queries.copy()
    queries[:, 1:] = xy[queries[:, 0].astype(int), np.arange(15)]
    return replace(tracks, tracks=xy, queries=queries)


def _paint(**options) -> np.ndarray:
    tracks = _scene()
    return TracksPainter(tracks, PaintOptions(**options)).paint(9, whole_frame(tracks, _ground()))


def _truth() -> np.ndarray:
    tracks = _scene()
    moved = replace(tracks, tracks=tracks.tracks + np.float32([4, -3]))
    view, painter = whole_frame(tracks, _ground()), TracksPainter(tracks)
    picture = painter.paint(9, view)
    from ptrack.viz.draw import Canvas

    canvas = Canvas(picture)
    layouts.Truth(tracks, moved).draw(9, view, canvas, OverlayStyle())
    return canvas.rgb


def _follow() -> np.ndarray:
    tracks = _scene()
    crop = layouts.FollowCrop(tracks, "p4", side=32, zoom=2)
    return TracksPainter(tracks, PaintOptions(highlight="p4")).paint(9, crop.view(9, _ground()))


def _exposure() -> np.ndarray:
    return layouts.long_exposure(TracksPainter(_scene()), ((t, _ground()) for t in range(12)))


def _side_by_side() -> np.ndarray:
    view = whole_frame(_scene(), _ground())
    return layouts.grid([TracksPainter(_scene()).paint(t, view) for t in (0, 5, 9)], 2)


PICTURES = {
    "start": lambda: _paint(),
    "occluded": lambda: _paint(style=OverlayStyle(occluded="always")),
    "id": lambda: _paint(colour="id"),
    "motion": lambda: _paint(colour="motion", style=OverlayStyle(trail=6, width=3)),
    "visibility": lambda: _paint(colour="visibility"),
    "confidence": lambda: _paint(colour="confidence"),
    "no_occluded": lambda: _paint(style=OverlayStyle(occluded="never")),
    "no_fade": lambda: _paint(style=OverlayStyle(trail=9, fade=0, width=1.5, radius=4)),
    "stabilised": lambda: _paint(stabilise=True, style=OverlayStyle(trail=9)),
    "truth": _truth,
    "follow": _follow,
    "exposure": _exposure,
    "grid": _side_by_side,
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_look_as_they_did(name):
    expected = np.asarray(Image.open(GOLDEN / f"{name}.png")).astype(int)
    made = PICTURES[name]().astype(int)
    assert made.shape == expected.shape
    difference = np.abs(made - expected)
    assert difference.mean() < 0.3
    assert (difference.max(axis=2) > 12).mean() < 0.002


def test_each_picture_is_another():
    pictures = {name: make() for name, make in PICTURES.items() if name not in ("follow", "grid")}
    names = list(pictures)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert np.abs(pictures[a].astype(int) - pictures[b]).max() > 20, (a, b)


def test_the_frame_given_is_not_changed_and_occluded_points_are_hollow():
    ground = np.full((H, W, 3), 90, np.uint8)
    tracks = make_tracks()
    picture = TracksPainter(tracks, PaintOptions(style=OverlayStyle(radius=4, trail=0))).paint(7, View(ground))
    assert (ground == 90).all()
    colours = palette.by_start(tracks).astype(int)
    for n, filled in ((0, True), (1, False)):
        x, y = np.floor(tracks.tracks[7, n]).astype(int)
        assert (np.abs(picture[y, x] - colours[n]).max() < 8) == filled


def test_stabilised_trails_leave_the_background_out_and_show_motion_alone():
    tracks = _scene()
    motion = homography.CameraMotion(tracks, 9)
    assert motion.background.tolist() == [False] * 3 + [True] * 12
    past = apply(motion.to_current(9, 4), tracks.tracks[4:10].astype(float))
    seen = tracks.tracks[9, 3:]
    np.testing.assert_allclose(past[:, 3:], np.broadcast_to(seen, (6, *seen.shape)), atol=0.02)
    np.testing.assert_allclose(np.diff(past[:, 0], axis=0), np.broadcast_to([0, 2], (5, 2)), atol=0.02)


def _warp(xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    h = np.asarray([[1.02, 0.03, 5], [-0.02, 0.98, -7], [2e-5, -1e-5, 1]])
    return h, apply(h, xy)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_ransac_finds_the_homography_among_outliers(share):
    rng = np.random.default_rng(1)
    a = rng.uniform(0, 1, (100, 2)) * [854, 480]
    h, b = _warp(a)
    wrong = rng.random(100) < share
    b = b + rng.normal(0, 0.2, b.shape)
    b[wrong] += rng.uniform(20, 80, (int(wrong.sum()), 2))
    found, inliers = ransac(a, b, 1.5)
    assert inliers.sum() >= (~wrong).sum() - 1
    assert not inliers[wrong].any()
    corners = np.asarray([[0, 0], [854, 0], [0, 480], [854, 480.0]])
    assert np.linalg.norm(apply(found, corners) - apply(h, corners), axis=1).max() < 1.0
    again, _ = ransac(a, b, 1.5)
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
def test_few_or_coincident_points_do_no_harm(count):
    a = np.asarray([[10, 10], [80, 12], [15, 60], [70, 50], [40, 30.0]])[:count]
    h, inliers = ransac(a, a + np.asarray([3, -2]), 1.0)
    assert len(inliers) == count
    if count:
        np.testing.assert_allclose(apply(h, a), a + np.asarray([3, -2]), atol=1e-6)
    same = np.full((6, 2), 5.0)
    assert np.isfinite(ransac(same, same + 1, 1.0)[0]).all()
    line = np.column_stack([np.arange(8.0), np.arange(8.0)])
    assert np.isfinite(ransac(line, line, 1.0)[0]).all()


def test_stabilising_without_any_background_changes_nothing():
    tracks = make_tracks(6, 2)
    plain = TracksPainter(tracks).paint(4, whole_frame(tracks, _ground()))
    stabilised = TracksPainter(tracks, PaintOptions(stabilise=True)).paint(4, whole_frame(tracks, _ground()))
    np.testing.assert_array_equal(plain, stabilised)


def test_nan_rows_more_points_than_colours_and_single_frames():
    many = make_tracks(2, 3000)
    assert len({tuple(c) for c in palette.by_id(many).tolist()}) > 500
    for look in (
        PaintOptions(),
        PaintOptions(colour="id", labels=False),
        PaintOptions(colour="motion"),
        PaintOptions(stabilise=True),
    ):
        TracksPainter(many, look).paint(1, whole_frame(many, _ground()))
    one = make_tracks(1, 3)
    for mode in palette.MODES:
        TracksPainter(one, PaintOptions(colour=mode, labels=True)).paint(0, whole_frame(one, _ground()))
    gone = make_tracks(4, 2)
    gone = replace(gone, tracks=np.full_like(gone.tracks, np.nan), visibility=np.zeros((4, 2), np.float32))
    for mode in palette.MODES:
        picture = TracksPainter(gone, PaintOptions(colour=mode)).paint(2, whole_frame(gone, _ground()))
        bare = TracksPainter(replace(gone, tracks=gone.tracks[:, :0], visibility=gone.visibility[:, :0],
                             confidence=gone.confidence[:, :0], queries=gone.queries[:0], ids=gone.ids[:0]),
                             PaintOptions(colour=mode))  # fmt: skip
        np.testing.assert_array_equal(picture, bare.paint(2, whole_frame(gone, _ground())))
    none = make_tracks(3, 0)
    np.testing.assert_array_equal(TracksPainter(none).paint(1, whole_frame(none, _ground())), _ground())


def test_a_long_video_is_painted_anywhere_in_constant_memory():
    import tracemalloc

    tracks = make_tracks(50_000, 4)
    tracks = replace(tracks, tracks=tracks.tracks % np.float32([W, H]))
    painter = TracksPainter(tracks, PaintOptions(stabilise=True))
    tracemalloc.start()
    for t in (0, 49_999, 25_000, 3):
        painter.paint(t, whole_frame(tracks, _ground()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6
    layouts.FollowCrop(tracks, "p0").view(49_999, _ground())


def test_a_reduced_frame_keeps_points_in_place():
    tracks = make_tracks()
    view = whole_frame(tracks, _ground(H // 2, W // 2))
    np.testing.assert_allclose(view.place(np.asarray([[W, H]])), [[W / 2, H / 2]])


def test_following_keeps_the_point_inside_and_the_window_in_the_frame():
    tracks = _scene()
    crop = layouts.FollowCrop(tracks, "p4", side=32, zoom=2)
    for t in range(12):
        view = crop.view(t, _ground())
        assert view.rgb.shape == (64, 64, 3)
        place = view.place(tracks.tracks[t, 4])
        assert ((place >= 0) & (place <= 64)).all()
    late = layouts.FollowCrop(make_tracks(), "p2", side=500, zoom=1)  # NaN at first, larger than the frame
    assert late.view(0, _ground()).rgb.shape == (H, W, 3)
    with pytest.raises(TracksError, match="no point with the id"):
        layouts.FollowCrop(tracks, "nobody")
    gone = replace(tracks, tracks=np.full_like(tracks.tracks, np.nan))
    with pytest.raises(TracksError, match="never has a position"):
        layouts.FollowCrop(gone, "p4")


def test_truth_is_matched_by_id_and_frame():
    tracks = make_tracks(6, 3)
    truth = replace(tracks, tracks=tracks.tracks[::2, ::-1] + 3, visibility=tracks.visibility[::2, ::-1],
                    confidence=tracks.confidence[::2, ::-1], ids=tracks.ids[::-1], queries=tracks.queries[::-1],
                    frame_index=tracks.frame_index[::2], pts_seconds=tracks.pts_seconds[::2])  # fmt: skip
    judge = layouts.Truth(tracks, truth)
    a, b = judge.errors(4)
    np.testing.assert_allclose(b - a, 3, atol=1e-5)
    assert len(judge.errors(3)[0]) == 0
    with pytest.raises(TracksError, match="in common"):
        layouts.Truth(tracks, replace(truth, ids=np.asarray(["x", "y", "z"])))
    with pytest.raises(TracksError, match="in common"):
        layouts.Truth(tracks, replace(truth, frame_index=truth.frame_index + 100))


def test_side_by_side_names_the_panels():
    tracks, view = make_tracks(), View(_ground())
    one = layouts.Comparison([TracksPainter(tracks)], ["a"]).paint(3, view)
    np.testing.assert_array_equal(one, TracksPainter(tracks).paint(3, view))
    three = layouts.Comparison([TracksPainter(tracks)] * 3, ["a", "b", "c"]).paint(3, view)
    assert three.shape[0] > H or three.shape[1] > 2 * W
    missing = layouts.Comparison([TracksPainter(tracks)], ["a"]).paint(99, view)
    np.testing.assert_array_equal(missing, _ground())


@pytest.mark.parametrize("mode", palette.MODES)
def test_a_scale_stands_where_colour_is_a_number(mode):
    tracks = make_tracks()
    painter = TracksPainter(tracks, PaintOptions(colour=mode))
    picture = painter.paint(3, View(np.full((240, 320, 3), 90, np.uint8)))
    corner = picture[-60:, :100].reshape(-1, 3)
    number = mode in ("motion", "visibility", "confidence")
    assert (painter.scheme.scale is not None) is number
    for shade in () if painter.scheme.scale is None else painter.scheme.scale.colours[[0, 20, 40, -1]]:
        assert (corner == shade).all(-1).any()
    if not number:
        assert (corner == 90).all(-1).any()


def test_fast_is_measured_on_visible_points():
    tracks = make_tracks(12, 4)
    wild = tracks.tracks.copy()
    wild[6:, 1] += np.float32(40) * (np.arange(6) % 2)[:, None]  # the occluded point leaps about
    assert palette.fast(replace(tracks, tracks=wild)) == pytest.approx(np.hypot(1.5, 0.5), abs=1e-4)


def test_unknown_colour_mode():
    with pytest.raises(ConfigError, match="Did you mean 'motion'"):
        TracksPainter(make_tracks(), PaintOptions(colour="motoin"))


def test_contact_sheet_takes_the_first_and_the_last_frame():
    tracks = make_tracks(12, 3)
    shown = []

    def frames():
        for t in range(12):
            shown.append(t)
            yield t, _ground()

    sheet = layouts.contact_sheet(TracksPainter(tracks), frames(), count=4)
    assert sheet.shape[1] >= 2 * W
    assert layouts.evenly(4, 12).tolist() == [0, 4, 7, 11]
    assert layouts.evenly(5, 3).tolist() == [0, 1, 2]
    assert layouts.contact_sheet(TracksPainter(make_tracks(1, 1)), [(0, _ground())]).shape == (H, W, 3)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, make in PICTURES.items():
        Image.fromarray(make()).save(GOLDEN / f"{name}.png", optimize=True)
