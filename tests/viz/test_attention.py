from __future__ import annotations

import numpy as np
import pytest
import torch

from ptrack.errors import ModelError, QueryError
from ptrack.models.baselines import StaticModel
from ptrack.models.offline import PointTransformer, StreamingTransformer, TransformerConfig
from ptrack.models.online.config import OnlineConfig
from ptrack.models.online.model import TrackOn2
from ptrack.tracking.tracker import Tracker
from ptrack.viz import attention
from tests.viz.scenes import H, W, make_tracks, textured_frame

T = 6

pytestmark = pytest.mark.usefixtures("one_thread")


def _frames():
    return [(t, textured_frame(t)) for t in range(T)]


@pytest.fixture(scope="module")
def online():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = OnlineConfig(backbone="resnet18", input_size=(64, 96), dim=32, memory=3, candidates=4, hidden=32)
        return TrackOn2(config).eval()


@pytest.fixture(scope="module")
def transformer():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = TransformerConfig(norm="group", input_size=(64, 64), levels=3, window=4, dim=32, heads=4, layers=2,
                                   iterations=2, radius=2)  # fmt: skip
        return PointTransformer(config).eval()


def test_the_correlation_is_the_one_that_decides(online):
    tracks = make_tracks(T, 4)
    seen = list(attention.attention_of(online, _frames(), tracks, "p3"))
    assert [s.row for s in seen] == list(range(T))
    tracker = Tracker(online, support_grid=0)
    tracker.reset((H, W))
    tracker.add(tracks.queries)
    for (_, rgb), sample in zip(_frames(), seen, strict=True):
        xy = tracker.step(rgb).positions[3]
        if sample.row:  # on its own frame the tracker returns the query
            np.testing.assert_allclose(sample.xy, xy, atol=1e-3)
        assert sample.heat.shape == (16, 24)
        assert (sample.heat.min(), sample.heat.max()) == (0, 1)
        assert sample.candidates.shape == (4, 2)
        best = np.unravel_index(sample.heat.argmax(), sample.heat.shape)
        assert np.linalg.norm((np.asarray(best[::-1]) + 0.5) * 4 - sample.xy) < 40


def test_points_that_start_later_are_seen_from_then_on(online, transformer):
    for model in (online, transformer):
        assert [s.row for s in attention.attention_of(model, _frames(), make_tracks(T, 4), "p2")] == [3, 4, 5]


def test_attention_of_the_transformer_sums_to_one(transformer):
    tracks = make_tracks(T, 4)
    seen = list(attention.attention_of(StreamingTransformer(transformer), _frames(), tracks, "p0"))
    for sample in seen:
        first, share = sample.frames
        assert first <= sample.row < first + len(share)
        assert share.sum() == pytest.approx(1, abs=1e-4)
        assert sample.points.sum() == pytest.approx(1, abs=1e-4)
    assert seen[0].points[2] == 0  # a point that does not exist yet is not listened to


def test_pictures(online, transformer):
    tracks = make_tracks(T, 4)
    for model in (online, transformer):
        sample = list(attention.attention_of(model, _frames(), tracks, "p0"))[-1]
        frame = np.full((H, W, 3), 90, np.uint8)
        picture = attention.paint_attention(sample, tracks, frame)
        assert picture.shape == frame.shape
        assert (frame == 90).all()
        assert np.abs(picture.astype(int) - 90).max() > 50


def test_what_cannot_be_shown(online, transformer, monkeypatch):
    with pytest.raises(QueryError, match="no point with the id 'x'"):
        attention.attention_of(online, _frames(), make_tracks(T, 4), "x")
    with pytest.raises(ModelError, match="'static' has no attention to show"):
        attention.attention_of(StaticModel(), _frames(), make_tracks(T, 4), "p0")
    monkeypatch.setattr(attention, "MAX_FRAMES", 3)
    with pytest.raises(ModelError, match="at most 3 frames"):
        list(attention.attention_of(transformer, _frames(), make_tracks(T, 4), "p0"))
