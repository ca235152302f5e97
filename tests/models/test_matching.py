import dataclasses
import warnings

import numpy as np
import pytest
import timm
import torch

import ptrack
from ptrack.errors import CheckpointError, DeviceError, ModelError
from ptrack.models import zoo
from ptrack.models.backbones.lite0 import Lite0, packaged_sha256, packaged_weights
from ptrack.models.base import OnlineModel
from ptrack.models.devices import choose_device, choose_dtype
from ptrack.models.nano.matching import MATCHING
from ptrack.models.nano.model import Nano
from ptrack.models.zoo import BUILT_IN
from tests.fakes import moving_frames


@pytest.fixture(scope="module")
def model():
    return Nano(dataclasses.replace(MATCHING, input_size=(96, 128)), packaged_weights(), name="matching").eval()


@pytest.fixture(scope="module")
def tracker(model):
    return ptrack.Tracker(model)


def test_backbone_equals_timm_with_batch_norms():
    weights = packaged_weights()
    reference = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3)).eval()
    missing = reference.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys
    assert all(
        k.startswith(("blocks.5", "blocks.6")) or k.endswith("num_batches_tracked") for k in missing.missing_keys
    )
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for ours, theirs in zip(Lite0(weights)(x), reference(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_it_is_an_online_model(model):
    assert isinstance(model, OnlineModel)
    features = model.encode(torch.zeros(2, 48, 64, 3, dtype=torch.uint8))
    assert len(features) == 2
    assert features[0].inner.shape == (1, 24, 32, 176)
    torch.testing.assert_close(features[0].inner.norm(dim=-1), torch.ones(1, 24, 32), rtol=1e-4, atol=1e-4)


def test_points_follow_a_moving_texture(tracker):
    frames = moving_frames(12, (96, 128))
    queries = np.asarray([[0, 30, 30], [0, 60.5, 40.25], [3, 80, 60]])
    tracks = tracker.track(frames, queries)
    truth = queries[None, :, 1:] + (np.arange(12)[:, None, None] - queries[None, :, :1]) * [1, 0.5]
    error = np.linalg.norm(tracks.tracks - truth, axis=-1)
    assert np.nanmax(error) < 4  # pixels: one cell; a point that stays behind is off by 12
    assert np.nanmean(error) < 1.5
    assert tracks.visible[3:].mean() > 0.9
    assert tracks.tracks[3, 2].tolist() == [80, 60]


def test_a_point_that_is_covered_is_called_invisible(tracker):
    frames = np.repeat(moving_frames(1, (96, 128)), 6, axis=0)
    frames[3:, :, :64] = [250, 20, 10]  # wider than the search window, so that nothing similar is within reach
    tracks = tracker.track(frames, [[0, 20, 50], [0, 100, 50]])
    assert tracks.visible[:3].all()
    assert not tracks.visible[3:, 0].any()
    assert tracks.visible[:, 1].all()
    assert (tracks.confidence[3:, 0] < 0.5).all()


def test_batches_and_single_frames_agree(model):
    frames = torch.from_numpy(moving_frames(3, (96, 128)))
    together = model.encode(frames)
    for i in range(3):
        torch.testing.assert_close(together[i].map, model.encode(frames[i : i + 1])[0].map, rtol=0, atol=1e-5)


def test_order_and_company_of_points_do_not_matter(tracker):
    frames = moving_frames(6, (96, 128))
    queries = np.column_stack([np.zeros(200), np.random.default_rng(0).uniform(5, 90, (200, 2))])
    order = np.random.default_rng(1).permutation(200)
    whole, shuffled, few = (tracker.track(frames, q).tracks for q in (queries, queries[order], queries[:7]))
    np.testing.assert_allclose(whole[:, order], shuffled, atol=1e-3)
    np.testing.assert_allclose(whole[:, :7], few, atol=1e-3)


def test_streaming_equals_the_whole_clip(tracker):
    frames = moving_frames(6, (96, 128))
    whole = tracker.track(frames, [[0, 30, 30], [0, 50, 50]])
    tracker.reset()
    tracker.add([[30, 30], [50, 50]])
    for t, frame in enumerate(frames):
        if t == 3:
            tracker.remove([0])
        row = tracker.step(frame)
        np.testing.assert_allclose(row.positions[-1], whole.tracks[t, 1], atol=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (33, 47), (200, 40)])
def test_odd_and_tiny_frames(model, size):
    tracks = ptrack.Tracker(model).track(np.zeros((2, *size, 3), np.uint8), [[0, 0, 0], [0, size[1], size[0]]])
    assert np.isfinite(tracks.tracks).all()
    assert tracks.tracks[0].tolist() == [[0, 0], [size[1], size[0]]]


def test_load_by_name():
    tracker = ptrack.load("matching", device="cpu")
    assert tracker.model.name == "matching"
    assert tracker.weights_sha256 == packaged_sha256()
    assert next(tracker.model.parameters()).dtype == torch.float32
    assert {"matching"} <= set(BUILT_IN)


def test_load_errors(tmp_path):
    with pytest.raises(ModelError, match="There is no model 'matchin'. Did you mean 'matching'"):
        ptrack.load("matchin")
    with pytest.raises(ModelError, match="has no option 'memory'"):
        ptrack.load("matching", memory=3)
    (tmp_path / "w.pt").write_bytes(b"")
    with pytest.raises(ModelError, match="takes no checkpoint"):
        ptrack.load("matching", checkpoint=tmp_path / "w.pt")
    with pytest.raises((ModelError, CheckpointError)):
        ptrack.load("matching", checkpoint=tmp_path / "none.pt")


def test_devices():
    assert choose_device("cpu").device.type == "cpu"
    assert choose_device("auto").reason
    with pytest.raises(DeviceError, match="Did you mean 'cuda'"):
        choose_device("cud")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="'cuda' is not available"):
            choose_device("cuda")
        assert choose_device("auto").device.type in ("cpu", "mps")
    with pytest.raises(DeviceError, match="not available"):
        choose_device("cuda:99")
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32
    with pytest.raises(DeviceError, match="pays on a GPU only"):
        choose_dtype("float16", torch.device("cpu"))
    with pytest.raises(DeviceError, match="Did you mean 'float16'"):
        choose_dtype("float1", torch.device("cpu"))


def test_bfloat16_on_a_cpu_is_done_and_its_cost_is_named(monkeypatch):
    monkeypatch.setattr("ptrack.models.devices._multiplies_bfloat16", lambda: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
    monkeypatch.setattr("ptrack.models.devices._multiplies_bfloat16", lambda: False)
    with pytest.warns(UserWarning, match="slower than float32 on this processor"):
        assert choose_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16


def test_models_that_know_one_number_type_say_so():
    with pytest.raises(ModelError, match="'static' computes in float32 only"):
        ptrack.load("static", device="cpu", dtype=torch.float16)
    assert zoo.build("static", device="cpu").options == {"dtype": "float32"}
