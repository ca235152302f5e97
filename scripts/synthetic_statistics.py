"""Measure the motion in synthetic clips: python scripts/synthetic_statistics.py --clips 100."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import torch

from ptrack.data.synthetic import SyntheticConfig, without_effects
from ptrack.data.synthetic.source import generate_with_details


def statistics(config: SyntheticConfig, start: int, count: int) -> dict[str, object]:
    """Return medians and shares over ``count`` clips; speeds in px/frame at the configured size."""
    speeds, medians, moving, seen, back, kinds = [], [], [], [], [], Counter()
    objects = []
    for index in range(start, start + count):
        batch, details = generate_with_details(config, [index])
        visible = batch.visibility[0].numpy()
        step = np.linalg.norm(np.diff(batch.tracks[0].numpy(), axis=0), axis=-1)
        both = visible[1:] & visible[:-1]
        speeds.append(step[both])
        medians.append(np.median(step[both]) if both.any() else 0.0)
        moving.append(step[both & batch.moving[0].numpy()])
        seen.append(visible.mean())
        first = visible.argmax(0)
        lost = np.cumsum(~visible & (np.arange(len(visible))[:, None] > first), 0) > 0
        back.append((visible & lost & visible.any(0)).any(0).mean())
        objects.append(float((batch.segmentation > 0).float().mean()))
        kinds.update(details.plans[0].kind.split("/"))
    everything = np.concatenate(speeds)
    return {
        "clips": count,
        "median_px_per_frame": round(float(np.median(everything)), 2),
        "median_on_moving_things": round(float(np.median(np.concatenate(moving))), 2),
        "percentiles_10_25_75_90_99": [round(float(v), 2) for v in np.percentile(everything, [10, 25, 75, 90, 99])],
        "clip_medians_10_25_50_75_90": [round(float(v), 2) for v in np.percentile(medians, [10, 25, 50, 75, 90])],
        "visible_share": round(float(np.mean(seen)), 3),
        "points_that_reappear": round(float(np.mean(back)), 3),
        "picture_share_of_things": round(float(np.mean(objects)), 3),
        "kinds": dict(kinds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--actors", help="folder with more actors")
    parser.add_argument("--textures", help="folder with more photos")
    options = parser.parse_args()
    config = SyntheticConfig(actors_dir=options.actors, textures_dir=options.textures)
    config = replace(without_effects(config), supersampling=1.0)
    torch.set_num_threads(1)
    print(json.dumps(statistics(config, options.start, options.clips), indent=1))


if __name__ == "__main__":
    main()
