import numpy as np
import pytest

from ptrack.analysis import CleanConfig, clean, filters
from ptrack.errors import ConfigError, TracksError
from tests.analysis.make import FPS, circling, made


def error(tracks, truth):
    return float(np.sqrt(np.nanmean(((tracks.tracks - truth) ** 2).sum(-1))))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
def test_noisy_tracks_come_nearer_to_the_truth(sigma):
    truth = circling()
    noisy = made(truth + np.random.default_rng(0).normal(0, sigma, truth.shape))
    for smooth in ("auto", "savgol", "butterworth"):
        cleaned, _ = clean(noisy, CleanConfig(smooth=smooth, cutoff=8))
        assert error(cleaned, truth) < 0.75 * error(noisy, truth), smooth


def bouncing(frames=200):
    t = np.arange(frames, dtype=float)
    return np.stack([40 + 2.5 * t, 400 - np.abs(100 * np.sin(2 * np.pi * t / 80))], axis=-1)[:, None]


@pytest.mark.parametrize("truth", [circling(), circling(period=15), bouncing(), np.full((50, 2, 2), 7.0)])
def test_clean_tracks_stay_within_a_twentieth_of_a_pixel(truth):
    tracks = made(truth)
    cleaned, report = clean(tracks)
    assert np.abs(cleaned.tracks - tracks.tracks).max() <= 0.05
    assert report.outliers == 0


@pytest.mark.parametrize("smooth", ["savgol", "butterworth"])
def test_smoothing_by_name_does_not_bend_slow_movement(smooth):
    truth = circling(period=100)
    cleaned, _ = clean(made(truth), CleanConfig(smooth=smooth, cutoff=12))
    assert np.abs(cleaned.tracks - truth)[5:-5].max() <= 0.05


def test_outliers_are_replaced_by_what_lies_around():
    truth = circling()
    wrong = truth.copy()
    planted = [(20, 0), (77, 1), (78, 1), (150, 2)]
    for t, n in planted:
        wrong[t, n] += (40, -25)
    cleaned, report = clean(made(wrong), CleanConfig(smooth="none"))
    assert report.outliers == report.filled == len(planted)
    assert np.abs(cleaned.tracks - truth).max() < 1.0
    assert all(cleaned.confidence[at] == 0 for at in planted)  # made up, not seen
    assert "4 outliers removed" in " ".join(report.sentences)


def test_gaps_are_filled_up_to_a_length_and_never_at_the_ends():
    truth = circling(60, 1)
    gappy = truth.copy()
    gappy[:4] = gappy[-6:] = gappy[10:13] = gappy[30:37] = np.nan
    tracks = made(gappy)
    cleaned, report = clean(tracks, CleanConfig(max_gap=3, smooth="none"))
    unknown = np.isnan(cleaned.tracks[:, 0, 0])
    assert np.flatnonzero(unknown).tolist() == [*range(4), *range(30, 37), *range(54, 60)]
    assert (report.filled, report.left) == (3, 7)
    assert np.abs(cleaned.tracks - truth)[10:13].max() < 0.6
    assert np.array_equal(np.isnan(gappy), np.isnan(tracks.tracks))  # the argument stays as it was
    none, _ = clean(tracks, CleanConfig(max_gap=0))
    assert np.array_equal(np.isnan(none.tracks), np.isnan(tracks.tracks))


def test_positions_of_low_confidence_are_removed():
    truth = circling(40, 1)
    tracks = made(truth, confidence=np.where(np.arange(40) % 10 == 5, 0.2, 0.9).astype(np.float32)[:, None])
    cleaned, report = clean(tracks, CleanConfig(below_confidence=0.3, max_gap=0, smooth="none"))
    assert np.flatnonzero(np.isnan(cleaned.tracks[:, 0, 0])).tolist() == [5, 15, 25, 35]
    assert report.removed == 4
    assert cleaned.visibility[5, 0] == 0


def test_butterworth_halves_the_power_at_its_cutoff_without_delay():
    t = np.arange(1000) / FPS
    wave = np.sin(2 * np.pi * 5 * t)[:, None]
    out = filters.butterworth(np.hstack([wave, wave]), FPS, cutoff=5, order=2)[200:-200, 0]
    assert out.std() * 2**0.5 == pytest.approx(2**-0.5, abs=0.002)
    assert np.argmax(np.correlate(out, wave[200:-200, 0], "full")) == len(out) - 1


def test_one_euro_rests_at_rest_and_follows_speed():
    rest = np.random.default_rng(1).normal(100, 1, (300, 2))
    seconds = np.arange(300) / FPS
    assert filters.one_euro(rest, seconds, 1.0, 0.01)[100:].std() < 0.5
    moving = np.stack([500 * seconds, 0 * seconds], axis=1)
    slow, quick = (np.abs(filters.one_euro(moving, seconds, 1.0, b) - moving)[-1, 0] for b in (0.0, 0.05))
    assert quick < slow / 5


def test_what_was_changed_is_in_words_with_units_and_in_the_tracks():
    noisy = made(circling() + np.random.default_rng(0).normal(0, 1, (200, 3, 2)))
    cleaned, report = clean(noisy, CleanConfig(smooth="butterworth", cutoff=8))
    assert "8 Hz" in report.sentences[-1]
    assert "7 frames" in report.sentences[0]
    assert cleaned.info.warnings == report.sentences
    assert noisy.info.warnings == ()
    uneven = made(circling(), pts_seconds=np.cumsum(np.tile([0.02, 0.04], 100)))
    assert "uneven" in clean(uneven, CleanConfig(smooth="butterworth"))[1].sentences[-1]


@pytest.mark.parametrize("smooth", ["auto", "butterworth", "savgol", "one-euro"])
@pytest.mark.parametrize(
    "xy", [np.full((1, 2, 2), 5.0), np.full((9, 2, 2), np.nan), np.zeros((9, 0, 2)), np.ones((2, 1, 2))]
)
def test_next_to_nothing_is_no_error(smooth, xy):
    tracks = made(xy)
    cleaned, _ = clean(tracks, CleanConfig(smooth=smooth))
    assert np.array_equal(cleaned.tracks, tracks.tracks, equal_nan=True)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"smooth": "butterwort"}, "Did you mean 'butterworth'"),
        ({"hampel": 4}, "--hampel 4: it must be 0 or odd"),
        ({"window": 6}, "--window 6: it must be odd"),
        ({"degree": 7}, "--degree 7: .* below --window"),
        ({"cutoff": 0}, "--cutoff 0: .* above 0"),
        ({"max_gap": -1}, "--max-gap -1"),
        ({"below_confidence": 2}, "--below-confidence 2"),
        ({"sigmas": float("nan")}, "--sigmas nan"),
    ],
)
def test_settings_out_of_range_are_one_sentence(values, words):
    with pytest.raises(ConfigError, match=words):
        CleanConfig(**values)


def test_a_filter_in_hz_needs_times_and_a_cutoff_below_half_the_rate():
    with pytest.raises(ConfigError, match="--cutoff 25: it must be below half of the 50 frames per second"):
        clean(made(circling()), CleanConfig(smooth="butterworth", cutoff=25))
    untimed = made(circling(), pts_seconds=np.zeros(200))
    with pytest.raises(TracksError, match="hold no times; give .* --fps"):
        clean(untimed, CleanConfig(smooth="one-euro"))
    assert "--fps" in clean(untimed, CleanConfig(smooth="one-euro", fps=100))[1].sentences[-1]
