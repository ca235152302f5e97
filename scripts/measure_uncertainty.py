"""How far nano's positions lie from people's labels, by confidence: the table of ptrack/analysis/uncertainty.py.

python scripts/measure_uncertainty.py FOLDER

FOLDER holds CLIP.mp4 and CLIP.npz: queries (N, 3) rows (t, x, y), tracks (N, T, 2), occluded (N, T), in pixels of the
clip (the first 32 frames of ten TAP-Vid DAVIS clips were used). Forwards from every query, at the three qualities;
frames after the query count in which the point is labelled visible and called visible. Errors are per axis, as shares
of the frame's width and height. The last lines test the table: each clip by the table of the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import ptrack
from ptrack.analysis.uncertainty import COVERED

EDGES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)  # lower ends of the bins of confidence
QUALITIES = ("fast", "default", "best")


def errors(tracker: ptrack.Tracker, clip: Path) -> np.ndarray:
    """Return (K, 3) rows (confidence, error in x, in y) of a clip, errors as shares of its width and height."""
    with np.load(clip.with_suffix(".npz")) as labels:
        queries, truth, hidden = labels["queries"], labels["tracks"], labels["occluded"]
    found = tracker.track(str(clip), queries)
    t = np.arange(found.num_frames)[:, None]
    counts = (t > queries[:, 0]) & ~hidden.T & found.visible
    off = np.abs(found.tracks - truth.transpose(1, 0, 2)) / (found.info.width, found.info.height)
    return np.column_stack([found.confidence[counts], off[counts]])


def bins(rows: np.ndarray) -> np.ndarray:
    """Return (K,) which bin each row belongs to."""
    return np.searchsorted(EDGES, rows[:, 0], side="right") - 1


def table(rows: np.ndarray) -> np.ndarray:
    """Return (B, 2): within which shares of width and height COVERED of a bin's errors lie; falling with confidence."""
    place = bins(rows)
    found = [np.quantile(rows[place == b, 1:], COVERED, axis=0) for b in range(len(EDGES))]
    return np.maximum.accumulate(np.asarray(found)[::-1])[::-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    clips = sorted(p.with_suffix(".mp4") for p in parser.parse_args().folder.glob("*.npz"))
    parts: list[list[np.ndarray]] = [[] for _ in clips]
    for quality in QUALITIES:
        tracker = ptrack.load("nano", device="cpu", quality=quality)
        for part, clip in zip(parts, clips, strict=True):
            part.append(errors(tracker, clip))
    by_clip = [np.concatenate(part) for part in parts]
    rows = np.concatenate(by_clip)
    print(f"{len(clips)} clips, {len(rows)} positions; weights {tracker.weights_sha256}")
    for b, (x, y) in enumerate(table(rows)):
        print(f"({EDGES[b]:.2f}, {x:.5f}, {y:.5f}),  # {(bins(rows) == b).sum()} positions")
    for i, (clip, mine) in enumerate(zip(clips, by_clip, strict=True)):
        others = table(np.concatenate(by_clip[:i] + by_clip[i + 1 :]))
        share = 100 * (mine[:, 1:] <= others[bins(mine)]).mean()
        print(f"{clip.stem:16s} {share:5.1f} % within the table of the other clips; {len(mine)} positions")


if __name__ == "__main__":
    main()
