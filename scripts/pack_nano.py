"""Turn trained weights into the packaged ones: averaged weights, float16.

python scripts/pack_nano.py checkpoints/latest.pth
python scripts/pack_nano.py OUT/track.safetensors --share 0.5

``--share`` mixes them with the weights that are packaged now, from which they were trained: a fine-tuned network does
better on pictures unlike those of its training when it keeps half of what it was (arXiv 2109.01903, section 4).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ptrack.models.nano import weights

PACKAGED = Path(__file__).parents[1] / "ptrack" / "models" / "weights" / "nano.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of the checkpoint in the mixture, 0..1")
    parser.add_argument("--out", type=Path, default=PACKAGED)
    arguments = parser.parse_args()
    config, state = weights.read_weights(arguments.checkpoint)
    model = weights.untrained(config)
    state = weights.whole(model, state)
    if arguments.share < 1:
        old = weights.whole(model, weights.packaged()[1])
        state = {name: torch.lerp(old[name], value, arguments.share) for name, value in state.items()}
    weights.fill(model, state, str(arguments.checkpoint))
    weights.save_weights(arguments.out, model)
    arguments.out.chmod(0o644)
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
