"""Augmentation of batches on the device: points stay on what they were on, what covers them hides them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ptrack.data.gpu_augment import DeviceClips, GpuAugmentConfig, augment

SIZE = 96
STILL = GpuAugmentConfig(
    flip=0, reverse=0, zoom=(1.0, 1.0), zoom_walk=0, crop_walk=0, turn=0, bend=0, flicker=0, drift=0, local_light=0,
    sharpness=0, noise=0, coarse=0, occluder=0,
)  # fmt: skip


def ramp(clips: int = 2, frames: int = 6) -> DeviceClips:
    """Pictures whose colour says where a pixel came from: red grows with x, green with y, blue with time."""
    centre = (torch.arange(SIZE) + 0.5) * 2
    frame = torch.zeros(frames, SIZE, SIZE, 3)
    frame[..., 0] = centre
    frame[..., 1] = centre[:, None]
    frame[..., 2] = 40.0 * torch.arange(frames)[:, None, None]
    xy = torch.stack(torch.meshgrid(torch.arange(12, 90, 9.0), torch.arange(12, 90, 9.0), indexing="xy"), -1)
    tracks = xy.reshape(1, 1, -1, 2).expand(clips, frames, -1, 2).contiguous()
    seen = torch.ones(tracks.shape[:-1], dtype=torch.bool)
    return DeviceClips(frame.to(torch.uint8).expand(clips, -1, -1, -1, -1).contiguous(), tracks, seen, seen.clone())


def colours(clips: DeviceClips, tracks: Tensor) -> Tensor:
    """(B, T, N, 3) colours at the tracks, bilinear."""
    b, t = tracks.shape[:2]
    grid = (tracks / (SIZE / 2) - 1).flatten(0, 1)[:, None]
    pictures = clips.frames.flatten(0, 1).permute(0, 3, 1, 2).float()
    found = torch.nn.functional.grid_sample(pictures, grid, align_corners=False)
    return found[:, :, 0].transpose(1, 2).reshape(b, t, -1, 3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_nothing_changes_nothing() -> None:
    clips = ramp()
    out = augment(clips, STILL, generator())
    assert torch.allclose(out.tracks, clips.tracks, atol=1e-3)
    assert (out.frames.int() - clips.frames.int()).abs().max() <= 1
    assert torch.equal(out.visible, clips.visible)


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_points_stay_on_what_they_were_on(seed: int, independent: bool) -> None:
    moving = replace(STILL, flip=0.5, reverse=0.5, zoom=(0.5, 1.0), zoom_walk=0.15, crop_walk=0.3, turn=0.2, bend=1.0)
    clips = ramp()
    out = augment(clips, moving, generator(seed), independent=independent)
    inside = (out.tracks > 2).all(-1) & (out.tracks < SIZE - 2).all(-1)
    assert inside.sum() > 100
    error = (colours(out, out.tracks)[..., :2] / 2 - clips.tracks).norm(dim=-1)
    assert error[inside].max() < 1.0
    assert error[inside].mean() < 0.25  # pixels: whole colour values alone give 0.2
    assert not torch.allclose(out.tracks, clips.tracks, atol=1.0)


def test_time_goes_backwards_for_pictures_and_points_together() -> None:
    clips = ramp()
    clips.tracks[:, :, :, 0] += torch.arange(6)[None, :, None]
    clips.visible[:, 2] = False
    out = augment(clips, replace(STILL, reverse=1.0), generator())
    assert torch.allclose(out.tracks, clips.tracks.flip(1), atol=1e-3)
    assert not out.visible[:, 3].any()
    assert out.visible[:, 2].all()
    assert (out.frames[:, 0, ..., 2] > 190).all()
    assert (out.frames[:, -1, ..., 2] == 0).all()


def test_points_under_an_occluder_are_hidden_and_no_others() -> None:
    clips = ramp(2, 12)
    clips.frames[0] = 0
    clips.frames[1] = 255
    out = augment(
        clips, replace(STILL, occluder=1.0, occluders=1, occluder_own=0.0, occluder_size=(0.2, 0.3)), generator(3)
    )
    foreign = colours(out, out.tracks)[..., 0]  # of the first clip 255, of the second 0, where something else is seen
    covered = torch.stack([foreign[0] > 128, foreign[1] < 128])
    sure = torch.stack([(foreign[0] - 128).abs(), (foreign[1] - 128).abs()]) > 126  # not on the rim
    assert (covered & sure).any()
    assert torch.equal(out.visible[sure], ~covered[sure])


def test_light_moves_no_point_and_is_reproducible() -> None:
    lit = replace(STILL, flicker=1.0, local_light=1.0, sharpness=1.0, noise=1.0, coarse=0.5)
    clips = ramp()
    first, second = augment(clips, lit, generator(1)), augment(clips, lit, generator(1))
    assert torch.equal(first.frames, second.frames)
    assert torch.allclose(first.tracks, clips.tracks, atol=1e-3)
    assert (first.frames.float() - augment(clips, STILL, generator(1)).frames.float()).abs().mean() > 3


def test_points_that_leave_are_hidden() -> None:
    out = augment(ramp(), replace(STILL, zoom=(0.4, 0.5)), generator(2))
    gone = (out.tracks < 0).any(-1) | (out.tracks >= SIZE).any(-1)
    assert gone.any()
    assert not out.visible[gone].any()
    assert out.visible[~gone].all()
