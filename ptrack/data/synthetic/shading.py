"""From face numbers to colours: textures, light, shadows and fog for every rendered pixel, after the rasteriser.

Letters: B clips, T frames, I = B * T pictures, F faces, E = T * F entries, h w rendered pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor

from ptrack.data.synthetic import raster, textures
from ptrack.data.synthetic.effects import box_blur
from ptrack.data.synthetic.geometry import Geometry, unit
from ptrack.data.synthetic.raster import Edges

SHADOW_SIZE = 128  # cells of the shadow map along each side
GLOSS = 4  # the highlight's exponent is 2 ** GLOSS


@dataclass(frozen=True)
class Lighting:
    """Light of all clips in camera space and what is needed for shadows and fog."""

    direction: Tensor  # (B, T, 3) towards the light, camera axes
    direct: Tensor  # (B, T, 3)
    ambient: Tensor  # (B, T, 3)
    shadow: Tensor  # (B,) share of the direct light
    to_world: Tensor  # (B, T, 3, 4) camera to world
    world_direction: Tensor  # (B, T, 3)
    middle: Tensor  # (B, 2) x and z of the middle of the shadow map
    extent: Tensor  # (B,) metres from the middle of the shadow map to its border
    fog: Tensor  # (B,) 1/metre
    fog_color: Tensor  # (B, 3)
    with_shadow: bool  # of any clip; known to the host
    with_fog: bool
    with_shine: bool


def corners_of(geometry: Geometry, frames: slice) -> Tensor:
    """Return the corners of all faces in some frames: (3 corners, 3 axes, T, F)."""
    part = geometry.vertices[:, frames]
    return torch.stack([part.index_select(2, geometry.faces[:, k]) for k in range(3)])


def focal_of(geometry: Geometry, frames: slice) -> Tensor:
    """Return the focal length of each entry (T, F)."""
    return geometry.focal[:, frames].index_select(0, geometry.clip).T


def pictures_of(geometry: Geometry, count: int) -> Tensor:
    """Return the picture that each of the (count, F) entries is drawn into, numbered clip by clip."""
    return geometry.clip[None] * count + torch.arange(count, device=geometry.clip.device)[:, None]


def lit(geometry: Geometry, light: Lighting, frames: slice, front: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the direct light (3, T, F) at the corners, cos of the angle, and the highlight (3, T, F) or None.

    A face is lit from the side that is seen: ``front`` (T, F) states whether that is its outside.
    """
    normal = geometry.normals[:, frames]
    toward = light.direction[:, frames].permute(2, 1, 0)  # (3, T, B)
    if light.direction.shape[0] > 1:
        b = geometry.clip.new_zeros(geometry.vertices.shape[2])
        b[geometry.faces] = geometry.clip[:, None]
        toward = toward[:, :, b]  # (3, T, V)
    slope = (normal * toward).sum(0)
    sign = front.to(slope.dtype) * 2 - 1
    corners = [(slope.index_select(1, geometry.faces[:, k]) * sign).clamp(min=0) for k in range(3)]
    if not light.with_shine:
        return torch.stack(corners), None
    half = unit(toward - unit(geometry.vertices[:, frames]))
    gloss = (normal * half).sum(0)
    shine = []
    for k in range(3):
        value = (gloss.index_select(1, geometry.faces[:, k]) * sign).clamp(min=0)
        for _ in range(GLOSS):
            value = value * value
        shine.append(value * geometry.shine)
    return torch.stack(corners), torch.stack(shine)


class Surface:
    """Attributes of the nearest faces at every rendered pixel, by their planes over the picture.

    An attribute divided by the depth is linear over the picture; its plane is the edge functions weighted by the
    attribute's values at the corners.
    """

    def __init__(self, edges: Edges, nearest: Tensor, size: tuple[int, int], focal: Tensor) -> None:
        device = nearest.device
        self.edges = edges
        self.focal = focal  # (B, T) rendered pixels
        self.entry = nearest.clamp(min=0).reshape(-1)
        self.shape = nearest.shape
        h, w = size
        x = torch.arange(w, device=device) + (0.5 - w / 2)
        y = torch.arange(h, device=device) + (0.5 - h / 2)
        self.x = x.repeat(h * nearest.shape[0])
        self.y = y.repeat_interleave(w).repeat(nearest.shape[0])
        self.inverse, self.slope_x, self.slope_y = self._plane(None)
        self.depth = 1 / self.inverse.clamp(min=1e-6)

    def pick(self, values: Tensor) -> Tensor:
        """Return what each pixel's entry carries: values (E,) -> (P,)."""
        return values.index_select(0, self.entry)

    def _plane(self, corners: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return an attribute over depth at the pixels and its slopes; ``corners`` (3, E), None for the constant 1."""
        e = self.edges
        planes = [p.sum(0) if corners is None else (p * corners).sum(0) for p in (e.a, e.b, e.c)]
        a, b, c = (self.pick(p) for p in planes)
        return torch.addcmul(torch.addcmul(c, a, self.x), b, self.y), a, b

    def value(self, corners: Tensor) -> Tensor:
        """Return an attribute (3, E) at the pixels."""
        return self._plane(corners)[0] * self.depth

    def with_slopes(self, corners: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return an attribute at the pixels and its change per pixel along x and y."""
        over, a, b = self._plane(corners)
        value = over * self.depth
        return value, (a - value * self.slope_x) * self.depth, (b - value * self.slope_y) * self.depth


def sample_textures(atlas: Tensor, u: Tensor, v: Tensor, slot: Tensor, level: Tensor) -> Tensor:
    """Sample between two mip levels.

    Args:
        atlas: (B, 3, height, width).
        u: (P,) texture coordinates, one unit a tile; pixels lie clip by clip.
        v: (P,) as ``u``.
        slot: (P,) float, which tile.
        level: (P,) mip level, 0 is the finest.

    Returns:
        (B, 3, P / B) in [0, 1].
    """
    level = level.clamp(0, textures.LEVELS - 1.001)
    low = level.floor()
    u, v = u - u.floor(), v - v.floor()
    top = slot * textures.STRIP_HEIGHT + 1
    first = _sample_level(atlas, u, v, top, low)
    return torch.lerp(first, _sample_level(atlas, u, v, top, low + 1), (level - low).view(len(atlas), 1, -1))


def _sample_level(atlas: Tensor, u: Tensor, v: Tensor, top: Tensor, level: Tensor) -> Tensor:
    size = torch.exp2(8 - level)  # 256 >> level
    start = 2 * textures.TILE - 2 * size + 2 * level + 1  # where the level begins in its strip
    x = torch.addcmul(start, u, size) * (2 / atlas.shape[3]) - 1
    y = torch.addcmul(top, v, size) * (2 / atlas.shape[2]) - 1
    grid = torch.stack([x, y], -1).view(len(atlas), 1, -1, 2)
    return nnf.grid_sample(atlas, grid, align_corners=False, padding_mode="border")[:, :, 0]


def shade(
    geometry: Geometry,
    light: Lighting,
    atlas: Tensor,
    frames: slice,
    surface: Surface,
    shadow_map: Tensor | None,
) -> Tensor:
    """Return linear colours (B, T, 3, h, w) of the nearest faces."""
    clips, count = light.direct.shape[0], surface.shape[0] // light.direct.shape[0]
    h, w = surface.shape[1:]
    face = surface.entry % len(geometry.faces)

    def entries(values: Tensor) -> Tensor:  # (3, F) -> (3, E)
        return values.repeat(1, count)

    u, ux, uy = surface.with_slopes(entries(geometry.uv[0]))
    v, vx, vy = surface.with_slopes(entries(geometry.uv[1]))
    spread = (ux * ux + vx * vx + uy * uy + vy * vy) * (0.5 * textures.TILE**2)
    level = 0.5 * torch.log2(spread.clamp(min=1e-12))
    texture = sample_textures(atlas, u, v, geometry.slot.index_select(0, face), level)
    texture = texture * texture
    front = surface.edges.front.view(count, -1)
    direct, shine = lit(geometry, light, frames, front)
    direct = surface.value(direct.reshape(3, -1))
    if shadow_map is not None:
        direct = direct * _unshadowed(light, frames, surface, shadow_map, geometry.number.index_select(0, face) < 2)
    shape = (clips, count, h, w)
    glow = None if shine is None else surface.value(shine.reshape(3, -1)).view(shape)
    direct = direct.view(shape)
    strength, ambient = light.direct[:, frames], light.ambient[:, frames]
    planes = []
    for k in range(3):
        color = geometry.base[k].index_select(0, face).view(shape)
        color = color + geometry.gain[k].index_select(0, face).view(shape) * texture[:, k].view(shape)
        bright = torch.addcmul(_over(ambient[..., k]), direct, _over(strength[..., k]))
        color = color * bright
        if glow is not None:
            color = torch.addcmul(color, glow, _over(strength[..., k]))
        planes.append(color)
    picture = torch.stack(planes, 2)
    return _fogged(light, picture, surface.depth.view(shape)) if light.with_fog else picture


def _over(values: Tensor) -> Tensor:
    return values[:, :, None, None]


def _fogged(light: Lighting, picture: Tensor, depth: Tensor) -> Tensor:
    clear = torch.exp(-light.fog[:, None, None, None] * depth)[:, :, None]
    return torch.lerp(light.fog_color[:, None, :, None, None], picture, clear)


def shadow_maps(geometry: Geometry, light: Lighting, frames: slice, capacity: tuple[int, int] | None) -> Tensor:
    """Return how much of the direct light is kept from the floor: (I, 1, SHADOW_SIZE, SHADOW_SIZE), soft.

    Everything but the room is projected along the light onto the floor and drawn there.
    """
    thing = geometry.owner > 0
    clips, count = light.to_world.shape[0], len(range(*frames.indices(light.to_world.shape[1])))
    corners = corners_of(geometry, frames)  # (3, 3, T, F)
    matrix = light.to_world[:, frames].index_select(0, geometry.clip).permute(2, 3, 1, 0)  # (3, 4, T, F)
    world = [sum(corners[:, j] * matrix[i, j] for j in range(3)) + matrix[i, 3] for i in range(3)]
    toward = light.world_direction[:, frames].index_select(0, geometry.clip).permute(2, 1, 0)
    middle = light.middle.index_select(0, geometry.clip)
    x = world[0] - world[1] * (toward[0] / toward[1]) - middle[:, 0]
    z = world[2] - world[1] * (toward[2] / toward[1]) - middle[:, 1]
    flat = torch.stack([x, z, torch.where(thing, 1.0, -1.0).expand_as(x)], 1).reshape(3, 3, -1)
    scale = (SHADOW_SIZE / 2 / light.extent).index_select(0, geometry.clip).repeat(count)
    size = (SHADOW_SIZE, SHADOW_SIZE)
    edges = raster.edges_of(flat, scale, size)
    nearest, _ = raster.rasterise(edges, pictures_of(geometry, count).reshape(-1), clips * count, size, capacity)
    mask = (nearest >= 0).to(torch.float32)[:, None]
    return box_blur(box_blur(mask, 1), 1)


def _unshadowed(light: Lighting, frames: slice, surface: Surface, maps: Tensor, floor: Tensor) -> Tensor:
    """Return the factor (P,) of the direct light."""
    clips, count = light.to_world.shape[0], surface.shape[0] // light.to_world.shape[0]
    depth = surface.depth.view(clips, count, -1)
    flat = depth / surface.focal[..., None]
    ray = [surface.x.view_as(depth) * flat, surface.y.view_as(depth) * flat, depth]
    m = light.to_world[:, frames][..., None]  # (B, T, 3, 4, 1)
    at = []
    for axis, k in ((0, 0), (2, 1)):
        place = m[:, :, axis, 0] * ray[0] + m[:, :, axis, 1] * ray[1] + m[:, :, axis, 2] * ray[2] + m[:, :, axis, 3]
        at.append((place - light.middle[:, None, None, k]) / light.extent[:, None, None])
    grid = torch.stack(at, -1).view(clips * count, *surface.shape[1:], 2)
    dark = nnf.grid_sample(maps, grid, align_corners=False).view(clips, count, -1)
    return 1 - dark.mul(light.shadow[:, None, None]).reshape(-1) * floor
