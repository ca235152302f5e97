"""The plan of one clip: what stands where, how it moves, how it is lit. All random numbers come from (seed, index).

Letters: T frames, V vertices, F faces, J joints.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from ptrack.data.synthetic import meshes, motion, textures
from ptrack.data.synthetic.config import SyntheticConfig
from ptrack.data.synthetic.library import Library, open_library
from ptrack.data.synthetic.meshes import Mesh

SLOTS = 12  # textures of a clip
CAMERA_SHARES = {"still": 0.2, "path": 0.3, "follow": 0.12, "shake": 0.06, "zoom": 0.1, "handheld": 0.22}
PACES = ((0.0, 0.1), (0.3, 0.27), (0.8, 0.38), (1.7, 0.25))  # (pace, share of clips); 0: nothing but animation moves


@dataclass(frozen=True, eq=False, kw_only=True)
class Instance:
    """One mesh in a clip. Its vertices are the mesh's under ``matrices``, or ``shape`` moved by the only matrix."""

    mesh: Mesh
    matrices: np.ndarray  # (T, J, 3, 4) float64, model to world
    uv: np.ndarray  # (F, 3, 2) float32 texture coordinates, one unit is one tile
    slot: np.ndarray  # (F,) int64 texture
    base: np.ndarray  # (F, 3) float32 linear colour that is there without the texture
    gain: np.ndarray  # (F, 3) float32 factor of the linear texture; colour = base + gain * texture
    shine: float = 0.0  # strength of the highlight
    shape: np.ndarray | None = None  # (T, V, 3) float32 vertices that change their shape, in place of ``mesh.rest``
    moving: bool = True
    points: float = 1.0  # relative density of points


@dataclass(frozen=True, kw_only=True)
class Light:
    """Light over time; strengths are linear factors of the colour."""

    direction: np.ndarray  # (T, 3) unit vectors towards the light, world
    direct: np.ndarray  # (T, 3) RGB
    ambient: np.ndarray  # (T, 3) RGB
    shadow: float  # share of the direct light that a shadow takes, 0: no shadows


@dataclass(frozen=True, kw_only=True)
class Effects:
    """What the camera does to the picture. 0 or None switches an effect off."""

    fog: float = 0.0  # 1/metre
    fog_color: tuple[float, float, float] = (0.7, 0.7, 0.7)  # linear
    shutter: float = 0.0  # share of the frame interval that motion is blurred over
    defocus: float = 0.0  # strength in pixels per 1/metre from the focus
    focus: float = 1.0  # 1/metre in focus
    blur: float = 0.0  # 0..1, share of a uniformly blurred picture
    gain: np.ndarray | None = None  # (T, 3) exposure and white balance
    gamma: float = 1.0
    noise: float = 0.0  # standard deviation in 8-bit levels
    quality: int = 0  # 0: no compression, else 1 (worst) .. 100


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """Everything a clip is made of."""

    index: int
    kind: str  # a word on the scene, for statistics
    camera: motion.Camera
    time: np.ndarray  # (T,) seconds
    instances: list[Instance]
    tiles: list[np.ndarray]  # SLOTS strips
    light: Light
    effects: Effects
    seed: int  # of the noise and of the choice of points


@dataclass
class _Stage:
    """What the functions that fill a scene share."""

    config: SyntheticConfig
    library: Library
    rng: Generator
    time: np.ndarray
    pace: float
    room: np.ndarray  # (3,) half sizes
    eye: np.ndarray  # (3,) the camera at time 0
    aim: np.ndarray  # (3,) where it looks at time 0
    fov: float  # radians, horizontal
    budget: int  # faces left
    one_texture: bool  # all objects wear the same
    instances: list[Instance] = field(default_factory=list)
    bounds: list[tuple[np.ndarray, float]] = field(default_factory=list)  # centre (T, 3), radius

    @property
    def frames(self) -> int:
        return len(self.time)

    def likely(self, p: float) -> bool:
        return bool(self.rng.random() < p)


def plan_clip(config: SyntheticConfig, index: int) -> ClipPlan:
    """Return the plan of clip ``index``; it depends on nothing but the configuration and the number."""
    split = ("train", "val", "all").index(config.split)
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, split, index]))
    library = open_library(config.actors_dir, config.textures_dir, config.split)
    stage = _stage(config, library, rng)
    kind = _fill(stage)
    camera = _camera(stage)
    room = _room(stage)
    kept = [i for i, b in zip(stage.instances, stage.bounds, strict=True) if not _swallows(b, camera)]
    return ClipPlan(
        index=index,
        kind=f"{kind}/{camera.kind}",
        camera=camera,
        time=stage.time,
        instances=[room, *kept],
        tiles=_tiles(stage),
        light=_light(stage),
        effects=_effects(stage),
        seed=int(rng.integers(2**31)),
    )


def _stage(config: SyntheticConfig, library: Library, rng: Generator) -> _Stage:
    values, shares = zip(*PACES, strict=True)
    pace = config.pace * values[rng.choice(len(values), p=np.array(shares) / sum(shares))] * np.exp(rng.normal() * 0.3)
    rate = float(np.exp(rng.normal() * 0.3 * (config.frame_rate_change > 0)))
    irregular, one_texture = rng.random(2) < (0.12 * config.frame_rate_change, config.repeated_texture)
    time = motion.frame_times(rng, config.frames, rate, bool(irregular))
    indoors = rng.random() < 0.5
    room = rng.uniform([2.2, 1.2, 2.2], [4.5, 1.8, 4.5]) if indoors else rng.uniform([9, 4, 9], [22, 9, 22])
    distance = rng.uniform(1.6, 3.2) if indoors else float(np.exp(rng.uniform(np.log(2.0), np.log(7.0))))
    angle = rng.uniform(0, 2 * np.pi)
    aim = np.append(rng.uniform(-0.3, 0.3, 2) * room[[0, 2]], rng.uniform(0.2, 0.9))[[0, 2, 1]]
    eye = aim + distance * np.array([np.cos(angle), 0, np.sin(angle)])
    eye[1] = np.clip(rng.normal(1.3, 0.6), 0.3, 2 * room[1] - 0.4)
    eye = np.clip(eye, [-room[0] + 0.4, 0.3, -room[2] + 0.4], [room[0] - 0.4, 2 * room[1] - 0.4, room[2] - 0.4])
    fov = float(np.deg2rad(rng.uniform(38, 72)))
    return _Stage(config, library, rng, time, pace, room, eye, aim, fov, config.max_faces, bool(one_texture))


def _swallows(bound: tuple[np.ndarray, float], camera: motion.Camera) -> bool:
    """Return whether the camera comes into an object."""
    centre, radius = bound
    return bool((np.linalg.norm(centre - camera.position, axis=1) < radius + 0.12).any())


# --- what there is -------------------------------------------------------------------------------------------------


def _fill(stage: _Stage) -> str:
    """Put objects into the scene and return a word on what kind of scene it is."""
    rng = stage.rng
    kind = str(rng.choice(["mixed", "actors", "crowd", "things", "sparse"], p=[0.36, 0.28, 0.12, 0.15, 0.09]))
    if kind == "crowd" and stage.library.animated:
        _add_crowd(stage)
    actors = {"mixed": (1, 4), "actors": (2, 5), "crowd": (0, 2), "things": (0, 1), "sparse": (0, 2)}[kind]
    things = {"mixed": (2, 6), "actors": (0, 3), "crowd": (0, 3), "things": (4, 10), "sparse": (1, 3)}[kind]
    for _ in range(rng.integers(*actors)):
        _add_actor(stage)
    for _ in range(rng.integers(*things)):
        (_add_static, _add_primitive, _add_sheet)[rng.choice(3, p=[0.45, 0.38, 0.17])](stage)
    if stage.likely(stage.config.occluders):
        _add_occluder(stage)
    return kind


def _place(stage: _Stage, radius: float) -> np.ndarray:
    """Return a place (3,) on the floor, in sight at time 0, inside the room."""
    forward = (stage.aim - stage.eye) * [1, 0, 1]
    distance = max(np.linalg.norm(forward), 0.5)
    forward = forward / distance
    side = np.array([-forward[2], 0, forward[0]])
    depth = distance * np.exp(stage.rng.uniform(np.log(0.5), np.log(1.4))) + radius * 0.5
    across = depth * np.tan(stage.fov / 2) * stage.rng.uniform(-0.9, 0.9)
    place = (stage.eye + forward * depth + side * across) * [1, 0, 1]
    limit = np.maximum(stage.room - radius - 0.05, 0.1)
    return np.clip(place, -limit, limit) * [1, 0, 1]


def _load(paths: tuple[Path, ...], stage: _Stage) -> Mesh | None:
    """Return a random actor that fits into what is left of the face budget, or None."""
    for _ in range(4):
        if not paths:
            return None
        mesh = meshes.load_actor(paths[stage.rng.integers(len(paths))])
        if mesh.num_faces <= stage.budget:
            return mesh
    return None


def _animation(stage: _Stage, mesh: Mesh) -> tuple[np.ndarray, bool]:
    """Return joint matrices (T, J, 3, 4) over the clip's time at a random speed, and whether the animation travels."""
    rng = stage.rng
    if not mesh.clips:
        return np.repeat(mesh.bind[None].astype(np.float64), stage.frames, 0), False
    names = sorted(mesh.clips)
    name = names[rng.integers(len(names))]
    speed = np.exp(rng.normal(np.log(0.55), 0.5)) * (0.6 if stage.pace < 0.3 else 1.0)
    at = 24 * speed * (stage.time + 0.15 * motion.wobble(rng, stage.time, (0.1, 0.5))) + rng.uniform(0, 96)
    travels = any(word in name.lower() for word in ("walk", "run", "gallop", "swim", "fly"))
    matrices = _sampled(mesh.clips[name], at)
    if len(names) > 1 and rng.random() < 0.2:  # blend over into another animation of the same actor
        other = _sampled(mesh.clips[names[rng.integers(len(names))]], at)
        share = np.clip((np.arange(stage.frames) / stage.frames - rng.uniform(0.1, 0.6)) / 0.3, 0, 1)
        share = share[:, None, None, None]
        matrices = matrices * (1 - share) + other * share
    return matrices, travels


def _sampled(clip: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Interpolate a clip (K, J, 3, 4) at fractional frames (T,), to and fro so that no jump appears at its end."""
    last = len(clip) - 1
    at = np.abs((at + last) % (2 * last) - last) if np.abs(clip[0] - clip[-1]).max() > 0.05 else at % last
    low = np.minimum(np.floor(at).astype(np.int64), last - 1)
    part = (at - low)[:, None, None, None]
    return clip[low].astype(np.float64) * (1 - part) + clip[low + 1] * part


def _compose(path: motion.Path, scale: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Return world matrices: scale (3,) or (T, 3), rotate, move; after the joint matrices (T, J, 3, 4)."""
    outer = path.rotation * np.broadcast_to(scale, (len(joints), 3))[:, None, :]
    linear = outer[:, None] @ joints[..., :3]
    offset = (outer[:, None] @ joints[..., 3:])[..., 0] + path.position[:, None]
    return np.concatenate([linear, offset[..., None]], -1)


def _extent(mesh: Mesh, joints: np.ndarray) -> tuple[float, float]:
    """Return the lowest height of the posed mesh and its reach from the origin, over a few frames; model units."""
    sampled = joints[:: max(1, len(joints) // 3) if mesh.clips else len(joints)].astype(np.float32)
    posed = np.stack([mesh.posed(m) for m in sampled])
    return float(posed[..., 1].min()), float(np.linalg.norm(posed, axis=-1).max())


def _add(
    stage: _Stage,
    mesh: Mesh,
    joints: np.ndarray,
    path: motion.Path,
    scale: np.ndarray | float,
    reach: float | None = None,
    **more: Any,
) -> None:
    """Put a mesh into the scene; ``reach`` is its extent in model units, if known."""
    reach = (_extent(mesh, joints)[1] if reach is None else reach) * float(np.max(scale))
    stage.instances.append(_dressed(stage, mesh, _compose(path, np.asarray(scale), joints), **more))
    stage.bounds.append((path.position, reach))
    stage.budget -= mesh.num_faces


def _add_actor(stage: _Stage) -> None:
    mesh = _load(stage.library.animated, stage)
    if mesh is None:
        return
    joints, travels = _animation(stage, mesh)
    scale = _actor_size(stage)
    _walk(stage, mesh, joints, travels, scale)
    if stage.likely(0.25):
        _add_carried(stage, mesh, joints, scale)


def _actor_size(stage: _Stage) -> float:
    return float(np.clip(np.exp(stage.rng.normal(np.log(0.75), 0.45)), 0.15, 0.45 * stage.room.min() + 0.5))


def _walk(stage: _Stage, mesh: Mesh, joints: np.ndarray, travels: bool, scale: float, **more: Any) -> None:
    low, reach = _extent(mesh, joints)
    speed = stage.pace * stage.rng.uniform(0.2, 1.0) * scale if travels else 0.0
    swims = any(word in mesh.name for word in ("fish", "shark", "dolphin", "whale", "ray", "bee", "wasp", "flying"))
    lift = -low * scale + 0.002 + (stage.rng.uniform(0.1, 0.8) if swims else 0.0)
    path = motion.walk_path(stage.rng, stage.time, _place(stage, scale), speed, lift)
    _add(stage, mesh, joints, path, scale, reach, points=1.5, **more)


def _add_carried(stage: _Stage, carrier: Mesh, joints: np.ndarray, scale: float) -> None:
    """Hang a thing on a joint of the actor that was added last: it follows that joint's every move."""
    mesh = _load(stage.library.static, stage)
    if mesh is None:
        return
    owner = stage.instances[-1]
    joint = int(stage.rng.integers(joints.shape[1]))
    held = carrier.weights[:, joint]
    spot = (carrier.rest * held[:, None]).sum(0) / max(held.sum(), 1e-6) if held.sum() > 0 else carrier.rest.mean(0)
    frame = owner.matrices[:, joint]  # (T, 3, 4)
    axes = frame[..., :3] / np.maximum(np.linalg.norm(frame[..., :3], axis=1, keepdims=True), 1e-9)
    place = np.einsum("tij,j->ti", frame[..., :3], spot) + frame[..., 3]
    path = motion.Path(place, axes @ motion.any_rotation(stage.rng))
    still = np.repeat(mesh.bind[None].astype(np.float64), stage.frames, 0)
    _add(stage, mesh, still, path, scale * stage.rng.uniform(0.2, 0.5), points=1.5)


def _add_crowd(stage: _Stage) -> None:
    """Several of the same actor in the same clothes, out of step."""
    mesh = _load(stage.library.animated, replace(stage, budget=stage.budget // 3))
    if mesh is None:
        return
    scale, dress = _actor_size(stage), stage.rng.integers(2**31)
    for _ in range(min(int(stage.rng.integers(3, 8)), stage.budget // max(mesh.num_faces, 1))):
        joints, travels = _animation(stage, mesh)
        _walk(stage, mesh, joints, travels, scale * stage.rng.uniform(0.9, 1.1), dress=int(dress))


def _add_static(stage: _Stage) -> None:
    mesh = _load(stage.library.static, stage)
    if mesh is None:
        return
    joints = np.repeat(mesh.bind[None].astype(np.float64), stage.frames, 0)
    _add_rigid(stage, mesh, joints, float(np.exp(stage.rng.normal(np.log(0.5), 0.5))))


def _add_primitive(stage: _Stage) -> None:
    rng = stage.rng
    kind = rng.integers(3)
    if kind == 0:
        mesh = meshes.box(rng.uniform(0.3, 1, 3))
    else:
        mesh = meshes.sphere() if kind == 1 else meshes.cylinder(rng.uniform(0.3, 1), rng.uniform(0.15, 0.7))
    joints = np.repeat(mesh.bind[None].astype(np.float64), stage.frames, 0)
    _add_rigid(stage, mesh, joints, float(np.exp(rng.normal(np.log(0.38), 0.5))))


def _add_rigid(stage: _Stage, mesh: Mesh, joints: np.ndarray, scale: float) -> None:
    rng = stage.rng
    scale = min(scale, 0.4 * float(stage.room.min()))
    quiet = stage.pace < 0.1
    weights = np.array([0.3, 0.07, 0.1, 0.1, 0.13, 0.12, 0.1, 0.08])
    kind = "still" if quiet or rng.random() < 0.2 else str(rng.choice(motion.OBJECT_KINDS, p=weights))
    if kind == "rolling" and mesh.name not in ("sphere", "cylinder"):
        kind = "drifting"
    low, reach = _extent(mesh, joints)
    radius = reach if kind in ("falling", "thrown", "bouncing", "rolling", "tumbling") else -low
    radius = 1.0 if mesh.name == "sphere" else radius
    start = _place(stage, scale) + np.array([0, radius * scale + 0.002, 0])
    path = motion.object_path(rng, kind, stage.time, start, radius * scale, stage.pace)
    size = np.full((stage.frames, 3), scale)
    if rng.random() < 0.1 and not quiet:  # squash and stretch
        pulse = 0.2 * motion.wobble(rng, stage.time, (0.2, 0.8))
        size = size * np.exp(pulse[:, None] * np.array([-0.5, 1, -0.5]))
    _add(stage, mesh, joints, path, size, reach, moving=kind != "still")


def _add_sheet(stage: _Stage) -> None:
    """A cloth, flag or curved board: bent once, or waving."""
    rng = stage.rng
    mesh = meshes.sheet()
    x, y = mesh.rest[:, 0], mesh.rest[:, 1]
    wave = np.zeros((stage.frames, len(x)))
    for _ in range(3):
        k, speed = rng.normal(size=2) * 2.2, rng.normal() * 4 * min(stage.pace, 1.2)
        wave += rng.uniform(0.03, 0.14) * np.sin(k[0] * x + k[1] * y + speed * stage.time[:, None] + rng.uniform(0, 6))
    bend = rng.normal() * 0.8
    angle = bend * x
    across = np.sin(angle) / bend if abs(bend) > 0.05 else x
    depth = (1 - np.cos(angle)) / bend if abs(bend) > 0.05 else 0 * x
    shape = np.stack([np.broadcast_to(across, wave.shape), np.broadcast_to(y, wave.shape), depth + wave], -1)
    scale = float(np.exp(rng.normal(np.log(0.5), 0.3)))
    start = _place(stage, scale) + np.array([0, scale * rng.uniform(1.05, 1.6), 0])
    path = motion.object_path(
        rng, str(rng.choice(["still", "swaying", "drifting"])), stage.time, start, scale, stage.pace
    )
    stretch = np.array([1, rng.uniform(0.5, 1), 1]) * scale
    joints = np.repeat(mesh.bind[None].astype(np.float64), stage.frames, 0)
    _add(stage, mesh, joints, path, stretch, shape=shape.astype(np.float32))


def _add_occluder(stage: _Stage) -> None:
    """A pole, board or thing close to the camera that crosses the view, or that the camera passes."""
    rng = stage.rng
    radius = rng.uniform(0.08, 0.3)
    kind = rng.integers(3)
    mesh = _load(stage.library.static, stage) if kind == 2 else None
    if mesh is None:
        mesh = meshes.cylinder(4.0, 0.5, 12) if kind == 0 else meshes.box(np.array([1, rng.uniform(0.6, 5), 0.2]))
    forward = (stage.aim - stage.eye) * [1, 0, 1]
    distance = max(float(np.linalg.norm(forward)), 0.5)
    side = np.array([-forward[2], 0, forward[0]]) / distance
    depth = rng.uniform(0.35, 0.6) * distance + radius
    width = depth * np.tan(stage.fov / 2)
    way = np.linspace(-1.3, 1.3, 2) * width * rng.choice([-1, 1])
    crossing = rng.uniform(0.2, 1.0) * min(stage.pace, 1.5)
    across = rng.uniform(-0.7, 0.7) * width + crossing * (way[1] - way[0]) * (stage.time - stage.time.mean())
    if rng.random() < 0.35:  # to and fro: covers, leaves and covers again
        across = rng.uniform(0.4, 1.2) * width * motion.wobble(rng, stage.time, (0.3, 1.0), 2) * min(stage.pace * 2, 1)
    position = stage.eye + forward / distance * depth + across[:, None] * side
    position[:, 1] = stage.eye[1] * rng.uniform(0.4, 1.1)
    spin = motion.turn(np.array([0.0, 1, 0]), rng.uniform(0, 6) + 0.5 * stage.pace * stage.time)
    joints = np.repeat(mesh.bind[None].astype(np.float64), stage.frames, 0)
    _add(stage, mesh, joints, motion.Path(position, spin), radius, points=0.5)
    stage.bounds[-1] = (position, radius * 1.2)  # its length above and below the camera does no harm


# --- what it looks like --------------------------------------------------------------------------------------------


def _dressed(stage: _Stage, mesh: Mesh, matrices: np.ndarray, dress: int | None = None, **more: Any) -> Instance:
    """Give a mesh its texture and colours; the same ``dress`` number gives the same ones."""
    rng = stage.rng if dress is None else np.random.default_rng(dress)
    own = mesh.color**2
    colored = mesh.name not in ("sphere", "box", "cylinder", "sheet")
    style = rng.choice(3, p=[0.45, 0.3, 0.25]) if colored else 0
    tint = np.exp(rng.normal(size=3) * 0.15).astype(np.float32)
    tone = np.exp(rng.normal() * 0.25)
    if style == 0:  # the texture alone
        base, gain = np.zeros_like(own), np.broadcast_to(tint * tone, own.shape)
    elif style == 1:  # the texture, coloured by the model
        base, gain = 0.25 * own, (0.15 + 1.3 * own) * tint * tone
    else:  # the model's colours with some texture
        base, gain = 0.7 * own * tint * tone, 0.25 * tint * (0.5 + own)
    slot = np.full(mesh.num_faces, 2 if stage.one_texture else rng.integers(2, SLOTS))
    return Instance(
        mesh=mesh,
        matrices=matrices,
        uv=_uv(rng, mesh),
        slot=slot.astype(np.int64),
        base=base.astype(np.float32),
        gain=gain.astype(np.float32),
        shine=float(rng.uniform(0.1, 0.8) * (rng.random() < 0.35 * stage.config.specular)),
        **more,
    )


def _uv(rng: Generator, mesh: Mesh) -> np.ndarray:
    """Return texture coordinates (F, 3, 2): the mesh's own or a box projection, turned, scaled and moved at random."""
    scale = float(np.exp(rng.uniform(np.log(0.18), np.log(0.7))))
    angle = rng.uniform(0, 2 * np.pi)
    spin = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    if mesh.uv is not None:
        return (mesh.uv @ spin.T + rng.random(2)).astype(np.float32)
    rest = mesh.unit_rest @ motion.any_rotation(rng).T
    corners = rest[mesh.faces]  # (F, 3, 3)
    normal = np.abs(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    axis = normal.argmax(1)
    pick = np.array([[1, 2], [2, 0], [0, 1]])[axis]  # (F, 2)
    flat = np.take_along_axis(corners, np.broadcast_to(pick[:, None], (len(pick), 3, 2)), 2)
    return (flat @ spin.T + rng.random(2) + rng.random((3, 2))[axis][:, None]).astype(np.float32)


def _room(stage: _Stage) -> Instance:
    """Floor, walls and ceiling around everything: every pixel shows a surface."""
    rng = stage.rng
    mesh = meshes.room(stage.room)
    metres = np.asarray(mesh.uv)
    side = np.arange(mesh.num_faces) // 2
    repeat = np.where(side == 0, rng.uniform(1.2, 4.0), rng.uniform(1.5, 5.0) * max(1.0, stage.room[1] / 2))  # m a tile
    angle = rng.uniform(0, 2 * np.pi)
    spin = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    uv = np.where((side == 0)[:, None, None], metres @ spin.T, metres) / repeat[:, None, None]
    shift = rng.random((6, 2))[side][:, None]
    slot = np.where(side == 0, 0, 1 if rng.random() < 0.6 else 1 + side % 3)
    gain = np.exp(rng.normal(size=(6, 3)) * 0.1 + rng.normal(size=(6, 1)) * 0.2)[side]
    return Instance(
        mesh=mesh,
        matrices=np.repeat(mesh.bind[None].astype(np.float64), stage.frames, 0),
        uv=(uv + shift).astype(np.float32),
        slot=slot.astype(np.int64),
        base=np.zeros((mesh.num_faces, 3), np.float32),
        gain=gain.astype(np.float32),
        moving=False,
        points=0.6,
    )


def _tiles(stage: _Stage) -> list[np.ndarray]:
    rng, photos = stage.rng, stage.library.photos
    tiles = []
    for slot in range(SLOTS):
        if not photos or rng.random() < stage.config.procedural_share * (1.4 if slot < 2 else 1):
            kind = textures.PROCEDURAL[rng.integers(len(textures.PROCEDURAL))]
            tiles.append(textures.procedural_strip(kind, int(rng.integers(6))))
        else:
            tiles.append(textures.photo_strip(photos[rng.integers(len(photos))]))
    return tiles


def _light(stage: _Stage) -> Light:
    rng, config = stage.rng, stage.config
    azimuth, height = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(25, 80))
    turns, flickers = rng.random(2) < np.array([0.3, 0.35]) * config.light_change
    azimuth = azimuth + 0.6 * motion.wobble(rng, stage.time, (0.05, 0.4), 2) * turns
    direction = np.stack(
        [np.cos(height) * np.cos(azimuth), np.full(stage.frames, np.sin(height)), np.cos(height) * np.sin(azimuth)], 1
    )
    flicker = np.exp(0.25 * motion.wobble(rng, stage.time, (0.1, 2.0)) * flickers)
    share = rng.uniform(0.35, 0.8)
    warm = np.exp(rng.normal(size=3) * 0.08)
    level = rng.uniform(0.8, 1.3)
    return Light(
        direction=direction,
        direct=flicker[:, None] * warm * level * share * 1.3,
        ambient=np.repeat((level * (1 - share) * 1.1 / warm)[None], stage.frames, 0),
        shadow=float(rng.uniform(0.4, 0.95)) if stage.likely(config.shadows) else 0.0,
    )


def _effects(stage: _Stage) -> Effects:
    """Draw the camera's effects. Every draw is made in any case, so that a switch changes nothing else in the clip."""
    rng, c = stage.rng, stage.config
    u, v = rng.random(8), rng.random(8)
    drift = motion.wobble(rng, stage.time, (0.05, 0.8), 3)
    balance = np.stack([motion.wobble(rng, stage.time, (0.05, 0.3), 2) for _ in range(3)], 1)
    distance = np.linalg.norm(stage.aim - stage.eye)
    grey = 0.25 + 0.6 * v[6]
    return Effects(
        fog=float(0.25 * v[0] / distance) if u[0] < c.fog else 0.0,
        fog_color=(float(grey), float(grey), float(min(1.0, grey * 1.05))),
        shutter=float(0.3 + 0.6 * v[1]) if u[1] < c.motion_blur else 0.0,
        defocus=float(2 + 6 * v[2]) if u[2] < c.defocus else 0.0,
        focus=float(1 / distance),
        blur=float(0.2 + 0.7 * v[3]) if u[3] < c.blur else 0.0,
        gain=np.exp(0.18 * drift[:, None] + 0.04 * balance) if u[4] < c.exposure else None,
        gamma=float(np.exp((v[4] - 0.5) * 0.5)) if u[4] < c.exposure else 1.0,
        noise=float(1 + 7 * v[5] ** 2) if u[5] < c.noise else 0.0,
        quality=int(25 + 65 * v[7]) if u[7] < c.compression else 0,
    )


def _camera(stage: _Stage) -> motion.Camera:
    rng, config = stage.rng, stage.config
    kinds = [k for k in motion.CAMERA_KINDS if k in config.cameras]
    share = np.array([CAMERA_SHARES[k] for k in kinds])
    kind = "still" if stage.pace < 0.05 and "still" in kinds else str(rng.choice(kinds, p=share / share.sum()))
    target = np.repeat(stage.aim[None], stage.frames, 0)
    movers = [b[0] for i, b in zip(stage.instances, stage.bounds, strict=True) if i.moving]
    if movers and (kind == "follow" or rng.random() < 0.5):
        target = movers[rng.integers(len(movers))]
    focal = config.width / 2 / np.tan(stage.fov / 2)
    return motion.camera_path(rng, kind, stage.time, stage.eye, target, focal, stage.pace, stage.room)
