import numpy as np
import pytest

from ptrack.analysis import MeasureConfig, Scale, clean, measure, scale_of_distance, summary
from ptrack.analysis.measuring import MeasureRequest, derivatives
from ptrack.errors import ConfigError, TracksError
from tests.analysis.make import FPS, made

MM = Scale(px=12.5, unit="mm")


def turning(frames=150, period=100):
    """Return three points: a hub at rest, a hand of 100 px that turns once in ``period`` frames, a straight line."""
    t = np.arange(frames)
    turn = 2 * np.pi * t / period
    hub = np.full((frames, 2), 300.0)
    hand = hub + 100 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    line = np.stack([10 + 3.0 * t, 20 + 4.0 * t], axis=1)
    return np.stack([hub, hand, line], axis=1)


def test_known_motion_is_measured_within_a_thousandth():
    config = MeasureConfig(scale=MM, distances=(("hub", "hand"),), angles=(("hand", "hub", "line"),))
    found = measure(made(turning(), ["hub", "hand", "line"]), config)
    around = 2 * np.pi * 8 / 2  # mm/s: a radius of 8 mm, one turn in 2 s
    assert found.speed[1:-1, 1] == pytest.approx(around, rel=1e-3)
    assert found.acceleration[1:-1, 1] == pytest.approx(around**2 / 8, rel=1e-3)
    assert found.speed[:, 2] == pytest.approx(5 / 12.5 * FPS, rel=1e-3)
    assert found.speed[:, 0] == pytest.approx(0, abs=1e-9)
    assert found.distance[:, 0] == pytest.approx(8, rel=1e-5)
    assert found.path[-1, 2] == pytest.approx(149 * 5 / 12.5, rel=1e-4)
    bearing = np.degrees(np.arctan2(20 - 300, 10 - 300))
    assert found.angle[0, 0] == pytest.approx(abs(bearing), abs=1e-3)


def test_noise_of_half_a_pixel_leaves_speed_within_five_per_cent_after_cleaning():
    xy = turning() + np.random.default_rng(5).normal(0, 0.5, (150, 3, 2))
    cleaned, _ = clean(made(xy, ["hub", "hand", "line"]))
    rows = {(r["quantity"], r["id"]): r for r in summary(measure(cleaned, MeasureConfig(scale=MM)))}
    assert rows["speed", "line"]["mean"] == pytest.approx(20, rel=0.05)
    assert rows["speed", "hand"]["mean"] == pytest.approx(np.pi * 8, rel=0.05)


def test_uneven_times_are_used_as_they_are():
    seconds = np.cumsum(np.tile([0.02, 0.05], 30))
    xy = np.stack([100 * seconds**2, 50 * seconds], axis=1)[:, None]
    velocity, acceleration = derivatives(xy, seconds)
    assert velocity[1:-1, 0, 0] == pytest.approx(200 * seconds[1:-1])
    assert acceleration[1:-1, 0, 0] == pytest.approx(200)
    found = measure(made(xy, pts_seconds=seconds), MeasureConfig(scale=Scale(px=1, unit="px")))
    assert found.speed[1:-1, 0] == pytest.approx(np.hypot(200 * seconds[1:-1], 50), rel=1e-3)


def test_origin_and_direction():
    tracks = made(turning(), ["hub", "hand", "line"])
    up = measure(tracks, MeasureConfig(scale=MM, y_up=True)).position
    assert up[0, 0] == pytest.approx([300 / 12.5, (480 - 300) / 12.5])
    moved = measure(tracks, MeasureConfig(scale=MM, origin=(300, 290), y_up=True)).position
    assert moved[0, 0] == pytest.approx([0, -10 / 12.5])
    from_hand = measure(tracks, MeasureConfig(scale=MM, origin="hand")).position
    assert from_hand[:, 1] == pytest.approx(0)
    assert from_hand[0, 0] == pytest.approx([-8, 0])


def test_gaps_at_both_ends_and_inside():
    xy = turning()
    xy[:3] = xy[-4:] = xy[50:55] = np.nan
    found = measure(made(xy, ["hub", "hand", "line"]), MeasureConfig(scale=MM))
    known = np.isfinite(found.speed[:, 2])
    assert np.flatnonzero(known)[[0, -1]].tolist() == [3, 145]
    assert not known[50:55].any()
    assert found.speed[known, 2] == pytest.approx(20, rel=1e-3)
    assert found.path[145, 2] == pytest.approx(142 * 5 / 12.5, rel=1e-4)
    assert np.isnan(found.acceleration[[3, 49, 55, 145], 2]).all()
    assert "3 gaps of unseen frames" in " ".join(found.sentences)


def test_one_frame_has_positions_and_no_speed():
    found = measure(made(turning(1), ["hub", "hand", "line"]), MeasureConfig(scale=MM, distances=(("hub", "hand"),)))
    assert found.distance[0, 0] == pytest.approx(8)
    assert np.isnan(found.speed).all()
    assert "no speed" in found.sentences[-1]
    assert summary(found)[0]["mean"] is None


def test_occluded_points_are_measured_only_when_asked_for():
    tracks = made(turning(20), visibility=np.zeros((20, 3), np.float32))
    with pytest.raises(TracksError, match="No point is visible in any frame"):
        measure(tracks, MeasureConfig(scale=MM))
    assert np.isfinite(measure(tracks, MeasureConfig(scale=MM, occluded=True)).position).all()
    with pytest.raises(TracksError, match="No point has a position"):
        measure(made(np.full((5, 1, 2), np.nan)), MeasureConfig(scale=MM, occluded=True))


def test_times_are_never_assumed():
    tracks = made(turning(), pts_seconds=np.arange(150.0))
    tracks = made(turning(), pts_seconds=np.zeros(150)) if tracks.info.fps else tracks
    with pytest.raises(TracksError, match="no times; give .* --fps"):
        measure(tracks, MeasureConfig(scale=MM))
    slow = measure(made(turning()), MeasureConfig(scale=MM, fps=500))
    assert slow.speed[5, 2] == pytest.approx(200, rel=1e-3)
    assert "500 frames per second (--fps), in place of the times" in slow.sentences[0]
    with pytest.raises(TracksError, match="--fps 0: give"):
        measure(tracks, MeasureConfig(scale=MM, fps=0))


def test_scales():
    assert Scale.parse("12.5px/mm") == MM
    assert Scale.parse("0.08 mm/px").px == pytest.approx(12.5)
    assert Scale.parse("4px/µm").unit == "µm"
    tracks = made(turning(), ["hub", "hand", "line"])
    assert scale_of_distance(tracks, "hub", "hand", 8, "mm").px == pytest.approx(12.5, rel=1e-5)


@pytest.mark.parametrize("text", ["0px/mm", "-3px/mm", "0mm/px", "1e999px/mm"])
def test_a_scale_of_zero_is_refused(text):
    with pytest.raises(ConfigError, match="above 0"):
        Scale.parse(text)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, "Measuring needs a scale: --scale 12.5px/mm"),
        ({"scale": "px", "known": "hub,hand=8mm"}, "not both"),
        ({"scale": "12.5"}, "write pixels per unit"),
        ({"known": "hub,hand"}, "--known hub,hand: write two ids"),
        ({"known": "hub,hand=0mm"}, "above 0"),
        ({"known": "hub, hub=8mm"}, "two different ids"),
        ({"known": "hub,nose=8mm"}, "no point with the id 'nose'"),
        ({"scale": "px", "distances": ("hub,nose",)}, "no point with the id 'nose'"),
        ({"scale": "px", "distances": ("hub",)}, "--distance hub: give 2 different ids"),
        ({"scale": "px", "angles": ("hub,hand,hub",)}, "give 3 different ids"),
        ({"scale": "px", "origin": "nose"}, "--origin nose: give X,Y in pixels or the id"),
    ],
)
def test_requests_that_cannot_be_met_are_one_sentence(request_, words):
    tracks = made(turning(), ["hub", "hand", "line"])
    with pytest.raises((ConfigError, TracksError), match=words) as error:
        measure(tracks, MeasureRequest(**request_).config(tracks))
    assert "\n" not in str(error.value)
