"""Augmentation of whole batches on their device: crops that move, bending, occluders, light, sharpness, noise.

What ``ptrack.data.augment`` does to one clip on a CPU in tenths of a second, this does to a batch in milliseconds on a
GPU, and more: pictures bend slowly, pieces of clips cross them, and light changes from place to place, because points
on real things look less alike from frame to frame than rendered ones.

A pixel ``x`` of the result shows the source at ``middle + turn (x - half) zoom + bend(x)``; tracks go through the
inverse, found by iteration.

Letters: B clips, T frames, N points, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

INVERSE_STEPS = 6  # bending is a contraction with a factor below 0.4: 0.4^6 of 6 px is 0.02 px
BEND_NODES, LIGHT_NODES = 5, 4  # per side
FARTHEST = 2000.0  # pixels; points farther away are moved there
FRAMES_AT_ONCE = 1024  # bounds the intermediate pictures to some GB


@dataclass(frozen=True, kw_only=True)
class GpuAugmentConfig:
    """What is changed at random; probabilities are per clip."""

    flip: float = 0.5  # left and right
    reverse: float = 0.5  # played backwards
    zoom: tuple[float, float] = (0.5, 1.1)  # source pixels per pixel
    zoom_walk: float = 0.15  # how far the zoom goes, as a share, in the clip
    crop_walk: float = 0.3  # how far the crop goes, in frame sides
    turn: float = 0.2  # radians, largest
    bend: float = 0.5
    bend_pixels: float = 6.0  # largest amplitude
    flicker: float = 0.4  # light and colour drawn again in every frame
    drift: float = 0.4  # or changing slowly
    strength: float = 0.3  # of brightness, contrast and saturation
    local_light: float = 0.5
    local_strength: float = 0.25  # standard deviation of the logarithm
    sharpness: float = 0.6
    noise: float = 0.3
    noise_level: float = 10.0  # largest standard deviation, of 255
    coarse: float = 0.2  # fewer pixels, enlarged
    occluder: float = 0.6
    occluders: int = 2
    occluder_own: float = 0.4  # cut from the clip itself: it looks like what it hides
    occluder_size: tuple[float, float] = (0.08, 0.3)  # half sides, in frame sides


@dataclass(frozen=True, eq=False)
class DeviceClips:
    """A batch of clips on one device."""

    frames: Tensor  # (B, T, H, W, 3) uint8 RGB
    tracks: Tensor  # (B, T, N, 2) float32 raster pixels
    visible: Tensor  # (B, T, N) bool
    valid: Tensor  # (B, T, N) bool


def augment(
    clips: DeviceClips, config: GpuAugmentConfig, generator: torch.Generator, *, independent: bool = False
) -> DeviceClips:
    """Return the clips changed at random, in the same layout.

    Args:
        clips: at least two; occluders are cut from the clip itself or the one before.
        config: what is changed.
        generator: of random numbers, on the clips' device.
        independent: every frame is changed in its own way, for pairs that only share points.
    """
    return _Augmentation(clips, config, generator, independent).apply()


@dataclass(frozen=True, eq=False)
class _Warp:
    """Where every pixel of the result lies in the source."""

    middle: Tensor  # (B, T, 2) source pixels
    zoom: Tensor  # (B, T) source pixels per pixel
    axes: Tensor  # (B, T, 2, 2) orthogonal
    bend: Tensor  # (B, T, 2, nodes, nodes) source pixels
    half: Tensor  # (2,) half of the frame's (W, H)

    def part(self, clips: slice) -> _Warp:
        return _Warp(self.middle[clips], self.zoom[clips], self.axes[clips], self.bend[clips], self.half)

    def source(self, x: Tensor) -> Tensor:
        """Return the source pixels (B, T, N, 2) shown at pixels (B, T, N, 2)."""
        turned = torch.einsum("btij,btnj->btni", self.axes, x - self.half) * self.zoom[..., None, None]
        return self.middle[:, :, None] + turned + self._bent(x)

    def result(self, source: Tensor) -> Tensor:
        """Return the pixels (B, T, N, 2) at which source pixels (B, T, N, 2) are shown."""
        inverse, middle = self.axes.transpose(-1, -2), self.middle[:, :, None]
        wanted = source.clamp(-FARTHEST, FARTHEST)
        bent = torch.zeros_like(wanted)
        for _ in range(INVERSE_STEPS):
            turned = torch.einsum("btij,btnj->btni", inverse, wanted - middle - bent)
            x = turned / self.zoom[..., None, None] + self.half
            bent = self._bent(x)
        return x

    def _bent(self, x: Tensor) -> Tensor:
        grid = (x / self.half - 1).flatten(0, 1)[:, :, None]
        moved = F.grid_sample(self.bend.flatten(0, 1), grid, mode="bicubic", padding_mode="border", align_corners=True)
        return moved[..., 0].transpose(1, 2).view(x.shape)


class _Augmentation:
    """The random choices of one batch; pictures inside are (B, T, 3, H, W)."""

    def __init__(
        self, clips: DeviceClips, config: GpuAugmentConfig, generator: torch.Generator, independent: bool
    ) -> None:
        self.clips, self.config, self.generator, self.independent = clips, config, generator, independent
        self.device = clips.frames.device
        self.b, self.t, self.h, self.w = clips.frames.shape[:4]
        self.sides = torch.tensor([self.w, self.h], device=self.device, dtype=torch.float32)
        y, x = (torch.arange(n, device=self.device) + 0.5 for n in (self.h, self.w))
        self.pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)  # (H, W, 2)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)

    def happens(self, probability: float) -> Tensor:
        """(B, 1) 0 or 1 per clip, or (B, T) per frame."""
        return (self.uniform(self.b, self.t if self.independent else 1) < probability).float()

    def walk(self, *channels: int) -> Tensor:
        """(B, T, ...) smooth in time, about standard normal; independent per frame if frames are."""
        if self.independent:
            return self.normal(self.b, self.t, *channels)
        time = torch.arange(self.t, device=self.device)[None, :, None]
        size = math.prod(channels)
        total = torch.zeros(self.b, self.t, size, device=self.device)
        for longest in (200.0, 60.0):
            period = longest * (0.3 + 0.7 * self.uniform(self.b, 1, size))
            phase = 2 * math.pi * self.uniform(self.b, 1, size)
            total = total + self.normal(self.b, 1, size) * torch.sin(2 * math.pi * time / period + phase)
        return total.view(self.b, self.t, *channels)

    def slices(self) -> list[slice]:
        """Return parts of the clips whose pictures fit into memory."""
        step = max(1, FRAMES_AT_ONCE // self.t)
        return [slice(i, min(i + step, self.b)) for i in range(0, self.b, step)]

    def apply(self) -> DeviceClips:
        c, clips = self.config, self.clips
        back = self.uniform(self.b) < c.reverse
        time = torch.arange(self.t, device=self.device)
        rows, index = torch.arange(self.b, device=self.device)[:, None], torch.where(back[:, None], time.flip(0), time)
        warp = self._warp()
        tracks = warp.result(clips.tracks[rows, index])
        visible = clips.visible[rows, index] & (tracks >= 0).all(-1) & (tracks < self.sides).all(-1)
        frames = torch.empty(self.b, self.t, 3, self.h, self.w, device=self.device, dtype=torch.float16)
        for part in self.slices():
            picked = clips.frames[rows[part], index[part]].permute(0, 1, 4, 2, 3)
            pixels = self.pixels.view(1, 1, -1, 2).expand(len(picked), self.t, -1, -1)
            frames[part] = self._sampled(picked, warp.part(part).source(pixels))
        for _ in range(c.occluders):
            frames, hidden = self._occlude(frames, tracks)
            visible = visible & ~hidden
        return DeviceClips(
            self._light(frames).permute(0, 1, 3, 4, 2).contiguous(), tracks, visible, clips.valid[rows, index]
        )

    # ---- geometry ---------------------------------------------------------------------------------------------------

    def _warp(self) -> _Warp:
        c, half = self.config, self.sides / 2
        low, high = c.zoom
        start = low * (high / low) ** self.uniform(self.b, self.t if self.independent else 1)
        zoom = (start * torch.exp(c.zoom_walk * self.walk())).clamp(low * 0.8, high * 1.2)
        room = (1 - zoom).clamp(min=0)[..., None] * half
        middle = half + (2 * self.uniform(self.b, 1, 2) - 1) * room + c.crop_walk * self.walk(2) * half / 2
        middle = torch.minimum(torch.maximum(middle, half - room), half + room)
        angle = c.turn * self.happens(0.5) * self.walk().clamp(-1.5, 1.5) / 1.5
        mirror = torch.where(self.happens(c.flip) > 0, -1.0, 1.0)
        cos, sin = angle.cos(), angle.sin()
        axes = torch.stack([cos * mirror, -sin, sin * mirror, cos], -1).view(self.b, self.t, 2, 2)
        amount = c.bend_pixels * self.uniform(self.b, 1) * self.happens(c.bend) * zoom
        nodes = self.walk(2, BEND_NODES, BEND_NODES).clamp(-1.5, 1.5) / 1.5
        return _Warp(middle, zoom, axes, nodes * amount[..., None, None, None], half)

    def _sampled(self, frames: Tensor, xy: Tensor) -> Tensor:
        """Frames (B, T, 3, H, W) at pixels (B, T, H W, 2) of themselves; beyond the border they are mirrored."""
        grid = (xy / (self.sides / 2) - 1).reshape(-1, self.h, self.w, 2)
        made = F.grid_sample(frames.flatten(0, 1).float(), grid, padding_mode="reflection", align_corners=False)
        return made.view(frames.shape)

    # ---- occluders --------------------------------------------------------------------------------------------------

    def _occlude(self, frames: Tensor, tracks: Tensor) -> tuple[Tensor, Tensor]:
        """A piece of a clip crosses: changed frames, and which points it hides (B, T, N)."""
        c = self.config
        low, high = c.occluder_size
        size = (low + (high - low) * self.uniform(self.b, 1, 2)) * self.sides
        start, stop = (self.uniform(self.b, 1, 2) * 1.6 - 0.3 for _ in range(2))
        share = torch.linspace(0, 1, self.t, device=self.device)[None, :, None]
        if self.independent:
            share = self.uniform(self.b, self.t, 1)
        speed = 0.5 + 3 * self.uniform(self.b, 1, 1)  # crosses in a part of the clip, and rests outside
        share = ((share - self.uniform(self.b, 1, 1)) * speed + 0.5).clamp(-0.5, 1.5)
        centre = (start + (stop - start) * share) * self.sides  # (B, T, 2)
        there = (self.uniform(self.b) < c.occluder)[:, None]
        angle = math.pi * self.uniform(self.b, 1) + 0.3 * self.walk()
        power = torch.where(self.uniform(self.b, 1, 1) < 0.5, 2.0, 8.0)  # ellipses and boxes
        cos, sin = angle.cos()[..., None], angle.sin()[..., None]

        def covers(x: Tensor) -> Tensor:
            d = x - centre[:, :, None]
            u = (d[..., 0] * cos + d[..., 1] * sin) / size[..., :1]
            v = (d[..., 1] * cos - d[..., 0] * sin) / size[..., 1:]
            return (u.abs() ** power + v.abs() ** power < 1) & there[:, :, None]

        mask = covers(self.pixels.view(1, 1, -1, 2)).view(self.b, self.t, 1, self.h, self.w)
        own = (self.uniform(self.b) < c.occluder_own)[:, None, None, None, None]
        other = torch.where(own, frames, frames.roll(1, 0))
        carried = torch.empty_like(frames)
        for part in self.slices():
            shifted = self.pixels.view(1, 1, -1, 2) - centre[part, :, None] + self.sides / 2
            carried[part] = self._sampled(other[part], shifted)
        return torch.where(mask, carried, frames), covers(tracks)

    # ---- light and sharpness ----------------------------------------------------------------------------------------

    def _light(self, frames: Tensor) -> Tensor:
        c = self.config
        kind = self.uniform(self.b, self.t if self.independent else 1)
        flicker, drift = kind < c.flicker, (kind >= c.flicker) & (kind < c.flicker + c.drift)
        each = 2 * self.uniform(self.b, self.t, 4) - 1
        slow = self.walk(4).clamp(-1.5, 1.5) / 1.5
        amount = torch.where(flicker[..., None], each, torch.where(drift[..., None], slow, 0.0)) * c.strength
        bright, contrast, colour, tint = ((1 + amount).unbind(-1)[i][:, :, None, None, None] for i in range(4))
        local = c.local_strength * self.happens(c.local_light)[..., None, None, None]
        field = self.walk(1, LIGHT_NODES, LIGHT_NODES) * local
        level = c.noise_level * self.uniform(self.b, 1) * self.happens(c.noise)
        sharp = (self.walk() * 0.7).clamp(-0.6, 1.0) * self.happens(c.sharpness)  # below 0: sharpened
        coarse = self.uniform(self.b) < c.coarse
        out = torch.empty_like(frames, dtype=torch.uint8)
        kernel = torch.exp(-torch.arange(-3, 4, device=self.device).square() / (2 * 1.5**2))
        kernel = kernel / kernel.sum()
        for part in self.slices():
            x = frames[part].float()
            grey = x.mean(2, keepdim=True)
            x = grey + (x - grey) * colour[part]
            x = (x - 128) * contrast[part] + 128
            warm = torch.cat([tint[part], torch.ones_like(tint[part]), 2 - tint[part]], dim=2)
            x = x * bright[part] * (1 + 0.5 * (warm - 1))
            light = F.interpolate(field[part].flatten(0, 1), (self.h, self.w), mode="bicubic", align_corners=True)
            x = x * light.exp().view(-1, self.t, 1, self.h, self.w)
            flat = x.flatten(0, 1)
            blurred = _blur(flat, kernel)
            small = F.interpolate(F.interpolate(flat, scale_factor=0.5, mode="area"), (self.h, self.w), mode="bilinear")
            flat = torch.where(coarse[part].repeat_interleave(self.t)[:, None, None, None], small, flat)
            flat = torch.lerp(flat, blurred, sharp[part].reshape(-1, 1, 1, 1).expand(-1, 3, self.h, self.w))
            x = flat.view_as(x)
            spread = level[part].expand(-1, self.t)[..., None, None, None]
            x = x + spread * torch.randn(x.shape, generator=self.generator, device=self.device)
            out[part] = x.clamp(0, 255).round().to(torch.uint8)
        return out


def _blur(x: Tensor, kernel: Tensor) -> Tensor:
    channels = x.shape[1]
    wide = F.pad(x, (3, 3, 3, 3), mode="reflect")
    across = F.conv2d(wide, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(across, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
