"""Sampling of feature maps against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ptrack.models.layers.windows import bilinear_window


@pytest.mark.parametrize("points", [6, 40])  # fewer cells than the maps have, and more: two ways to the gradient
def test_a_window_of_one_cell_is_a_bilinear_sample_with_its_gradient(points: int):
    """Track-On2 samples its templates so in training, too: graphs of ONNX have no ``grid_sample`` on (h, w, C)."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 5, 7, 8, generator=generator)
    cells = torch.rand(2, points, 2, generator=generator) * torch.tensor([9.0, 7.0]) - 1  # also beyond the borders
    clip = torch.arange(2)[:, None].expand(2, points).flatten()
    weight = torch.randn(2, points, 8, generator=generator)
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    sample = bilinear_window(ours, clip, cells.flatten(0, 1), 0).view(2, points, 8)
    grid = (cells + 0.5) * 2 / torch.tensor([7.0, 5.0]) - 1
    image = theirs.permute(0, 3, 1, 2)
    expected = F.grid_sample(image, grid[:, :, None], padding_mode="border", align_corners=False)[..., 0].mT
    (sample * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(sample, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)
