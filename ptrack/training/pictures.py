"""Pictures of a run: attention over frames, prediction against ground truth, and the history of losses and scores.

Matplotlib draws off-screen. Letters: B clips, T frames, N points, S frames of a window, H W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptrack.data.samples import TrainingBatch
from ptrack.fileio import atomic_path
from ptrack.training.engine import Listener, ValidationRecord
from ptrack.training.logging import JSONL
from ptrack.training.systems import PredictedTracks, System

MAX_FRAMES = 8  # shown of a clip
MAX_POINTS = 16  # shown of a clip
Save = Callable[[str, np.ndarray, int], None]  # (name, picture, step): where pictures also go


def _figure(rows: int, columns: int, size: float = 2.2) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size * columns, size * rows + 0.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def render(figure: Any) -> np.ndarray:
    """Return a figure as (H, W, 3) uint8."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _colours(count: int) -> list[Any]:
    import matplotlib

    return [matplotlib.colormaps["hsv"](i / max(1, count)) for i in range(count)]


def _panels(batch: TrainingBatch, shown: Sequence[int]) -> tuple[Any, list[Any]]:
    """Return a figure and its panels, which show frames of the first clip."""
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = _figure(rows, columns)
    H, W = batch.frames.shape[2:4]
    panels = []
    for i, t in enumerate(shown, 1):
        axes = figure.add_subplot(rows, columns, i)
        axes.imshow(batch.frames[0, t].cpu().numpy(), extent=(0, W, H, 0))  # raster coordinates
        axes.set_xlim(0, W)
        axes.set_ylim(H, 0)
        axes.set_title(f"frame {int(batch.frame_index[0, t])}", fontsize=8)
        axes.set_axis_off()
        panels.append(axes)
    return figure, panels


def prediction_picture(batch: TrainingBatch, prediction: PredictedTracks) -> np.ndarray:
    """Draw the first clip: circles are the truth (dotted where hidden), crosses the prediction, lines the error."""
    T, N = batch.tracks.shape[1:3]
    shown = np.unique(np.linspace(0, T - 1, min(T, MAX_FRAMES)).round().astype(int)).tolist()
    figure, panels = _panels(batch, shown)
    colours = _colours(min(N, MAX_POINTS))
    truth, seen = batch.tracks[0].cpu().numpy(), batch.visibility[0].cpu().numpy()
    xy, visibility = prediction.xy[0].cpu().numpy(), prediction.visibility[0].cpu().numpy()
    start = batch.query_time[0].cpu().numpy()
    for t, axes in zip(shown, panels, strict=True):
        for n, colour in enumerate(colours):
            if start[n] > t or not batch.valid[0, t, n]:
                continue
            axes.plot(*truth[t, n], "o", ms=7, mfc="none", mec=colour, ls="none", alpha=1.0 if seen[t, n] else 0.35)
            axes.plot(*xy[t, n], "x", ms=5, color=colour, alpha=1.0 if visibility[t, n] >= 0.5 else 0.35)
            axes.plot(*zip(truth[t, n], xy[t, n], strict=True), "-", lw=0.8, color=colour)
    figure.suptitle("o truth   × prediction   (pale: hidden)", fontsize=9)
    return render(figure)


def time_attention_picture(attention: Tensor, start: int) -> np.ndarray:
    """Draw which frames point 0's token attends to, one panel per layer; ``attention`` (layers, B, N, S, S)."""
    maps = attention[:, 0, 0].float().cpu().numpy()
    S = maps.shape[-1]
    figure = _figure(1, len(maps), 2.4)
    for i, values in enumerate(maps):
        axes = figure.add_subplot(1, len(maps), i + 1)
        image = axes.imshow(values, vmin=0, vmax=max(1e-6, float(values.max())), cmap="magma")
        axes.set_title(f"layer {i + 1}", fontsize=8)
        axes.set_xticks(range(S), [str(start + s) for s in range(S)], fontsize=6)
        axes.set_yticks(range(S), [str(start + s) for s in range(S)], fontsize=6)
        axes.set_xlabel("attends to frame", fontsize=7)
        if i == 0:
            axes.set_ylabel("token of frame", fontsize=7)
        figure.colorbar(image, ax=axes, shrink=0.7).ax.tick_params(labelsize=6)
    figure.suptitle("attention over frames, point 0", fontsize=9)
    return render(figure)


def point_attention_picture(batch: TrainingBatch, xy: Tensor, attention: Tensor, start: int) -> np.ndarray:
    """Draw on the frames which other points the first point attends to; ``attention`` (layers, B, S, N, N)."""
    maps = attention[-1, 0, :, 0].float().cpu().numpy()  # (S, N) of the last layer
    figure, panels = _panels(batch, range(start, start + min(len(maps), MAX_FRAMES)))
    for i, axes in enumerate(panels):
        places = xy[0, start + i].cpu().numpy()
        weight = maps[i] / max(1e-9, float(maps[i].max()))
        for place, w in zip(places, weight, strict=True):
            axes.plot(*zip(places[0], place, strict=True), "-", color="yellow", lw=2.5 * w, alpha=0.8)
        axes.scatter(places[:, 0], places[:, 1], c=maps[i], cmap="magma", s=18, edgecolors="white", linewidths=0.5)
        axes.plot(*places[0], "*", color="cyan", ms=9)
    figure.suptitle("attention of the starred point to the others, last layer", fontsize=9)
    return render(figure)


def history_picture(log: Path) -> np.ndarray | None:
    """Draw losses, scores, learning rate and gradient norm from ``training.jsonl``; None if it holds no step."""
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    steps = [r for r in records if r["kind"] == "step"]
    checks = [r for r in records if r["kind"] == "validation"]
    if not steps:
        return None
    figure = _figure(1, 3, 4.0)
    x = [r["step"] for r in steps]
    axes = figure.add_subplot(1, 3, 1)
    for name in [k for k in steps[0] if k == "loss" or k.startswith("loss/")]:
        y = [r.get(name) if r.get(name) is not None else np.nan for r in steps]
        axes.plot(x, y, lw=2 if name == "loss" else 0.8, label=name.removeprefix("loss/"))
    axes.set(title="loss terms", xlabel="step", yscale="log")
    axes.legend(fontsize=6)
    axes = figure.add_subplot(1, 3, 2)
    fixed = ("kind", "step", "epoch", "best")
    for name in [k for k in (checks[0] if checks else {}) if k not in fixed]:
        axes.plot([r["step"] for r in checks], [r.get(name, np.nan) for r in checks], "o-", ms=3, label=name)
    axes.set(title="validation", xlabel="step")
    if checks:
        axes.legend(fontsize=6)
    axes = figure.add_subplot(1, 3, 3)
    axes.plot(x, [r["learning_rate"] for r in steps], label="learning rate")
    axes.set(title="learning rate (blue), gradient norm (orange)", xlabel="step", ylabel="learning rate")
    other = axes.twinx()
    other.set_ylabel("gradient norm")
    norms = [r["gradient_norm"] if r["gradient_norm"] is not None else np.nan for r in steps]
    other.plot(x, norms, color="tab:orange", lw=0.7, label="gradient norm")
    return render(figure)


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write a picture; the file appears when whole."""
    import imageio.v3 as imageio

    with atomic_path(path) as temporary:
        imageio.imwrite(temporary, picture)


class PictureLog(Listener):
    """A listener that draws after each validation, into ``visualizations/``.

    Args:
        folder: gets ``prediction_000100.png``, ``attention_time_000100.png``, ``attention_points_000100.png`` (the
            transformer's), and ``history.png``.
        batch: one clip to show.
        log: folder of ``training.jsonl``.
        also: called with each picture, e.g. ``TensorBoardLog.picture``.
    """

    def __init__(self, folder: Path, batch: TrainingBatch, log: Path, also: Save | None = None) -> None:
        self.folder, self.batch, self.log, self.also = folder, batch, log, also

    @torch.no_grad()
    def on_validation(self, record: ValidationRecord, system: System) -> None:
        """Draw what the validated weights do."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with system.evaluating():
            batch = self.batch.to(next(system.parameters()).device)
            prediction = system.predict(batch)
            pictures = {"prediction": prediction_picture(batch, prediction)}
            window = system.attention(batch)
        if window is not None and window.attention is not None:
            pictures["attention_time"] = time_attention_picture(window.attention.time, window.start)
            pictures["attention_points"] = point_attention_picture(
                batch, prediction.xy, window.attention.points, window.start
            )
        for name, picture in pictures.items():
            write_png(self.folder / f"{name}_{record.step:06d}.png", picture)
            if self.also is not None:
                self.also(name, picture, record.step)
        history = history_picture(self.log / JSONL)
        if history is not None:
            write_png(self.folder / "history.png", history)
