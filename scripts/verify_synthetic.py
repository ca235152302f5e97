"""Verify synthetic tracks by a second method: python scripts/verify_synthetic.py --clips 100.

Nothing of the renderer or the label code is used: meshes are posed here in NumPy float64 in world space, points are
projected by the stored cameras, and rays through the tracks of LATER frames are cast against every face of the scene
(Moeller and Trumbore, 1997). A visible track must hit its own face, or a neighbour over an edge, at its own place.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import numpy as np

from ptrack.data.synthetic import source
from ptrack.data.synthetic.config import SyntheticConfig, without_effects
from ptrack.data.synthetic.scene import Instance, Plan


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


def scene_triangles(plan: Plan, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all corners (F, 3, 3) in world space and the vertex numbers (F, 3) of the clip."""
    corners, numbers, offset = [], [], 0
    for instance in plan.instances:
        vertices = world_vertices(instance, t)
        corners.append(vertices[instance.mesh.faces])
        numbers.append(instance.mesh.faces + offset)
        offset += len(vertices)
    return np.concatenate(corners), np.concatenate(numbers)


def cast(origin: np.ndarray, rays: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the nearest face (R,), its distance along the ray and the barycentric weights (R, 3) of the hit."""
    a, u, v = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    back = origin - a
    normal, q = np.cross(u, v), np.cross(back, u)
    top_t, from_v = (v * q).sum(1), np.cross(v, back)
    # det = -ray . normal; w1 = ray . (v x back) / -det ...: all are products of rays with one matrix.
    det = -rays @ normal.T
    with np.errstate(divide="ignore", invalid="ignore"):
        w1 = (rays @ from_v.T) / det
        w2 = (rays @ q.T) / det
        distance = top_t / det
    hit = (w1 >= 0) & (w2 >= 0) & (w1 + w2 <= 1) & (distance > 0.05) & np.isfinite(distance)
    distance = np.where(hit, distance, np.inf)
    face = distance.argmin(1)
    row = np.arange(len(rays))
    weights = np.stack([1 - w1[row, face] - w2[row, face], w1[row, face], w2[row, face]], 1)
    return face, distance[row, face], weights


def verify_clip(config: SyntheticConfig, index: int, frames: int) -> dict[str, np.ndarray]:
    """Check some later frames of one clip; returns the errors in pixels and counts."""
    batch, details = source.generate_with_details(config, [index])
    plan, points = details.plans[0], details.points
    tracks = batch.tracks[0].numpy().astype(np.float64)
    visible, valid = batch.visibility[0].numpy(), batch.valid[0].numpy()
    own, weights = points.face[0].numpy(), points.weights[0].numpy()
    chosen = points.frame[0].numpy()
    k = batch.intrinsics[0].numpy().astype(np.float64)
    rng = np.random.default_rng(index)
    errors, projection, wrong_hidden, hidden = [], [], 0, 0
    for t in sorted(rng.choice(np.arange(1, config.frames), frames, replace=False)):
        corners, numbers = scene_triangles(plan, int(t))
        place = (corners[own] * weights[:, :, None]).sum(1)
        rotation, centre = plan.camera.rotation[t], plan.camera.position[t]
        seen = (place - centre) @ rotation.T
        pixel = (seen @ k[t].T)[:, :2] / seen[:, 2:]
        ok = valid[t] & (np.abs(tracks[t]) < 1000).all(1)
        projection.append(np.linalg.norm(pixel - tracks[t], axis=1)[ok])
        stored = batch.trajs_3d[0, t].numpy().astype(np.float64)
        e = batch.extrinsics[0, t].numpy().astype(np.float64)
        again = stored @ e[:3, :3].T + e[:3, 3]
        projection.append(np.linalg.norm((again @ k[t].T)[:, :2] / again[:, 2:] - tracks[t], axis=1)[ok])
        rays = np.concatenate([tracks[t], np.ones((len(own), 1))], 1) @ np.linalg.inv(k[t]).T
        rays = rays @ rotation  # camera to world, z component 1 in camera axes: distance is depth
        face, distance, bary = cast(centre, rays, corners)
        later = visible[t] & (chosen != t)
        errors.append(_errors(face, bary, own, numbers, plan, chosen, k, place, corners, centre, rotation, t)[later])
        inside = valid[t] & (tracks[t] >= 0).all(1) & (tracks[t] <= [config.width, config.height]).all(1)
        off = inside & ~visible[t]
        hidden += int(off.sum())
        wrong_hidden += int((off & (face == own) & (np.abs(distance - seen[:, 2]) < 1e-6 * seen[:, 2])).sum())
    return {"errors": np.concatenate(errors), "projection": np.concatenate(projection),
            "hidden": np.array([hidden, wrong_hidden])}  # fmt: skip


def _errors(face, bary, own, numbers, plan, chosen, k, place, corners, centre, rotation, t) -> np.ndarray:
    """Distance in pixels between the surface point that was hit and the track's, seen from frame t and carried to the
    frame in which the point was chosen; infinite when the face is neither its own nor a neighbour over an edge."""
    shared = (numbers[face][:, :, None] == numbers[own][:, None, :]).any(2).sum(1)
    spots = corners[face]
    touching = (np.abs(spots[:, :, None] - corners[own][:, None]).max(-1) < 1e-6).any(2).sum(1)
    same = (face == own) | (np.maximum(shared, touching) >= 2)
    out = np.full(len(own), np.inf)
    for q in np.unique(chosen):
        at = np.flatnonzero(chosen == q)
        then, _ = scene_triangles(plan, int(q))
        weights_hit = (then[face[at]] * bary[at][:, :, None]).sum(1)
        hit = (weights_hit - plan.camera.position[q]) @ plan.camera.rotation[q].T
        at_hit = (hit @ k[q].T)[:, :2] / hit[:, 2:]
        mine = (then[own[at]] * _own_weights(own, at, place, corners)[:, :, None]).sum(1)
        mine = (mine - plan.camera.position[q]) @ plan.camera.rotation[q].T
        at_own = (mine @ k[q].T)[:, :2] / mine[:, 2:]
        out[at] = np.where(same[at], np.linalg.norm(at_hit - at_own, axis=1), np.inf)
    return out


def _own_weights(own: np.ndarray, at: np.ndarray, place: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return the barycentric weights of places on their own faces, solved anew from the world positions."""
    c = corners[own[at]]
    u, v, w = c[:, 1] - c[:, 0], c[:, 2] - c[:, 0], place[at] - c[:, 0]
    uu, uv, vv, wu, wv = ((a * b).sum(1) for a, b in ((u, u), (u, v), (v, v), (w, u), (w, v)))
    det = uu * vv - uv * uv
    first, second = (vv * wu - uv * wv) / det, (uu * wv - uv * wu) / det
    return np.stack([1 - first - second, first, second], 1)


def verify(config: SyntheticConfig, start: int, count: int, frames: int) -> dict[str, float]:
    """Return the summary over many clips."""
    parts = [verify_clip(config, i, frames) for i in range(start, start + count)]
    errors = np.concatenate([p["errors"] for p in parts])
    projection = np.concatenate([p["projection"] for p in parts])
    hidden = np.sum([p["hidden"] for p in parts], 0)
    return {
        "clips": count,
        "visible_positions": len(errors),
        "share_within_0.05_px": float((errors <= 0.05).mean()),
        "over_1_px": int((errors > 1).sum()),
        "worst_px": float(errors.max()),
        "projection_worst_px": float(projection.max()),
        "hidden_positions": int(hidden[0]),
        "hidden_but_hit": int(hidden[1]),
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
    print(json.dumps(verify(config, options.start, options.clips, options.frames), indent=1))


if __name__ == "__main__":
    main()
