"""Meshes of the synthetic world: actors read from ``.npz`` files and the simple shapes made on the spot.

Letters: V vertices, F faces, J joints, T frames.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from ptrack.errors import DataError

ARRAYS = ("rest", "faces", "color", "joint", "weight", "bind")


@dataclass(frozen=True, eq=False, kw_only=True)
class Mesh:
    """A triangle mesh that joints move: a posed vertex is ``sum_j weights[v, j] * (M_j @ (rest[v], 1))``.

    The pose ``bind`` (or any frame of a clip) brings an actor into about the unit sphere, y up, facing +z.
    """

    name: str
    rest: np.ndarray  # (V, 3) float32, model units
    faces: np.ndarray  # (F, 3) int64, each seen from both sides
    color: np.ndarray  # (F, 3) float32, the face's own colour, sRGB in [0, 1]
    weights: np.ndarray  # (V, J) float32, rows sum to 1
    bind: np.ndarray  # (J, 3, 4) float32
    clips: dict[str, np.ndarray] = field(default_factory=dict)  # name -> (T, J, 3, 4) float32 at 24 frames/s
    uv: np.ndarray | None = None  # (F, 3, 2) float32 in [-1, 1]; None: by box projection of the rest positions
    interest: np.ndarray | None = None  # (F,) float32 >= 1, how much denser points are wanted (limbs); None: 1

    @cached_property
    def normals(self) -> np.ndarray:
        """(V, 3) float32 unit normals of the rest vertices: the mean over their faces, larger faces counting more."""
        corners = self.rest[self.faces].astype(np.float64)
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        total = np.zeros((len(self.rest), 3))
        for k in range(3):
            np.add.at(total, self.faces[:, k], across)
        return (total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-30)).astype(np.float32)

    @property
    def num_faces(self) -> int:
        """F."""
        return len(self.faces)

    @property
    def unit_rest(self) -> np.ndarray:
        """(V, 3) float32: the rest positions, moved and scaled into [-1, 1] along the longest side."""
        low, high = self.rest.min(0), self.rest.max(0)
        return ((self.rest - (low + high) / 2) / max(float((high - low).max()) / 2, 1e-9)).astype(np.float32)

    def posed(self, matrices: np.ndarray) -> np.ndarray:
        """Return the vertices (V, 3) under joint matrices (J, 3, 4)."""
        rest = np.concatenate([self.rest, np.ones((len(self.rest), 1), np.float32)], 1)
        blended = (self.weights @ matrices.reshape(len(matrices), 12)).reshape(-1, 3, 4)
        return np.einsum("vij,vj->vi", blended, rest)


@lru_cache(maxsize=512)
def load_actor(path: Path) -> Mesh:
    """Read one actor file.

    Doubled and degenerate faces are dropped: two faces in the same place would have no well-defined nearest one.

    Raises:
        DataError: the file cannot be read, lacks an array, or its arrays do not fit together.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {k: data[k] for k in data.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a readable actor (.npz): {error}.") from error
    if missing := [k for k in ARRAYS if k not in arrays]:
        raise DataError(f"The actor {path} lacks the array '{missing[0]}'.")
    try:
        return _mesh(path.stem, arrays)
    except (IndexError, ValueError) as error:
        raise DataError(f"The arrays of the actor {path} do not fit together: {error}.") from error


def _mesh(name: str, a: dict[str, np.ndarray]) -> Mesh:
    rest = a["rest"].astype(np.float32)
    faces = _single_faces(rest, a["faces"].astype(np.int64))
    joint, weight = a["joint"].astype(np.int64), a["weight"].astype(np.float64)
    weight[weight.sum(1) == 0, 0] = 1  # some models have vertices without weights: their first joint moves them
    weights = np.zeros((len(rest), len(a["bind"])))
    np.add.at(weights, (np.arange(len(rest))[:, None], joint), weight)
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    clips = {k[5:]: v.astype(np.float32) for k, v in a.items() if k.startswith("clip/") and len(v) > 1}
    color = a["color"].astype(np.float32)[faces].mean(1) / 255
    mesh = Mesh(
        name=name,
        rest=rest,
        faces=faces,
        color=color,
        weights=weights,
        bind=a["bind"].astype(np.float32),
        clips=clips,
    )
    return replace(mesh, interest=_interest(mesh))


def _single_faces(rest: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Drop faces without area and all but one of the faces that have the same three places."""
    if faces.min(initial=0) < 0 or faces.max(initial=0) >= len(rest):
        raise IndexError("a face names a vertex that is not there")
    _, place = np.unique(rest, axis=0, return_inverse=True)
    key = np.sort(place.reshape(-1)[faces], axis=1)
    distinct = (key[:, 0] != key[:, 1]) & (key[:, 1] != key[:, 2])
    faces, key = faces[distinct], key[distinct]
    _, first = np.unique(key, axis=0, return_index=True)
    return faces[np.sort(first)]


def _interest(mesh: Mesh) -> np.ndarray:
    """Weight of each face in choosing points: higher on joints with a small share of the surface (legs, hands)."""
    corners = mesh.posed(mesh.bind)[mesh.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) + 1e-9
    joint = mesh.weights[mesh.faces].sum(1).argmax(1)
    share = np.bincount(joint, area, mesh.weights.shape[1])[joint] / area.sum()
    return np.clip(np.sqrt(0.25 / share), 1, 4).astype(np.float32)


def rigid(name: str, rest: np.ndarray, faces: np.ndarray, uv: np.ndarray | None = None) -> Mesh:
    """Return a mesh of one joint with the identity as its pose; white, to be coloured by a texture."""
    eye = np.eye(4, dtype=np.float32)[None, :3]
    return Mesh(
        name=name,
        rest=rest.astype(np.float32),
        faces=faces.astype(np.int64),
        color=np.ones((len(faces), 3), np.float32),
        weights=np.ones((len(rest), 1), np.float32),
        bind=eye,
        uv=None if uv is None else uv.astype(np.float32),
    )


def grid_faces(rows: int, columns: int) -> np.ndarray:
    """Return the triangles (2 * (rows - 1) * (columns - 1), 3) of a grid of vertices stored row by row."""
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1)
    lower = np.stack([corner, corner + columns, corner + 1], 1)
    upper = np.stack([corner + 1, corner + columns, corner + columns + 1], 1)
    return np.concatenate([lower, upper])


def box(size: np.ndarray) -> Mesh:
    """Return a box with half side lengths ``size`` (3,)."""
    rest, faces = [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            u, v = (axis + 1) % 3, (axis + 2) % 3
            quad = np.zeros((4, 3))
            quad[:, axis] = sign
            quad[:, u] = np.array([-1, 1, 1, -1]) * sign
            quad[:, v] = [-1, -1, 1, 1]
            faces += [np.array([0, 1, 2]) + 4 * len(rest), np.array([0, 2, 3]) + 4 * len(rest)]
            rest.append(quad)
    return rigid("box", np.concatenate(rest) * size, np.stack(faces))


def sphere(rings: int = 14, segments: int = 22) -> Mesh:
    """Return a unit sphere."""
    polar, around = np.linspace(0, np.pi, rings + 1)[1:-1], np.arange(segments) * 2 * np.pi / segments
    p, a = np.meshgrid(polar, around, indexing="ij")
    body = np.stack([np.sin(p) * np.cos(a), np.cos(p), np.sin(p) * np.sin(a)], -1).reshape(-1, 3)
    rest = np.concatenate([body, [[0, 1, 0], [0, -1, 0]]])
    return rigid("sphere", rest, np.concatenate([_tube(rings - 1, segments), _caps(rings - 1, segments)]))


def cylinder(half: float, radius: float, segments: int = 20) -> Mesh:
    """Return a closed cylinder along y; its caps have their own vertices so that the rim stays sharp."""
    around = np.arange(segments) * 2 * np.pi / segments
    ring = np.stack([np.cos(around) * radius, np.zeros(segments), np.sin(around) * radius], 1)
    up = np.array([0, half, 0])
    rest = np.concatenate([ring + up, ring - up, ring + up, ring - up, [up, -up]])
    caps = _caps(2, segments)
    caps[caps < 2 * segments] += 2 * segments
    caps[:segments, 2] = 4 * segments
    caps[segments:, 2] = 4 * segments + 1
    return rigid("cylinder", rest, np.concatenate([_tube(2, segments), caps]))


def _tube(rings: int, segments: int) -> np.ndarray:
    """Return the faces between ``rings`` rings of ``segments`` vertices, closed around."""
    i, j = np.meshgrid(np.arange(rings - 1), np.arange(segments), indexing="ij")
    a, b = (i * segments + j).reshape(-1), (i * segments + (j + 1) % segments).reshape(-1)
    return np.concatenate([np.stack([a, b, a + segments], 1), np.stack([b, b + segments, a + segments], 1)])


def _caps(rings: int, segments: int) -> np.ndarray:
    """Return fans from the first ring to the vertex ``rings * segments`` and from the last ring to the next vertex."""
    j = np.arange(segments)
    after, last = (j + 1) % segments, (rings - 1) * segments
    top = np.stack([after, j, np.full(segments, rings * segments)], 1)
    bottom = np.stack([last + j, last + after, np.full(segments, rings * segments + 1)], 1)
    return np.concatenate([top, bottom])


def sheet() -> Mesh:
    """Return a flat sheet over [-1, 1] x [-1, 1] in the plane z = 0, to be bent or waved."""
    y, x = np.meshgrid(np.linspace(1, -1, 16), np.linspace(-1, 1, 16), indexing="ij")
    rest = np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3)
    faces = grid_faces(16, 16)
    return rigid("sheet", rest, faces, uv=rest[faces][..., :2])


def room(half: np.ndarray) -> Mesh:
    """Return the six inner sides of a room: x in [-half x, half x], y in [0, 2 half y], z likewise.

    Two faces a side, in the order floor, ceiling, -x, +x, -z, +z; uv in metres from the middle of the side.
    """
    rest, faces, uv = [], [], []
    for axis, sign in ((1, -1), (1, 1), (0, -1), (0, 1), (2, -1), (2, 1)):
        u, v = (0, 2) if axis == 1 else ((2, 1) if axis == 0 else (0, 1))
        quad = np.zeros((4, 3))
        quad[:, axis] = sign * half[axis]
        quad[:, u] = np.array([-1, 1, 1, -1]) * half[u]
        quad[:, v] = np.array([-1, -1, 1, 1]) * half[v]
        for f in ([0, 1, 2], [0, 2, 3]):
            faces.append(np.array(f) + 4 * len(rest))
            uv.append(quad[f][:, [u, v]])
        rest.append(quad)
    vertices = np.concatenate(rest) + np.array([0, half[1], 0])
    return rigid("room", vertices, np.stack(faces), uv=np.stack(uv))
