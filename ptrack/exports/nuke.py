"""Nuke scripts: one Tracker4 node with all points, and a CornerPin2D node. Positions are rounded to 4 decimals.

A Tracker4's ``tracks`` knob is a table: the numbers of tables, columns and rows, then the columns' descriptions (kind,
whether it is animated, width on screen, knob name, label), then one row per point. Values are in TCL lists, animated
ones are curves ``{curve x1001 12.5 x1002 13}``.
"""

from __future__ import annotations

from ptrack.exports.common import frame_size, keyed
from ptrack.exports.corners import CornerPin
from ptrack.tracks import Tracks

# kind: 1 number, 2 animated number, 3 text, 4 check box, 5 animated check box; width on screen, 0 for hidden columns.
_COLUMNS = (
    *((5, 20, "enable"), (3, 75, "name"), (2, 58, "track_x"), (2, 58, "track_y"), (2, 63, "offset_x")),
    *((2, 63, "offset_y"), (4, 27, "T"), (4, 27, "R"), (4, 27, "S"), (2, 45, "error"), (1, 0, "error_min")),
    *((1, 0, "error_max"), (1, 0, "pattern_x"), (1, 0, "pattern_y"), (1, 0, "pattern_r"), (1, 0, "pattern_t")),
    *((1, 0, "search_x"), (1, 0, "search_y"), (1, 0, "search_r"), (1, 0, "search_t"), (2, 0, "key_track")),
    *((2, 0, "key_search_x"), (2, 0, "key_search_y"), (2, 0, "key_search_r"), (2, 0, "key_search_t")),
    *((2, 0, "key_track_x"), (2, 0, "key_track_y"), (2, 0, "key_track_r"), (2, 0, "key_track_t")),
    *((2, 0, "key_centre_offset_x"), (2, 0, "key_centre_offset_y")),
)
_BOXES = "-16 -16 16 16 -32 -32 32 32"  # pattern and search box around a point, pixels, should one track on in Nuke


def nuke_script(tracks: Tracks, start_frame: int = 1) -> str:
    """Return a Nuke script with one Tracker4 node that holds all points.

    Coordinates: pixels, (0, 0) at the lower-left corner of the image, y upwards. The source's frame 0 is
    ``start_frame``. Points without a position anywhere are switched off.
    """
    h, _ = frame_size(tracks, "nuke")
    columns = [
        f"{{ {kind} {int(name != 'error')} {width} {name} {'e' if name == 'enable' else name} 1 }}"
        for kind, width, name in _COLUMNS
    ]
    rows = [_row(tracks, n, h, start_frame) for n in range(tracks.num_points)]
    table = f"{{ 1 {len(_COLUMNS)} {len(rows)} }}\n{{ {chr(10).join(columns)} }}\n{{ {chr(10).join(rows)} }}"
    return f"Tracker4 {{\n inputs 0\n tracks {{ {table} }}\n reference_frame {start_frame}\n name ptrack_tracks\n}}\n"


def _row(tracks: Tracks, n: int, height: int, start_frame: int) -> str:
    """Return one point's row of the table."""
    rows = [(f + start_frame, x, height - y) for f, x, y, _ in keyed(tracks, n)]
    xs = _curve([(f, x) for f, x, _ in rows])
    ys = _curve([(f, y) for f, _, y in rows])
    first = rows[0][0] if rows else start_frame
    enabled = f"{{curve K x{first} {int(bool(rows))}}}"
    zero = f"{{curve K x{first} 0}}"
    moving = f'{enabled} "{_quoted(tracks.ids[n])}" {xs} {ys} {zero} {zero}'
    return f"{{ {moving} 1 0 0 {zero} 1 0 {_BOXES} {'{} ' * 11}}}"


def _curve(keys: list[tuple[int, float]]) -> str:
    return "{curve " + " ".join(f"x{frame} {value:.4f}" for frame, value in keys) + "}" if keys else "{}"


def _quoted(name: str) -> str:
    """Return an id as the inside of a quoted TCL word: nothing in it is a command, a variable or a brace."""
    return "".join("_" if c in '"\\[]{}$;' or ord(c) < 32 else c for c in str(name))


def corner_pin_script(tracks: Tracks, start_frame: int = 1) -> str:
    """Return a Nuke script with one CornerPin2D node that puts a whole picture of the frame's size onto the corners.

    Nuke counts corners from the lower left against the clock: lower left, lower right, upper right, upper left.
    """
    pin = CornerPin.of(tracks, "nuke-cornerpin")
    height, width = pin.size
    lines = ["CornerPin2D {", " inputs 0"]
    for number, corner in enumerate((3, 2, 1, 0), start=1):
        frames = [int(f) + start_frame for f in pin.frames]
        xs = _curve(list(zip(frames, pin.corners[:, corner, 0].tolist(), strict=True)))
        ys = _curve(list(zip(frames, (height - pin.corners[:, corner, 1]).tolist(), strict=True)))
        lines.append(f" to{number} {{{xs} {ys}}}")
    whole = ((0, 0), (width, 0), (width, height), (0, height))
    lines += [f" from{number} {{{x} {y}}}" for number, (x, y) in enumerate(whole, start=1)]
    return "\n".join([*lines, " name ptrack_corner_pin", "}", ""])
