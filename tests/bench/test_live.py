import numpy as np
import pytest

from ptrack.bench import live as live_module
from ptrack.bench.beacon import age_of, mark, pictures, read_mark, stamp_of
from ptrack.bench.live import LiveBenchOptions, bench_live, to_mapping
from ptrack.errors import ConfigError


@pytest.mark.parametrize("stamp", [0, 1, 0xFFFFFFFF, 123456789])
def test_a_stamp_survives_noise_and_small_ages_survive_its_wrapping(stamp):
    rgb = pictures((96, 128))(7)
    assert read_mark(rgb) is None
    mark(rgb, stamp)
    noise = np.random.default_rng(0).integers(-40, 40, rgb.shape)
    assert read_mark((rgb + noise).clip(0, 255).astype(np.uint8)) == stamp
    assert age_of(stamp_of(1000.0), 1000.25) == pytest.approx(0.25)
    assert age_of(0xFFFFFFFF - 9, (1 << 32) * 1e-4) == pytest.approx(0.001)


def test_a_stream_is_sent_tracked_and_counted(monkeypatch):
    """The one test over a real network stream: H.264 in MPEG-TS over TCP from another process."""
    monkeypatch.setattr(live_module, "WARMUP_SECONDS", 0.5)
    options = LiveBenchOptions(model="static", points=2, rates=(30.0,), seconds=1.0, size=(96, 128))
    lines = []
    (row,) = bench_live(options, lines.append)
    assert row.sent == 75
    assert 1 < row.came <= 75  # those that came while the stream was looked at are left out
    assert 0 < row.tracked < 60  # a busy machine may drop most
    assert 0 < row.latency_ms["p50"] < 10_000
    assert row.age_ms["p50"] <= row.latency_ms["p50"]
    assert lines[0].startswith("30/s: ")
    assert to_mapping(options, [row])["rows"][0]["rate"] == 30.0


@pytest.mark.parametrize("options", [{"rates": (0.0,)}, {"size": (95, 128)}, {"size": (96, 60)}])
def test_bad_options(options):
    with pytest.raises(ConfigError):
        LiveBenchOptions(**options)
