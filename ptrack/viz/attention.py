"""What a model looks at: Track-On2's correlation map and candidates, the transformer's attention to frames and points.

Letters: T frames, N points, S frames of a window, K candidates, h w cells of a map, H W pixels of the frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ptrack import geometry
from ptrack.errors import ModelError, QueryError
from ptrack.tracks import Tracks
from ptrack.viz import colours, marks, palette
from ptrack.viz.draw import Canvas

if TYPE_CHECKING:
    from ptrack.models.base import OnlineModel
    from ptrack.models.offline import PointTransformer
    from ptrack.models.online.model import TrackOn2

MAX_FRAMES = 200  # of the transformer: all their feature maps are held at once, about 5 MB a frame
WHITE = np.full(3, 255, np.uint8)


@dataclass(frozen=True)
class AttentionSample:
    """What the model saw of one point in one frame. Fields that a model does not have are None."""

    row: int  # of the tracks
    xy: np.ndarray  # (2,) where the model put the point, pixels of the frame
    heat: np.ndarray | None = None  # (h, w) correlation, scaled to 0..1 over the frame
    candidates: np.ndarray | None = None  # (K, 2) pixels, best first
    frames: tuple[int, np.ndarray] | None = None  # first row of the window, (S,) share of attention per frame
    points: np.ndarray | None = None  # (N,) share of attention per point


def index_of(tracks: Tracks, name: str) -> int:
    """Return the number of the point ``name``. Raises QueryError."""
    found = np.flatnonzero(tracks.ids == name)
    if not len(found):
        raise QueryError(f"There is no point with the id '{name}'.")
    return int(found[0])


def attention_of(
    model: OnlineModel | PointTransformer, frames: Iterable[tuple[int, np.ndarray]], tracks: Tracks, name: str
) -> Iterator[AttentionSample]:
    """Run ``model`` over the frames with the queries of ``tracks`` and yield what it saw of the point ``name``.

    Args:
        model: ``TrackOn2``, or the transformer (streaming or not).
        frames: ``(row of the tracks, (H, W, 3) uint8)`` in order.
        tracks: give the queries and the frame size; rows are positions of queries' ``t``.
        name: the point's id.

    Raises:
        ModelError: the model has no attention to show, or the clip is too long for the transformer.
        QueryError: there is no such point.
    """
    from ptrack.models.offline import PointTransformer, StreamingTransformer
    from ptrack.models.online.model import TrackOn2

    point = index_of(tracks, name)
    if isinstance(model, StreamingTransformer):
        model = model.model
    if isinstance(model, TrackOn2):
        return _correlations(model, frames, tracks, point)
    if isinstance(model, PointTransformer):
        return _attentions(model, frames, tracks, point)
    raise ModelError(f"The model '{model.name}' has no attention to show; Track-On2 and the transformer have.")


def _correlations(
    model: TrackOn2, frames: Iterable[tuple[int, np.ndarray]], tracks: Tracks, point: int
) -> Iterator[AttentionSample]:
    """Stream like ``Tracker`` does, but keep the second correlation and the candidates of one point."""
    import torch

    start, state, slots = tracks.queries[:, 0].astype(int), model.init_state(), np.full(tracks.num_points, -1)
    full = (tracks.info.height, tracks.info.width)
    for row, rgb in frames:
        size = (rgb.shape[0], rgb.shape[1])
        with torch.inference_mode():
            features = model.encode(torch.from_numpy(np.ascontiguousarray(rgb))[None])[0]
            new = np.flatnonzero((start == row) & (slots < 0))
            if len(new):
                slots[new] = slots.max() + 1 + np.arange(len(new))
                xy = geometry.rescale(tracks.queries[new, 1:], full, size)
                state = model.add(state, features, torch.from_numpy(np.ascontiguousarray(xy)))
            if slots.max() < 0:
                continue
            out = model.track(features, state, detail=True)
            state = state.remember(out.query)
        if slots[point] >= 0:
            yield _correlation_sample(model, out, row, int(slots[point]), full)


def _correlation_sample(model: TrackOn2, out: Any, row: int, slot: int, full: geometry.Size) -> AttentionSample:
    heat = out.c2[0, slot].float().cpu().numpy().reshape(model.config.shapes[0])
    low, high = float(heat.min()), float(heat.max())
    places = {"xy": out.xy[0, slot], "candidates": out.candidate_patch[0, slot]}
    placed = {k: geometry.rescale(v.float().cpu().numpy(), model.config.input_size, full) for k, v in places.items()}
    return AttentionSample(row=row, heat=(heat - low) / max(high - low, 1e-9), **placed)


def _attentions(
    model: PointTransformer, frames: Iterable[tuple[int, np.ndarray]], tracks: Tracks, point: int
) -> Iterator[AttentionSample]:
    """Run the whole clip once and yield every frame's attention from the last window that holds the frame."""
    import torch

    pairs = []
    for row, rgb in frames:
        pairs.append((row, rgb))
        if len(pairs) > MAX_FRAMES:
            raise ModelError(f"The transformer's attention can be shown for at most {MAX_FRAMES} frames.")
    size, full = pairs[0][1].shape[:2], (tracks.info.height, tracks.info.width)
    device = next(model.parameters()).device
    queries = tracks.queries.copy()
    queries[:, 1:] = geometry.rescale(queries[:, 1:], full, size)
    video = torch.from_numpy(np.stack([rgb for _, rgb in pairs]))[None].to(device)
    with torch.inference_mode():
        out = model(video, torch.from_numpy(queries)[None].to(device), attention=True)
    xy = geometry.rescale(out.xy[0, :, point].float().cpu().numpy(), size, full)
    for position, (row, _) in enumerate(pairs):
        if row < tracks.queries[point, 0]:
            continue
        window = [w for w in out.windows if w.start <= position < w.start + w.xy.shape[2]][-1]
        here = position - window.start
        over_time = window.attention.time[:, 0, point, here].float().mean(0).cpu().numpy()
        over_points = window.attention.points[:, 0, here, point].float().mean(0).cpu().numpy()
        yield AttentionSample(row=row, xy=xy[position], frames=(pairs[window.start][0], over_time), points=over_points)


def paint_attention(sample: AttentionSample, tracks: Tracks, rgb: np.ndarray) -> np.ndarray:
    """Return a copy of the frame with what the model saw: heat, candidates, lines to points, a strip of frames."""
    height, width = rgb.shape[:2]
    scale = np.asarray([width / (tracks.info.width or width), height / (tracks.info.height or height)])
    picture = rgb if sample.heat is None else _heated(rgb, sample.heat)
    canvas = Canvas(picture)
    radius = max(2.0, min(height, width) / 110)
    here = sample.xy * scale
    if sample.points is not None:
        _lines(canvas, sample, tracks, here, scale, radius)
    if sample.candidates is not None:
        canvas.rings(sample.candidates * scale, 0.9 * radius, 0.35 * radius, WHITE, 0.8)
    canvas.discs(here[None], 1.3 * radius, np.zeros(3, np.uint8), 0.8)
    canvas.discs(here[None], radius, np.asarray([255, 60, 60], np.uint8))
    if sample.frames is not None:
        _strip(canvas.rgb, sample, tracks)
    words = ("correlation in this frame", "lowest", "highest")
    if sample.heat is None:
        words = ("attention, relative to the largest", "0", "1")
    marks.draw_scale(canvas.rgb, palette.amount_scale(*words), top=True)
    return canvas.rgb


def _heated(rgb: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blend a map over a picture: nothing where it is low, full colour where it is highest."""
    from PIL import Image

    size = (rgb.shape[1], rgb.shape[0])
    large = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    alpha = (0.75 * large.clip(0, 1) ** 2)[..., None]
    return (rgb * (1 - alpha) + colours.by_amount(large) * alpha + 0.5).astype(np.uint8)


def _lines(
    canvas: Canvas, sample: AttentionSample, tracks: Tracks, here: np.ndarray, scale: np.ndarray, radius: float
) -> None:
    """Draw a line to every point, the more opaque the more it is listened to."""
    assert sample.points is not None
    there = tracks.tracks[sample.row] * scale
    share = sample.points / max(float(sample.points.max()), 1e-9)
    start = np.broadcast_to(here, there.shape)
    shades = colours.by_amount(share)
    canvas.lines(start, there, 0.5 * radius, shades, 0.9 * share)
    canvas.discs(there, 0.6 * radius, shades, 0.3 + 0.7 * share)


def _strip(rgb: np.ndarray, sample: AttentionSample, tracks: Tracks) -> None:
    """Draw the window's frames as a row of cells at the lower border, coloured by their share of attention."""
    assert sample.frames is not None
    first, share = sample.frames
    size = marks.text_size(rgb.shape[0])
    cell = max(8, min(int(2.6 * size), rgb.shape[1] // max(len(share), 1)))
    top = rgb.shape[0] - int(1.6 * size)
    for i, colour in enumerate(colours.by_amount(share / max(float(share.max()), 1e-9))):
        part = rgb[top:, i * cell : (i + 1) * cell - 1]
        part[:] = (0.3 * part + 0.7 * colour).astype(np.uint8)
        row = min(first + i, tracks.num_frames - 1)
        marks.draw_text(rgb, str(int(tracks.frame_index[row])), i * cell + 2, top + 0.1 * size, max(size - 3, 8))
