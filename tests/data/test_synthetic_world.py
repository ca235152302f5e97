"""The synthetic world as a whole: reproducible, exact, photo-consistent, split, usable in training."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ptrack.data.synthetic import SyntheticConfig, clips, generate, raster, scene, without_effects
from ptrack.data.synthetic.source import generate_with_details
from scripts.verify_synthetic import verify

SMALL = SyntheticConfig(frames=6, height=64, width=80, points=48, supersampling=1.0, max_faces=6000)


def test_shapes_and_types() -> None:
    batch = generate(SMALL, [3, 9])
    assert batch.frames.shape == (2, 6, 64, 80, 3)
    assert batch.frames.dtype == torch.uint8
    assert batch.tracks.shape == (2, 6, 48, 2)
    assert batch.tracks.dtype == torch.float32
    assert batch.visibility.shape == batch.valid.shape == (2, 6, 48)
    assert batch.trajs_3d.shape == (2, 6, 48, 3)
    assert batch.intrinsics.shape == (2, 6, 3, 3)
    assert batch.extrinsics.shape == (2, 6, 4, 4)
    assert batch.segmentation.shape == (2, 6, 64, 80)
    assert batch.tracks.isfinite().all()
    assert not (batch.visibility & ~batch.valid).any()
    assert batch.index.tolist() == [3, 9]


def test_a_clip_depends_on_its_number_alone() -> None:
    together = generate(SMALL, [4, 11, 5])
    for place, index in ((1, 11), (2, 5)):
        alone = generate(SMALL, [index])
        difference = (together.frames[place].int() - alone.frames[0].int()).abs()
        assert (difference > 1).float().mean() < 1e-3  # float rounding may move a sample over a border
        assert torch.equal(together.visibility[place], alone.visibility[0])
        assert (together.tracks[place] - alone.tracks[0]).abs().max() < 1e-3
    again = generate(SMALL, [11])
    assert torch.equal(again.frames, generate(SMALL, [11]).frames)
    assert not torch.equal(again.frames, generate(SMALL, [12]).frames)
    other = generate(dataclasses.replace(SMALL, seed=1), [11])
    assert not torch.equal(again.frames, other.frames)


def test_the_random_state_of_the_process_is_left_alone() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)
    generate(SMALL, [0])
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])


def test_fixed_capacities_give_the_same_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """The formulation for a GPU, where no total may be read back, run here on the CPU."""
    exact = generate(SMALL, [2, 6])
    monkeypatch.setattr(raster, "may_read", lambda device: False)
    fixed = generate(SMALL, [2, 6])
    assert not fixed.overflow
    assert torch.equal(fixed.visibility, exact.visibility)
    assert torch.equal(fixed.tracks, exact.tracks)
    assert ((fixed.frames.int() - exact.frames.int()).abs() > 1).float().mean() < 1e-3


def test_recast_rays_hit_the_same_place_in_later_frames() -> None:
    config = dataclasses.replace(without_effects(SMALL), frames=12, height=128, width=128, points=96)
    result = verify(config, 0, 6, 3)
    assert result["visible_positions"] > 800
    assert result["share_within_0.05_px"] >= 0.999
    assert result["over_1_px"] == 0
    assert result["projection_worst_px"] < 1e-2
    assert result["hidden_but_hit"] <= 0.05 * max(result["hidden_positions"], 20)


def test_visible_points_look_the_same_in_later_frames() -> None:
    """Photo-consistency: the patch around a visible point, warped back by the tracks' own motion, correlates."""
    config = dataclasses.replace(
        without_effects(SMALL), frames=8, height=160, width=160, points=200, supersampling=2.0, pace=0.6
    )
    scores = np.concatenate([_patch_correlations(config, index) for index in (1, 7, 20)])
    assert len(scores) > 100
    assert np.median(scores) > 0.9


def _patch_correlations(config: SyntheticConfig, index: int) -> np.ndarray:
    """Correlate 7 x 7 patches on the room at frames 0 and 7, warped by the exact homography of the point's plane."""
    batch, details = generate_with_details(config, [index])
    grey = batch.frames[0].float().mean(-1)[:, None] / 255
    plan, points = details.plans[0], details.points
    scores = []
    for n in range(config.points):
        if not (batch.visibility[0, 0, n] and batch.visibility[0, 7, n]) or points.face[0, n] >= 12:
            continue
        first = _patch(grey[0], _surface_patch(details, config, n, 0))
        second = _patch(grey[7], _surface_patch(details, config, n, 7))
        if first.std() > 0.03:
            scores.append(np.corrcoef(first, second)[0, 1])
    assert plan.index == index
    return np.array(scores)


def _surface_patch(details, config: SyntheticConfig, n: int, t: int) -> torch.Tensor:
    """Project the same 7 x 7 places around a point on its face's plane into frame t: (49, 2) pixels."""
    g, points = details.geometry, details.points
    corners = [g.vertices[:, :, g.faces[points.face[0, n], k]].double() for k in range(3)]
    weights = points.weights[0, n]
    start = sum(weights[k] * corners[k] for k in range(3))  # (3, T)
    u, v = corners[1] - corners[0], corners[2] - corners[0]
    # Offsets on the plane that are the pixel grid of frame 0.
    focal = g.focal[0].double()
    grid = torch.stack(torch.meshgrid(torch.arange(-3, 4), torch.arange(-3, 4), indexing="xy"), -1).view(-1, 2).double()
    here = start[:2, 0] / start[2, 0] * focal[0] + grid
    rays = torch.cat([here / focal[0], torch.ones(49, 1, dtype=torch.float64)], 1)
    normal = torch.linalg.cross(u[:, 0], v[:, 0])
    place = rays * ((normal @ start[:, 0]) / (rays @ normal))[:, None]
    solution = torch.linalg.lstsq(torch.stack([u[:, 0], v[:, 0]], 1), (place - start[:, 0]).T).solution
    later = start[:, t] + (u[:, t, None] * solution[0] + v[:, t, None] * solution[1]).T
    return later[:, :2] / later[:, 2:] * focal[t] + torch.tensor([config.width / 2, config.height / 2])


def _patch(image: torch.Tensor, places: torch.Tensor) -> np.ndarray:
    h, w = image.shape[-2:]
    grid = (places * torch.tensor([2 / w, 2 / h]) - 1).float().view(1, 1, -1, 2)
    return torch.nn.functional.grid_sample(image[None], grid, align_corners=False).flatten().numpy()


def test_effects_change_pictures_and_not_tracks() -> None:
    noisy = generate(dataclasses.replace(SMALL, noise=1.0, compression=1.0, exposure=1.0, fog=1.0, defocus=1.0), [8])
    clean = generate(without_effects(SMALL), [8])
    assert torch.equal(noisy.tracks, clean.tracks)
    assert torch.equal(noisy.visibility, clean.visibility)
    assert (noisy.frames.int() - clean.frames.int()).abs().float().mean() > 2


def test_motion_blur_smears_along_the_motion() -> None:
    still = generate(without_effects(SMALL), [14])
    blurred = generate(dataclasses.replace(without_effects(SMALL), motion_blur=1.0), [14])
    change = (still.frames.float() - blurred.frames.float()).abs().mean()
    assert 0.1 < change < 40
    assert torch.equal(still.tracks, blurred.tracks)


def test_the_camera_stays_in_the_room_and_out_of_things() -> None:
    for index in range(60):
        plan = scene.plan_clip(SMALL, index)
        half = np.abs(plan.instances[0].mesh.rest).max(0)
        assert (np.abs(plan.camera.position[:, [0, 2]]) < half[[0, 2]] - 0.3).all()
        assert (plan.camera.position[:, 1] > 0.1).all()
        assert (plan.camera.position[:, 1] < half[1] - 0.3).all()


def test_every_pixel_shows_a_surface() -> None:
    for index in range(4):
        _, details = generate_with_details(SMALL, [index])
        batch = generate(SMALL, [index])
        assert (details.points.face >= 0).all()
        assert batch.frames.float().mean() > 5  # not a black picture


def test_motion_is_that_of_ordinary_video() -> None:
    config = dataclasses.replace(without_effects(SMALL), frames=8, points=64)
    medians = []
    for index in range(16):
        batch = generate(config, [index])
        step = torch.linalg.vector_norm(batch.tracks[0, 1:] - batch.tracks[0, :-1], dim=-1)
        medians.append(float(step[batch.visibility[0, 1:]].median()) * 256 / config.width)
    assert 0.2 < np.median(medians) < 4
    assert min(medians) < 0.5  # still clips are part of the mix


def test_clips_are_clips() -> None:
    (clip,) = list(clips(SMALL, 1, start=3))
    assert clip.id == "synthetic/train/seed0_0000003"
    assert clip.num_frames == 6
    assert clip.num_tracks == 48
    assert clip.coord_convention == "raster"
    batch = generate(SMALL, [3])
    assert np.array_equal(clip.video(), batch.frames[0].numpy())
    assert np.array_equal(np.isnan(clip.tracks).any(-1), ~batch.valid[0].numpy())
    assert clip.masks is not None
    assert clip.masks.values(0).shape == (64, 80)
