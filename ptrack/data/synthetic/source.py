"""Synthetic clips with exact tracks, made on the spot: in batches, or as ``Clip`` objects.

Letters: B clips, T frames, N points, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ptrack.data.synthetic.config import SyntheticConfig
from ptrack.data.synthetic.geometry import Geometry, build_geometry, camera_matrices
from ptrack.data.synthetic.labels import Labels, Points, choose_points, label
from ptrack.data.synthetic.render import Renderings, draw
from ptrack.data.synthetic.scene import ClipPlan, plan_clip

if TYPE_CHECKING:
    from ptrack.data.clips import Clip

FPS = 24.0


@dataclass(frozen=True)
class SyntheticBatch:
    """Clips with their labels, on the device they were made on."""

    index: Tensor  # (B,) int64 number of the clip
    frames: Tensor  # (B, T, H, W, 3) uint8 RGB
    tracks: Tensor  # (B, T, N, 2) float32 raster pixels, finite everywhere
    visibility: Tensor  # (B, T, N) bool
    valid: Tensor  # (B, T, N) bool, False behind the camera, where the track means nothing
    trajs_3d: Tensor  # (B, T, N, 3) float32 world, metres
    intrinsics: Tensor  # (B, T, 3, 3) float32 pixels
    extrinsics: Tensor  # (B, T, 4, 4) float32 world to camera
    segmentation: Tensor  # (B, T, H, W) uint8 number of the object, 0 the room
    moving: Tensor  # (B, N) bool, the point is on something that moves in the world
    overflow: Tensor  # () bool: too little room for intermediate results (GPU only), see ``generate_checked``


@dataclass(frozen=True)
class Details:
    """What a batch was made from, for verification."""

    plans: list[ClipPlan]
    geometry: Geometry
    points: Points
    labels: Labels


def generate(config: SyntheticConfig, indices: Sequence[int], device: torch.device | str = "cpu") -> SyntheticBatch:
    """Make the clips of some numbers.

    A clip depends on ``config`` and its number only: neither on the others in the batch nor on the device, beyond
    float rounding. On a GPU nothing is read back before the batch is returned; look at ``overflow`` before use.

    Raises:
        DataError: the folders of actors or textures cannot be used.
    """
    return generate_with_details(config, indices, device)[0]


def generate_checked(config: SyntheticConfig, indices: Sequence[int], device: torch.device | str) -> SyntheticBatch:
    """Make clips as :func:`generate` does, and again on the CPU where a GPU's room for them was too small."""
    made = generate(config, indices, device)
    return generate(config, indices) if bool(made.overflow) else made


@torch.no_grad()
def generate_with_details(
    config: SyntheticConfig, indices: Sequence[int], device: torch.device | str = "cpu"
) -> tuple[SyntheticBatch, Details]:
    """Make clips and return also what they were made from."""
    device = torch.device(device)
    plans = [plan_clip(config, int(i)) for i in indices]
    geometry = build_geometry(plans, device)
    pictures = draw(plans, geometry, config)
    points = choose_points(plans, geometry, pictures, config)
    labels = label(geometry, points, config)
    batch = _batch(plans, geometry, pictures, points, labels, config)
    return batch, Details(plans, geometry, points, labels)


def _batch(
    plans: list[ClipPlan],
    geometry: Geometry,
    pictures: Renderings,
    points: Points,
    labels: Labels,
    config: SyntheticConfig,
) -> SyntheticBatch:
    device = pictures.frames.device
    view = np.stack([camera_matrices(p) for p in plans])
    back = torch.as_tensor(np.linalg.inv(view)).to(device, non_blocking=True)
    world = torch.einsum("btij,btnj->btni", back[:, :, :3, :3], labels.camera_points) + back[:, :, None, :3, 3]
    moving = torch.zeros(len(plans), max(len(p.instances) for p in plans), dtype=torch.bool)
    for b, plan in enumerate(plans):
        moving[b, : len(plan.instances)] = torch.tensor([i.moving for i in plan.instances])
    owner = geometry.owner[points.face]
    return SyntheticBatch(
        index=torch.tensor([p.index for p in plans]),
        frames=pictures.frames,
        tracks=labels.tracks,
        visibility=labels.visibility,
        valid=labels.ahead,
        trajs_3d=world.float(),
        intrinsics=_intrinsics(geometry.focal, config),
        extrinsics=torch.as_tensor(view, dtype=torch.float32).to(device, non_blocking=True),
        segmentation=geometry.owner[pictures.faces.clamp(min=0)].to(torch.uint8),
        moving=torch.gather(moving.to(device, non_blocking=True), 1, owner),
        overflow=pictures.overflow | labels.overflow,
    )


def _intrinsics(focal: Tensor, config: SyntheticConfig) -> Tensor:
    out = focal.new_zeros(*focal.shape, 3, 3)
    out[..., 0, 0] = out[..., 1, 1] = focal
    out[..., 0, 2], out[..., 1, 2], out[..., 2, 2] = config.width / 2, config.height / 2, 1
    return out


def clip_of(config: SyntheticConfig, batch: SyntheticBatch, b: int) -> Clip:
    """Return one clip of a batch as the type that the stores and evaluation speak; tracks behind the camera are NaN."""
    from ptrack.data.clips import ArrayFrames, Clip

    number = int(batch.index[b])
    valid = batch.valid[b].cpu().numpy()
    name = f"seed{config.seed}_{number:07d}"
    return Clip.build(
        id=f"synthetic/{config.split}/{name}",
        source="synthetic",
        split=config.split,
        name=name,
        frames=ArrayFrames(batch.frames[b].cpu().numpy()),
        size=(config.height, config.width),
        tracks=np.where(valid[..., None], batch.tracks[b].cpu().numpy(), np.nan),
        visibility=batch.visibility[b].cpu().numpy(),
        valid=valid,
        coord_convention="raster",
        fps=FPS,
        is_dynamic=batch.moving[b].cpu().numpy(),
        intrinsics=batch.intrinsics[b].cpu().numpy(),
        extrinsics=batch.extrinsics[b].cpu().numpy(),
        trajs_3d=batch.trajs_3d[b].cpu().numpy(),
        masks=ArrayFrames(batch.segmentation[b].cpu().numpy()),
    )


def clips(config: SyntheticConfig, count: int, start: int = 0, device: torch.device | str = "cpu") -> Iterator[Clip]:
    """Yield clips number ``start`` to ``start + count - 1``, made one at a time."""
    for index in range(start, start + count):
        yield clip_of(config, generate(config, [index], device), 0)
