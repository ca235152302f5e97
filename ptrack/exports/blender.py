"""A Python script for Blender's Movie Clip Editor. Positions are rounded to 7 decimals of the fraction."""

from __future__ import annotations

import json
import os

from ptrack.exports.common import frame_size, keyed
from ptrack.tracks import Tracks

_BLENDER = '''\
"""Adds {count} point tracks to a movie clip of Blender.

Open the clip in the Movie Clip Editor, open this file in Blender's text editor and press Run. In background mode
(blender --background scene.blend --python this.py) the scene's first clip is taken. Without any clip, the tracked video
is opened if it is still where it was. Frame 0 of the video is frame 1 of the clip. Positions are fractions of the width
and height from the lower-left corner; occluded frames are muted markers.
"""

import json
import os

import bpy

VIDEO = {source}

WIDTH, HEIGHT = {width}, {height}
# name -> rows of (clip frame, x, y, 1 if visible)
TRACKS = json.loads(r"""
{data}
""")


def find_clip():
    screen = bpy.context.screen  # None in background mode
    for area in screen.areas if screen else ():
        if area.type == "CLIP_EDITOR" and area.spaces.active.clip:
            return area.spaces.active.clip
    if bpy.data.movieclips:
        return bpy.data.movieclips[0]
    if os.path.isfile(VIDEO):
        return bpy.data.movieclips.load(VIDEO)
    raise RuntimeError("Open the movie clip " + VIDEO + " first.")


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
    source = json.dumps(os.path.abspath(tracks.info.source) if tracks.info.source else "")
    return _BLENDER.format(count=len(rows), source=source, width=w, height=h, data=text)
