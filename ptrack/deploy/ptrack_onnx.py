"""Track points through a video with an exported model: numpy, onnxruntime and av, no torch.

    python ptrack_onnx.py video.mp4 --grid 16 --out tracks.csv

Positions are pixels (x, y); (0, 0) is the upper-left corner of the upper-left pixel.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime as ort


class Tracker:
    """A tracker from the folder that ``ptrack export`` wrote."""

    def __init__(self, folder: str | Path, threads: int = 0) -> None:
        """Read the graphs; ``threads``: of the processor, 0 for all."""
        self.about = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        files = [Path(folder) / self.about["files"][name] for name in ("encoder", "step")]
        self.encoder, self.graph = (ort.InferenceSession(f, options, ["CPUExecutionProvider"]) for f in files)
        self.state: list[np.ndarray] | None = None
        self.rows: list[str | None] = []  # which of the caller's points every tracked one is; None: support

    def first_state(self, seen: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Return the state without points; ``seen`` holds the frame and its features."""
        empty = [
            np.zeros([0 if isinstance(n, str) else n for n in s["shape"]], s["dtype"]) for s in self.about["state"]
        ]
        return [seen[s["first"]] if s["first"] else e for s, e in zip(self.about["state"], empty, strict=True)]

    def support(self, height: int, width: int) -> np.ndarray:
        """Return the points of the extra grid that some models want for context."""
        n = self.about["support_grid"]
        x, y = (np.linspace(width / 64, side - width / 64, n) for side in (width, height))
        return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2) if n else np.zeros((0, 2))

    def step(self, frame: np.ndarray, new: Any = (), names: Any = ()) -> dict[str, list[float]]:
        """Track into the next (H, W, 3) uint8 RGB frame, on which ``new`` (M, 2) pixels join under M ``names``.

        Returns name -> (x, y, visibility, confidence); of a new point, x and y are those given.
        """
        new, names = np.asarray(new, np.float32).reshape(-1, 2), list(names)
        if not self.rows:
            if not names:
                return {}
            extra = self.support(*frame.shape[:2]).astype(np.float32)
            new, names = np.concatenate([new, extra]), names + [None] * len(extra)
        features: Any = self.encoder.run(None, {"frame": frame[None]})
        seen = {"frame": frame[None], **dict(zip((f["name"] for f in self.about["features"]), features, strict=True))}
        self.state = self.first_state(seen) if self.state is None else self.state
        inputs = {f"state.{s['name']}": x for s, x in zip(self.about["state"], self.state, strict=True)}
        xy, visibility, confidence, *state = list[Any](self.graph.run(None, {**seen, "new": new, **inputs}))
        most = [s.get("most") for s in self.about["state"]]  # remembered frames lie along axis 1, the newest last
        self.state = [x[:, -m:] if m else x for x, m in zip(state, most, strict=True)]
        xy[len(self.rows) :], self.rows = new, self.rows + names
        visibility[len(xy) - len(names) :] = confidence[len(xy) - len(names) :] = 1
        values = np.column_stack([xy, visibility, confidence]).tolist()
        return {name: row for name, row in zip(self.rows, values, strict=True) if name is not None}


def queries(path: str | None, grid: int, width: int, height: int) -> list[tuple[str, int, float, float]]:
    """Return rows (name, t, x, y): those of a CSV file with the columns t,x,y, or a grid on the first frame."""
    if path:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [(r.get("id") or str(i), int(r["t"]), float(r["x"]), float(r["y"])) for i, r in enumerate(rows)]
    x, y = ((np.arange(grid) + 0.5) * (side / grid) for side in (width, height))
    return [(str(j * grid + i), 0, float(x[i]), float(y[j])) for j in range(grid) for i in range(grid)]


def main() -> None:
    """Read the options, track, write the table."""
    parser = argparse.ArgumentParser(description="Track points through a video with an exported model.")
    parser.add_argument("video")
    parser.add_argument("--grid", type=int, default=16, help="points per side on the first frame")
    parser.add_argument("--queries", help="CSV file with the columns t,x,y, maybe id")
    parser.add_argument("--threads", type=int, default=0, help="default: all")
    parser.add_argument("--out", default="tracks.csv")
    given = parser.parse_args()
    with av.open(str(given.video)) as video, open(given.out, "w", encoding="utf-8", newline="") as file:
        tracker, table = Tracker(Path(__file__).parent, given.threads), csv.writer(file)
        table.writerow(["frame", "id", "x", "y", "visibility", "confidence"])
        stream = video.streams.video[0]
        points = queries(given.queries, given.grid, stream.width, stream.height)
        for t, frame in enumerate(video.decode(stream)):
            new = [(name, (x, y)) for name, start, x, y in points if start == t]
            found = tracker.step(frame.to_ndarray(format="rgb24"), [p for _, p in new], [name for name, _ in new])
            table.writerows([t, name, *row] for name, row in found.items())


if __name__ == "__main__":
    main()
