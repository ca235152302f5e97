"""TAPNext under the evaluation: the published frames and queries, and the published numbers beside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ptrack.data.sources import open_dataset
from ptrack.evaluation.protocols import find_protocol
from ptrack.evaluation.published import published
from ptrack.evaluation.resizing import resize
from ptrack.evaluation.results import table
from ptrack.evaluation.runner import evaluate
from ptrack.evaluation.subjects import EvalRequest
from ptrack.models.tapnext.weights import TapNextCheckpoint, build_model, save_checkpoint
from tests.evaluation.test_runner import DAVIS
from tests.parity.tapnext.recorded import TINY, tiny


@pytest.mark.parametrize("mode", ["first", "strided"])
def test_frames_of_the_networks_size_and_one_joint_run(mode: str, tmp_path: Path) -> None:
    checkpoint = TapNextCheckpoint(config=TINY, state=tiny(), model="tapnextpp")
    save_checkpoint(tmp_path / "w.safetensors", checkpoint)
    request = EvalRequest(
        benchmark="davis", data=DAVIS, models=("tapnextpp",), checkpoints=(tmp_path / "w.safetensors",), mode=mode,
        device="cpu", limit=1, save=tmp_path / "tracks",
    )  # fmt: skip
    report = evaluate(request)
    (file,) = (tmp_path / "tracks").glob("*.npz")
    saved = np.load(file)
    side = TINY.input_size
    source = open_dataset("tapvid-davis", DAVIS)
    clip = source.load(next(ref for ref in source.refs() if ref.name == file.stem))
    case = find_protocol("davis").case(clip, mode)
    small = np.stack([resize(clip.frames.rgb(t), (side, side), "lanczos") for t in range(case.frames)])
    queries = case.queries * np.float32([1, side / 256, side / 256])
    model = build_model(checkpoint)
    output = model(torch.from_numpy(small), torch.from_numpy(queries)).xy.numpy() * 256 / side
    later = np.arange(case.frames)[:, None] > queries[:, 0]
    assert saved["size"].tolist() == [256, 256]
    assert np.abs(saved["tracks"] - output)[later].max() < 5e-3
    if mode == "strided":
        queries[:, 0] = case.frames - 1 - queries[:, 0]
        back = model(torch.from_numpy(small[::-1].copy()), torch.from_numpy(queries)).xy.flip(0).numpy() * 256 / side
        before = np.arange(case.frames)[:, None] < case.queries[:, 0]
        assert np.abs(saved["tracks"] - back)[before].max() < 5e-3
    rows = table(report)[1]
    assert any(row[0].startswith("TAPNext++ (512x512) (published") for row in rows)


def test_published_numbers() -> None:
    davis = {model: values for (model, _), values in published("davis").items()}
    assert list(davis["TAPNext++"].values()) == [79.0, 65.6, 92.0]
    assert davis["TAPNext++ (512x512)"] == {"average_jaccard": 67.0}
    assert davis["BootsTAPNext"] == {"average_jaccard": 65.25}
