import numpy as np
import pytest
import torch

from ptrack import geometry


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_rescale_keeps_corners_and_kind(kind):
    points = kind([[0.0, 0.0], [640.0, 480.0], [320.0, 120.0]])
    out = geometry.rescale(points, (480, 640), (240, 160))
    assert type(out) is type(points)
    np.testing.assert_allclose(np.asarray(out), [[0, 0], [160, 240], [80, 60]])
    np.testing.assert_allclose(np.asarray(points)[2], [320, 120])


def test_normalise_and_back():
    points = np.float32([[3, 5], [64, 48]])
    np.testing.assert_allclose(geometry.normalise(points, (48, 64))[1], [1, 1])
    np.testing.assert_allclose(geometry.denormalise(geometry.normalise(points, (48, 64)), (48, 64)), points, rtol=1e-6)


def test_opencv_is_half_a_pixel_away():
    np.testing.assert_allclose(geometry.to_opencv(np.float32([[0.5, 0.5]])), [[0, 0]])
    np.testing.assert_allclose(geometry.from_opencv(np.float32([[0, 0]])), [[0.5, 0.5]])


def test_inside_includes_the_border_and_excludes_nan():
    points = np.float32([[0, 0], [64, 48], [64.1, 0], [np.nan, 3]])
    assert geometry.inside(points, (48, 64)).tolist() == [True, True, False, False]


def test_grid_points_are_cell_centres_row_by_row():
    np.testing.assert_allclose(geometry.grid_points(2, (40, 80)), [[20, 10], [60, 10], [20, 30], [60, 30]])


def test_support_points_match_the_published_grid():
    points = geometry.support_points(20, (256, 256))
    assert points[0].tolist() == [4, 4]
    assert points[-1].tolist() == [252, 252]
    assert points[1, 0] - points[0, 0] == pytest.approx(13.0526, abs=1e-4)
    assert geometry.support_points(1, (48, 64)).tolist() == [[32, 24]]
