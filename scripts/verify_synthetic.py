"""Verify synthetic tracks by a second method: python scripts/verify_synthetic.py --clips 100.

Nothing of the renderer or the label code is used: meshes are posed here in NumPy float64 in world space, points are
projected by the stored cameras, and rays through the tracks of OTHER frames are cast against every face of the scene
(Moeller and Trumbore, 1997). A visible track must hit its own face, or a neighbour over an edge, at its own place.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import numpy as np
import torch

from ptrack.data.synthetic import source
from ptrack.data.synthetic.config import SyntheticConfig, without_effects
from ptrack.data.synthetic.scene import ClipPlan, Instance
from ptrack.data.synthetic.source import Details, SyntheticBatch


def world_vertices(instance: Instance, t: int) -> np.ndarray:
    """Pose one instance at frame t: (V, 3) float64 world."""
    if instance.shape is not None:
        m = instance.matrices[t, 0]
        return instance.shape[t].astype(np.float64) @ m[:, :3].T + m[:, 3]
    rest = np.concatenate([instance.mesh.rest, np.ones((len(instance.mesh.rest), 1))], 1).astype(np.float64)
    posed = np.zeros((len(rest), 3))
    for j in range(instance.mesh.weights.shape[1]):
        posed += instance.mesh.weights[:, j : j + 1].astype(np.float64) * (rest @ instance.matrices[t, j].T)
    return posed


def scene_triangles(plan: ClipPlan, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all corners (F, 3, 3) in world space and the vertex numbers (F, 3) of the clip."""
    corners, numbers, offset = [], [], 0
    for instance in plan.instances:
        vertices = world_vertices(instance, t)
        corners.append(vertices[instance.mesh.faces])
        numbers.append(instance.mesh.faces + offset)
        offset += len(vertices)
    return np.concatenate(corners), np.concatenate(numbers)


class Scenes:
    """The triangles of a clip at each frame, posed when first asked for."""

    def __init__(self, plan: ClipPlan) -> None:
        self.plan = plan
        self.kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __getitem__(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        if t not in self.kept:
            self.kept[t] = scene_triangles(self.plan, t)
        return self.kept[t]


def cast(origin: np.ndarray, rays: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the nearest face (R,), its distance along the ray and the barycentric weights (R, 3) of the hit."""
    a, u, v = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    back = origin - a
    normal, q = np.cross(u, v), np.cross(back, u)
    top_t, from_v = (v * q).sum(1), np.cross(v, back)
    # det = -ray . normal; w1 = ray . (v x back) / -det ...: all are products of rays with one matrix.
    det = -rays @ normal.T
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        w1 = (rays @ from_v.T) / det
        w2 = (rays @ q.T) / det
        distance = top_t / det
        hit = (w1 >= 0) & (w2 >= 0) & (w1 + w2 <= 1) & (distance > 0.05) & np.isfinite(distance)
    distance = np.where(hit, distance, np.inf)
    face = distance.argmin(1)
    row = np.arange(len(rays))
    weights = np.stack([1 - w1[row, face] - w2[row, face], w1[row, face], w2[row, face]], 1)
    return face, distance[row, face], weights


def project(plan: ClipPlan, k: np.ndarray, t: int, world: np.ndarray) -> np.ndarray:
    """Project world points (R, 3) into frame t: (R, 2) pixels and, third, the depth."""
    seen = (world - plan.camera.position[t]) @ plan.camera.rotation[t].T
    return np.concatenate([(seen @ k[t].T)[:, :2] / seen[:, 2:], seen[:, 2:]], 1)


def verify_clip(config: SyntheticConfig, index: int, frames: int) -> dict[str, np.ndarray]:
    """Check some frames of one clip; returns the errors in pixels and counts."""
    batch, details = source.generate_with_details(config, [index])
    scenes = Scenes(details.plans[0])
    rng = np.random.default_rng(index)
    parts = []
    for t in sorted(rng.choice(np.arange(1, config.frames), min(frames, config.frames - 1), replace=False)):
        parts.append(_verify_frame(config, batch, details, scenes, int(t)))
    return {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}


def _verify_frame(
    config: SyntheticConfig, batch: SyntheticBatch, details: Details, scenes: Scenes, t: int
) -> dict[str, np.ndarray]:
    """Check one frame: the projection of all points, and rays through all tracks that were not chosen in it."""
    plan, points = details.plans[0], details.points
    own, weights, chosen = points.face[0].numpy(), points.weights[0].numpy(), points.frame[0].numpy()
    tracks, visible, valid = batch.tracks[0, t].numpy().astype(float), batch.visibility[0, t], batch.valid[0, t]
    k = batch.intrinsics[0].numpy().astype(float)
    corners, _ = scenes[t]
    place = (corners[own] * weights[:, :, None]).sum(1)
    pixel = project(plan, k, t, place)
    e = batch.extrinsics[0, t].numpy().astype(float)
    again = batch.trajs_3d[0, t].numpy().astype(float) @ e[:3, :3].T + e[:3, 3]
    again = (again @ k[t].T)[:, :2] / again[:, 2:]
    ok = valid.numpy() & (np.abs(tracks) < 1000).all(1)
    off = [np.linalg.norm(p - tracks, axis=1)[ok] for p in (pixel[:, :2], again)]

    inside = ok & (tracks >= 0).all(1) & (tracks <= [config.width, config.height]).all(1)
    at = np.flatnonzero(inside & (chosen != t))
    rays = np.concatenate([tracks[at], np.ones((len(at), 1))], 1) @ np.linalg.inv(k[t]).T
    face, depth, bary = cast(plan.camera.position[t], rays @ plan.camera.rotation[t], corners)
    errors = _errors(scenes, k, (face, bary), (own[at], _own_weights(own[at], place[at], corners)), chosen[at], t)
    seen = visible.numpy()[at]
    hit = (face == own[at]) & (np.abs(depth / pixel[at, 2] - 1) < 1e-6)
    return {"errors": errors[seen], "projection": np.concatenate(off), "hidden_but_hit": hit[~seen]}


def _errors(
    scenes: Scenes,
    k: np.ndarray,
    hit: tuple[np.ndarray, np.ndarray],
    own: tuple[np.ndarray, np.ndarray],
    chosen: np.ndarray,
    t: int,
) -> np.ndarray:
    """Distance in pixels between the surface point that was hit and the track's own, carried to the frame in which
    the point was chosen; infinite when the face is neither its own nor a neighbour over an edge."""
    corners, numbers = scenes[t]
    shared = (numbers[hit[0]][:, :, None] == numbers[own[0]][:, None]).any(2).sum(1)
    touching = (np.abs(corners[hit[0]][:, :, None] - corners[own[0]][:, None]).max(-1) < 1e-6).any(2).sum(1)
    same = (hit[0] == own[0]) | (np.maximum(shared, touching) >= 2)
    out = np.full(len(chosen), np.inf)
    for q in np.unique(chosen):
        at = np.flatnonzero((chosen == q) & same)
        then, _ = scenes[int(q)]
        spots = [project(scenes.plan, k, q, (then[f[at]] * w[at][:, :, None]).sum(1))[:, :2] for f, w in (hit, own)]
        out[at] = np.linalg.norm(spots[0] - spots[1], axis=1)
    return out


def _own_weights(own: np.ndarray, place: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return the barycentric weights of places on their own faces, solved anew from the world positions."""
    c = corners[own]
    u, v, w = c[:, 1] - c[:, 0], c[:, 2] - c[:, 0], place - c[:, 0]
    uu, uv, vv, wu, wv = ((a * b).sum(1) for a, b in ((u, u), (u, v), (v, v), (w, u), (w, v)))
    det = uu * vv - uv * uv
    first, second = (vv * wu - uv * wv) / det, (uu * wv - uv * wu) / det
    return np.stack([1 - first - second, first, second], 1)


def verify(config: SyntheticConfig, start: int, count: int, frames: int) -> dict[str, float]:
    """Return the summary over many clips."""
    parts = [verify_clip(config, i, frames) for i in range(start, start + count)]
    errors, projection, missed = (
        np.concatenate([p[key] for p in parts]) for key in ("errors", "projection", "hidden_but_hit")
    )
    return {
        "clips": count,
        "visible_positions": len(errors),
        "share_within_0.05_px": float((errors <= 0.05).mean()),
        "over_1_px": int((errors > 1).sum()),
        "worst_px": float(errors.max()),
        "projection_worst_px": float(projection.max()),
        "hidden_positions": len(missed),
        "hidden_but_hit": int(missed.sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--frames", type=int, default=4, help="later frames per clip")
    parser.add_argument("--actors", help="folder with more actors")
    parser.add_argument("--textures", help="folder with more photos")
    options = parser.parse_args()
    config = without_effects(SyntheticConfig(actors_dir=options.actors, textures_dir=options.textures))
    config = replace(config, supersampling=1.0)
    torch.set_num_threads(1)
    print(json.dumps(verify(config, options.start, options.clips, options.frames), indent=1))


if __name__ == "__main__":
    main()
