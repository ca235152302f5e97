"""Alignment: patches aligned from frame to frame at the source's resolution."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from ptrack.models.nano import alignment
from ptrack.models.nano.alignment import Alignment, grey_frames


def picture(height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    """A smooth texture, (H, W) floating point 0..255."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((height, width)), 2.0)
    return 255 * (noise - noise.min()) / np.ptp(noise)


def as_frame(grey: np.ndarray) -> torch.Tensor:
    rgb = np.repeat(np.clip(grey, 0, 255).round().astype(np.uint8)[None, ..., None], 3, axis=-1)
    return torch.from_numpy(rgb)


def align(before: torch.Tensor, after: torch.Tensor, *places: torch.Tensor) -> Alignment:
    return alignment.align(grey_frames(before), grey_frames(after), *places, size=(before.shape[1], before.shape[2]))


ONE = torch.zeros(3, dtype=torch.long)
START = torch.tensor([[40.5, 40.5], [64.0, 50.3], [90.2, 30.0]])


@pytest.mark.parametrize("brighter", [0, 30])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.4, -0.7), (2.3, 1.6)])
def test_a_shifted_picture_is_found_to_a_twentieth_of_a_pixel(shift, brighter):
    grey = 0.8 * picture()
    moved = ndimage.shift(grey, (shift[1], shift[0]), order=3, mode="nearest")
    found = align(as_frame(grey), as_frame(moved + brighter), ONE, START, START)
    torch.testing.assert_close(found.xy, START + torch.tensor(shift), atol=0.05, rtol=0)
    assert found.textured.all()


def test_nothing_to_hold_on_to_is_not_textured():
    flat, stripes = np.full((96, 128), 90.0), np.tile(127 + 100 * np.sin(np.arange(128) / 3), (96, 1))
    for grey in (flat, stripes):
        found = align(as_frame(grey), as_frame(grey), ONE, START, START)
        assert not found.textured.any()
        assert found.xy.isfinite().all()


def test_patches_at_the_border_and_outside_are_finite():
    start = torch.tensor([[0.0, 0.0], [128.0, 96.0], [-500.0, 4000.0]])
    found = align(as_frame(picture()), as_frame(picture()), ONE, start, start)
    assert found.xy.isfinite().all()


def test_points_do_not_see_each_other():
    before, after = as_frame(picture()), as_frame(ndimage.shift(picture(), (0.5, 0.5)))
    together = align(before, after, ONE, START, START).xy
    alone = torch.cat([align(before, after, ONE[:1], p[None], p[None]).xy for p in START])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


def test_large_frames_are_sampled_more_coarsely():
    grey = picture(960, 1708)
    wide = ndimage.shift(grey, (0, 6.0), order=1, mode="nearest")  # six pixels are three samples there
    start = torch.tensor([[800.0, 500.0]])
    found = align(as_frame(grey), as_frame(wide), ONE[:1], start, start)
    torch.testing.assert_close(found.xy, start + torch.tensor([6.0, 0.0]), atol=0.3, rtol=0)


def test_clips_of_a_batch_are_aligned_each_in_its_own_frame():
    one, other = picture(seed=1), picture(seed=2)
    before = torch.cat([as_frame(one), as_frame(other)])
    after = torch.cat([as_frame(ndimage.shift(g, by)) for g, by in ((one, (0.5, 1.0)), (other, (-1.0, 0.25)))])
    clip = torch.tensor([0, 1, 1])
    together = align(before, after, clip, START, START).xy
    alone = [
        align(before[b : b + 1], after[b : b + 1], ONE[:1], p[None], p[None]).xy
        for b, p in zip(clip.tolist(), START, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-3, rtol=0)
