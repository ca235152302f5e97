"""The rasteriser: which face is nearest at every pixel centre, in plain torch, on CPU or GPU.

A face is three homogeneous edge functions of the picture plane (Olano and Greer, "Triangle scan conversion using 2D
homogeneous coordinates", 1997), so faces that cross the camera's plane need no clipping. For the ray ``d = (x, y, 1)``
with x and y in units of the focal length, and corners c0, c1, c2 in camera space,

    e0 = d . (c1 x c2),  e1 = d . (c2 x c0),  e2 = d . (c0 x c1),  volume = c0 . (c1 x c2):

the ray meets the face iff all e_i have the sign of the volume; the barycentric weights are e_i / (e0 + e1 + e2) and
the depth is volume / (e0 + e1 + e2). Every e_i is linear along a pixel row, so a face covers one span of each row:
faces are expanded to rows, rows to pixels, and the pixels go into one scatter of (1 / depth, row) packed in 64 bits.

Letters: I pictures, F faces, R rows, P pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEAR = 0.05  # metres; what is nearer to the camera's plane is not drawn
SLACK = 1e-3  # pixels by which spans are widened, so that rounding leaves no gap between neighbours
BIG = 1e9
LOW = 0x7FFFFFFF  # the low half of a packed key
ROOM_FACES = 12  # faces that may be as tall as the picture


@dataclass(frozen=True)
class Edges:
    """Faces in one or many pictures, flat: one entry per (picture, face)."""

    a: Tensor  # (3, F) d(e_i)/dx, per pixel; e_i divided by |volume| and made positive inside
    b: Tensor  # (3, F) d(e_i)/dy
    c: Tensor  # (3, F) e_i at the principal point
    front: Tensor  # (F,) bool, counter-clockwise as seen
    box: Tensor  # (4, F) float32 x0, y0, x1, y1 in raster pixels; empty (x1 < x0) when out of sight


def edges_of(corners: Tensor, focal: Tensor, size: tuple[int, int]) -> Edges:
    """Return the edge functions of faces.

    Args:
        corners: (3, 3, F) float, corner and axis first, camera space: x right, y down, z forward.
        focal: (F,) pixels; the principal point is the middle of the picture.
        size: (H, W).
    """
    c0 = corners[0]
    first, second = corners[1] - c0, corners[2] - c0
    # Differences before products: c1 x c2 itself would lose the small faces' digits.
    e1, e2 = cross(second, c0), cross(c0, first)
    e0 = cross(first, second) - e1 - e2
    volume = (c0 * (e0 + e1 + e2)).sum(0)
    scale = torch.where(volume == 0, 0, 1 / torch.where(volume == 0, 1, volume))
    e = torch.stack([e0, e1, e2], 1) * scale  # (axis, edge, F)
    return Edges(
        a=e[0] / focal,
        b=e[1] / focal,
        c=e[2],
        front=volume < 0,
        box=screen_boxes(corners, focal, size),
    )


def cross(u: Tensor, v: Tensor) -> Tensor:
    """Return the cross products of vectors (3, ...)."""
    return torch.stack([u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]])


def screen_boxes(corners: Tensor, focal: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the faces' bounding boxes (4, F), clipped to the picture.

    The whole picture for faces that cross the camera's plane; x1 = -1 for those behind it.
    """
    h, w = size
    z = corners[:, 2]
    ahead = z > NEAR
    over = focal / z.clamp(min=NEAR)
    x, y = corners[:, 0] * over + w / 2, corners[:, 1] * over + h / 2
    whole = ahead.all(0)
    low_x = torch.where(whole, x.amin(0), 0).clamp(min=0)
    low_y = torch.where(whole, y.amin(0), 0).clamp(min=0)
    high_x = torch.where(whole, x.amax(0), w).clamp(max=w)
    high_y = torch.where(whole, y.amax(0), h).clamp(max=h)
    high_x = torch.where(ahead.any(0), high_x, -1.0)
    return torch.stack([low_x, low_y, high_x, high_y])


def may_read(device: torch.device) -> bool:
    """Return whether reading a number back is free: on a CPU. On a GPU it would make the host wait."""
    return device.type == "cpu"


def take(values: Tensor, index: Tensor) -> Tensor:
    """Return values (K,) at an index (L,): on a CPU six times as fast as ``values[index]``."""
    return values.index_select(0, index)


def expand(counts: Tensor, capacity: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Repeat entry i ``counts[i]`` times.

    Args:
        counts: (K,) int64, not negative.
        capacity: length of the result. None reads the exact total (free on a CPU; on a GPU it makes the host wait).
            With a fixed capacity nothing is read: the surplus names the entry K with number 0, and what does not fit
            is left out.

    Returns:
        which (L,) int64, the entry; number (L,) int64, 0, 1, 2, ... within the entry; total () int64 that was asked.
    """
    ends = counts.cumsum(0)
    total = ends[-1] if len(ends) else counts.sum()
    length = int(total) if capacity is None else capacity
    ends = ends.clamp(max=length)
    starts = torch.cat([ends.new_zeros(1), ends])
    fitted = torch.cat([starts[1:] - starts[:-1], length - starts[-1:]])
    which = torch.repeat_interleave(fitted, output_size=length)
    number = torch.arange(length, device=counts.device) - take(starts, which)
    return which, number, total


def rasterise(
    edges: Edges, picture: Tensor, pictures: int, size: tuple[int, int], capacity: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Return the nearest face at every pixel centre.

    Args:
        edges: F entries.
        picture: (F,) int64, the picture 0 .. pictures - 1 that the entry is drawn into.
        pictures: I.
        size: (H, W).
        capacity: (rows, pixels) that may be expanded without reading totals back, or None for exact totals.

    Returns:
        nearest (I, H, W) int64, the entry or -1; overflow () bool, the capacity was too small.
    """
    h, w = size
    x0, y0, x1, y1 = edges.box
    first, last = torch.ceil(y0 - 0.5), torch.floor(y1 - 0.5)
    seen = (torch.floor(x1 - 0.5) >= torch.ceil(x0 - 0.5)) & (x1 >= x0)
    tall = torch.where(seen, last - first + 1, 0).clamp(min=0).long()
    face, row, rows_asked = expand(tall, capacity and capacity[0])
    face = face.clamp(max=len(picture) - 1)
    y = take(first, face) + row
    start, wide = _spans(edges, face, y, size)
    if capacity:
        wide = torch.where(torch.arange(len(wide), device=wide.device) < rows_asked, wide, 0)
    return _fill(edges, picture, (face, y, start, wide), (pictures, h, w), capacity, rows_asked)


def _spans(edges: Edges, face: Tensor, y: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the first pixel column and the number of pixels that each (face, row) covers."""
    h, w = size
    dy = y + (0.5 - h / 2)
    low, high = take(edges.box[0], face) - w / 2, take(edges.box[2], face) - w / 2
    for i in range(3):
        a = take(edges.a[i], face)
        at = -(take(edges.b[i], face) * dy + take(edges.c[i], face))
        bound = at / torch.where(a == 0, 1e-30, a)
        low = torch.maximum(low, torch.where(a > 0, bound, -BIG))
        high = torch.minimum(high, torch.where(a < 0, bound, BIG))
        high = torch.where((a == 0) & (at > 0), -BIG, high)
    low = torch.ceil(low + (w / 2 - 0.5 - SLACK)).clamp(0, w)
    high = torch.floor(high + (w / 2 - 0.5 + SLACK)).clamp(-1, w - 1)
    return low, (high - low + 1).clamp(min=0).long()


def _fill(
    edges: Edges,
    picture: Tensor,
    rows: tuple[Tensor, Tensor, Tensor, Tensor],
    shape: tuple[int, int, int],
    capacity: tuple[int, int] | None,
    rows_asked: Tensor,
) -> tuple[Tensor, Tensor]:
    """Expand rows to pixels and keep the nearest entry of each."""
    face, y, start, wide = rows
    count, h, w = shape
    slope = take(edges.a.sum(0), face)
    here = (
        take(edges.b.sum(0), face) * (y + (0.5 - h / 2)) + take(edges.c.sum(0), face) + slope * (start + (0.5 - w / 2))
    )
    base = (take(picture, face) * h + y.long()) * w + start.long()
    row, step, asked = expand(wide, capacity and capacity[1])
    row = row.clamp(max=max(len(wide) - 1, 0))
    inverse = take(here, row) + take(slope, row) * step
    inverse = torch.where(inverse < 1 / NEAR, inverse, -1.0)
    # A positive float32 orders like its bits, a negative one loses against the initial 0; the lower row wins a tie.
    key = (inverse.view(torch.int32).long() << 32) | (LOW - row)
    pixel = take(base, row) + step
    if capacity:
        real = torch.arange(len(row), device=row.device) < asked
        key, pixel = torch.where(real, key, 0), torch.where(real, pixel, 0)
    best = key.new_zeros(count * h * w)
    best.scatter_reduce_(0, pixel, key, "amax")
    if len(face) == 0:
        return (best - 1).view(count, h, w), torch.zeros((), dtype=torch.bool, device=row.device)
    nearest = torch.where(best > 0, take(face, (LOW - (best & LOW)).clamp(max=len(face) - 1)), -1).view(count, h, w)
    if not capacity:
        return nearest, torch.zeros((), dtype=torch.bool, device=nearest.device)
    return nearest, (rows_asked > capacity[0]) | (asked > capacity[1])
