"""How the public API is called, for the type checker: pyright reads this file in CI, tests/test_api.py runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import ptrack


def tracked(tracker: ptrack.Tracker, frames: np.ndarray, folder: Path) -> list[ptrack.Tracks]:
    """Track the same points, given in every way that works."""
    rows = np.asarray([[0, 1, 2]])
    queries = ptrack.Queries([[0, 1, 2]], ids=["paw"])
    found = [
        tracker.track(frames, [[0, 1, 2]]),
        tracker.track(frames, [(0, 1.0, 2.0)]),
        tracker.track(list(frames), rows),
        tracker.track((frame for frame in frames), queries),
        tracker.track(ptrack.open_source(frames), queries, backward=True),
    ]
    channels_first = torch.from_numpy(frames).permute(0, 3, 1, 2)
    found += [
        tracker(frames, [[0, 1, 2]]),
        tracker(channels_first / 255, torch.tensor([[0, 1, 2]])),
        tracker(channels_first[None], queries),
        tracker([Image.fromarray(frame) for frame in frames], rows),
        tracker(list(channels_first), rows),
    ]
    path: Path = ptrack.save_tracks(found[0], folder / "a.tracks.h5")
    return [*found, ptrack.load_tracks(path), ptrack.load_tracks(str(path))]


def streamed(tracker: ptrack.Tracker, frames: np.ndarray) -> np.ndarray:
    """Track one frame at a time and return the last positions, (N, 2)."""
    tracker.reset()
    ids = tracker.add([[1, 2]])
    tracker.add([[0, 1, 2]], ids=["b"])
    tracker.add(ptrack.Queries(np.zeros((0, 3))))
    for frame in frames:
        positions, visibility, confidence = tracker.step(frame)
        assert len(positions) == len(visibility) == len(confidence) == 2
    tracker.remove(ids)
    return tracker.step(None).positions


def shown(tracks: ptrack.Tracks, frames: np.ndarray, folder: Path) -> list[Path]:
    """Look at tracks and take parts of them, as in a notebook."""
    (folder / "plot.png").write_bytes(tracks.plot()._repr_png_())
    page: Path = ptrack.show(tracks, frames, max_size=None).save(folder / "page.html")
    paw: ptrack.Tracks = tracks["paw"]
    both = ptrack.Tracks.concatenate([tracks[["paw"]], tracks[np.asarray([True])]])
    positions, _, _ = paw.at(seconds=0.0)
    assert positions.shape == (1, 2)
    assert both.num_points == 2
    return [folder / "plot.png", page]
