"""A rendered clip of known movement, tracked and measured: the whole way, not the formulas alone.

The tolerances are those of the trackers: Lucas-Kanade follows from frame to frame and drifts by half a pixel and more
while the picture turns by 46 degrees; nano, at its smallest input, by as much while it turns by 22.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

import ptrack
from ptrack import homography
from ptrack.analysis import MeasureConfig, Scale, clean, corner_pin, find_jumps, measure, plane
from ptrack.exports import export
from tests.analysis.make import FPS
from tests.exports.test_compositing import _keys, _node

FRAMES, HEIGHT, WIDTH = 24, 160, 224
CENTRE = np.array([90.0, 80.0])
CORNERS = ((60.0, 50.0), (130.0, 50.0), (130.0, 110.0), (60.0, 110.0))


def moved(t):
    """Return the 3 x 3 map from frame 0 to ``t``: 1.5 px to the right and 2 degrees about the centre per frame."""
    c, s = np.cos(np.radians(2 * t)), np.sin(np.radians(2 * t))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    there, back = np.eye(3), np.eye(3)
    there[:2, 2], back[:2, 2] = CENTRE + np.array([1.5 * t, 0]), -CENTRE
    return there @ turn @ back


@pytest.fixture(scope="module", params=["lk", "nano"])
def case(request):
    """Return the tracks of a model and (T, 3, 3), the true movement from the first frame to each."""
    if request.param == "lk":
        pytest.importorskip("cv2")
    frames, options = {"lk": (FRAMES, {}), "nano": (FRAMES // 2, {"quality": "fast"})}[request.param]
    times = range(frames)
    tracks = ptrack.load(request.param, device="cpu", **options).track(rendered(times), queries=grid())
    return tracks, np.stack([moved(t) for t in times])


def grid():
    """Return (20, 3) queries (0, x, y) over the plane."""
    xs, ys = np.meshgrid(np.linspace(60, 130, 5), np.linspace(50, 110, 4))
    return np.column_stack([np.zeros(20), xs.ravel(), ys.ravel()])


def rendered(times):
    """Return (T, HEIGHT, WIDTH, 3) uint8: a texture under the movement of each time."""
    texture = gaussian_filter(np.random.default_rng(0).uniform(0, 255, (HEIGHT, WIDTH)), 1.5, mode="wrap")
    texture = (texture - texture.min()) / np.ptp(texture) * 255
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5  # centres of pixels, in raster coordinates
    frames = np.zeros((len(times), HEIGHT, WIDTH, 3), np.uint8)
    for i, t in enumerate(times):
        back = homography.apply(np.linalg.inv(moved(t)), np.stack([x, y], axis=-1)) - 0.5
        frames[i] = map_coordinates(texture, back[..., ::-1].transpose(2, 0, 1), order=3, mode="wrap").clip(0, 255)[
            ..., None
        ]
    return frames


def test_speed_distance_and_angle_of_a_rendered_clip(case):
    tracks, maps = case
    config = MeasureConfig(scale=Scale(px=10, unit="mm"), fps=FPS, distances=(("0", "4"),), angles=(("4", "0", "15"),))
    found = measure(tracks, config)
    assert found.distance[:, 0] == pytest.approx(7.0, rel=0.02 if tracks.info.model == "nano" else 0.01)
    assert found.angle[:, 0] == pytest.approx(90, abs=2)
    truth = homography.apply(maps, tracks.queries[:, 1:].astype(float)[None])
    speed = np.linalg.norm(np.gradient(truth, axis=0), axis=2)[1:-1] * FPS / 10
    most = 2.0 if tracks.info.model == "nano" else 1.0  # mm/s: 0.4 and 0.2 px per frame, where points move by up to 4
    assert np.abs(found.speed[1:-1] - speed).max() < most
    assert found.speed[1:-1].mean() == pytest.approx(speed.mean(), rel=0.02)


def test_corner_pin_of_a_rendered_clip_lands_where_it_should_in_nuke(case, tmp_path):
    tracks, maps = case
    found = plane(tracks)
    truth = homography.apply(maps, np.asarray(CORNERS)[None])
    pin = corner_pin(tracks, found, CORNERS)
    assert np.linalg.norm(pin.tracks - truth, axis=2).max() < 1.5
    assert found.residual.max() < 1.5
    export(pin, tmp_path / "pin.nk", "nuke-cornerpin", start_frame=1001)
    _, knobs = _node((tmp_path / "pin.nk").read_text())
    for number, corner in ((4, 0), (3, 1), (2, 2), (1, 3)):  # Nuke counts from the lower left, y upwards
        xs, ys = (_keys(curve) for curve in knobs[f"to{number}"])
        assert list(xs) == [1001 + i for i in range(len(maps))]
        there = np.column_stack([list(xs.values()), HEIGHT - np.asarray(list(ys.values()))])
        assert np.linalg.norm(there - truth[:, corner], axis=1).max() < 1.5


def test_planted_jumps_in_a_rendered_clip_are_found(case):
    tracks, maps = case
    planted = {(5, 3), (len(maps) - 2, 7), (6, 19)}
    wrong = tracks.tracks.copy()
    for t, n in planted:
        wrong[t:, n] += (12, -9)
    found = find_jumps(replace(tracks, tracks=wrong)).jumps
    assert {(jump.frame, int(jump.id)) for jump in found} == planted


def test_noise_on_a_rendered_clip_is_lowered_and_good_tracks_are_left_alone(case):
    tracks, maps = case
    truth = homography.apply(maps, tracks.queries[:, 1:].astype(float)[None])
    noisy = tracks.tracks + np.random.default_rng(0).normal(0, 1.5, tracks.tracks.shape).astype(np.float32)
    smooth, _ = clean(replace(tracks, tracks=noisy))
    before, after = (np.sqrt(((xy - truth) ** 2).sum(-1).mean()) for xy in (noisy, smooth.tracks))
    assert after < 0.9 * before
    cleaned, _ = clean(tracks)
    away = [np.linalg.norm(xy - truth, axis=-1).mean() for xy in (tracks.tracks, cleaned.tracks)]
    assert away[1] <= away[0] + 0.05
    if tracks.info.model == "lk":  # whose steps are smooth; nano's have some tenths of a pixel of noise
        assert np.abs(cleaned.tracks - tracks.tracks).max() <= 0.05
    assert find_jumps(tracks).jumps == ()
