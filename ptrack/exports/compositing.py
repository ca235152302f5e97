"""Tracks for compositing and 3D programs: Blender, After Effects, Nuke. Positions are rounded to 4 decimals."""

from __future__ import annotations

import json
from pathlib import Path

from ptrack.exports.common import frame_size, keyed
from ptrack.fileio import atomic_path
from ptrack.tracks import Tracks

_BLENDER = '''\
"""Adds {count} point tracks to the active movie clip of Blender's Movie Clip Editor.

Open the clip {source}, open this file in Blender's text editor and press Run. Frame 0 of the video is frame 1 of the
clip. Positions are fractions of the width and height from the lower-left corner; occluded frames are muted markers.
"""

import json

import bpy

WIDTH, HEIGHT = {width}, {height}
# name -> rows of (clip frame, x, y, 1 if visible)
TRACKS = json.loads(r"""
{data}
""")


def find_clip():
    for area in bpy.context.screen.areas:
        if area.type == "CLIP_EDITOR" and area.spaces.active.clip:
            return area.spaces.active.clip
    if not bpy.data.movieclips:
        raise RuntimeError("Open the movie clip first.")
    return bpy.data.movieclips[0]


clip = find_clip()
if tuple(clip.size) != (WIDTH, HEIGHT):
    raise RuntimeError(f"The clip is {{clip.size[0]}}x{{clip.size[1]}}, the tracks belong to {{WIDTH}}x{{HEIGHT}}.")
for name, rows in TRACKS.items():
    track = clip.tracking.tracks.new(name=name, frame=rows[0][0])
    for frame, x, y, visible in rows:
        marker = track.markers.insert_frame(frame, co=(x, y))
        marker.mute = not visible
'''


def blender_script(tracks: Tracks) -> str:
    """Return a Blender Python script that creates one motion-tracking track per point.

    Coordinates: fractions of width and height, (0, 0) at the lower-left corner of the image, y upwards.
    """
    h, w = frame_size(tracks, "blender")
    data = {
        str(name): [[f + 1, round(x / w, 7), round(1 - y / h, 7), int(v)] for f, x, y, v in keyed(tracks, n)]
        for n, name in enumerate(tracks.ids)
    }
    rows = {name: row for name, row in data.items() if row}
    # The JSON stands in a raw Python string. It cannot end it: quotes inside names are escaped, so no three adjoin.
    text = json.dumps(rows, separators=(",", ":")).replace("]],", "]],\n")
    source = json.dumps(tracks.info.source).replace("\\", "/")
    return _BLENDER.format(count=len(rows), source=source, width=w, height=h, data=text)


def write_blender(tracks: Tracks, path: Path) -> None:
    """Write ``blender_script`` to ``path``."""
    _write(path, blender_script(tracks))


def aftereffects_text(tracks: Tracks) -> str:
    """Return After Effects keyframe data: one motion-tracker point per point, with its confidence in percent.

    Coordinates: pixels, (0, 0) at the upper-left corner of the image. Frames are counted from 0.
    """
    h, w = frame_size(tracks, "aftereffects")
    head = [
        "Adobe After Effects 8.0 Keyframe Data", "",
        f"\tUnits Per Second\t{tracks.info.fps or 25:g}", f"\tSource Width\t{w}", f"\tSource Height\t{h}",
        "\tSource Pixel Aspect Ratio\t1", "\tComp Pixel Aspect Ratio\t1", "",
    ]  # fmt: skip
    lines = list(head)
    for n in range(tracks.num_points):
        lines += _aftereffects_point(tracks, n)
    return "\n".join([*lines, "", "End of Keyframe Data", ""])


def _aftereffects_point(tracks: Tracks, n: int) -> list[str]:
    rows = list(keyed(tracks, n))
    where = {int(f): t for t, f in enumerate(tracks.frame_index)}
    name = f"Motion Trackers\tTracker #1\tTrack Point #{n + 1}"
    return [
        f"{name}\tFeature Center", "\tFrame\tX pixels\tY pixels",
        *(f"\t{f}\t{x:.4f}\t{y:.4f}" for f, x, y, _ in rows), "",
        f"{name}\tConfidence", "\tFrame\tpercent",
        *(f"\t{f}\t{100 * tracks.visibility[where[f], n]:.2f}" for f, *_ in rows), "",
    ]  # fmt: skip


def write_aftereffects(tracks: Tracks, path: Path) -> None:
    """Write ``aftereffects_text`` to ``path``."""
    _write(path, aftereffects_text(tracks))


def nuke_script(tracks: Tracks) -> str:
    """Return a Nuke script of Tracker3 nodes (four points each), to paste into the node graph or open.

    Coordinates: pixels, (0, 0) at the lower-left corner of the image, y upwards. Frame 0 of the video is frame 1.
    """
    h, _ = frame_size(tracks, "nuke")
    blocks = []
    for first in range(0, tracks.num_points, 4):
        points = range(first, min(first + 4, tracks.num_points))
        rows = [_nuke_track(tracks, n, n - first + 1, h) for n in points]
        names = " ".join(_plain(tracks.ids[n]) for n in points)
        label = f"ptrack_{first // 4 + 1}"
        blocks.append("\n".join(["Tracker3 {", *rows, f" label {{{names}}}", f" name {label}", " inputs 0", "}"]))
    return "\n".join(blocks) + "\n"


def _nuke_track(tracks: Tracks, n: int, slot: int, height: int) -> str:
    rows = [(f + 1, x, height - y) for f, x, y, _ in keyed(tracks, n)]
    xs = " ".join(f"x{f} {x:.4f}" for f, x, _ in rows)
    ys = " ".join(f"x{f} {y:.4f}" for f, _, y in rows)
    enabled = "true" if rows else "false"
    return f" track{slot} {{{{curve {xs}}} {{curve {ys}}}}}\n use_for{slot} all\n enable{slot} {enabled}"


def _plain(name: str) -> str:
    """Return an id as one TCL word."""
    return "".join(c if c.isalnum() or c in "_-." else "_" for c in str(name))


def write_nuke(tracks: Tracks, path: Path) -> None:
    """Write ``nuke_script`` to ``path``."""
    _write(path, nuke_script(tracks))


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
