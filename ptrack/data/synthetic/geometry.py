"""Plans as tensors: posed vertices in camera space and what every face carries, for one clip or many at once.

Letters: B clips, T frames, V vertices, F faces (of all clips together), J joints.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ptrack.data.synthetic.meshes import Mesh
from ptrack.data.synthetic.scene import ClipPlan, Instance


@dataclass(frozen=True)
class Geometry:
    """Posed clips, flat over clips."""

    vertices: Tensor  # (3, T, V) float32 camera space, metres
    normals: Tensor  # (3, T, V) float32 unit vectors, camera space
    faces: Tensor  # (F, 3) int64
    clip: Tensor  # (F,) int64
    owner: Tensor  # (F,) int64 number of the object in its clip, 0 is the room
    number: Tensor  # (F,) int64 number of the face in its clip; 0 and 1 are the floor
    uv: Tensor  # (2, 3, F) float32
    slot: Tensor  # (F,) float32
    base: Tensor  # (3, F) float32 linear colour
    gain: Tensor  # (3, F) float32
    shine: Tensor  # (F,) float32
    interest: Tensor  # (F,) float32 wanted density of points
    focal: Tensor  # (B, T) float32 pixels

    @property
    def clips(self) -> int:
        """B."""
        return self.focal.shape[0]

    @property
    def frames(self) -> int:
        """T."""
        return self.focal.shape[1]


_bases: weakref.WeakKeyDictionary[Mesh, dict[str, tuple[Tensor, Tensor]]] = weakref.WeakKeyDictionary()


def _basis(mesh: Mesh, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return what turns joint matrices into vertices (4J, V) and normals (3J, V); kept while the mesh is in use.

    posed[i] = sum_j w_j sum_k M_j[i, k] (rest, 1)[k], so the product of weights and rest positions can be made once.
    """
    kept = _bases.setdefault(mesh, {})
    if str(device) not in kept:
        rest = np.concatenate([mesh.rest, np.ones((len(mesh.rest), 1), np.float32)], 1)
        place = (mesh.weights[:, :, None] * rest[:, None]).reshape(len(rest), -1).T
        normal = (mesh.weights[:, :, None] * mesh.normals[:, None]).reshape(len(rest), -1).T
        kept[str(device)] = (_tensor(place, device), _tensor(normal, device))
    return kept[str(device)]


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy to a device; float64 becomes float32. On a GPU the copy does not make the host wait."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    dtype = torch.float32 if tensor.dtype == torch.float64 else tensor.dtype
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device=device, dtype=dtype, non_blocking=True)


def camera_matrices(plan: ClipPlan) -> np.ndarray:
    """Return world-to-camera matrices (T, 4, 4) float64."""
    out = np.zeros((len(plan.time), 4, 4))
    out[:, :3, :3] = plan.camera.rotation
    out[:, :3, 3] = -np.einsum("tij,tj->ti", plan.camera.rotation, plan.camera.position)
    out[:, 3, 3] = 1
    return out


def _matmul(left: Tensor, right: Tensor) -> Tensor:
    """Multiply without the ten-bit products (TF32) that a training program may have switched on for a GPU."""
    if left.device.type == "cpu":
        return left @ right
    return (left.double() @ right.double()).float()


def _pose(instance: Instance, view: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return vertices and normals (3, T, V) of one instance in camera space."""
    count = len(view)
    matrices = view[:, None, :3, :3] @ instance.matrices  # camera axes; (T, J, 3, 4)
    matrices[..., 3] += view[:, None, :3, 3]
    if instance.shape is not None:
        posed = np.einsum("tij,tvj->itv", matrices[:, 0, :, :3], instance.shape) + matrices[:, 0, :, 3].T[..., None]
        normal = np.einsum("tij,tvj->itv", matrices[:, 0, :, :3], _grid_normals(instance.shape))
        return _tensor(posed, device), _tensor(normal, device)
    place, normal = _basis(instance.mesh, device)
    m = np.moveaxis(matrices, 2, 0)  # (3, T, J, 4)
    joints = m.shape[2]
    posed = _matmul(_tensor(m.reshape(3 * count, 4 * joints), device), place)
    turned = _matmul(_tensor(m[..., :3].reshape(3 * count, 3 * joints), device), normal)
    return posed.view(3, count, -1), turned.view(3, count, -1)


def _grid_normals(shape: np.ndarray) -> np.ndarray:
    """Return the normals (T, V, 3) of a square sheet's vertices (T, V, 3), not of unit length."""
    side = round(np.sqrt(shape.shape[1]))
    grid = shape.reshape(len(shape), side, side, 3)
    return np.cross(np.gradient(grid, axis=2), -np.gradient(grid, axis=1)).reshape(shape.shape)


def unit(vectors: Tensor) -> Tensor:
    """Return vectors (3, ...) of length 1."""
    return vectors * torch.rsqrt((vectors * vectors).sum(0).clamp(min=1e-24))


def build_geometry(plans: list[ClipPlan], device: torch.device) -> Geometry:
    """Pose all instances of all clips and join them."""
    placed, turned, focal = [], [], []
    carried: list[dict[str, np.ndarray]] = []
    vertices = 0
    for b, plan in enumerate(plans):
        view, number = camera_matrices(plan), 0
        focal.append(plan.camera.focal)
        for owner, instance in enumerate(plan.instances):
            posed, normal = _pose(instance, view, device)
            placed.append(posed)
            turned.append(normal)
            carried.append(_carried(instance, b, owner, number, vertices))
            vertices += posed.shape[2]
            number += instance.mesh.num_faces
    joined = {k: np.concatenate([c[k] for c in carried], axis=-1) for k in carried[0] if k != "faces"}
    return Geometry(
        vertices=torch.cat(placed, 2),
        normals=unit(torch.cat(turned, 2)),
        focal=_tensor(np.stack(focal), device),
        faces=_tensor(np.concatenate([c["faces"] for c in carried]), device),
        **{k: _tensor(v, device) for k, v in joined.items()},
    )


def _carried(instance: Instance, clip: int, owner: int, number: int, vertices: int) -> dict[str, np.ndarray]:
    """Return what the faces of one instance carry."""
    mesh = instance.mesh
    count = mesh.num_faces
    interest = np.ones(count, np.float32) if mesh.interest is None else mesh.interest
    return {
        "faces": mesh.faces + vertices,
        "clip": np.full(count, clip),
        "owner": np.full(count, owner),
        "number": number + np.arange(count),
        "uv": instance.uv.transpose(2, 1, 0),
        "slot": instance.slot.astype(np.float32),
        "base": instance.base.T,
        "gain": instance.gain.T,
        "shine": np.full(count, instance.shine, np.float32),
        "interest": interest * np.float32(instance.points),
    }


def build_atlas(plans: list[ClipPlan], device: torch.device) -> Tensor:
    """Return the textures of each clip one below the other: (B, 3, SLOTS * STRIP_HEIGHT, STRIP_WIDTH) float32."""
    stacked = np.stack([np.concatenate(plan.tiles, axis=1) for plan in plans])
    return _tensor(stacked, device).float().mul_(1 / 255)
