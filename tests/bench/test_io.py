"""The reading measurement compares equal clips and leaves nothing behind."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ptrack.bench.io import (
    FolderDataset,
    IoOptions,
    IoResult,
    bench_io,
    make_video,
    small,
)
from ptrack.data.convert import ConvertOptions, convert
from ptrack.data.loading.dataset import ClipDataset
from ptrack.data.loading.sampling import LoaderConfig
from ptrack.data.samples import SampleKey
from ptrack.data.sources import open_dataset

OPTIONS = small(IoOptions(workers=0))


def test_a_small_measurement(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lines: list[str] = []
    result = bench_io(OPTIONS, lines.append)
    assert set(result.clips_per_second) == {"store", "folder", "folder_reduced"}
    assert min(result.clips_per_second.values()) > 0
    assert all(len(r) == OPTIONS.rounds for r in result.rounds.values())
    assert result.store_megabytes > 0.5 * result.folder_megabytes > 0
    assert result.as_dict()["speedup"] == result.speedup
    assert len(lines) == 2 + 3 * (OPTIONS.rounds + 1)
    assert list(tmp_path.iterdir()) == []


def test_the_ratio_is_taken_round_by_round():
    rounds = {"store": [20.0, 2.0, 30.0], "folder": [10.0, 1.0, 10.0], "folder_reduced": [20.0, 2.0, 20.0]}
    result = IoResult({}, rounds, 1.0, 1.0, OPTIONS)
    assert result.speedup == 2.0
    assert result.ratio("store", "folder_reduced") == 1.0


@pytest.mark.parametrize("reduced", [False, True])
def test_the_folder_reader_gives_what_the_store_gives(tmp_path, reduced):
    make_video(tmp_path / "in" / "v", OPTIONS, seed=1)
    sample = FolderDataset(tmp_path / "in", OPTIONS, reduced)[SampleKey(0, 0)]
    clip = next(iter(open_dataset("point-odyssey", tmp_path / "in")))
    rows = sample.frame_index.numpy()
    n = sample.tracks.shape[1]
    assert sample.visibility[0].all()
    assert torch.equal(sample.query_xy, sample.tracks[0])
    scale = np.asarray([OPTIONS.size / OPTIONS.width, OPTIONS.size / OPTIONS.height], np.float32)
    start = (clip.tracks * scale)[rows[0]]
    for k in range(n):
        assert np.abs(start - sample.tracks[0, k].numpy()).sum(-1).min() < 1e-4
    bright = sample.frames.float().mean() - clip.video()[rows].mean()
    assert abs(float(bright)) < 2


def resident_megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def test_memory_does_not_grow(tmp_path):
    for v in range(3):
        make_video(tmp_path / "in" / f"v{v}", OPTIONS, seed=v)
    convert(open_dataset("point-odyssey", tmp_path / "in"), tmp_path / "s.h5", ConvertOptions())
    config = LoaderConfig(size=(96, 128), num_frames=8, num_points=16)
    data = ClipDataset(tmp_path / "s.h5", config)
    found = {}
    for number in range(1, 201):
        data[SampleKey(number % len(data), number)]
        if number in (50, 200):
            found[number] = resident_megabytes()
    assert found[200] - found[50] < 15  # a leak of one clip's frames a sample would be 44 MB
