"""A Python script for Natron: a Tracker node with all points. Positions are rounded to 4 decimals.

Written for the API that Natron's manual describes: ``app.createNode``, ``Tracker.createTrack``, and ``setValueAtTime``
on the ``centerPoint`` of each track. It runs in Python 2 and 3, as Natron has either.
"""

from __future__ import annotations

import json

from ptrack.exports.common import frame_size, keyed
from ptrack.tracks import Tracks

_SCRIPT = '''\
# -*- coding: utf-8 -*-
# {count} point tracks. Run this in Natron's Script Editor, with the video's project open: it adds a Tracker node.
# Pixels from the lower-left corner of the image, y upwards; frame 0 of the video is frame {start}.
import json

# name, rows of (frame, x, y)
TRACKS = json.loads(r"""
{data}
""")

node = app.createNode("fr.inria.built-in.Tracker")
node.setLabel("ptrack")
for name, rows in TRACKS:
    track = node.tracker.createTrack()
    if hasattr(track, "setLabel"):
        track.setLabel(name)
    centre = track.getParam("centerPoint")
    for frame, x, y in rows:
        centre.setValueAtTime(x, frame, 0)
        centre.setValueAtTime(y, frame, 1)
'''


def natron_script(tracks: Tracks, start_frame: int = 1) -> str:
    """Return the script. Coordinates: pixels, (0, 0) at the lower-left corner of the image, y upwards."""
    h, _ = frame_size(tracks, "natron")
    data = [
        [str(name), [[f + start_frame, round(x, 4), round(h - y, 4)] for f, x, y, _ in keyed(tracks, n)]]
        for n, name in enumerate(tracks.ids)
    ]
    rows = [entry for entry in data if entry[1]]
    # The JSON stands in a raw string. It cannot end it: quotes inside names are escaped, so no three adjoin.
    text = json.dumps(rows, separators=(",", ":")).replace("]]],", "]]],\n")
    return _SCRIPT.format(count=len(rows), start=start_frame, data=text)
