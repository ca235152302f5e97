"""Time the synthetic world on one core: python scripts/synthetic_throughput.py --clips 24."""

from __future__ import annotations

import argparse
import time

import torch

from ptrack.data.synthetic import SyntheticConfig, generate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--supersampling", type=float, default=SyntheticConfig().supersampling)
    parser.add_argument("--actors", help="folder with more actors")
    parser.add_argument("--textures", help="folder with more photos")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = SyntheticConfig(
        actors_dir=options.actors, textures_dir=options.textures, supersampling=options.supersampling
    )
    generate(config, range(1_000_000, 1_000_000 + options.batch), options.device).frames.cpu()
    begin = time.perf_counter()
    for first in range(options.start, options.start + options.clips, options.batch):
        generate(config, range(first, first + options.batch), options.device).frames.cpu()
    print(
        f"{options.clips / (time.perf_counter() - begin):.2f} clips/s of {config.frames}x{config.height}x{config.width}"
    )


if __name__ == "__main__":
    main()
