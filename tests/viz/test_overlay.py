"""The overlay and the drawing and colours under it."""

from __future__ import annotations

import numpy as np
import pytest

from ptrack.errors import ConfigError
from ptrack.geometry import grid_points
from ptrack.viz import colours
from ptrack.viz.draw import Canvas
from ptrack.viz.overlay import Overlay
from ptrack.viz.recent import jumps, presence
from ptrack.viz.style import OverlayStyle, overlay_style

WHITE = np.array([255, 255, 255], np.uint8)


def black(height=60, width=80):
    return np.zeros((height, width, 3), np.uint8)


def covered(rgb):
    """Share of white per pixel, (H, W) in [0, 1], of white drawn on black."""
    return rgb[..., 0] / 255.0


# ------------------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize("radius", [1.2, 2.0, 3.7, 9.25])
@pytest.mark.parametrize("xy", [(30.0, 25.0), (30.5, 25.5), (31.3, 24.8)])
def test_disc_has_its_area_and_its_place(radius, xy):
    canvas = Canvas(black())
    canvas.discs(np.array([xy]), radius, WHITE)
    share = covered(canvas.rgb)
    # A rim that falls linearly over one pixel holds pi / 12 more than the sharp disc.
    assert share.sum() == pytest.approx(np.pi * (radius**2 + 1 / 12), rel=0.06)
    ys, xs = np.mgrid[:60, :80] + 0.5  # pixel centres in raster coordinates
    assert (share * xs).sum() / share.sum() == pytest.approx(xy[0], abs=0.05)
    assert (share * ys).sum() / share.sum() == pytest.approx(xy[1], abs=0.05)


@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi / 4, 1.2, np.pi / 2])
@pytest.mark.parametrize(("length", "width"), [(4.0, 2.0), (33.3, 3.0), (30.0, 1.0)])
def test_line_has_its_area_whatever_its_direction(angle, length, width):
    start = np.array([[20.2, 15.7]])
    end = start + length * np.array([[np.cos(angle), np.sin(angle)]])
    canvas = Canvas(black())
    canvas.lines(start, end, width, WHITE)
    assert covered(canvas.rgb).sum() == pytest.approx(length * width + np.pi * (width / 2) ** 2, rel=0.08)


def test_line_thinner_than_a_pixel_is_fainter_not_broken():
    canvas = Canvas(black())
    canvas.lines(np.array([[10.0, 20.5]]), np.array([[60.0, 20.5]]), 0.4, WHITE)
    along = covered(canvas.rgb)[20, 12:58]
    assert along.min() > 0.3
    assert along.max() < 0.5


def test_ring_is_hollow():
    canvas = Canvas(black())
    canvas.rings(np.array([[30.0, 30.0]]), 10.0, 3.0, WHITE)
    share = covered(canvas.rgb)
    assert share.sum() == pytest.approx(np.pi * (10**2 - 7**2), rel=0.03)
    assert share[25:35, 25:35].max() == 0


def test_joints_and_overlaps_do_not_add_up():
    corner = np.array([[10.0, 10.0], [40.0, 30.0], [70.0, 10.0]])
    canvas = Canvas(black())
    canvas.lines(corner[:-1], corner[1:], 5.0, WHITE, 0.5)
    share = covered(canvas.rgb)
    assert share.max() == pytest.approx(0.5, abs=0.01)
    assert share[29, 39] == pytest.approx(0.5, abs=0.01)


def test_the_most_opaque_shape_wins():
    red, blue = np.array([255, 0, 0]), np.array([0, 0, 255])
    for order in ([0, 1], [1, 0]):
        canvas = Canvas(black())
        shades = np.array([red, blue], np.uint8)[order]
        canvas.discs(np.array([[30.0, 30.0]] * 2), 5.0, shades, np.array([0.9, 0.4])[order])
        assert canvas.rgb[30, 30].tolist() == [229, 0, 0] or canvas.rgb[30, 30].tolist() == [230, 0, 0]


def test_result_does_not_depend_on_how_the_work_is_cut(monkeypatch):
    rng = np.random.default_rng(0)
    start, end = rng.uniform(-20, 100, (2, 300, 2))
    shades, alpha = rng.integers(0, 256, (300, 3), dtype=np.uint8), rng.uniform(0.2, 1, 300)
    pictures = []
    for pixels in (1 << 22, 500):
        monkeypatch.setattr("ptrack.viz.draw._PIXELS", pixels)
        canvas = Canvas(black())
        canvas.lines(start, end, 3.0, shades, alpha)
        canvas.rings(start, 6.0, 2.0, shades, alpha)
        pictures.append(canvas.rgb)
    assert np.array_equal(*pictures)
    assert pictures[0].any()


def test_shapes_over_the_border_are_cut_off_and_far_ones_skipped():
    canvas = Canvas(black())
    canvas.discs(np.array([[0.0, 0.0], [80.0, 60.0], [-50.0, 3.0], [1e9, -1e9], [np.nan, 3.0]]), 6.0, WHITE)
    share = covered(canvas.rgb)
    assert share[:8, :8].sum() == pytest.approx(np.pi * 36 / 4, rel=0.03)
    assert share[-8:, -8:].sum() == pytest.approx(np.pi * 36 / 4, rel=0.03)
    assert share.sum() == pytest.approx(np.pi * 36 / 2, rel=0.03)
    canvas.lines(np.array([[-1e7, 30.0], [np.nan, 1.0]]), np.array([[-1e6, 30.0], [5.0, 5.0]]), 3.0, WHITE)
    assert np.array_equal(covered(canvas.rgb), share)


def test_nothing_to_draw():
    canvas = Canvas(black())
    none = np.zeros((0, 2))
    canvas.discs(none, 3.0, np.zeros((0, 3), np.uint8))
    canvas.lines(none, none, 3.0, np.zeros((0, 3), np.uint8))
    assert not canvas.rgb.any()


# ------------------------------------------------------------------------------------------------- colours


def test_position_colours_are_stable_distinct_and_readable():
    xy = grid_points(8, (480, 854))
    shades = colours.by_position(xy, (480, 854))
    assert shades.dtype == np.uint8
    assert np.array_equal(shades, colours.by_position(xy * 2, (960, 1708)))  # follows the place in the picture
    assert np.array_equal(shades[::-1], colours.by_position(xy[::-1], (480, 854)))
    distances = np.abs(shades[:, None].astype(int) - shades[None]).sum(-1) + 1000 * np.eye(64, dtype=int)
    assert distances.min() >= 12
    luminance = shades @ np.array([0.2126, 0.7152, 0.0722])
    assert luminance.min() > 75
    saturation = shades.max(1).astype(int) - shades.min(1)
    assert saturation.min() > 60


def test_position_colours_of_odd_places():
    shades = colours.by_position(np.array([[np.nan, 1.0], [-5.0, 900.0], [0.0, 480.0]]), (480, 854))
    assert shades[0].tolist() == [255, 255, 255]
    assert np.array_equal(shades[1], shades[2])  # outside counts as the border


def test_oklch_of_known_colours():
    # Published OKLCH values of sRGB red, green and blue.
    light, chroma, hue = [0.62796, 0.86644, 0.45201], [0.25768, 0.29483, 0.31321], [29.234, 142.495, 264.052]
    got = colours.from_oklch(np.array(light), np.array(chroma), np.radians(hue))
    assert np.abs(got.astype(int) - np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]])).max() <= 2


def test_colours_by_number_and_by_value():
    shades = colours.by_number(12)
    distances = np.abs(shades[:, None].astype(int) - shades[None]).sum(-1) + 1000 * np.eye(12, dtype=int)
    assert distances.min() > 40
    assert np.array_equal(colours.by_number(5), shades[:5])
    low, high, nothing, over = colours.by_value(np.array([0.0, 1.0, np.nan, 7.0])).astype(int)
    assert low[0] > low[2] + 100
    assert high[2] > high[0] + 100
    assert nothing.tolist() == [255, 255, 255]
    assert np.array_equal(over, high)
    assert np.array_equal(colours.by_amount(np.array([np.nan, -3.0, 0.0])), colours.by_amount(np.zeros(3)))


# Linear sRGB to what is seen without one kind of cones: Viénot, Brettel and Mollon, "Digital video colourmaps for
# checking the legibility of displays by dichromats", 1999.
_BLIND = {
    "no red": [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, -0.0], [0.00401, -0.00401, 1.0]],
    "no green": [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, -0.0], [-0.02234, 0.02234, 1.0]],
}


def _oklab(rgb, kind=None):
    """OKLab of (K, 3) uint8, as somebody with normal eyes or ``kind`` of colour blindness sees it."""
    linear = np.where(rgb / 255 <= 0.04045, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    if kind is not None:
        linear = np.clip(linear @ np.asarray(_BLIND[kind]).T, 0, 1)
    cones = np.cbrt(linear @ np.linalg.inv(colours._LMS_TO_RGB).T)
    return cones @ np.linalg.inv(colours._LAB_TO_LMS).T


@pytest.mark.parametrize("kind", [None, *_BLIND])
@pytest.mark.parametrize("scale", ["by_value", "by_amount"])
def test_scales_can_be_read_by_the_colour_blind(scale, kind):
    lab = _oklab(getattr(colours, scale)(np.linspace(0, 1, 11)), kind)
    step = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    assert step.min() > 0.02  # OKLab distance: 0.02 is just seen
    gap = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    distant = np.abs(np.subtract.outer(np.arange(11), np.arange(11))) >= 4
    assert gap[distant].min() > 0.12  # values 0.4 apart never look alike
    if scale == "by_amount":
        assert (np.diff(lab[:, 0]) > 0).all()  # lighter all the way: readable in grey


# ------------------------------------------------------------------------------------------------- overlay


def test_inputs_are_not_changed():
    frame, xy, visible = black(), np.array([[30.0, 20.0], [50.0, 40.0]], np.float32), np.array([True, False])
    frame[:] = 77
    overlay = Overlay()
    for array in (frame, xy, visible):
        array.flags.writeable = False
    out = [overlay.draw(frame, xy + np.float32(i), visible) for i in range(3)][-1]
    assert (frame == 77).all()
    assert out.shape == frame.shape
    assert out.dtype == np.uint8
    assert not np.shares_memory(out, frame)
    assert (out != 77).any()


def test_a_later_change_of_the_callers_arrays_does_not_move_the_trail():
    xy, kept = np.array([[20.0, 20.0]]), np.array([[20.0, 20.0]])
    one, two = Overlay(), Overlay()
    one.draw(black(), xy, np.array([True]))
    xy += 30
    two.draw(black(), kept, np.array([True]))
    now = np.array([[40.0, 20.0]])
    assert np.array_equal(one.draw(black(), now, np.array([True])), two.draw(black(), now, np.array([True])))


def test_visible_points_are_full_and_hidden_ones_hollow():
    style = OverlayStyle(radius=6.0, outline=False, occluded="always")
    xy = np.array([[20.0, 30.0], [60.0, 30.0]])
    out = Overlay(style).draw(black(), xy, np.array([True, False]))
    shades = colours.by_position(xy, (60, 80))
    assert np.array_equal(out[29, 19], shades[0])
    assert not out[28:32, 58:62].any()
    assert np.abs(out[30, 65].astype(int) - shades[1] * 0.75).max() < 8  # on the ring
    assert (out[:, :40].any(-1)).sum() > (out[:, 40:].any(-1)).sum()


def test_colour_stays_with_the_point():
    overlay = Overlay(OverlayStyle(trail=0, outline=False, radius=4.0))
    first = overlay.draw(black(), np.array([[10.0, 10.0]]), np.array([True]))[9, 9]
    later = overlay.draw(black(), np.array([[70.0, 50.0]]), np.array([True]))[49, 69]
    assert np.array_equal(first, later)
    other = Overlay(OverlayStyle(trail=0, outline=False, radius=4.0))
    assert not np.array_equal(other.draw(black(), np.array([[70.0, 50.0]]), np.array([True]))[49, 69], first)


def test_point_that_is_missing_at_first_gets_its_colour_where_it_appears():
    overlay = Overlay(OverlayStyle(trail=5, outline=False, radius=4.0))
    nowhere = overlay.draw(black(), np.array([[np.nan, np.nan]]), np.array([False]))
    assert not nowhere.any()
    xy = np.array([[60.0, 40.0]])
    out = overlay.draw(black(), xy, np.array([True]))
    assert np.array_equal(out[39, 59], colours.by_position(xy, (60, 80))[0])
    assert covered(out)[:, :50].sum() == 0  # no trail from nowhere


def test_trail_has_the_asked_length_and_fades():
    overlay = Overlay(OverlayStyle(trail=4, reach=None, width=3.0, radius=2.0, outline=False))
    for x in range(5, 75, 10):
        out = overlay.draw(black(), np.array([[float(x), 30.5]]), np.array([True]))
    level = out[30].astype(float).max(-1)
    assert not level[:22].any()  # 65 - 4 * 10 = 25 is the oldest place
    middles = level[[30, 40, 50, 60]]
    assert (np.diff(middles) > 20).all()
    assert level[65] > middles[-1]


def test_no_trail_and_no_fade():
    for style, lit in (
        (OverlayStyle(trail=0, radius=2.0, outline=False), False),
        (OverlayStyle(fade=0.0, reach=None), True),
    ):
        overlay = Overlay(style)
        for x in (10.0, 40.0, 70.0):
            out = overlay.draw(black(), np.array([[x, 30.5]]), np.array([True]))
        assert bool(out[30, 25].any()) is lit
        if lit:
            assert np.array_equal(out[30, 25], out[30, 55])


def _drawn(style, xs, seen=None, confidence=None):
    """The last picture of one point that moves along y = 30.5 through the places ``xs``."""
    overlay = Overlay(style)
    for i, x in enumerate(xs):
        known = None if confidence is None else np.array([confidence])
        out = overlay.draw(black(), np.array([[float(x), 30.5]]), np.array([seen is None or seen[i]]), known)
    return out


def test_a_trail_breaks_at_an_occlusion():
    level = _drawn(OverlayStyle(trail=9, width=3.0, fade=0, reach=None), (10, 20, 30, 40, 50), (1, 1, 0, 1, 1))[30]
    assert level[15].max() > 100
    assert level[45].max() > 100
    assert not level[23:37].any()


def test_a_trail_breaks_at_a_jump_and_follows_fast_motion():
    style = OverlayStyle(trail=9, width=2.0, fade=0, reach=None, radius=2.0)
    jumped = _drawn(style, (10, 11, 12, 60, 61, 62))[30]
    assert not jumped[16:54].any()
    fast = _drawn(style, (10, 22, 34, 46, 58))[30]
    assert fast[14:55].max(-1).min() > 100
    assert not _drawn(style, (10, 40, 10, 40, 10))[30, 16:34].any()  # zig-zag


def test_jumps_are_found_one_by_one_and_the_cameras_motion_is_none():
    xy = np.zeros((4, 20, 2)) + np.arange(20)[None, :, None]
    xy[2:, 3] += 80
    assert np.argwhere(jumps(xy, 480)).tolist() == [[1, 3]]
    pan = xy.copy()
    pan[2:] += 90  # all points at once, with no frame to explain it before or after
    assert np.argwhere(jumps(pan, 480)).tolist() == []
    xy[1, 7] = np.nan
    assert jumps(xy, 480)[:2, 7].tolist() == [False, False]


def test_an_occluded_point_fades_from_where_it_was_seen_and_is_gone():
    style = OverlayStyle(trail=0, radius=6.0, linger=3)
    light = [int(_drawn(style, [30] * (2 + n), [True] + [False] * (1 + n)).max()) for n in range(4)]
    assert light[0] > light[1] > light[2] > light[3] == 0
    assert _drawn(style, [30], [False]).max() == 0  # never seen
    assert presence(np.array([[True, False], [False, False]]), style).tolist() == [0.75, 0.0]
    for mode, lit in (("always", True), ("never", False)):
        out = _drawn(OverlayStyle(trail=0, occluded=mode), [30] * 40, [True] + [False] * 39)
        assert bool(out.any()) is lit


def test_an_unsure_point_is_smaller_and_paler():
    sure, unsure = (_drawn(OverlayStyle(radius=6.0), [40], confidence=c) for c in (0.9, 0.15))
    assert (unsure > 40).any(-1).sum() < 0.5 * (sure > 40).any(-1).sum()
    assert unsure.max() < 0.7 * sure.max()


def test_a_ring_is_told_from_a_disc_on_busy_ground_at_480p():
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 256, (480, 854, 3), dtype=np.uint8)
    xy = np.stack(np.meshgrid(np.arange(20, 840, 53), np.arange(15, 470, 30)), -1).reshape(-1, 2).astype(float)
    one, two = Overlay(), Overlay()
    one.draw(ground, xy, np.ones(len(xy), bool))
    discs = one.draw(ground, xy, np.ones(len(xy), bool)).astype(int)
    two.draw(ground, xy, np.ones(len(xy), bool))
    rings = two.draw(ground, xy, np.zeros(len(xy), bool)).astype(int)
    x, y = xy.astype(int).T
    shades = colours.by_position(xy, (480, 854)).astype(int)
    assert np.abs(discs[y, x] - shades).max() <= 2  # the middle of a disc is its colour
    assert (rings[y, x] == ground[y, x]).all()  # the middle of a ring is the picture
    rim = discs[y, x + 4] - ground[y, x + 4]  # darkened: most of the ground's contrast is gone around a disc
    assert discs[y, x + 4].std() < 0.6 * ground[y, x + 4].std()
    assert rim.any()


def test_long_trails_of_fast_points_stay_short_unless_asked_for():
    xs = np.arange(0, 80, 8)
    level = _drawn(OverlayStyle(width=2.0, radius=2.0), xs)[30].max(-1)
    assert level[58:68].min() > 60
    assert not level[:40].any()
    assert _drawn(overlay_style(trail=9), xs)[30].max(-1)[10:68].min() > 0


def test_the_style_of_what_was_asked():
    assert overlay_style() == OverlayStyle()
    assert overlay_style(occluded=True).occluded == "always"
    assert overlay_style(3, False, fade=0.5) == OverlayStyle(trail=3, reach=None, occluded="never", fade=0.5)


def test_memory_does_not_grow():
    overlay = Overlay(OverlayStyle(trail=3))
    for i in range(50):
        overlay.draw(black(), np.array([[i, i]], float), np.array([True]))
    assert len(overlay._past) == OverlayStyle().linger + 1


def test_points_can_be_appended_and_dropped():
    style = OverlayStyle(trail=3, outline=False, radius=3.0)
    overlay = Overlay(style)
    a, b, c = [10.0, 10.0], [40.0, 30.0], [70.0, 50.0]
    overlay.draw(black(), np.array([a]), np.array([True]))
    out = overlay.draw(black(), np.array([a, b, c]), np.array([True] * 3))
    shades = colours.by_position(np.array([a, b, c]), (60, 80))
    assert all(np.array_equal(out[int(y) - 1, int(x) - 1], s) for (x, y), s in zip((a, b, c), shades, strict=True))
    overlay.keep(np.array([2, 0]))
    out = overlay.draw(black(), np.array([c, a]), np.array([True] * 2))
    assert np.array_equal(out[49, 69], shades[2])
    assert not out[25:35, 35:45].any()
    with pytest.raises(ValueError, match="1 positions"):
        overlay.draw(black(), np.array([a]), np.array([True]))
    with pytest.raises(ValueError, match="visible"):
        overlay.draw(black(), np.array([a, b]), np.array([True]))


def test_no_points():
    frame = np.full((20, 30, 3), 9, np.uint8)
    out = Overlay().draw(frame, np.zeros((0, 2)), np.zeros(0, bool))
    assert np.array_equal(out, frame)


def test_default_sizes_follow_the_frame_and_the_number_of_points():
    style = OverlayStyle()
    width, radius = style.sizes(480, 854, 100)
    assert 2 < radius < 6
    assert style.sizes(2160, 3840, 100) == pytest.approx((width * 4.5, radius * 4.5))
    assert style.sizes(854, 480, 100) == (width, radius)
    assert style.sizes(480, 854, 10_000)[1] < radius / 2
    assert OverlayStyle(radius=7.0, width=1.5).sizes(480, 854, 10_000) == (1.5, 7.0)


def test_many_points_and_views_of_arrays():
    rng = np.random.default_rng(0)
    xy = rng.uniform(-20, 220, (10_000, 2))
    overlay = Overlay()
    frame = np.zeros((400, 400, 3), np.uint8)[::2, ::2]
    for step in range(3):
        out = overlay.draw(frame, xy + step, rng.random(10_000) > 0.5)
    assert out.any(-1).mean() > 0.3
    assert not frame.any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"trail": -1},
        {"fade": 1.5},
        {"opacity": -0.1},
        {"occluded": "sometimes"},
        {"linger": -1},
        {"reach": 0.0},
        {"radius": 0.0},
        {"width": -1.0},
    ],
)
def test_wrong_styles(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        OverlayStyle(**wrong)
