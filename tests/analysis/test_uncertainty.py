"""Uncertainty by confidence: of the calibrated model and weights only, and only where there is something to tell."""

import hashlib
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest

from ptrack.analysis import MeasureConfig, Scale, measure, uncertainty
from ptrack.analysis.measuring import frame_columns, frame_rows
from ptrack.analysis.plots import plot_measures
from ptrack.models.nano.weights import SHIPPED
from tests.analysis.make import circling, made


def tracked(**info):
    """Three points in 640 x 480; confidence 0.97, 0.97, 0.65; point 1 is occluded in frame 5, filled in frame 6."""
    tracks = made(circling(10, 3), ["nose", "tail", "ear"])
    confidence = np.tile(np.float32([0.97, 0.97, 0.65]), (10, 1))
    confidence[6, 1] = 0
    visibility = np.ones_like(confidence)
    visibility[5, 1] = 0
    info = {"model": "nano", "weights_sha256": uncertainty.NANO.weights_sha256, **info}
    return replace(tracks, confidence=confidence, visibility=visibility, info=replace(tracks.info, **info))


def test_the_table_belongs_to_the_packaged_weights():
    weights = (resources.files("ptrack.models") / "weights" / SHIPPED).read_bytes()
    wanted = hashlib.sha256(weights).hexdigest()
    assert uncertainty.NANO.weights_sha256 == wanted, "measure it anew: scripts/measure_uncertainty.py"
    rows = np.asarray(uncertainty.NANO.rows)
    assert (np.diff(rows[:, 0]) > 0).all()
    assert (np.diff(rows[:, 1:], axis=0) <= 0).all()  # surer is not worse
    assert rows[0, 0] == 0


def test_surer_positions_have_the_smaller_deviation_and_some_have_none():
    sd = uncertainty.position_sd(tracked())
    rows = np.asarray(uncertainty.NANO.rows)
    assert sd[3, 0] == pytest.approx(rows[-1, 1:] * (640, 480))
    assert sd[3, 2] == pytest.approx(rows[3, 1:] * (640, 480))
    empty = {(0, 0), (0, 1), (0, 2), (5, 1), (6, 1)}  # clicked in frame 0, occluded, filled
    assert {tuple(at) for at in np.argwhere(np.isnan(sd[..., 0])).tolist()} == empty


def test_measures_have_columns_in_units_and_a_sentence(tmp_path):
    found = measure(tracked(), MeasureConfig(scale=Scale(px=2, unit="mm"), distances=(("nose", "tail"),)))
    columns = frame_columns(found)
    assert columns[-2:] == ["x_sd_mm", "y_sd_mm"]
    rows = [dict(zip(columns, row, strict=True)) for row in frame_rows(found)]
    assert rows[4]["x_sd_mm"] == pytest.approx(uncertainty.NANO.rows[-1][1] * 640 / 2)
    assert (rows[3]["id"], rows[3]["x_sd_mm"]) == ("nose-tail", None)
    assert "68 % of nano's errors are smaller" in found.sentences[2]
    assert "median 0.419 and 0.439 mm" in found.sentences[2]
    plot_measures(found, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text().count("FillBetweenPolyCollection") == 6


def test_an_origin_that_moves_adds_its_own_deviation():
    still = measure(tracked(), MeasureConfig(scale=Scale(px=1, unit="px"))).position_sd
    moving = measure(tracked(), MeasureConfig(scale=Scale(px=1, unit="px"), origin="nose")).position_sd
    assert moving[3, 2] == pytest.approx(np.hypot(still[3, 2], still[3, 0]))
    assert np.isnan(moving[:, 0]).all()


@pytest.mark.parametrize("info", [{"model": "lk"}, {"weights_sha256": "0" * 64}, {"model": ""}, {"width": 0}])
def test_other_models_and_weights_have_none_and_it_is_said(info):
    tracks = tracked(**info)
    assert uncertainty.position_sd(tracks) is None
    found = measure(tracks, MeasureConfig(scale=Scale(px=1, unit="px")))
    assert found.position_sd is None
    assert not [c for c in frame_columns(found) if "sd" in c]
    assert "No uncertainty" in found.sentences[1]
