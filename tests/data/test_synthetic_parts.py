"""The parts of the synthetic world: rasteriser, meshes, textures, motion, library, effects, configuration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ptrack.data.synthetic import effects, library, meshes, motion, raster, textures
from ptrack.data.synthetic.config import SyntheticConfig
from ptrack.errors import ConfigError, DataError


def _brute_force(corners: np.ndarray, focal: float, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Cast a float64 ray through every pixel centre: nearest face (H, W), and its lead over the next one in depth."""
    h, w = size
    y, x = np.meshgrid(np.arange(h) + 0.5 - h / 2, np.arange(w) + 0.5 - w / 2, indexing="ij")
    rays = np.stack([x / focal, y / focal, np.ones_like(x)], -1).reshape(-1, 3)
    depth = np.full((len(corners), len(rays)), np.inf)
    for f, (a, b, c) in enumerate(corners):
        solution = np.linalg.solve(np.stack([a, b, c], 1), rays.T)  # weights over depth
        hit = (solution >= 0).all(0)
        depth[f, hit] = 1 / solution.sum(0)[hit]
    depth[depth < raster.NEAR] = np.inf
    order = np.sort(depth, 0)
    face = np.where(np.isinf(order[0]), -1, depth.argmin(0))
    with np.errstate(invalid="ignore"):
        lead = np.where(np.isinf(order[1]), 1.0, order[1] - order[0])
    return face.reshape(h, w), lead.reshape(h, w)


@pytest.mark.parametrize("capacity", [None, (20_000, 60_000)])
def test_rasteriser_equals_ray_casting(capacity: tuple[int, int] | None) -> None:
    rng = np.random.default_rng(0)
    corners = rng.normal(size=(60, 3, 3)) * [2, 2, 1.5] + [0, 0, 3]  # some cross the camera's plane or lie behind it
    small = rng.normal(size=(60, 1, 3)) * [1, 1, 0.3] + [0, 0, 2] + rng.normal(size=(60, 3, 3)) * 0.05
    corners = np.concatenate([corners, small]).astype(np.float32)
    size, focal = (40, 56), 50.0
    edges = raster.edges_of(torch.from_numpy(corners).permute(1, 2, 0), torch.full((120,), focal), size)
    nearest, overflow = raster.rasterise(edges, torch.zeros(120, dtype=torch.int64), 1, size, capacity)
    expected, lead = _brute_force(corners.astype(np.float64), focal, size)
    assert not overflow
    differs = nearest[0].numpy() != expected
    assert (expected >= 0).mean() > 0.5
    assert differs.mean() < 0.002  # pixel centres within 0.001 px of an edge may fall to either side
    assert (differs & (lead > 1e-3)).sum() <= 4


def test_rasteriser_leaves_no_gap_between_neighbours() -> None:
    mesh = meshes.sphere(30, 40)
    corners = torch.from_numpy(mesh.rest[mesh.faces] + np.float32([0, 0, 0])).permute(1, 2, 0)  # the camera is inside
    edges = raster.edges_of(corners.contiguous(), torch.full((mesh.num_faces,), 80.0), (128, 128))
    nearest, _ = raster.rasterise(edges, torch.zeros(mesh.num_faces, dtype=torch.int64), 1, (128, 128))
    assert (nearest >= 0).all()


def test_too_small_a_capacity_is_reported() -> None:
    mesh = meshes.room(np.array([2.0, 1.0, 2.0]))
    corners = torch.from_numpy(mesh.rest[mesh.faces] - np.float32([0, 1, 0])).permute(1, 2, 0).contiguous()
    edges = raster.edges_of(corners, torch.full((12,), 30.0), (32, 32))
    picture = torch.zeros(12, dtype=torch.int64)
    assert raster.rasterise(edges, picture, 1, (32, 32), (400, 200))[1]
    assert raster.rasterise(edges, picture, 1, (32, 32), (10, 5000))[1]
    nearest, overflow = raster.rasterise(edges, picture, 1, (32, 32), (600, 5000))
    assert not overflow
    assert (nearest >= 0).all()


def test_expand() -> None:
    which, number, total = raster.expand(torch.tensor([2, 0, 3]))
    assert which.tolist() == [0, 0, 2, 2, 2]
    assert number.tolist() == [0, 1, 0, 1, 2]
    assert int(total) == 5
    which, number, _ = raster.expand(torch.tensor([2, 0, 3]), 7)
    assert which.tolist() == [0, 0, 2, 2, 2, 3, 3]
    which, _, total = raster.expand(torch.tensor([2, 0, 3]), 4)
    assert which.tolist() == [0, 0, 2, 2]
    assert int(total) == 5
    assert [len(part) for part in raster.expand(torch.zeros(0, dtype=torch.int64))[:2]] == [0, 0]


@pytest.mark.parametrize("mesh", [meshes.box(np.array([1.0, 0.5, 0.7])), meshes.sphere(), meshes.cylinder(0.8, 0.4)])
def test_closed_shapes(mesh: meshes.Mesh) -> None:
    """Every edge belongs to two faces that run along it in opposite directions, and the normals point outwards."""
    _, place = np.unique(mesh.rest.round(5), axis=0, return_inverse=True)
    faces = place.reshape(-1)[mesh.faces]
    edges = [(f[k], f[(k + 1) % 3]) for f in faces for k in range(3)]
    assert len(set(edges)) == len(edges)
    assert {(b, a) for a, b in edges} == set(edges)
    corners = mesh.rest[mesh.faces]
    volume = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert volume > 0.1
    assert (np.einsum("vi,vi->v", mesh.normals, mesh.rest) > 0).all()


def test_actors_are_posed_and_cleaned() -> None:
    path = next(p for p in library.open_library(None, None, "all").animated if "fox" in p.name)
    mesh = meshes.load_actor(path)
    assert mesh.clips
    posed = mesh.posed(mesh.clips[sorted(mesh.clips)[0]][0])
    assert 0.5 < np.linalg.norm(posed, axis=1).max() < 2
    assert np.allclose(mesh.weights.sum(1), 1, atol=1e-5)
    assert mesh.interest is not None
    assert mesh.interest.max() > 1.5 * mesh.interest.min()  # limbs count more
    key = np.sort(np.unique(mesh.rest, axis=0, return_inverse=True)[1].reshape(-1)[mesh.faces], 1)
    assert len(np.unique(key, axis=0)) == mesh.num_faces


def test_vertices_without_weights_follow_their_first_joint(tmp_path: Path) -> None:
    """They would otherwise sit at the camera: some models have such vertices."""
    np.savez(
        tmp_path / "loose.npz",
        rest=np.eye(3, dtype=np.float32),
        faces=np.array([[0, 1, 2]]),
        color=np.zeros((3, 3), np.uint8),
        joint=np.array([[1, 0, 0, 0]] * 3),
        weight=np.array([[0, 0, 0, 0], [128, 127, 0, 0], [256, 0, 0, 0]]),
        bind=np.zeros((2, 3, 4), np.float32),
    )
    assert np.allclose(meshes.load_actor(tmp_path / "loose.npz").weights, [[0, 1], [127 / 255, 128 / 255], [0, 1]])


def test_box_blur_averages() -> None:
    picture = torch.rand(2, 3, 12, 15)
    expected = torch.nn.functional.avg_pool2d(picture, 5, 1)
    assert torch.allclose(effects.box_blur(picture, 2)[..., 2:-2, 2:-2], expected, atol=1e-6)
    assert torch.allclose(effects.box_blur(torch.ones(1, 1, 6, 6), 1), torch.ones(1, 1, 6, 6))


def test_damaged_actors_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.npz").write_bytes(b"PK not really")
    with pytest.raises(DataError, match=r"broken\.npz is not a readable actor"):
        meshes.load_actor(tmp_path / "broken.npz")
    np.savez(tmp_path / "short.npz", rest=np.zeros((3, 3), np.float32))
    with pytest.raises(DataError, match="lacks the array 'faces'"):
        meshes.load_actor(tmp_path / "short.npz")
    arrays = dict.fromkeys(meshes.ARRAYS, np.zeros((3, 4), np.uint8))
    arrays |= {"rest": np.zeros((3, 3)), "faces": np.array([[0, 1, 9]]), "bind": np.zeros((1, 3, 4))}
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(DataError, match="do not fit together"):
        meshes.load_actor(tmp_path / "wrong.npz")
    with pytest.raises(DataError, match="not a readable actor"):
        library.open_library(str(tmp_path), None, "all")


def test_tiles_repeat_without_seam_or_mirror() -> None:
    rng = np.random.default_rng(1)
    photo = np.cumsum(np.cumsum(rng.normal(size=(300, 400, 3)), 0), 1)
    photo = ((photo - photo.min()) / np.ptp(photo)).astype(np.float32)
    tile = textures.repeating(photo)
    assert tile.shape == (textures.TILE, textures.TILE, 3)
    inner = np.abs(np.diff(tile, axis=0)).max()
    assert np.abs(tile[0] - tile[-1]).max() <= 1.5 * inner
    assert np.abs(tile[:, 0] - tile[:, -1]).max() <= 1.5 * np.abs(np.diff(tile, axis=1)).max()
    interior = tile[60:250, 60:250]
    assert not np.allclose(interior, interior[:, ::-1], atol=0.02)


@pytest.mark.parametrize("kind", textures.PROCEDURAL)
def test_patterns_have_texture(kind: str) -> None:
    strip = textures.procedural_strip(kind, 0)
    assert strip.shape == (3, textures.STRIP_HEIGHT, textures.STRIP_WIDTH)
    tile = strip[:, 1:257, 1:257].astype(np.float32)
    assert tile.std() > 4
    # The border of a level is its own opposite side.
    assert np.array_equal(strip[:, 1:257, 0], strip[:, 1:257, 256])
    assert np.array_equal(strip[:, 0, 1:257], strip[:, 256, 1:257])


def test_mip_levels_have_the_same_mean() -> None:
    strip = textures.procedural_strip("marble", 1).astype(np.float32)
    for level in range(textures.LEVELS):
        x, size = textures.LEVEL_START[level], textures.TILE >> level
        part = strip[:, 1 : 1 + size, x : x + size]
        assert np.abs(part.mean((1, 2)) - strip[:, 1:257, 1:257].mean((1, 2))).max() < 1


def test_unreadable_photo_is_named(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"photo\.jpg is not a readable picture"):
        textures.photo_strip(tmp_path / "photo.jpg")


def test_splits_share_nothing() -> None:
    train, val = (library.open_library(None, None, split) for split in ("train", "val"))
    everything = library.open_library(None, None, "all")
    for name in ("animated", "static", "photos"):
        a, b = set(getattr(train, name)), set(getattr(val, name))
        assert a
        assert b
        assert not a & b
        assert a | b == set(getattr(everything, name))
    families = [{p.stem.rstrip("0123456789_") for p in part.photos} for part in (train, val)]
    assert not families[0] & families[1]  # two crops of one photo do not part


def test_folders_add_to_the_packaged_set(tmp_path: Path) -> None:
    packaged = library.open_library(None, None, "all")
    (tmp_path / "more_01.png").write_bytes(b"")
    (tmp_path / packaged.photos[0].name).write_bytes(b"")
    more = library.open_library(None, str(tmp_path), "all")
    assert len(more.photos) == len(packaged.photos) + 1
    assert tmp_path / packaged.photos[0].name in more.photos
    with pytest.raises(DataError, match="does not exist"):
        library.open_library(str(tmp_path / "absent"), None, "all")
    with pytest.raises(DataError, match=r"There are no actors \(\.npz\)"):
        library.open_library(str(tmp_path), None, "all")
    with pytest.raises(DataError, match="no split 'test'"):
        library.open_library(None, None, "test")


def test_packaged_set_is_small_and_listed() -> None:
    files = [p for p in library.ASSETS.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 4_000_000
    notice = (library.ASSETS / "NOTICE").read_text(encoding="utf-8")
    for path in files:
        name = path.stem.rsplit("_", 1)[0] + "_*" if path.suffix == ".jpg" else path.stem
        assert name in notice or path.name == "NOTICE"
    assert "CC0" in notice


def test_bounce_obeys_gravity() -> None:
    time = np.linspace(0, 3, 3001)
    height = motion.bounce(time, 1.0, 0.0, 0.5)
    assert height.min() >= 0
    first = np.sqrt(2 / motion.GRAVITY)
    assert abs(height[round(first * 1000)]) < 0.01
    assert abs(height[(time > first + 0.01) & (time < 2 * first)].max() - 0.25) < 0.01  # restitution squared
    assert height[-1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", motion.OBJECT_KINDS)
def test_objects_move_smoothly_and_stay_rigid(kind: str) -> None:
    time = np.arange(48) / 24
    start = np.array([1.0, 0.3, -2.0])
    path = motion.object_path(np.random.default_rng(3), kind, time, start, 0.3, 1.0)
    assert np.allclose(path.rotation @ path.rotation.transpose(0, 2, 1), np.eye(3), atol=1e-9)
    assert np.allclose(np.linalg.det(path.rotation), 1)
    assert np.linalg.norm(np.diff(path.position, axis=0), axis=1).max() < 0.5
    assert (np.ptp(path.position, axis=0).max() < 1e-9) == (kind in ("still", "swaying"))


@pytest.mark.parametrize("kind", motion.CAMERA_KINDS)
def test_cameras(kind: str) -> None:
    time = np.arange(24) / 24
    room = np.array([3.0, 1.5, 3.0])
    target = np.array([[0.2, 0.5, 0.0]]) + 0.3 * time[:, None]
    camera = motion.camera_path(np.random.default_rng(1), kind, time, np.array([2.6, 1.2, 0]), target, 200.0, 8.0, room)
    assert np.allclose(np.linalg.det(camera.rotation), 1)
    assert (np.abs(camera.position) < [2.7, 3, 2.7]).all()
    moves = np.abs(np.diff(camera.rotation, axis=0)).max() > 1e-6 or np.ptp(camera.focal) > 1e-6
    assert moves == (kind != "still")
    assert (np.ptp(camera.focal) > 0) == (kind == "zoom")


def test_the_camera_looks_at_its_target() -> None:
    rotation = motion.look_at(np.array([[2.0, 1, 3]]), np.array([[0.0, 0.5, 0]]), np.zeros(1))
    seen = rotation[0] @ (np.array([0.0, 0.5, 0]) - [2, 1, 3])
    assert np.allclose(seen[:2], 0)
    assert seen[2] > 0
    above = rotation[0] @ (np.array([0.0, 0.7, 0]) - [2, 1, 3])
    assert above[1] < 0  # y points down in the picture


def test_frame_times_never_run_back() -> None:
    for seed in range(30):
        time = motion.frame_times(np.random.default_rng(seed), 24, 1.0, irregular=True)
        assert time[0] == 0
        assert (np.diff(time) >= 0).all()


def test_noise_is_about_normal_and_reproducible() -> None:
    noise = effects.hash_noise(torch.Size([4, 3, 64, 64]), 77, torch.device("cpu"))
    assert abs(float(noise.mean())) < 0.02
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    flat = noise.flatten()
    assert abs(float((flat[1:] * flat[:-1]).mean())) < 0.02
    assert torch.equal(noise, effects.hash_noise(torch.Size([4, 3, 64, 64]), 77, torch.device("cpu")))
    assert not torch.equal(noise, effects.hash_noise(torch.Size([4, 3, 64, 64]), 78, torch.device("cpu")))


def test_compression_loses_more_at_lower_quality() -> None:
    picture = torch.rand(2, 3, 30, 44)
    losses = [float((effects.compress(picture, q) - picture).abs().mean()) for q in (10, 50, 100)]
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] < 0.02
    assert effects.compress(picture, 50).shape == picture.shape


def test_motion_blur_of_a_still_picture_changes_nothing() -> None:
    picture = torch.rand(2, 3, 24, 24)
    assert torch.allclose(effects.motion_blur(picture, torch.zeros(2, 2, 24, 24), 1.0), picture, atol=1e-5)
    moved = effects.motion_blur(picture, torch.full((2, 2, 24, 24), 5.0), 1.0)
    assert float(moved.std()) < 0.6 * float(picture.std())


def test_defocus_spares_what_is_in_focus() -> None:
    picture = torch.rand(1, 3, 24, 24)
    sharp = effects.defocus(picture, torch.full((1, 1, 24, 24), 2.0), 5.0, 0.5)
    assert torch.allclose(sharp, picture)
    assert float(effects.defocus(picture, torch.full((1, 1, 24, 24), 0.5), 5.0, 0.5).std()) < 0.5 * float(picture.std())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frames": 1}, "frames must be at least 2"),
        ({"supersampling": 0.5}, "supersampling must be at least 1 and at most 4"),
        ({"split": "test"}, "split must be train, val or all"),
        ({"cameras": ("dolly",)}, "cameras must be some of"),
        ({"noise": 1.5}, "noise must be at least 0 and at most 1, not 1.5"),
    ],
)
def test_values_out_of_range_are_named(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SyntheticConfig(**values)
