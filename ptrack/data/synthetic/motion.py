"""How cameras and objects of the synthetic world move: smooth functions of time, in NumPy float64.

World: metres, seconds, y up, the floor at y = 0. Camera: x right, y down, z forward.
Letters: T frames. ``time`` is (T,) seconds, not necessarily evenly spaced.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

GRAVITY = 9.81  # m/s^2
CAMERA_KINDS = ("still", "path", "follow", "shake", "zoom", "handheld")
OBJECT_KINDS = ("still", "falling", "thrown", "bouncing", "rolling", "tumbling", "drifting", "swaying")


@dataclass(frozen=True)
class Path:
    """Where something is: ``position`` (T, 3) metres and ``rotation`` (T, 3, 3), columns are the axes in the world."""

    position: np.ndarray
    rotation: np.ndarray


@dataclass(frozen=True)
class Camera:
    """A pinhole camera over time."""

    kind: str
    rotation: np.ndarray  # (T, 3, 3) world to camera
    position: np.ndarray  # (T, 3) centre in the world, metres
    focal: np.ndarray  # (T,) pixels, the principal point is the middle of the picture


def turn(axis: np.ndarray, angle: np.ndarray | float) -> np.ndarray:
    """Return rotation matrices (T, 3, 3) about one axis (3,) by angles (T,) radians (Rodrigues); one for a number."""
    x, y, z = axis / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    a = np.asarray(angle)[..., None, None]
    return np.eye(3) + np.sin(a) * k + (1 - np.cos(a)) * (k @ k)


def any_rotation(rng: Generator) -> np.ndarray:
    """Return a random rotation (3, 3), uniform over all."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else q[:, [1, 0, 2]]


def wobble(rng: Generator, time: np.ndarray, hertz: tuple[float, float], parts: int = 4) -> np.ndarray:
    """Return a smooth random function of time (T,) with amplitude about 1 and frequencies in a range."""
    f = np.exp(rng.uniform(np.log(hertz[0]), np.log(hertz[1]), parts))
    phase = rng.uniform(0, 2 * np.pi, parts)
    return (np.sin(2 * np.pi * f * time[:, None] + phase) * rng.normal(size=parts)).sum(1) / np.sqrt(parts / 2)


def frame_times(rng: Generator, frames: int, rate: float, irregular: bool) -> np.ndarray:
    """Return the times of frames (T,) in seconds; ``rate`` 1 is 24 frames/s, larger is sparser in time.

    An irregular clip repeats or skips some frames, as video with a changed frame rate does.
    """
    step = np.full(frames, rate / 24)
    if irregular:
        kind = rng.integers(3)
        if kind == 0:
            step[rng.random(frames) < 0.15] *= rng.integers(2, 4)
        elif kind == 1:
            step[rng.random(frames) < 0.2] = 0
        else:
            step *= np.interp(np.arange(frames), [0, frames - 1], rng.uniform(0.4, 1.8, 2))
    return np.cumsum(step) - step[0]


def bounce(time: np.ndarray, height: float, speed: float, restitution: float) -> np.ndarray:
    """Return the height (T,) above the floor of a point that starts at ``height`` with upward ``speed``."""
    out = np.empty(len(time))
    start, h, v = 0.0, max(height, 0.0), speed
    for _ in range(64):
        flight = (v + np.sqrt(v * v + 2 * GRAVITY * h)) / GRAVITY
        now = (time >= start) if flight < 1e-3 else (time >= start) & (time < start + flight)
        local = time[now] - start
        out[now] = 0 if flight < 1e-3 else h + v * local - GRAVITY * local**2 / 2
        if flight < 1e-3 or start + flight > time[-1]:
            break
        start, v, h = start + flight, restitution * np.sqrt(v * v + 2 * GRAVITY * h), 0.0
    else:
        out[time >= start] = 0
    return np.maximum(out, 0)


def object_path(rng: Generator, kind: str, time: np.ndarray, start: np.ndarray, radius: float, pace: float) -> Path:
    """Return how a rigid object moves.

    Args:
        rng: source of the details.
        kind: one of ``OBJECT_KINDS``.
        time: (T,) seconds.
        start: (3,) where it stands at time 0 when it rests on the floor: its centre.
        radius: metres from its centre to the floor when it rests.
        pace: speed relative to ordinary motion.
    """
    heading = rng.uniform(0, 2 * np.pi)
    ahead = np.array([np.cos(heading), 0, np.sin(heading)])
    base = (
        any_rotation(rng) if kind in ("falling", "thrown", "bouncing", "tumbling") else turn(_UP, rng.uniform(0, 6.3))
    )
    position = np.repeat(start[None], len(time), 0)
    spin = turn(rng.normal(size=3), rng.normal() * 1.5 * pace * time)
    if kind == "still":
        return Path(position, np.repeat(base[None], len(time), 0))
    if kind in ("falling", "bouncing", "thrown"):
        position = position + ahead * (rng.uniform(0, 1) * pace * time)[:, None]
        lift = rng.uniform(0.2, 1.5) * min(pace, 1.5), rng.uniform(0.5, 3) * min(pace, 1.5) * (kind != "falling")
        slow = min(1.0, 0.3 + 0.5 * pace)  # slow motion, as slow clips are
        position[:, 1] += bounce(time * slow, *lift, 0.0 if kind == "falling" else rng.uniform(0.4, 0.85))
        return Path(position, spin @ base)
    if kind == "rolling":
        way = rng.uniform(0.2, 1.2) * pace * time
        axis = np.cross(_UP, ahead)
        return Path(position + ahead * way[:, None], turn(axis, way / max(radius, 0.05)) @ base)
    if kind == "tumbling":
        drift = np.stack([wobble(rng, time, (0.05, 0.3)) for _ in range(3)], 1) * 0.4 * pace
        position = position + drift - drift[:1] + np.array([0, rng.uniform(0, 1.5), 0])
        position[:, 1] = np.maximum(position[:, 1], radius)
        return Path(position, spin @ base)
    if kind == "drifting":
        return Path(
            position + ahead * (rng.uniform(0.1, 1.0) * pace * time)[:, None], np.repeat(base[None], len(time), 0)
        )
    sway = turn(rng.normal(size=3) * [1, 0.3, 1], 0.35 * pace * wobble(rng, time, (0.2, 1.0)))
    return Path(position, sway @ base)


def walk_path(
    rng: Generator, time: np.ndarray, start: np.ndarray, speed: float, height: np.ndarray | float = 0
) -> Path:
    """Return a walk along a gentle curve: model axis +z points ahead. ``speed`` in m/s, ``height`` above ``start``."""
    heading = (
        rng.uniform(0, 2 * np.pi) + rng.normal() * 0.3 * speed * time + 0.2 * speed * wobble(rng, time, (0.1, 0.4))
    )
    ahead = np.stack([np.sin(heading), np.zeros_like(heading), np.cos(heading)], 1)
    step = np.diff(time, prepend=time[0])[:, None] * speed * ahead
    position = start + np.cumsum(step, 0) + np.array([0.0, 1, 0]) * np.reshape(height, (-1, 1))
    return Path(position, turn(_UP, heading))


_UP = np.array([0.0, 1.0, 0.0])


def look_at(position: np.ndarray, target: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Return world-to-camera rotations (T, 3, 3) of cameras at ``position`` that look at ``target``, both (T, 3)."""
    z = target - position
    z = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-9)
    x = np.cross(z, _UP)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)
    y = np.cross(z, x)
    rotation = np.stack([x, y, z], 1)
    return turn(np.array([0.0, 0, 1]), roll) @ rotation


def camera_path(
    rng: Generator,
    kind: str,
    time: np.ndarray,
    start: np.ndarray,
    target: np.ndarray,
    focal: float,
    pace: float,
    room: np.ndarray,
) -> Camera:
    """Return a camera's motion; it stays 0.35 m inside the room at all times.

    Args:
        rng: source of the details.
        kind: one of ``CAMERA_KINDS``.
        time: (T,) seconds.
        start: (3,) where it is at time 0.
        target: (T, 3) what it looks at; only "follow" looks at later positions than the first.
        focal: pixels.
        pace: speed relative to ordinary motion.
        room: (3,) half width, half height, half depth of the room, metres.
    """
    count = len(time)
    aim = target if kind == "follow" else np.repeat(target[:1], count, 0)
    position = np.repeat(start[None], count, 0)
    roll = np.full(count, rng.normal() * 0.05)
    scale = np.ones(count)
    if kind in ("path", "follow"):
        move = np.stack([wobble(rng, time, (0.05, 0.35), 3) for _ in range(3)], 1) * pace * np.array([0.5, 0.15, 0.5])
        position = position + move - move[:1]
        pan = np.stack([wobble(rng, time, (0.05, 0.3), 3) for _ in range(3)], 1) * pace * 0.35
        aim = aim + (pan - pan[:1] if kind == "path" else pan * 0.2)
        position = position + (0.4 * (target - target[:1]) if kind == "follow" else 0)
    if kind in ("handheld", "shake"):
        hertz, swing = ((0.3, 2.5), 0.018) if kind == "handheld" else ((2.0, 7.0), 0.012)
        reach = np.linalg.norm(target[0] - start)
        shift = np.stack([wobble(rng, time, hertz) for _ in range(3)], 1) * swing * pace * reach
        aim = aim + shift - shift[:1]
        position = position + np.stack([wobble(rng, time, (0.2, 1.0)) for _ in range(3)], 1) * 0.03 * pace
        roll = roll + swing * 0.6 * pace * wobble(rng, time, hertz)
    if kind == "zoom":
        scale = np.exp(
            np.clip(rng.normal() * 0.6 * pace * (time - time.mean()) + 0.1 * wobble(rng, time, (0.1, 0.4)), -0.8, 0.8)
        )
    limit = np.maximum(room - 0.35, 0.05)
    low, high = np.array([-limit[0], 0.15, -limit[2]]), np.array([limit[0], 2 * room[1] - 0.35, limit[2]])
    position = np.clip(position, low, high)
    return Camera(kind, look_at(position, aim, roll), position, focal * scale)
