"""Each augmentation moves and hides points exactly as it changes the pixels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ptrack.data.augment import (
    AugmentConfig,
    Framing,
    draw_geometry,
    erase,
    photometric,
)
from ptrack.errors import ConfigError

SOURCE = (120, 160)


def dot(x: float, y: float, size: tuple[int, int] = SOURCE) -> np.ndarray:
    """Return a black picture with a soft white dot whose centre of mass is (x, y) in raster pixels."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    bump = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 4.0**2))
    return np.repeat((255 * bump)[..., None].round().astype(np.uint8), 3, axis=2)


def centre(picture: np.ndarray) -> np.ndarray:
    """Return the centre of mass of a picture, raster pixels (x, y)."""
    weight = picture[..., 0].astype(np.float64)
    rows, columns = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
    return np.asarray([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


@pytest.mark.parametrize("seed", range(12))
def test_pixels_and_points_move_alike(seed):
    """A dot is drawn, the frame is augmented, and the dot is where the mapped point is, within 0.15 px."""
    rng = np.random.default_rng(seed)
    config = AugmentConfig(pad=10, zoom_relative=bool(seed % 2), zoom_range=(1.0, 1.4), crop_step=4)
    xy = rng.uniform((60, 45), (100, 75), (6, 1, 2))
    size = (96, 120)
    geometry = draw_geometry(config, rng, SOURCE, size, xy, np.ones((6, 1), bool))
    mapped = geometry.points(xy)
    assert mapped.dtype == np.float32
    checked = 0
    for t in range(6):
        out = geometry.image(Image.fromarray(dot(*xy[t, 0])), t)
        assert out.shape == (*size, 3)
        margin = np.minimum(mapped[t, 0], np.asarray(size[::-1]) - mapped[t, 0]).min()
        if margin > 25:  # the whole dot is in the frame
            assert np.abs(centre(out) - mapped[t, 0]).max() < 0.15
            checked += 1
    assert checked >= 2


def test_reduced_decoding_gives_the_same_place():
    geometry = Framing(np.asarray([[10.0, 5.0, 130.0, 101.0]]), (48, 60))
    full = dot(61.0, 50.0)
    half = np.asarray(Image.fromarray(full).reduce(2))
    expected = geometry.points(np.asarray([[[61.0, 50.0]]]))[0, 0]
    for picture, reduced in ((full, 1), (half, 2)):
        assert np.abs(centre(geometry.image(Image.fromarray(picture), 0, reduced)) - expected).max() < 0.1
    assert geometry.least_size(0, SOURCE) == (60, 80)


@pytest.mark.parametrize(("flip_x", "flip_y"), [(True, False), (False, True), (True, True)])
def test_flips_are_exact(flip_x, flip_y):
    picture = np.random.default_rng(0).integers(0, 256, (*SOURCE, 3), dtype=np.uint8)
    box = np.asarray([[0.0, 0.0, 160.0, 120.0]])
    out = Framing(box, SOURCE, flip_x, flip_y).image(Image.fromarray(picture), 0)
    expected = picture[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    np.testing.assert_array_equal(out, expected)
    point = Framing(box, SOURCE, flip_x, flip_y).points(np.asarray([[[30.0, 20.0]]]))[0, 0]
    assert point.tolist() == [130.0 if flip_x else 30.0, 100.0 if flip_y else 20.0]


def test_no_augmentation_is_a_plain_stretch():
    config = AugmentConfig.none()
    tracks = np.asarray([[[80.0, 60.0], [np.nan, 3.0]]])
    geometry = draw_geometry(config, np.random.default_rng(0), SOURCE, (60, 40), tracks, np.ones((1, 2), bool))
    np.testing.assert_array_equal(geometry.boxes, [[0, 0, 160, 120]])
    out = geometry.points(tracks)
    assert out[0, 0].tolist() == [20.0, 30.0]
    assert np.isnan(out[0, 1, 0])
    assert (geometry.flip_x, geometry.flip_y) == (False, False)


def test_padding_is_black_and_shifts_points():
    boxes = np.asarray([[-20.0, -10.0, 160.0, 120.0]])
    white = Image.new("RGB", (160, 120), "white")
    out = Framing(boxes, (130, 180)).image(white, 0)
    assert out[:10].max() == 0
    assert out[:, :20].max() == 0
    assert out[10:, 20:].min() == 255
    assert Framing(boxes, (130, 180)).points(np.zeros((1, 1, 2)))[0, 0].tolist() == [20.0, 10.0]


@pytest.mark.parametrize("seed", range(5))
def test_the_walk_stays_in_the_padded_frame_and_within_its_limits(seed):
    rng = np.random.default_rng(seed)
    source, size = (512, 512), (384, 512)
    config = AugmentConfig(pad=0)
    tracks = rng.uniform(0, 512, (48, 30, 2))
    boxes = draw_geometry(config, rng, source, size, tracks, np.ones((48, 30), bool)).boxes
    assert boxes[:, :2].min() >= 0
    assert boxes[:, 2:].max() <= 512 + 1e-9
    scale = np.asarray([512, 384]) / (boxes[:, 2:] - boxes[:, :2])
    # The published walk: start in 0.75..1.25, steps of at most 0.05, but never less than the crop and 10 pixels.
    assert (scale >= np.asarray([522, 394]) / 512 - 1e-9).all()
    assert (scale <= 2.0 + 1e-9).all()
    assert np.abs(np.diff(scale, axis=0)).max() <= 0.1
    assert np.abs(np.diff(scale, axis=0)).max() > 0
    corner = boxes[:, :2] * scale
    assert np.abs(np.diff(corner, axis=0)).max() < 80


def test_the_crop_starts_on_the_visible_points():
    tracks = np.full((1, 4, 2), (600.0, 300.0))
    tracks[0, 3] = (0.0, 0.0)
    visible = np.asarray([[True, True, True, False]])
    config = AugmentConfig(pad=0, zoom_range=(1.0, 1.0), flip_x=0, flip_y=0)
    geometry = draw_geometry(config, np.random.default_rng(0), (720, 1280), (200, 300), tracks, visible)
    assert np.abs(geometry.points(tracks)[0, 0] - (150, 100)).max() <= 1.0


def test_erased_rectangles_hide_exactly_the_points_under_them():
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 256, (8, 60, 80, 3), dtype=np.uint8)
    before = frames.copy()
    rows, columns = np.mgrid[:60, :80] + 0.5
    tracks = np.tile(np.stack([columns.ravel(), rows.ravel()], -1)[None], (8, 1, 1)).astype(np.float32)
    visible = np.ones(tracks.shape[:2], bool)
    erase(AugmentConfig(erase=1.0, erase_size=(2, 20)), rng, frames, tracks, visible)
    hidden = ~visible.reshape(8, 60, 80)
    changed = (frames != before).any(-1)
    assert not hidden[0].any()
    np.testing.assert_array_equal(frames[0], before[0])
    assert hidden[1:].any(axis=(1, 2)).all()
    assert not (changed & ~hidden).any()
    assert changed[hidden].mean() > 0.95  # a pixel may happen to have the mean colour
    assert 0.01 < hidden[1:].mean() < 0.6


def test_colours_change_within_their_ranges_and_differ_by_frame():
    frames = np.full((4, 8, 8, 3), (200, 100, 50), np.uint8)
    config = AugmentConfig(colour=1.0, blur=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    photometric(config, np.random.default_rng(0), frames)
    factors = frames[:, 0, 0, 0] / 200
    assert (np.abs(factors - 1) <= 0.2 + 0.01).all()
    assert len(set(factors.tolist())) == 4


def test_hue_turns_and_grey_stays():
    config = AugmentConfig(colour=1.0, blur=0.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.5)
    grey = np.full((3, 8, 8, 3), 90, np.uint8)
    photometric(config, np.random.default_rng(1), grey)
    assert np.ptp(grey) == 0
    red = np.zeros((3, 8, 8, 3), np.uint8)
    red[..., 0] = 255
    photometric(config, np.random.default_rng(1), red)
    assert (red.max(axis=-1) == 255).all()
    assert red[..., 1:].max() > 100


def test_blur_smooths_and_keeps_the_mean():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    before = frames.copy()
    photometric(AugmentConfig(colour=0.0, blur=1.0, blur_sigma=(1.0, 1.0)), rng, frames)
    assert frames.std() < 0.5 * before.std()
    assert abs(frames.mean() - before.mean()) < 1.0


def test_nothing_to_do_leaves_frames_untouched():
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    before = frames.copy()
    photometric(AugmentConfig.none(), np.random.default_rng(0), frames)
    np.testing.assert_array_equal(frames, before)


@pytest.mark.parametrize(
    "wrong", [{"erase": 1.5}, {"flip_x": -0.1}, {"erase_size": (5, 2)}, {"zoom_range": (0.0, 1.0)}]
)
def test_impossible_values_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"augment: {next(iter(wrong))}"):
        AugmentConfig(**wrong)
