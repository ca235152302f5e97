"""Exact tracks and visibility: a point is a place on a face, and is seen iff nothing is nearer along its very ray.

The ray test does not use the picture's depth. For every point and frame the faces whose bounding box holds the point's
place are found by counting points in boxes (a summed-area table), and each such pair is tested in float64.

Letters: B clips, T frames, N points per clip, F faces of all clips, K pairs to test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ptrack.data.synthetic import raster
from ptrack.data.synthetic.config import SyntheticConfig
from ptrack.data.synthetic.geometry import Geometry
from ptrack.data.synthetic.raster import take
from ptrack.data.synthetic.render import Renderings, lookup, rendered_size
from ptrack.data.synthetic.scene import ClipPlan
from ptrack.data.synthetic.shading import corners_of, focal_of, pictures_of

RIM = 2e-3  # pixels: nearer to the rim of what covers it, a point counts as hidden, so that rounding decides nothing
EDGE = 1e-4  # pixels: nearer to its own face's edge, likewise (float32 tracks are good to 8e-6 at 256 pixels)
GRAZING = 3e-3  # cosine of the viewing angle below which a face is seen edge-on and its points count as hidden
CPU_ENTRIES, GPU_ENTRIES = 100_000, 8_000_000  # faces x frames that are tested at once
PAIR_ROWS, PAIRS_PER_POINT = 4, 64  # room for expansion on a GPU: rows per face, faces per point
FIRST_FRAME = 0.5  # share of points that are chosen in frame 0; the others in any frame


@dataclass(frozen=True)
class Points:
    """Places on surfaces."""

    face: Tensor  # (B, N) int64, flat over clips
    weights: Tensor  # (B, N, 3) float64 barycentric, positive, sum 1
    frame: Tensor  # (B, N) int64 frame in which the place was chosen in the picture


@dataclass(frozen=True)
class Labels:
    """Tracks of points."""

    tracks: Tensor  # (B, T, N, 2) float32 raster pixels
    visibility: Tensor  # (B, T, N) bool
    ahead: Tensor  # (B, T, N) bool, in front of the camera: elsewhere the track has no meaning
    camera_points: Tensor  # (B, T, N, 3) float64 camera space
    overflow: Tensor  # () bool, pairs were left out (fixed capacities only)


def choose_points(plans: list[ClipPlan], geometry: Geometry, pictures: Renderings, config: SyntheticConfig) -> Points:
    """Choose places in the picture, more densely on small, thin and fast things and on limbs."""
    device = geometry.faces.device
    clips, frames, n = len(plans), geometry.frames, config.points
    draws = torch.as_tensor(np.stack([np.random.default_rng(p.seed).random((4, n)) for p in plans])).to(
        device, non_blocking=True
    )  # (B, 4, N)
    frame = torch.where(draws[:, 0] < FIRST_FRAME, 0.0, (draws[:, 0] - FIRST_FRAME) / (1 - FIRST_FRAME) * frames).long()
    frame = frame.clamp(max=frames - 1)
    weight = _density(geometry, pictures)  # (B, T, H, W) int64
    sums = weight.flatten().cumsum(0)
    sums = torch.cat([sums.new_zeros(1), sums])
    picture = torch.arange(clips, device=device)[:, None] * frames + frame
    area = config.height * config.width
    low, high = sums[picture * area], sums[(picture + 1) * area]
    wanted = low + ((high - low) * draws[:, 1]).long()
    pixel = torch.searchsorted(sums, wanted, right=True) - 1
    pixel = torch.minimum(pixel.clamp(min=0), (picture + 1) * area - 1)
    face = pictures.faces.flatten()[pixel].clamp(min=0)
    pixel = pixel % area
    h, w = rendered_size(config)
    x = lookup(config.width, w, device)[pixel % config.width] + 0.5
    y = lookup(config.height, h, device)[pixel // config.width] + 0.5
    scale = config.width / w
    corners = _corners_at(geometry, face, frame)
    focal = geometry.focal[torch.arange(clips, device=device)[:, None], frame].double()
    middle = torch.tensor([w / 2, h / 2], device=device)
    exact = (torch.stack([x, y], -1) - middle) * scale
    moved = exact + (draws[:, 2:].permute(0, 2, 1) - 0.5) * (0.9 * scale)
    inside = _barycentric(corners, moved, focal)
    good = (inside.amin(-1, keepdim=True) > 0.005) & (inside.amax(-1, keepdim=True) < 1)
    weights = torch.where(good, inside, _barycentric(corners, exact, focal)).clamp(min=0)
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-9)
    return Points(face, weights * 0.99 + 0.01 / 3, frame)


def _density(geometry: Geometry, pictures: Renderings) -> Tensor:
    """Return integer weights of the pixels: integers, so that their sums are the same on every device."""
    clips, frames = pictures.faces.shape[:2]
    face = pictures.faces.flatten()
    count = len(geometry.faces)
    pixels = torch.zeros(count + 1, dtype=torch.int64, device=face.device)
    pixels.scatter_add_(0, torch.where(face < 0, count, face), torch.ones_like(face))
    key = geometry.clip * 256 + geometry.owner
    size = torch.zeros(clips * 256, dtype=torch.int64, device=face.device).scatter_add_(0, key, pixels[:-1])
    share = (size.float() / (pictures.faces[0].numel())).clamp(min=1e-4)
    rare = (0.08 / share).sqrt().clamp(0.3, 8)
    weight = (rare[key] * geometry.interest * _speed(geometry) * 256).long().clamp(1, 65535)  # (T, F)
    frame = torch.arange(frames, device=face.device)[None, :, None, None].expand_as(pictures.faces).reshape(-1)
    found = raster.take(weight.view(-1), frame * count + face.clamp(min=0))
    return torch.where(face < 0, 0, found).view_as(pictures.faces)


def _speed(geometry: Geometry) -> Tensor:
    """Return a factor (T, F) from 1 (at rest) to 3 (4 pixels per frame and more)."""
    first = geometry.vertices.index_select(2, geometry.faces[:, 0])
    focal = geometry.focal.index_select(0, geometry.clip).T
    over = focal / first[2].clamp(min=raster.NEAR)
    place = first[:2] * over
    move = torch.linalg.vector_norm(place[:, 1:] - place[:, :-1], dim=0)
    return 1 + 0.5 * torch.cat([move, move[-1:]]).clamp(max=4)


def _corners_at(geometry: Geometry, face: Tensor, frame: Tensor) -> Tensor:
    """Return corners (..., 3 corners, 3 axes) float64 of faces in frames, both of one shape."""
    vertex = geometry.faces[face]
    return torch.stack([geometry.vertices[a][frame[..., None], vertex] for a in range(3)], -1).double()


def _barycentric(corners: Tensor, place: Tensor, focal: Tensor) -> Tensor:
    """Return the weights (..., 3) at which rays through ``place`` (..., 2), pixels from the middle, meet faces."""
    ray = torch.cat([place / focal[..., None], torch.ones_like(place[..., :1])], -1).double()
    c0, c1, c2 = corners.unbind(-2)
    e = torch.stack([(ray * torch.linalg.cross(u, v)).sum(-1) for u, v in ((c1, c2), (c2, c0), (c0, c1))], -1)
    total = e.sum(-1, keepdim=True)
    return e / torch.where(total == 0, 1, total)


def label(geometry: Geometry, points: Points, config: SyntheticConfig) -> Labels:
    """Return tracks and visibility of points in all frames."""
    clips, n = points.face.shape
    vertex = geometry.faces[points.face].reshape(-1)
    corners = geometry.vertices.index_select(2, vertex).double()  # (3, T, B N 3)
    corners = corners.view(3, geometry.frames, clips, n, 3).permute(2, 1, 3, 4, 0)  # (B, T, N, corner, axis)
    place = (corners * points.weights[:, None, :, :, None]).sum(-2)  # (B, T, N, 3)
    ahead = place[..., 2] > raster.NEAR
    focal = geometry.focal[:, :, None].double()
    deep = place[..., 2].clamp(min=raster.NEAR)
    middle = place.new_tensor([config.width / 2, config.height / 2])
    tracks = (place[..., :2] * (focal / deep)[..., None] + middle).clamp(-1e5, 1e5).float()
    x, y = tracks.unbind(-1)
    inside = (x >= 0) & (x <= config.width) & (y >= 0) & (y <= config.height)
    seen = inside & ahead & _faces_viewer(corners, place, points.weights, focal)
    hidden, overflow = _hidden(geometry, points, place, tracks, seen, config)
    return Labels(tracks, seen & ~hidden, ahead, place, overflow)


def _faces_viewer(corners: Tensor, place: Tensor, weights: Tensor, focal: Tensor) -> Tensor:
    """Return whether a point's own face is seen well enough: not edge-on, and the point not on its very edge."""
    c0, c1, c2 = corners.unbind(-2)
    normal = torch.linalg.cross(c1 - c0, c2 - c0)
    length, away = torch.linalg.vector_norm(normal, dim=-1), torch.linalg.vector_norm(place, dim=-1)
    cosine = (normal * place).sum(-1).abs() / (length * away).clamp(min=1e-30)
    # Distance to an edge in pixels, shortened by the slant at worst: weight * height of the face * cosine / depth.
    longest = torch.stack([c1 - c0, c2 - c1, c0 - c2]).norm(dim=-1).amax(0).clamp(min=1e-12)
    margin = weights[:, None].amin(-1) * (length / longest) * cosine * focal / away
    return (cosine > GRAZING) & (margin > EDGE)


def _hidden(
    geometry: Geometry, points: Points, place: Tensor, tracks: Tensor, seen: Tensor, config: SyntheticConfig
) -> tuple[Tensor, Tensor]:
    """Return (B, T, N) whether a face covers the point, among those that pass ``seen``, and whether all were tested."""
    hidden = torch.zeros(seen.numel(), dtype=torch.uint8, device=seen.device)  # GPUs have no maximum of bool
    device = seen.device
    entries = CPU_ENTRIES if raster.may_read(device) else GPU_ENTRIES
    step = min(geometry.frames, max(1, entries // len(geometry.faces)))
    overflow = torch.zeros((), dtype=torch.bool, device=device)
    index = torch.arange(seen.numel(), device=device).view(seen.shape)
    for start in range(0, geometry.frames, step):
        frames = slice(start, min(start + step, geometry.frames))
        part = (tracks[:, frames].reshape(-1, 2), seen[:, frames].reshape(-1), index[:, frames].reshape(-1))
        overflow |= _test_chunk(geometry, points, place, frames, part, hidden, config)
    return hidden.bool().view(seen.shape), overflow


def _test_chunk(
    geometry: Geometry,
    points: Points,
    place: Tensor,
    frames: slice,
    part: tuple[Tensor, Tensor, Tensor],
    hidden: Tensor,
    config: SyntheticConfig,
) -> Tensor:
    """Mark the hidden ones among the points of some frames; returns () bool, whether pairs were left out."""
    tracks, seen, index = part
    count, n = frames.stop - frames.start, points.face.shape[1]
    corners = corners_of(geometry, frames).reshape(3, 3, -1)  # (corner, axis, E)
    size = (config.height, config.width)
    picture = pictures_of(geometry, count).reshape(-1)
    box = raster.screen_boxes(corners, focal_of(geometry, frames).reshape(-1), size)
    entry, sample, full = _pairs(box, picture, geometry.clips * count, tracks, seen, n, size)
    real = (entry >= 0) & (sample >= 0)
    entry, sample = entry.clamp(min=0), sample.clamp(min=0)
    where = index[sample]
    point = where // (geometry.frames * n) * n + where % n
    own = points.face.reshape(-1)[point] == entry % len(geometry.faces)
    p = place.reshape(-1, 3)[where]
    focal = focal_of(geometry, frames).reshape(-1).index_select(0, entry).double()
    triangle = corners.index_select(2, entry).double()
    covered = _covers(triangle, p.T, focal) & real & ~own
    hidden.scatter_reduce_(0, where, covered.to(hidden.dtype), "amax")
    return full


def _covers(corners: Tensor, p: Tensor, focal: Tensor) -> Tensor:
    """Return (K,) whether faces (3, 3, K) lie before points (3, K) on the points' rays; all float64.

    Within the face: nearer than the point, or as near (two surfaces in one place). Within ``RIM`` outside its edges:
    nearer by 1e-4 of the depth, which spares the point's own neighbours.
    """
    ray = p / p[2]
    c0 = corners[0]
    first, second = corners[1] - c0, corners[2] - c0
    e1, e2 = raster.cross(second, c0), raster.cross(c0, first)
    normal = raster.cross(first, second)
    e0 = normal - e1 - e2
    volume = (c0 * normal).sum(0)
    sign = torch.sign(volume)
    edge = torch.stack([e0, e1, e2])  # (edge, axis, K)
    value = (edge * ray).sum(1) * sign
    slope = torch.hypot(edge[:, 0], edge[:, 1]) / focal
    total = value.sum(0)
    depth = volume.abs() / torch.where(total > 0, total, 1)
    sound = (total > 0) & (sign != 0) & (depth > raster.NEAR)
    within = (value >= 0).all(0) & (depth <= p[2] * (1 + 1e-5))
    rim = (value >= -RIM * slope).all(0) & (depth < p[2] * (1 - 1e-4))
    return sound & (within | rim)


def _pairs(
    box: Tensor, picture: Tensor, pictures: int, tracks: Tensor, seen: Tensor, n: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pairs (entry, sample) whose sample's pixel touches the entry's box, -1 in places that are not used.

    Samples (picture by picture, n each) are sorted by pixel; a running count over the pixels of all pictures shows
    which samples lie in a span of a pixel row, and a summed-area table which boxes hold any. The third result states
    whether a fixed capacity was too small.
    """
    h, w = size
    device = box.device
    cell = tracks.floor().long()
    x, y = cell[:, 0].clamp(0, w - 1), cell[:, 1].clamp(0, h - 1)
    pixel = (torch.arange(len(tracks), device=device) // n * h + y) * w + x
    pixel = torch.where(seen, pixel, pictures * h * w)
    order = torch.argsort(pixel, stable=True)
    held = torch.zeros(pictures * h * w + 1, dtype=torch.int64, device=device)
    held.scatter_add_(0, pixel, torch.ones_like(pixel))
    before = torch.cat([held.new_zeros(1), held[:-1].cumsum(0)])  # samples in earlier pixels
    table = torch.nn.functional.pad(held[:-1].view(pictures, h, w).cumsum(1).cumsum(2), (1, 0, 1, 0))
    x0, y0, x1, y1 = _box_pixels(box, size)
    base = picture * ((h + 1) * (w + 1))
    flat = table.view(-1)
    row0, row1 = base + y0 * (w + 1), base + (y1 + 1) * (w + 1)
    inside = take(flat, row1 + x1 + 1) - take(flat, row0 + x1 + 1) - take(flat, row1 + x0) + take(flat, row0 + x0)
    touched = (box[2] >= box[0]) & (inside > 0)
    free = raster.may_read(device)
    chosen = torch.nonzero(touched)[:, 0] if free else torch.arange(len(picture), device=device)
    tall = torch.where(touched[chosen], y1[chosen] - y0[chosen] + 1, 0)
    rows = None if free else len(chosen) * PAIR_ROWS + pictures * h * raster.ROOM_FACES
    which, row, rows_asked = raster.expand(tall, rows)
    lost = which >= len(chosen)
    entry = chosen[which.clamp(max=len(chosen) - 1)] if len(chosen) else which
    line = ((take(picture, entry) * h + take(y0, entry) + row).clamp(max=pictures * h - 1)) * w
    begin, end = take(before, line + take(x0, entry)), take(before, line + take(x1, entry) + 1)
    wide = torch.where(lost, 0, end - begin)
    room = None if free else len(tracks) * PAIRS_PER_POINT
    part, step, asked = raster.expand(wide, room)
    missing = part >= len(wide)
    part = part.clamp(max=max(len(wide) - 1, 0))
    at = (take(begin, part) + step).clamp(max=max(len(order) - 1, 0))
    full = torch.zeros((), dtype=torch.bool, device=device)
    if rows is not None and room is not None:
        full = (rows_asked > rows) | (asked > room)
    return torch.where(missing, -1, take(entry, part)), torch.where(missing, -1, take(order, at)), full


def _box_pixels(box: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the first and last pixel column and row that boxes touch, a little widened."""
    h, w = size
    x0, x1 = ((box[0] - 0.01).floor().long().clamp(0, w - 1), (box[2] + 0.01).floor().long().clamp(0, w - 1))
    y0, y1 = ((box[1] - 0.01).floor().long().clamp(0, h - 1), (box[3] + 0.01).floor().long().clamp(0, h - 1))
    return x0, y0, x1, torch.maximum(y0, y1)
