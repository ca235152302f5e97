"""How much faster a step of TAPNext is than the same arithmetic written down plainly, on this CPU.

Run from the repository's root: ``python -m scripts.tapnext_ratio --points 256``. The network has its full size and
random weights, on which the time does not depend. In every round each way tracks the next frame of the same stream, in
turns, so that what else the machine does meets all alike; the processor time of the fastest and of the median round
counts. The plain ways are ``tests/parity/tapnext/plain.py``: attention by its formula, and by PyTorch's fused operator.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from ptrack.bench.speed import spread_points
from ptrack.models import zoo
from tests.parity.tapnext.plain import Plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tapnextpp")
    parser.add_argument("--points", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = zoo.build(options.model, device="cpu", untrained=True).model
    side, count = model.config.input_size, options.points
    xy = torch.from_numpy(spread_points(count, (side, side)))
    rows = torch.cat([torch.zeros(count, 1), xy * model.config.raster / side], dim=1)
    frame = torch.randint(0, 256, (side, side, 3), dtype=torch.uint8)
    plain = {
        name: Plain(dict(model.state_dict()), heads=model.config.heads, input_size=side, fused=fused)
        for name, fused in (("plain", False), ("plain, fused attention", True))
    }
    state = model.add(model.init_state(), model.encode(frame[None])[0], xy)
    seconds: dict[str, list[float]] = {}

    def timed(name: str, start: float) -> None:
        seconds.setdefault(name, []).append(time.process_time() - start)

    for _ in range(options.rounds + 1):
        start = time.process_time()
        state, output = model.step(state, model.encode(frame[None])[0])
        timed("ptrack", start)
        for name, network in plain.items():
            start = time.process_time()
            found, _, _ = network.frame(frame, rows)
            timed(name, start)
            distance = (found * side / model.config.raster - output.xy).abs().max()
            assert distance < 0.05 * side / model.config.raster, f"{name} is {distance} px off"
    for name, times in seconds.items():
        fast, median = min(times[1:]), float(np.median(times[1:]))  # the first frame warms up
        ours = seconds["ptrack"][1:]
        print(
            f"{name}: {fast:.2f} s per frame of one processor (median {median:.2f}), "
            f"{fast / min(ours):.2f} times ptrack's (median {median / float(np.median(ours)):.2f})"
        )


if __name__ == "__main__":
    with torch.inference_mode():
        main()
