"""Drawing clips: the loop over frames that runs rasteriser, shading and camera effects.

Letters: B clips, T frames, F faces of all clips, H W pixels, h w rendered pixels (``supersampling`` times more).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from ptrack.data.synthetic import effects, raster, shading
from ptrack.data.synthetic.config import SyntheticConfig
from ptrack.data.synthetic.geometry import Geometry, build_atlas, camera_matrices
from ptrack.data.synthetic.raster import take
from ptrack.data.synthetic.scene import ClipPlan
from ptrack.data.synthetic.shading import Lighting, Surface, corners_of, focal_of, pictures_of

CPU_PIXELS = 150_000  # rendered pixels at once on a CPU: the planes of a chunk then stay in its cache
GPU_PIXELS, GPU_ENTRIES = 60_000_000, 8_000_000  # on a GPU, about 10 GB of intermediate results
ROWS_PER_FACE, LAYERS = 6, 5  # room for expansion on a GPU: picture rows per face and pixels per pixel


@dataclass(frozen=True)
class Renderings:
    """Drawn clips."""

    frames: Tensor  # (B, T, H, W, 3) uint8
    faces: Tensor  # (B, T, H, W) int64 nearest face, flat over clips; -1: none
    overflow: Tensor  # () bool, the expansion did not fit (GPU only)


def lighting(plans: list[ClipPlan], device: torch.device) -> Lighting:
    """Collect the lights of clips, turned into camera axes."""
    rotation = np.stack([p.camera.rotation for p in plans])
    world = np.stack([p.light.direction for p in plans])
    back = np.linalg.inv(np.stack([camera_matrices(p) for p in plans]))[:, :, :3]
    middle, extent = zip(*(_shadow_region(p) for p in plans), strict=True)

    def tensor(values: object) -> Tensor:
        return torch.as_tensor(np.asarray(values, np.float32)).to(device, non_blocking=True)

    return Lighting(
        direction=tensor(np.einsum("btij,btj->bti", rotation, world)),
        direct=tensor([p.light.direct for p in plans]),
        ambient=tensor([p.light.ambient for p in plans]),
        shadow=tensor([p.light.shadow for p in plans]),
        to_world=tensor(back),
        world_direction=tensor(world),
        middle=tensor(middle),
        extent=tensor(extent),
        fog=tensor([p.effects.fog for p in plans]),
        fog_color=tensor([p.effects.fog_color for p in plans]),
        with_shadow=any(p.light.shadow > 0 for p in plans),
        with_fog=any(p.effects.fog > 0 for p in plans),
        with_shine=any(i.shine > 0 for p in plans for i in p.instances),
    )


def _shadow_region(plan: ClipPlan) -> tuple[np.ndarray, float]:
    """Return the middle (2,) and half side of the floor's part that gets shadows: around the objects at time 0."""
    spots = [i.matrices[0, :, [0, 2], 3].mean(-1) for i in plan.instances[1:]]
    if not spots:
        return np.zeros(2), 5.0
    middle = np.median(np.stack(spots), axis=0)
    return middle, float(np.clip(np.abs(np.stack(spots) - middle).max() + 1.5, 2.5, 8.0))


def _chunks(config: SyntheticConfig, clips: int, faces: int, device: torch.device) -> list[slice]:
    h, w = rendered_size(config)
    if raster.may_read(device):
        step = max(1, CPU_PIXELS // (h * w * clips))
    else:
        step = max(1, min(GPU_PIXELS // (h * w * clips), GPU_ENTRIES // faces))
    return [slice(t, min(t + step, config.frames)) for t in range(0, config.frames, step)]


def rendered_size(config: SyntheticConfig) -> tuple[int, int]:
    """Return (h, w)."""
    return round(config.height * config.supersampling), round(config.width * config.supersampling)


def lookup(size: int, rendered: int, device: torch.device) -> Tensor:
    """Return for each pixel along one side the rendered pixel that holds its centre."""
    return ((torch.arange(size, device=device) + 0.5) * (rendered / size)).floor().long().clamp(max=rendered - 1)


def draw(plans: list[ClipPlan], geometry: Geometry, config: SyntheticConfig) -> Renderings:
    """Draw clips that were posed. Nothing is read back from a GPU."""
    device = geometry.vertices.device
    light, atlas = lighting(plans, device), build_atlas(plans, device)
    h, w = rendered_size(config)
    rows, columns = lookup(config.height, h, device), lookup(config.width, w, device)
    blurred = any(p.effects.shutter > 0 for p in plans)
    parts: list[tuple[Tensor, ...]] = []
    overflow = torch.zeros((), dtype=torch.bool, device=device)
    for frames in _chunks(config, len(plans), len(geometry.faces), device):
        count = frames.stop - frames.start
        corners = corners_of(geometry, frames).reshape(3, 3, -1)
        focal = focal_of(geometry, frames).reshape(-1) * (w / config.width)
        edges = raster.edges_of(corners, focal, (h, w))
        picture = pictures_of(geometry, count).reshape(-1)
        capacity = _capacity(len(picture), (len(plans) * count, h, w), device)
        nearest, full = raster.rasterise(edges, picture, len(plans) * count, (h, w), capacity)
        overflow |= full
        surface = Surface(edges, nearest, (h, w), geometry.focal[:, frames] * (w / config.width))
        shadows = shading.shadow_maps(geometry, light, frames, capacity) if light.with_shadow else None
        colors = shading.shade(geometry, light, atlas, frames, surface, shadows)
        shape = (len(plans), count, config.height, config.width)
        small = nnf.interpolate(colors.flatten(0, 1), size=shape[2:], mode="area") if h != config.height else colors
        at_pixel = (rows[:, None] * w + columns).reshape(-1)
        entry = nearest.flatten(1).index_select(1, at_pixel)
        faces = torch.where(entry < 0, -1, entry % len(geometry.faces))
        depth = surface.depth.view(len(nearest), -1).index_select(1, at_pixel).view(*shape[:2], 1, *shape[2:])
        speed = _velocity(geometry, frames, surface, entry, (rows, columns), config) if blurred else None
        small = small.reshape(*shape[:2], 3, *shape[2:])
        done = [
            _finish(plan, frames, small[b], depth[b], None if speed is None else speed[b])
            for b, plan in enumerate(plans)
        ]
        parts.append((torch.stack(done), faces.view(shape)))
    pictures, faces = (torch.cat(p, 1) for p in zip(*parts, strict=True))
    return Renderings(pictures, faces, overflow)


def _capacity(entries: int, shape: tuple[int, int, int], device: torch.device) -> tuple[int, int] | None:
    """Return room for rows and pixels, or None where totals may be read."""
    count, h, w = shape
    if raster.may_read(device):
        return None
    return entries * ROWS_PER_FACE + count * h * raster.ROOM_FACES, count * h * w * LAYERS


def _finish(plan: ClipPlan, frames: slice, colors: Tensor, depth: Tensor, velocity: Tensor | None) -> Tensor:
    gain = plan.effects.gain
    if gain is not None:
        gain = torch.as_tensor(gain[frames], dtype=torch.float32).to(colors.device, non_blocking=True)
    return effects.finish(colors, depth, velocity, plan.effects, gain, plan.seed, frames.start)


def _velocity(
    geometry: Geometry,
    frames: slice,
    surface: Surface,
    entry: Tensor,
    where: tuple[Tensor, Tensor],
    config: SyntheticConfig,
) -> Tensor:
    """Return how far the surface in each pixel moves until the next frame, (B, T, 2, H, W) pixels.

    The edge functions give the weights of the corners over the depth; the same weights on the next frame's corners
    give the point there. The last frame uses the one before it.
    """
    count = geometry.frames
    index = torch.arange(frames.start, frames.stop, device=entry.device) + 1
    other = torch.where(index < count, index, count - 2)
    sign = torch.where(index < count, 1.0, -1.0).repeat(geometry.clips)[:, None]
    pick = entry.clamp(min=0).reshape(-1)
    face, frame = pick % len(geometry.faces), other[pick // len(geometry.faces)]
    rows, columns = where
    h, w = surface.shape[1:]
    x = (columns + (0.5 - w / 2)).repeat(len(rows) * len(entry))
    y = (rows + (0.5 - h / 2)).repeat_interleave(len(columns)).repeat(len(entry))
    point = [torch.zeros_like(x) for _ in range(3)]
    for corner in range(3):
        e = surface.edges
        weight = take(e.a[corner], pick) * x + take(e.b[corner], pick) * y + take(e.c[corner], pick)
        at = frame * geometry.vertices.shape[2] + take(geometry.faces[:, corner], face)
        for axis in range(3):
            point[axis] += weight * take(geometry.vertices[axis].view(-1), at)
    clip = geometry.clip[face]
    focal = geometry.focal[clip, frame] * (w / config.width)
    ahead = point[2].clamp(min=1e-6)
    move = torch.stack([point[0] / ahead * focal - x, point[1] / ahead * focal - y]).view(2, len(entry), -1)
    move = torch.where(point[2].view(len(entry), -1) > 0, move * sign, 0) * (config.width / w)
    return move.transpose(0, 1).reshape(geometry.clips, -1, 2, len(rows), len(columns))
