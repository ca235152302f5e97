import numpy as np
import pytest

from ptrack.analysis import JumpConfig, find_jumps
from ptrack.errors import ConfigError
from tests.analysis.make import circling, made


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_all_planted_jumps_are_found_and_nothing_else(noise):
    random = np.random.default_rng(3)
    xy = circling(300, 20, period=60) + random.normal(0, noise, (300, 20, 2))
    planted = {(int(t), n) for n in range(20) for t in random.choice(np.arange(10, 290, 12), 3, replace=False)}
    for t, n in planted:
        turn = random.uniform(0, 2 * np.pi)
        xy[t:, n] += 15 * np.array([np.cos(turn), np.sin(turn)])
    report = find_jumps(made(xy))
    assert {(jump.frame, int(jump.id)) for jump in report.jumps} == planted
    assert all(abs(jump.px - 15) < 4 for jump in report.jumps)
    assert "60 jumps of 20 points" in report.sentences[0]


def test_first_and_last_steps_and_steps_over_gaps_count():
    xy = np.zeros((12, 3, 2)) + 2.0 * np.arange(12)[:, None, None]
    xy[1:, 0] += 30  # the first step
    xy[11, 1] += 30  # the last one
    xy[4:6, 2] = np.nan
    xy[6:, 2] += 30
    found = {(jump.id, jump.since, jump.frame, round(jump.px)) for jump in find_jumps(made(xy)).jumps}
    assert found == {("0", 0, 1, 42), ("1", 10, 11, 42), ("2", 3, 6, 42)}


def test_a_cut_is_named():
    xy = circling(50, 6)
    xy[25:] += 80
    report = find_jumps(made(xy))
    assert report.frames == {25: 6}
    assert "Most points jump in frame 25" in report.sentences[1]


def test_low_confidence_is_listed_by_runs():
    confidence = np.ones((30, 2), np.float32)
    confidence[10:15, 1] = 0.2
    report = find_jumps(made(circling(30, 2), confidence=confidence), JumpConfig(below_confidence=0.5))
    assert [(part.id, part.first, part.last, part.mean) for part in report.low] == [("1", 10, 14, 0.2)]
    assert "1 run of frames" in report.sentences[-1]


@pytest.mark.parametrize(
    "xy", [np.full((1, 2, 2), 5.0), np.full((9, 2, 2), np.nan), np.zeros((9, 0, 2)), np.ones((2, 1, 2))]
)
def test_next_to_nothing_has_no_jumps(xy):
    report = find_jumps(made(xy))
    assert report.jumps == ()
    assert (len(xy) == 1) == ("there are no steps" in report.sentences[-1])


def test_settings_out_of_range_are_one_sentence():
    for values in ({"min_px": 0}, {"sigmas": -1}, {"below_confidence": 1.5}):
        with pytest.raises(ConfigError, match="it must be"):
            JumpConfig(**values)
