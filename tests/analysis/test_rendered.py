"""A rendered clip of known movement, tracked and measured: the whole way, not the formulas alone.

The tolerances are those of the tracker: Lucas-Kanade follows from frame to frame and drifts by half a pixel and more
while the picture turns by 46 degrees.
"""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

import ptrack
from ptrack import homography
from ptrack.analysis import MeasureConfig, Scale, clean, corner_pin, find_jumps, measure, plane
from tests.analysis.make import FPS

pytest.importorskip("cv2")
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


@pytest.fixture(scope="module")
def tracks():
    texture = gaussian_filter(np.random.default_rng(0).uniform(0, 255, (HEIGHT, WIDTH)), 1.5, mode="wrap")
    texture = (texture - texture.min()) / np.ptp(texture) * 255
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5  # centres of pixels, in raster coordinates
    frames = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    for t in range(FRAMES):
        back = homography.apply(np.linalg.inv(moved(t)), np.stack([x, y], axis=-1)) - 0.5
        frames[t] = map_coordinates(texture, back[..., ::-1].transpose(2, 0, 1), order=3, mode="wrap").clip(0, 255)[
            ..., None
        ]
    xs, ys = np.meshgrid(np.linspace(60, 130, 5), np.linspace(50, 110, 4))
    points = np.column_stack([np.zeros(20), xs.ravel(), ys.ravel()])
    return ptrack.load("lk", device="cpu").track(frames, queries=points)


def test_speed_distance_and_angle_of_a_rendered_clip(tracks):
    config = MeasureConfig(scale=Scale(px=10, unit="mm"), fps=FPS, distances=(("0", "4"),), angles=(("4", "0", "15"),))
    found = measure(tracks, config)
    assert found.distance[:, 0] == pytest.approx(7.0, rel=0.01)
    assert found.angle[:, 0] == pytest.approx(90, abs=2)
    truth = np.stack([homography.apply(moved(t), tracks.queries[:, 1:].astype(float)) for t in range(FRAMES)])
    speed = np.linalg.norm(np.gradient(truth, axis=0), axis=2)[1:-1] * FPS / 10
    assert np.abs(found.speed[1:-1] - speed).max() < 1.0  # mm/s: 0.2 px per frame, where points move by up to 4
    assert found.speed[1:-1].mean() == pytest.approx(speed.mean(), rel=0.02)


def test_corner_pin_of_a_rendered_clip(tracks):
    found = plane(tracks)
    truth = np.stack([homography.apply(moved(t), np.asarray(CORNERS)) for t in range(FRAMES)])
    assert np.linalg.norm(corner_pin(tracks, found, CORNERS).tracks - truth, axis=2).max() < 1.5
    assert found.residual.max() < 1.5


def test_good_tracks_of_a_rendered_clip_are_left_alone(tracks):
    cleaned, _ = clean(tracks)
    assert np.abs(cleaned.tracks - tracks.tracks).max() <= 0.05
    assert find_jumps(tracks).jumps == ()
