"""Fit what nano starts from: the principal components of the frozen taps on rendered clips.

python scripts/fit_nano_components.py train.h5 --out ptrack/models/weights/nano_init.safetensors
"""

from __future__ import annotations

import argparse

import torch
from safetensors.torch import save_file

from ptrack.data.hdf5 import ClipStore
from ptrack.models.backbones.lite0 import TAPS, packaged_weights
from ptrack.models.nano.config import NanoConfig
from ptrack.models.nano.model import Nano

KEPT = 128  # components; 95 % of the energy


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", help="of ptrack convert synthetic")
    parser.add_argument("--clips", type=int, default=150)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    taps = sum(TAPS.values())
    config = NanoConfig(input_size=(256, 256), dim=taps, centre=False)
    model = Nano(config, packaged_weights(), torch.eye(taps)).eval()
    energy = torch.zeros(taps, taps, dtype=torch.float64)
    store = ClipStore(arguments.store)
    for i in range(min(arguments.clips, len(store))):
        clip = store[i]
        frames = torch.stack([torch.from_numpy(clip.frames.rgb(t)) for t in (0, len(clip.frames) // 2)])
        cells = model.features(frames).inner.flatten(1, 2).double()
        cells = (cells - cells.mean(1, keepdim=True)).flatten(0, 1)
        energy += cells.T @ cells
    values, vectors = torch.linalg.eigh(energy)
    print(f"{KEPT} components hold {float(values[-KEPT:].sum() / values.sum()):.3f} of the energy")
    save_file({"components": vectors.flip(1).T[:KEPT].half().contiguous()}, arguments.out)


if __name__ == "__main__":
    main()
