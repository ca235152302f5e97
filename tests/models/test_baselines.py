"""The baselines without learning: exact on motions that can be computed by hand."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

import ptrack
from ptrack.errors import ConfigError, ModelError
from ptrack.models.baselines import LucasKanadeConfig


def texture(height: int, width: int) -> np.ndarray:
    """A smooth random picture that optical flow can follow."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (height // 8 + 2, width // 8 + 2, 3))
    fine = coarse.repeat(8, 0).repeat(8, 1)
    for _ in range(3):  # a box filter three times is nearly a Gaussian
        for axis in (0, 1):
            fine = sum(np.roll(fine, s, axis) for s in range(-4, 5)) / 9
    return fine[:height, :width]


def panning(frames: int, dx: int, dy: int, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    big = texture(size[0] + 80, size[1] + 80)
    cut = [big[40 - dy * t : 40 - dy * t + size[0], 40 - dx * t : 40 - dx * t + size[1]] for t in range(frames)]
    return np.stack(cut).astype(np.uint8)


def test_static_does_not_move() -> None:
    tracker = ptrack.load("static", device="cpu")
    tracks = tracker.track(panning(4, 3, 1), np.asarray([[0, 10.25, 20.5], [2, 3, 4]], np.float32))
    np.testing.assert_array_equal(tracks.tracks[:, 0], np.tile([10.25, 20.5], (4, 1)))
    assert np.isnan(tracks.tracks[:2, 1]).all()
    np.testing.assert_array_equal(tracks.visible[:, 1], [False, False, True, True])


def test_lucas_kanade_follows_a_pan() -> None:
    pytest.importorskip("cv2")
    tracker = ptrack.load("lk", device="cpu")
    queries = np.asarray([[0, 40.3, 40.7], [0, 64.5, 50.5], [1, 70, 30]], np.float32)
    tracks = tracker.track(panning(6, 3, -2), queries)
    for n, (start, x, y) in enumerate(queries):
        t = np.arange(int(start), 6)
        expected = np.column_stack([x + 3 * (t - start), y - 2 * (t - start)])
        np.testing.assert_allclose(tracks.tracks[int(start) :, n], expected, atol=0.1)
    assert tracks.visible[1:].all()


def test_lucas_kanade_hides_points_that_leave_the_frame_or_are_covered() -> None:
    pytest.importorskip("cv2")
    frames = panning(6, 6, 0)
    covered = frames.copy()
    covered[4:, 20:80, 40:128] = np.random.default_rng(1).integers(0, 255, (60, 88, 3), dtype=np.uint8)
    tracker = ptrack.load("lk", device="cpu")
    tracks = tracker.track(covered, np.asarray([[0, 115, 50], [0, 50, 50]], np.float32))
    assert not tracks.visible[4].any()  # one has left, the other is covered
    assert tracks.visible[3, 1]
    assert np.isfinite(tracks.tracks).all()


def test_lucas_kanade_keeps_and_removes_points() -> None:
    pytest.importorskip("cv2")
    frames = panning(3, 3, 0)
    tracker = ptrack.load("lk", device="cpu")
    tracker.reset()
    tracker.add([[40, 40], [50, 50], [60, 45]])
    tracker.step(frames[0])
    tracker.remove(["1"])
    xy, visible, _ = tracker.step(frames[1])
    np.testing.assert_allclose(xy, [[43, 40], [63, 45]], atol=0.1)
    assert (visible == 1).all()


def test_a_frame_of_another_size_keeps_the_points() -> None:
    pytest.importorskip("cv2")
    import torch

    from ptrack.models.baselines import LucasKanadeModel

    model = LucasKanadeModel()
    state = model.add(model.init_state(), model.encode(torch.zeros(1, 40, 40, 3).byte())[0], torch.tensor([[5.0, 6.0]]))
    state, _ = model.step(state, np.zeros((40, 40), np.uint8))
    _, out = model.step(state, np.zeros((20, 20), np.uint8))
    assert out.xy.tolist() == [[5, 6]]


def test_without_opencv_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "cv2":
            raise ImportError("No module named 'cv2'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModelError, match=r"pip install 'pointtrack\[bench\]'"):
        ptrack.load("lk", device="cpu")


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="window >= 3"):
        LucasKanadeConfig(window=1)
