"""Looking into clip stores: what they hold, whether it is sound, and a picture of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ptrack.data.clips import OPTIONAL_ARRAYS, Clip
from ptrack.data.hdf5 import ClipStore, open_store
from ptrack.errors import DataError, PTrackError
from ptrack.fileio import atomic_path
from ptrack.untrusted.h5 import attribute, member
from ptrack.untrusted.limits import reading


def describe(path: Path | str) -> dict[str, Any]:
    """Return what a store holds: its attributes, counts, the arrays of its first clip, and one row per clip.

    Raises:
        DataError: it is no finished clip store.
    """
    store = ClipStore(path)
    codecs: Counter[str] = Counter()
    points = visible = 0
    with reading(store.paths[0], DataError, "a clip store"):
        with open_store(store.paths[0]) as file:
            attrs = {k: _plain(attribute(file, k)) for k in file.attrs}
        for i in range(len(store)):
            group = store.group(i)
            codecs[str(attribute(group, "codec"))] += 1
            flags = member(group, "visibility")
            points += flags.size
            visible += int(np.count_nonzero(flags[()]))
        arrays = _arrays(store.group(0)) if len(store) else {}
    return {
        "files": [str(p) for p in store.paths],
        "bytes": sum(p.stat().st_size for p in store.paths),
        "attributes": attrs,
        "clips": len(store),
        "frames": int(store.num_frames.sum()),
        "tracks": int(store.num_tracks.sum()),
        "positions": points,
        "visible_positions": visible,
        "splits": dict(Counter(store.splits)),
        "codecs": dict(codecs),
        "arrays_of_first_clip": arrays,
        "rows": [
            {
                "id": store.ids[i],
                "frames": int(store.num_frames[i]),
                "tracks": int(store.num_tracks[i]),
                "height": int(store.sizes[i, 0]),
                "width": int(store.sizes[i, 1]),
            }
            for i in range(len(store))
        ],
    }


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _arrays(group: Any) -> dict[str, str]:
    """Return name -> type, shape and storage of every array of a clip."""
    found: dict[str, str] = {}

    def note(name: str, item: Any) -> None:
        if hasattr(item, "shape"):
            packed = f", {item.compression} in {item.chunks}" if item.chunks else ""
            found[name] = f"{item.dtype} {item.shape}{packed}"

    group.visititems(note)
    return found


@dataclass
class Verification:
    """What ``verify`` found."""

    clips: int = 0
    frames: int = 0
    damaged: int = 0  # frames that are marked as damaged, as the source had them
    problems: list[str] = field(default_factory=list)  # sentences; empty: sound
    digest: str = ""  # SHA-256 of the content, independent of the order of writing and of the HDF5 version


def verify(path: Path | str) -> Verification:
    """Read everything a store holds, decode every frame, and check all invariants of the schema.

    Raises:
        DataError: it is no finished clip store.
    """
    store = ClipStore(path)
    result = Verification(clips=len(store))
    digests = []
    for name, count in Counter(store.ids).items():
        if count > 1:
            result.problems.append(f"The id '{name}' is used by {count} clips.")
    for i in range(len(store)):
        try:
            clip = store[i]
            digests.append(clip_digest(clip))
            _check_clip(clip, result)
        except (PTrackError, OSError, KeyError, ValueError) as error:
            result.problems.append(f"{store.ids[i]}: cannot be read ({error}).")
    result.digest = hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()
    return result


def _check_clip(clip: Clip, result: Verification) -> None:
    """Add the frames of a clip and the invariants it breaks."""
    finite = clip.finite
    if (clip.visibility & ~finite).any() or (clip.valid & ~finite).any():
        result.problems.append(f"{clip.id}: positions that are not finite are marked visible or valid.")
    if np.isinf(clip.tracks).any():
        result.problems.append(f"{clip.id}: the tracks hold infinite values.")
    for t in range(clip.num_frames):
        result.frames += 1
        if clip.frame_ok is not None and not clip.frame_ok[t]:
            result.damaged += 1
            continue
        try:
            shape = clip.frames.rgb(t).shape
        except DataError as error:
            result.problems.append(f"{clip.id}: frame {t} cannot be decoded ({error})")
            continue
        if shape != (*clip.size, 3):
            result.problems.append(f"{clip.id}: frame {t} is {shape[1]}x{shape[0]}, not {clip.size[1]}x{clip.size[0]}.")


def clip_digest(clip: Clip) -> str:
    """Return the SHA-256 of all that a clip holds: names, stored picture bytes and arrays."""
    digest = hashlib.sha256()
    fields = (clip.id, clip.source, clip.split, clip.name, clip.size, clip.fps, clip.coord_convention)
    digest.update(repr((*fields, clip.first_frame_number, clip.depth_scale)).encode())
    for name in ("tracks", "visibility", "valid", *OPTIONAL_ARRAYS):
        if (value := getattr(clip, name)) is not None:
            digest.update(f"{name}{value.dtype.str}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
    for name in ("frames", "masks", "depth"):
        side: Any = getattr(clip, name)
        pictures = () if side is None else (side.encoded(t) for t in range(len(side)))
        for t, (codec, data) in enumerate(pictures):
            digest.update(f"{name}{t}{codec}{len(data)}".encode())
            digest.update(data)
    return digest.hexdigest()


# --- pictures ----------------------------------------------------------------------------------------------------


def contact_sheet(path: Path | str, out: Path | str, rows: int = 6, columns: int = 5, width: int = 320) -> Path:
    """Draw clips (rows) over time (columns) with their tracks into a PNG; hidden points are hollow.

    Clips and frames are spread evenly; at most 200 points a clip are drawn, coloured by their position in its first
    frame.

    Raises:
        DataError: it is no finished clip store, or an empty one.
    """
    store = ClipStore(path)
    if not len(store):
        raise DataError(f"{path} holds no clips.")
    picks = np.unique(np.linspace(0, len(store) - 1, rows).round().astype(int))
    sheet = [_strip(store[int(i)], columns, width) for i in picks]
    canvas = Image.new("RGB", (columns * width, sum(s.height for s in sheet)), "white")
    top = 0
    for strip in sheet:
        canvas.paste(strip, (0, top))
        top += strip.height
    out = Path(out)
    with atomic_path(out) as temporary:
        canvas.save(temporary, "PNG")
    return out


def _strip(clip: Clip, columns: int, width: int) -> Image.Image:
    """Draw one clip over time under a line with its name."""
    height = max(1, round(width * clip.size[0] / clip.size[1]))
    strip = Image.new("RGB", (columns * width, height + 18), "white")
    text = f"{clip.id}   {clip.num_frames} frames, {clip.num_tracks} tracks, {clip.size[1]}x{clip.size[0]}"
    ImageDraw.Draw(strip).text((4, 3), text.encode("latin1", "replace").decode("latin1"), fill="black")
    chosen = np.unique(np.linspace(0, max(clip.num_tracks - 1, 0), min(clip.num_tracks, 200)).astype(int))
    colours = _colours(clip, chosen)
    for column, t in enumerate(np.unique(np.linspace(0, clip.num_frames - 1, columns).round().astype(int))):
        ok = clip.frame_ok is None or clip.frame_ok[t]
        rgb = clip.frames.rgb(int(t)) if ok else np.zeros((*clip.size, 3), np.uint8)
        image = Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR)
        _dots(image, clip, int(t), chosen, colours, width / clip.size[1])
        strip.paste(image, (column * width, 18))
    return strip


def _colours(clip: Clip, chosen: np.ndarray) -> list[tuple[int, int, int]]:
    """Return a colour per chosen point from its first finite position: hue along x, brightness along y."""
    import colorsys

    out = []
    for n in chosen:
        finite = np.flatnonzero(np.isfinite(clip.tracks[:, n]).all(-1))
        x, y = clip.tracks[finite[0], n] / (clip.size[1], clip.size[0]) if len(finite) else (0.0, 0.0)
        hue, value = float(np.clip(x, 0, 1)) * 0.85, 1.0 - 0.35 * float(np.clip(y, 0, 1))
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.9, value)
        out.append((int(red * 255), int(green * 255), int(blue * 255)))
    return out


def _dots(
    image: Image.Image, clip: Clip, t: int, chosen: np.ndarray, colours: list[tuple[int, int, int]], scale: float
) -> None:
    draw = ImageDraw.Draw(image)
    for n, colour in zip(chosen, colours, strict=True):
        if not clip.valid[t, n] and not clip.visibility[t, n]:
            continue
        x, y = (float(v) * scale for v in clip.tracks[t, n])
        if not (-8 <= x <= image.width + 8 and -8 <= y <= image.height + 8):
            continue
        box = (x - 3, y - 3, x + 3, y + 3)
        if clip.visibility[t, n]:
            draw.ellipse(box, fill=colour, outline="black")
        else:
            draw.ellipse(box, outline=colour)
