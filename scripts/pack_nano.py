"""Turn a training checkpoint into the packaged weights: averaged weights, float16.

python scripts/pack_nano.py checkpoints/latest.pth
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ptrack.models.nano import weights

PACKAGED = Path(__file__).parents[1] / "ptrack" / "models" / "weights" / "nano.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, default=PACKAGED)
    arguments = parser.parse_args()
    config, state = weights.read_weights(arguments.checkpoint)
    model = weights.untrained(config)
    weights.fill(model, state, str(arguments.checkpoint))
    weights.save_weights(arguments.out, model)
    arguments.out.chmod(0o644)
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
