"""How honest nano's probabilities are, and which visibility threshold scores best: one table from held-out clips.

ptrack convert synthetic val96.h5 --clips 12 --split val --frames 96 --seed 1
python scripts/calibrate_nano.py val96.h5 --clips 12

Points are those visible in the first frame. ECE: expected calibration error over 15 equally wide bins (Guo et al.,
arXiv 1706.04599); for confidence, "right" is within 6 px of a 256x256 picture, as in training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import ptrack
from ptrack.data.hdf5 import ClipStore
from ptrack.evaluation import metrics

THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.05), 2)
RIGHT = 6  # pixels of 256


def calibration_error(probability: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """Return the mean gap between what was promised and what came true."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    gaps = [
        abs(probability[place == b].mean() - truth[place == b].mean()) * (place == b).mean()
        for b in range(bins)
        if (place == b).any()
    ]
    return float(sum(gaps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--quality", default="default")
    parser.add_argument("--points", type=int, default=64, help="per clip")
    parser.add_argument("--clips", type=int, help="the first so many")
    arguments = parser.parse_args()
    tracker = ptrack.load("nano", checkpoint=arguments.checkpoint, quality=arguments.quality)
    clips = []
    store = ClipStore(arguments.store)
    for i in range(len(store))[: arguments.clips]:
        clip = store[i]
        at = np.flatnonzero(clip.visibility[0])[: arguments.points]
        if len(at) == 0:
            continue
        frames = np.stack([clip.frames.rgb(t) for t in range(len(clip.frames))])
        found = tracker.track(frames, np.c_[np.zeros(len(at)), clip.tracks[0, at]])
        scale = 256 / np.array(frames.shape[2:0:-1])
        clips.append((clip.tracks[:, at] * scale, clip.visibility[:, at], found.tracks * scale, found))
    right = np.concatenate([(metrics.errors(xy, truth)[1:] < RIGHT).ravel() for truth, _, xy, _ in clips])
    seen = np.concatenate([v[1:].ravel() for _, v, _, _ in clips])
    visible, confident = (
        np.concatenate([getattr(found, name)[1:].ravel() for *_, found in clips])
        for name in ("visibility", "confidence")
    )
    print(f"{len(clips)} clips, {len(seen)} point-frames")
    print(f"ECE of visibility {100 * calibration_error(visible, seen):.1f} %")
    print(f"ECE of confidence {100 * calibration_error(confident, right):.1f} %")
    print("threshold      AJ      OA")
    for threshold in THRESHOLDS:
        scores = [
            metrics.tapvid(np.zeros(v.shape[1]), truth, v, xy, found.visibility > threshold)["average_jaccard"]
            for truth, v, xy, found in clips
        ]
        print(f"{threshold:9.2f} {100 * np.mean(scores):7.2f} {100 * ((visible > threshold) == seen).mean():7.2f}")


if __name__ == "__main__":
    main()
