"""Several sizes of nano at once."""

import dataclasses

import numpy as np
import pytest
import torch

import ptrack
from ptrack.models.base import OnlineModel, StepOutput
from ptrack.models.nano import weights
from ptrack.models.nano.config import NanoConfig
from ptrack.models.nano.consensus import Consensus, agreed
from ptrack.tracking.snapshot import pack, unpack
from tests.fakes import moving_frames

SMALL = NanoConfig(input_size=(64, 80), dim=24, radius=4, wide_radius=6, hidden=16, token=8, memory=3)


@pytest.fixture(scope="module")
def model() -> Consensus:
    sizes = ((64, 80), (96, 128))
    return Consensus([weights.untrained(dataclasses.replace(SMALL, input_size=size)).eval() for size in sizes])


def output(xy, confidence, visibility=0.5) -> StepOutput:
    n = len(xy)
    return StepOutput(torch.tensor(xy), torch.full((n,), visibility), torch.tensor(confidence))


def test_positions_that_agree_are_averaged_and_of_others_the_surest_is_taken():
    one = output([[100.0, 50.0], [100.0, 50.0], [100.0, 50.0]], [0.75, 0.2, 0.9], 0.8)
    two = output([[102.0, 50.0], [300.0, 50.0], [300.0, 50.0]], [0.35, 0.6, 0.6], 0.4)
    found = agreed([one, two], (480, 854))
    assert found.xy[:, 0].tolist() == pytest.approx([100 + 2 * 0.4 / 1.2, 300, 100])
    assert found.visibility.tolist() == pytest.approx([0.6, (0.4 + 0.6) / 2, (0.8 + 0.6) / 2])
    assert found.confidence.tolist() == pytest.approx([0.55, 0.4, 0.75])


def test_two_that_agree_outweigh_one_that_is_surer():
    outputs = [output([[x, 50.0]], [c]) for x, c in ((100.0, 0.5), (101.0, 0.5), (300.0, 0.8))]
    assert float(agreed(outputs, (480, 854)).xy[0, 0]) == pytest.approx(100.5)


def test_nobody_is_sure():
    assert agreed([output([[3.0, 4.0]], [0.0]), output([[3.0, 4.0]], [0.0])], (48, 64)).xy.tolist() == [[3.0, 4.0]]


def test_company_order_and_streaming_do_not_matter(model):
    assert isinstance(model, OnlineModel)
    frames = moving_frames(5, (64, 80))
    queries = np.array([[0, 20.0, 20.0], [0, 50.0, 30.0], [2, 33.0, 41.0]])
    whole = ptrack.Tracker(model).track(frames, queries)
    turned = ptrack.Tracker(model).track(frames, queries[::-1].copy())
    np.testing.assert_allclose(whole.tracks, turned.tracks[:, ::-1], atol=1e-3)
    alone = ptrack.Tracker(model).track(frames, queries[1:2])
    np.testing.assert_allclose(whole.tracks[:, 1:2], alone.tracks, atol=1e-3)
    tracker = ptrack.Tracker(model)
    tracker.add([[20.0, 20.0], [50.0, 30.0]])
    for at, frame in enumerate(frames[:3]):
        positions = tracker.step(frame).positions
        np.testing.assert_allclose(positions, whole.tracks[at, :2], atol=1e-3)
    tracker.remove([tracker.ids[0]])
    np.testing.assert_allclose(tracker.step(frames[3]).positions, whole.tracks[3, 1:2], atol=1e-3)


def test_its_state_is_saved_and_restored(model):
    frames = [model.encode(torch.from_numpy(f)[None])[0] for f in moving_frames(3, (64, 80))]
    state, _ = model.step(model.add(model.init_state(), frames[0], torch.tensor([[30.0, 30.0]])), frames[0])
    again = unpack(pack(state), torch.device("cpu"))
    assert torch.equal(model.step(again, frames[1])[1].xy, model.step(state, frames[1])[1].xy)


def test_best_is_several_sizes_of_the_same_weights():
    model = ptrack.load("nano", device="cpu", quality="best").model
    assert isinstance(model, Consensus)
    assert tuple(nano.config.input_size for nano in model.nanos) == weights.QUALITIES["best"].sizes
    first, *others = (nano.state_dict() for nano in model.nanos)
    assert len(others) == 2
    assert all(torch.equal(value, other[name]) for other in others for name, value in first.items())


def test_frames_are_encoded_ahead_with_as_many_points_as_keep_both_halves_of_the_threads_busy():
    """Measured: at ``fast`` up to about 144, at the default from 100 to 400, at ``best`` from 256 on."""
    ranges = {
        quality: ptrack.load("nano", quality=quality).model.encodes_ahead for quality in ("fast", "default", "best")
    }
    assert {36, 100} < set(ranges["fast"])
    assert {144, 256, 324} < set(ranges["default"])
    assert {256, 400} < set(ranges["best"])
    assert not {256, 576} & set(ranges["fast"])
    assert not {64, 576} & set(ranges["default"])
    assert not {100, 1024} & set(ranges["best"])
