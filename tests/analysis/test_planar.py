import numpy as np
import pytest

from ptrack import homography
from ptrack.analysis import PlanarConfig, corner_pin, plane
from ptrack.analysis.planar import CORNERS, corner_errors, corner_sentence, parse_corners
from ptrack.errors import ConfigError, TracksError
from ptrack.exports import export
from tests.analysis.make import made

FOUR = ((200.0, 150.0), (400.0, 150.0), (400.0, 300.0), (200.0, 300.0))


def truth(frames=30):
    """Return (T, 3, 3): a plane that turns, shrinks, shifts and tilts."""
    t = np.arange(frames) / frames
    h = np.tile(np.eye(3), (frames, 1, 1))
    h[:, 0, 0] = h[:, 1, 1] = (1 - 0.2 * t) * np.cos(t / 2)
    h[:, 1, 0] = np.sin(t / 2)
    h[:, 0, 1] = -h[:, 1, 0]
    h[:, 0, 2], h[:, 1, 2] = 60 * t, -20 * t
    h[:, 2, 0] = 2e-4 * t
    return h


def seen(noise=0.0, points=40, seed=0):
    random = np.random.default_rng(seed)
    xy = random.uniform((180, 130), (420, 320), (points, 2))
    moved = homography.apply(truth(), xy[None])
    return moved + random.normal(0, noise, moved.shape) * (noise > 0)


def test_the_corner_pin_of_exact_points_is_exact_to_a_hundredth_of_a_pixel():
    tracks = made(seen())
    found = plane(tracks)
    pin = corner_pin(tracks, found, FOUR)
    assert np.abs(pin.tracks - homography.apply(truth(), np.asarray(FOUR)[None])).max() < 0.01
    assert found.residual.max() < 0.01
    assert pin.ids.tolist() == list(CORNERS)
    assert pin.queries[:, 1:].tolist() == [list(c) for c in FOUR]


def test_noise_and_a_third_of_wrong_points_leave_the_corners_within_a_pixel():
    xy = seen(noise=0.3)
    xy[:, :13] += 4.0 * np.arange(30)[:, None, None] * np.array([1, -0.5])  # another object, in front of the plane
    tracks = made(xy)
    found = plane(tracks)
    pin = corner_pin(tracks, found, FOUR)
    away = np.linalg.norm(pin.tracks - homography.apply(truth(), np.asarray(FOUR)[None]), axis=2)
    assert away.max() < 1.0
    assert found.inliers[10:].max() <= 28
    assert 0.2 < np.median(found.residual[5:]) < 0.9
    assert "Residual of the points that agree" in found.sentences[1]


def test_the_standard_error_of_a_corner_is_what_repeated_noise_gives():
    """40 runs with other noise, of points that cover the left half alone: the right corners are less sure."""
    exact = seen()
    left = exact[0, :, 0] < 300
    found, spread = [], []
    for seed in range(40):
        xy = exact[[0, 20]][:, left].copy()
        xy[1] += np.random.default_rng(seed).normal(0, 0.3, xy[1].shape)
        tracks = made(xy)
        one = plane(tracks)
        spread.append(corner_pin(tracks, one, FOUR).tracks[1])
        found.append(corner_errors(one, FOUR))
    errors = np.stack(found)
    assert errors[:, 0].max() == 0  # the reference frame
    real = np.sqrt(np.var(np.stack(spread), axis=0).sum(axis=-1))
    assert np.median(errors[:, 1], axis=0) == pytest.approx(real, rel=0.35)
    assert real[1:3].min() > 2 * real[[0, 3]].max()


def test_unsure_corners_are_named():
    xy = seen(noise=0.3)
    xy[25:, 5:] = np.nan
    tracks = made(xy)
    found = plane(tracks)
    pin = corner_pin(tracks, found, ((20, 15), (600, 15), (600, 440), (20, 440)))
    assert "px in 5 frames (25 to 29): few points agree there" in pin.info.warnings[-1]
    four = plane(made(seen(points=4)))
    assert corner_errors(four, FOUR)[1:].min() == np.inf
    assert "Above 2 px in 29 frames (1 to 29)" in corner_sentence(four, FOUR)


def test_the_way_back_holds_the_plane_still():
    xy = seen()
    found = plane(made(xy))
    assert np.abs(homography.apply(found.to_reference, xy) - xy[found.reference]).max() < 0.01


def test_a_region_and_a_reference_frame():
    xy = seen()
    xy[:, 20:] = np.random.default_rng(2).uniform(0, 400, (30, 20, 2))
    tracks = made(xy)
    found = plane(tracks, PlanarConfig(region=tuple(str(i) for i in range(20)), reference=12))
    assert found.reference == 12
    assert found.residual.max() < 0.01
    assert found.points.max() == 20
    between = truth() @ np.linalg.inv(truth()[12])
    assert (
        np.abs(homography.apply(found.from_reference, xy[12, :20]) - homography.apply(between, xy[12, :20])).max()
        < 0.01
    )


def test_frames_with_too_few_points_have_no_plane_and_no_corners():
    xy = seen(points=6)
    xy[:3] = xy[-2:] = xy[10, :3] = np.nan
    xy[20] = np.linspace(0, 100, 6)[:, None]  # all on one line
    tracks = made(xy)
    found = plane(tracks)
    lost = [0, 1, 2, 10, 20, 28, 29]
    assert np.flatnonzero(np.isnan(found.residual)).tolist() == lost
    pin = corner_pin(tracks, found, FOUR)
    assert np.flatnonzero(np.isnan(pin.tracks).any(axis=(1, 2))).tolist() == lost
    assert pin.visibility[lost].max() == 0
    assert "7 frames without a plane" in found.sentences[-1]


def test_one_frame_is_a_plane_at_rest():
    found = plane(made(seen()[:1]))
    assert np.allclose(found.from_reference[0], np.eye(3), atol=1e-6)
    assert "does not move" in found.sentences[-1]


@pytest.mark.parametrize("name", ["nuke", "aftereffects", "blender", "nuke-cornerpin", "aftereffects-cornerpin"])
def test_corners_go_to_compositing_programs(name, tmp_path):
    tracks = made(seen())
    export(corner_pin(tracks, plane(tracks), FOUR), tmp_path / "pin", name)
    text = (tmp_path / "pin").read_text()
    wanted = {
        "nuke": "200.0000",
        "aftereffects": "200.0000\t150.0000",
        "blender": "upper-left",
        "nuke-cornerpin": "to4 {{curve x1 200.0000",  # the upper left corner is the fourth there
        "aftereffects-cornerpin": "200.0000\t150.0000",
    }
    assert wanted[name] in text


@pytest.mark.parametrize(
    ("xy", "config", "words"),
    [
        (seen()[:, :3], {}, "has 3 visible points of the region; a homography needs at least 4"),
        (np.full((5, 6, 2), np.nan), {}, "No point of the region is visible in any frame"),
        (np.stack([np.arange(6.0), np.arange(6.0)], 1)[None], {}, "lie on one line in frame 0"),
        (np.ones((3, 6, 2)), {}, "lie on one line"),
        (seen(), {"region": ("0", "99")}, "no point with the id '99'"),
        (seen(), {"reference": 99}, "--reference 99: the tracks hold the frames 0 to 29"),
    ],
)
def test_no_plane_is_one_sentence(xy, config, words):
    with pytest.raises(TracksError, match=words):
        plane(made(xy), PlanarConfig(**config))


def test_points_that_are_all_hidden_give_no_plane():
    with pytest.raises(TracksError, match="No point of the region is visible"):
        plane(made(seen(), visibility=np.zeros((30, 40), np.float32)))


@pytest.mark.parametrize("text", ["", "1,2 3,4 5,6", "1,2 3,4 5,6 7", "1,2 3,4 5,6 a,b", "1,2 3,4 5,6 nan,1"])
def test_corners_that_are_no_corners(text):
    with pytest.raises(ConfigError, match="give four corners as x,y"):
        parse_corners(text)
    with pytest.raises(ConfigError, match="--threshold 0"):
        PlanarConfig(threshold=0)
