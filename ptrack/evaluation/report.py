"""One self-contained HTML file about an evaluation: tables, curves, and pictures of the videos that went worst.

Letters: T frames, Q queries.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ptrack.data.clips import Clip
from ptrack.data.images import jpeg
from ptrack.errors import PTrackError
from ptrack.evaluation import results
from ptrack.evaluation.clips import ClipSource, file_names, open_clips
from ptrack.evaluation.predictions import Prediction, load_prediction
from ptrack.evaluation.protocols import Case, Skip
from ptrack.evaluation.results import BINS, EDGES, OK, EvaluationReport, ModelResult, VideoResult
from ptrack.evaluation.subjects import EvalRequest
from ptrack.fileio import atomic_path

WORST = 3  # videos shown per model
MOMENTS = (0.25, 0.5, 1.0)  # of the video's length, one picture each
WIDTH = 420  # pixels of a picture
COLOURS = ("#1f6feb", "#d1591b", "#1a7f37", "#8250df", "#bf3989", "#57606a")
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1100px;padding:0 1rem;color:#1f2328}
table{border-collapse:collapse;margin:1rem 0}
td,th{padding:.25rem .7rem;border-bottom:1px solid #d1d9e0;text-align:right}
td:first-child,th:first-child{text-align:left}tr.published td{color:#59636e;font-style:italic}
.bad{color:#b42318}figure{display:inline-block;margin:.4rem .4rem .4rem 0}figcaption{font-size:13px;color:#59636e}
svg text{font:12px system-ui,sans-serif}.scroll{overflow-x:auto}
"""


def precision_recall(model: ModelResult) -> tuple[np.ndarray, np.ndarray]:
    """Return (BINS,) precision and recall of "visible" for thresholds from high to low, over all scored videos.

    Precision is NaN where nothing is predicted visible.
    """
    counts = np.zeros((2, BINS))
    for video in model.having(OK):
        counts += np.asarray(video.visibility_counts)
    visible, hidden = np.cumsum(counts[:, ::-1], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return visible / (visible + hidden), visible / visible[-1]


def error_shares(model: ModelResult) -> np.ndarray:
    """Return (len(EDGES) + 1,) shares of the errors of visible points in each bin, over all scored videos."""
    counts = np.sum([v.error_counts for v in model.having(OK)], axis=0, dtype=np.float64)
    return counts / max(counts.sum(), 1) if np.ndim(counts) else np.zeros(len(EDGES) + 1)


def write_html(report: EvaluationReport, request: EvalRequest, path: Path) -> None:
    """Write the report of an evaluation; pictures are made where the run folder still has the predictions.

    Raises:
        OutputError: the file cannot be written.
    """
    title = f"{report.protocol.title}, queries: {report.mode}"
    parts = [
        f"<h1>{html.escape(title)}</h1><p>{html.escape(report.data)}</p>",
        _summary(report),
        "<h2>Visibility: precision and recall</h2>",
        _curves([(m.model, precision_recall(m)) for m in report.models if m.having(OK)]),
        "<h2>Errors of visible points</h2>",
        _bars([(m.model, error_shares(m)) for m in report.models if m.having(OK)]),
        "<h2>Worst videos</h2>",
        *_worst(report, request),
        "<h2>All videos</h2>",
        *(_videos(report, m) for m in report.models),
    ]
    page = (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<style>{STYLE}</style>{''.join(parts)}</html>"
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


# --- tables ----------------------------------------------------------------------------------------------------------


def _table(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
    body = "".join(
        f"<tr class='{kind}'>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>" for kind, cells in rows
    )
    return f"<div class='scroll'><table><tr>{head}</tr>{body}</table></div>"


def _summary(report: EvaluationReport) -> str:
    columns, rows = results.table(report)
    measured = len(report.models)
    return _table(columns, [("" if i < measured else "published", row) for i, row in enumerate(rows)])


def _videos(report: EvaluationReport, model: ModelResult) -> str:
    keys = [k for k in report.protocol.headline if k in model.mean]
    columns = ["video", *(results.LABELS.get(k, k) for k in keys), "frames", "points", "seconds"]
    rows: list[tuple[str, list[str]]] = []
    for v in sorted(model.videos, key=lambda v: v.id):
        if v.status != OK:
            rows.append(("bad", [f"{v.name} ({v.status}: {v.reason})", *[""] * (len(columns) - 1)]))
            continue
        values = [v.scores.get(k) for k in keys]
        cells = ["-" if x is None else f"{report.percent(k, x):.1f}" for k, x in zip(keys, values, strict=True)]
        rows.append(("", [v.name, *cells, str(v.frames), str(v.points), f"{v.seconds:.1f}"]))
    return f"<h3>{html.escape(model.model)}</h3>" + _table(columns, rows)


# --- curves ----------------------------------------------------------------------------------------------------------


def _legend(names: Sequence[str]) -> str:
    spans = (
        f"<span style='color:{COLOURS[i % len(COLOURS)]}'>&#9632; {html.escape(n)}</span>" for i, n in enumerate(names)
    )
    return f"<p>{' &nbsp; '.join(spans)}</p>"


def _axes(x_label: str, y_label: str) -> str:
    grid = "".join(
        f"<line x1='50' x2='450' y1='{250 - 200 * v}' y2='{250 - 200 * v}' stroke='#d1d9e0'/>"
        f"<text x='44' y='{254 - 200 * v}' text-anchor='end'>{100 * v:.0f}</text>"
        for v in (0, 0.25, 0.5, 0.75, 1)
    )
    return (
        f"{grid}<text x='250' y='292' text-anchor='middle'>{x_label}</text>"
        f"<text x='14' y='150' text-anchor='middle' transform='rotate(-90 14 150)'>{y_label}</text>"
    )


def _curves(lines: Sequence[tuple[str, tuple[np.ndarray, np.ndarray]]]) -> str:
    drawn = []
    for i, (_, (precision, recall)) in enumerate(lines):
        points = [
            f"{50 + 400 * x:.1f},{250 - 200 * y:.1f}"
            for x, y in zip(recall, precision, strict=True)
            if math.isfinite(x) and math.isfinite(y)
        ]
        colour = COLOURS[i % len(COLOURS)]
        drawn.append(f"<polyline points='{' '.join(points)}' fill='none' stroke='{colour}' stroke-width='2'/>")
        if points:
            x, y = points[-1].split(",")
            drawn.append(f"<circle cx='{x}' cy='{y}' r='4' fill='{colour}'/>")
    ticks = "".join(
        f"<text x='{50 + 400 * v}' y='268' text-anchor='middle'>{100 * v:.0f}</text>" for v in (0, 0.25, 0.5, 0.75, 1)
    )
    axes = _axes("recall of visible points, %", "precision, %")
    return _legend([n for n, *_ in lines]) + f"<svg width='480' height='300'>{axes}{ticks}{''.join(drawn)}</svg>"


def _bars(groups: Sequence[tuple[str, np.ndarray]]) -> str:
    bins = len(EDGES) + 1
    top = max([0.01, *(float(shares.max()) for _, shares in groups)])
    step = 640 / bins
    bars, labels = [], []
    for i, (_, shares) in enumerate(groups):
        width = (step - 2) / len(groups)
        for k, share in enumerate(shares):
            height = 200 * float(share) / top
            x = 50 + step * k + width * i
            bars.append(
                f"<rect x='{x:.1f}' y='{250 - height:.1f}' width='{width:.1f}' height='{height:.1f}' "
                f"fill='{COLOURS[i % len(COLOURS)]}'><title>{100 * float(share):.1f} %</title></rect>"
            )
    for k, edge in enumerate(EDGES):
        if k % 4 == 0:
            labels.append(f"<text x='{50 + step * (k + 1):.0f}' y='266' text-anchor='middle'>{edge:g}</text>")
    axis = "<line x1='50' x2='690' y1='250' y2='250' stroke='#59636e'/>"
    text = (
        "<text x='370' y='290' text-anchor='middle'>error in pixels of a 256x256 picture</text>"
        f"<text x='44' y='56' text-anchor='end'>{100 * top:.0f} %</text><text x='44' y='254' text-anchor='end'>0</text>"
    )
    svg = f"<svg width='720' height='300'>{axis}{''.join(bars)}{''.join(labels)}{text}</svg>"
    return _legend([n for n, _ in groups]) + svg


# --- pictures --------------------------------------------------------------------------------------------------------


def _worst(report: EvaluationReport, request: EvalRequest) -> list[str]:
    rows = {row.id: row for row in open_clips(report.protocol, request.data)}
    files = file_names(list(rows.values()))
    key = report.protocol.headline[0]
    parts = []
    for model in report.models:
        scored = [v for v in model.having(OK) if v.scores.get(key) is not None and "predictions" in v.files]
        parts.append(f"<h3>{html.escape(model.model)}</h3>")
        for video in sorted(scored, key=lambda v: v.scores[key] or 0.0)[:WORST]:
            try:
                parts.append(_pictures(report, video, rows[video.id].load(), key))
            except (PTrackError, Skip, OSError) as error:
                parts.append(f"<p class='bad'>{html.escape(files[video.id])}: {html.escape(str(error))}</p>")
    return parts or ["<p>None.</p>"]


def _pictures(report: EvaluationReport, video: VideoResult, clip: Clip, key: str) -> str:
    case = report.protocol.case(clip, report.mode)
    prediction = load_prediction(Path(video.files["predictions"]), case)
    label = results.LABELS.get(key, key)
    value = report.percent(key, video.scores[key] or 0.0)
    out = [f"<p><b>{html.escape(video.name)}</b>: {label} {value:.1f}</p>"]
    for t in sorted({round(m * (case.frames - 1)) for m in MOMENTS}):
        picture = jpeg(overlay(clip, case, prediction, t, report.protocol.resampling), 85)
        data = base64.b64encode(picture).decode()
        out.append(
            f"<figure><img width='{WIDTH}' alt='frame {t}' src='data:image/jpeg;base64,{data}'>"
            f"<figcaption>frame {t}</figcaption></figure>"
        )
    return "".join(out) + (
        "<p>Discs: predicted (hollow: predicted hidden); lines lead to the labelled position of visible points.</p>"
    )


def overlay(clip: Clip, case: Case, prediction: Prediction, t: int, method: str) -> np.ndarray:
    """Return frame ``t`` with predicted points and lines from them to where visible points really are."""
    from ptrack.viz.draw import Canvas
    from ptrack.viz.overlay import Overlay, OverlayStyle

    frame = next(iter(ClipSource(clip, case.size, case.frames, method).at(t))).rgb
    started = case.queries[:, 0] <= t
    canvas = Canvas(frame)
    shown = started & case.visible[t] & np.isfinite(prediction.tracks[t]).all(axis=-1)
    width = max(1.0, min(case.size) / 300)
    canvas.lines(prediction.tracks[t][shown], case.tracks[t][shown], width, np.asarray([255, 60, 60], np.uint8))
    return Overlay(OverlayStyle(trail=0, occluded="always")).draw(
        canvas.rgb, prediction.tracks[t][started], prediction.visible[t][started]
    )
