"""From tracks to files: the one function behind ``ptrack visualize``. Outputs are checked before anything is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ptrack.errors import ConfigError, OutputError, TracksError, did_you_mean
from ptrack.fileio import atomic_path, check_writable
from ptrack.tracks import Tracks
from ptrack.tracks_io import tracks_stem
from ptrack.video import FrameSource, open_writer
from ptrack.viz import layouts, palette
from ptrack.viz.painter import LONG_TRAIL, PaintOptions, TracksPainter, whole_frame
from ptrack.viz.pairing import open_video_of, paired, with_size
from ptrack.viz.recent import joined_steps
from ptrack.viz.style import overlay_style

STYLES = ("overlay", "stabilised", "exposure", "sheet", "plots")
STILLS = ("exposure", "sheet")
Painted = tuple[int, Callable[[], np.ndarray]]  # row of the tracks, and what paints its picture


@dataclass(frozen=True, kw_only=True)
class VisualizeOptions:
    """What to draw and where to."""

    tracks: tuple[Path, ...]  # several are shown side by side
    video: str | None = None  # default: the source named in the tracks
    truth: Path | None = None  # ground truth for error lines
    style: str = "overlay"  # one of STYLES
    out: Path | None = None  # picture, video, GIF or folder of frames; by the style if nothing is asked for
    html: Path | None = None  # the viewer
    embed: bool = True  # the video inside the HTML file; otherwise beside it
    rerun: Path | None = None  # a recording for Rerun
    table: Path | None = None  # CSV, one row per point
    colour: str = "start"  # one of palette.MODES
    trail: int | None = None  # frames; by the style if None
    fade: float = 1.0  # 0..1, opacity lost at a trail's old end
    width: float | None = None  # pixels of a trail
    radius: float | None = None  # pixels of a point
    occluded: bool | None = None  # draw occluded points as rings: always, never, or (None) fading
    labels: bool = False  # write the ids
    points: tuple[str, ...] = ()  # only these ids
    follow: str | None = None  # id of the point that a zoomed crop follows
    crop: int = 160  # pixels of the frame, the crop's side
    zoom: float = 3.0  # enlargement of the crop
    attention: str | None = None  # id of the point whose attention or correlation map is shown
    model: str = ""  # the model that shows it; default: the one that made the tracks
    checkpoint: Path | None = None  # its weights
    device: str = "auto"
    frame: int | None = None  # source frame of a single picture
    count: int = 12  # frames on a contact sheet
    max_size: int | None = None  # pixels of the longest side of what is drawn
    force: bool = False  # go on with another video than the tracked one
    overwrite: bool = False
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)  # (frames done, frames in all)

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            hint = did_you_mean(self.style, STYLES)
            raise ConfigError(f"Unknown style '{self.style}'.{hint} Known: {', '.join(STYLES)}.")
        palette.check_mode(self.colour)
        if not self.tracks:
            raise TracksError("Name at least one tracks file.")
        if self.crop < 8 or not 0 < self.zoom <= 32:
            raise ConfigError("--crop must be at least 8 pixels and --zoom lie between 0 and 32.")
        if self.count < 1:
            raise ConfigError(f"--count {self.count}: a sheet needs at least 1 frame.")
        many = len(self.tracks) > 1 or self.truth is not None
        if many and self.style not in ("overlay", "stabilised"):
            raise ConfigError(f"The style '{self.style}' shows one tracks file without ground truth.")
        single = "--follow" if self.follow is not None else "--attention" if self.attention is not None else ""
        if single and self.style not in ("overlay", "stabilised"):
            raise ConfigError(f"{single} does not go with the style '{self.style}'.")
        if self.attention is not None and (many or self.follow is not None):
            raise ConfigError("--attention shows one tracks file, without ground truth and without --follow.")

    def paint_options(self) -> PaintOptions:
        """Return how tracks are painted; raises ConfigError for values out of range."""
        stabilised = self.style == "stabilised"
        trail = LONG_TRAIL if stabilised and self.trail is None else self.trail
        style = overlay_style(trail, self.occluded, fade=self.fade, width=self.width, radius=self.radius)
        return PaintOptions(
            colour=self.colour,
            style=style,
            labels=self.labels,
            stabilise=stabilised,
            highlight=self.follow,
        )


def default_output(options: VisualizeOptions) -> Path:
    """Return where the picture goes when no place is named: beside the current folder, by the tracks' name."""
    still = options.style in (*STILLS, "plots") or options.frame is not None
    what = options.style if options.attention is None else "attention"
    return Path(f"{tracks_stem(options.tracks[0])}.{what}{'.png' if still else '.mp4'}")


def visualize(options: VisualizeOptions) -> list[Path]:
    """Draw what ``options`` ask for and return the files written.

    Raises:
        TracksError, InputError: tracks or video cannot be read, or do not belong together.
        OutputError: a file exists or cannot be written, or an optional library is missing.
        ConfigError: options that do not go together.
    """
    from ptrack.exports import load_any

    others = (options.html, options.rerun, options.table)
    out = options.out or (default_output(options) if not any(others) else None)
    _check(options, out)
    paint = options.paint_options()
    sets = [load_any(path) for path in options.tracks]
    truth = load_any(options.truth) if options.truth is not None else None
    if options.points:
        sets = [tracks.select(options.points) for tracks in sets]
    written = _without_video(options, out, sets[0])
    picture = out if out not in written else None
    if picture is None and options.html is None and options.rerun is None:
        return written
    with open_video_of(sets[0], options.video, force=options.force, max_size=options.max_size) as source:
        sets = [with_size(tracks, source) for tracks in sets]
        if picture is not None:
            _draw(options, picture, sets, truth, paint, source)
            written.append(picture)
        if options.html is not None:
            written += _viewer(options, options.html, sets[0], source)
        if options.rerun is not None:
            from ptrack.exports.rerun import write_rerun

            frames = ((t, frame.rgb) for t, frame in paired(sets[0], source))
            write_rerun(
                sets[0], options.rerun, frames, palette.by_start(sets[0]), paint.style.trail, joined_steps(sets[0])
            )
            written.append(options.rerun)
    return written


def _without_video(options: VisualizeOptions, out: Path | None, tracks: Tracks) -> list[Path]:
    """Write the table and the plots, which need no video; return what was written."""
    from ptrack.viz.plots import plot_tracks, write_table

    written = []
    if options.table is not None:
        write_table(tracks, options.table)
        written.append(options.table)
    if out is not None and options.style == "plots":
        plot_tracks(tracks, out)
        written.append(out)
    return written


def _viewer(options: VisualizeOptions, path: Path, tracks: Tracks, source: FrameSource) -> list[Path]:
    from ptrack.viz.html import write_viewer

    def progress(done: int) -> None:
        if options.progress is not None:
            options.progress(done, tracks.num_frames)

    return write_viewer(tracks, source, path, embed=options.embed, overwrite=options.overwrite, progress=progress)


def _check(options: VisualizeOptions, out: Path | None) -> None:
    """Raise OutputError for any output that cannot be written, before anything is read."""
    if options.rerun is not None:
        from ptrack.exports.rerun import _library

        _library()
    picture = out is not None and out.suffix.lower() in (".png", ".svg", ".pdf") and "%" not in out.name
    if out is not None and options.style == "plots" and not picture:
        raise OutputError(f"{out}: a plot is a .png, .svg or .pdf file.")
    if out is not None and options.style in STILLS and (not picture or out.suffix.lower() != ".png"):
        raise OutputError(f"{out}: the style '{options.style}' is a still; give a name that ends in .png.")
    singles = (options.html, options.rerun, options.table, out if picture else None)
    for path in singles:
        if path is not None:
            check_writable(path, overwrite=options.overwrite)


def _draw(
    options: VisualizeOptions,
    out: Path,
    sets: list[Tracks],
    truth: Tracks | None,
    paint: PaintOptions,
    source: FrameSource,
) -> None:
    tracks = sets[0]
    if options.style in STILLS:
        frames = _counted(options, tracks, source)
        painter = TracksPainter(tracks, paint)
        if options.style == "exposure":
            _save(layouts.long_exposure(painter, frames), out)
        else:
            _save(layouts.contact_sheet(painter, frames, options.count), out)
        return
    if options.attention is not None:
        pictures, missing = _attention(options, tracks, source), "the point has not started there"
    else:
        pictures, missing = _panels(options, sets, truth, paint, source), "the video ends before it"
    wanted = _single_row(options, tracks, out)
    if wanted is not None:
        for row, painted in pictures:
            if row == wanted:
                _save(painted(), out)
                return
        raise TracksError(f"--frame {int(tracks.frame_index[wanted])}: {missing}.")
    with open_writer(out, fps=tracks.info.fps or None, overwrite=options.overwrite) as writer:
        for row, painted in pictures:
            pts = float(tracks.pts_seconds[row])
            writer.write(painted(), pts if np.isfinite(pts) else None)


def _panels(
    options: VisualizeOptions, sets: list[Tracks], truth: Tracks | None, paint: PaintOptions, source: FrameSource
) -> Iterator[Painted]:
    """Yield the panels of all rows."""
    tracks = sets[0]
    against = [layouts.Truth(t, truth) if truth is not None else None for t in sets]
    names = [p.name for p in options.tracks]
    panel = layouts.Comparison([TracksPainter(t, paint) for t in sets], names, against)
    crop = None
    if options.follow is not None:
        crop = layouts.FollowCrop(tracks, options.follow, options.crop, options.zoom)
    for t, rgb in _counted(options, tracks, source):
        view = whole_frame(tracks, rgb) if crop is None else crop.view(t, rgb)
        yield t, partial(panel.paint, int(tracks.frame_index[t]), view)


def _attention(options: VisualizeOptions, tracks: Tracks, source: FrameSource) -> Iterator[Painted]:
    """Run the model again over the frames and yield what it saw of one point."""
    from ptrack.models import zoo
    from ptrack.viz.attention import attention_of, index_of, paint_attention

    index_of(tracks, options.attention or "")
    name = options.model or tracks.info.model
    if not name:
        raise ConfigError("The tracks do not say which model made them; name it with --model.")
    model = zoo.build(name, checkpoint=options.checkpoint, device=options.device).model
    held: dict[int, np.ndarray] = {}  # frames on their way through the model

    def frames() -> Iterator[tuple[int, np.ndarray]]:
        for t, rgb in _counted(options, tracks, source):
            held[t] = rgb
            yield t, rgb

    for sample in attention_of(model, frames(), tracks, options.attention or ""):
        yield sample.row, partial(paint_attention, sample, tracks, held.pop(sample.row))


def _single_row(options: VisualizeOptions, tracks: Tracks, out: Path) -> int | None:
    """Return the row of the one picture that is asked for (by default the middle one), None for a video.

    Raises:
        TracksError: the tracks lack that frame.
    """
    if options.frame is None and (out.suffix.lower() != ".png" or "%" in out.name):
        return None
    if options.frame is None:
        return tracks.num_frames // 2
    rows = np.flatnonzero(tracks.frame_index == options.frame)
    if not len(rows):
        first, last = int(tracks.frame_index[0]), int(tracks.frame_index[-1])
        raise TracksError(f"--frame {options.frame}: the tracks hold frames {first} to {last}, not that one.")
    return int(rows[0])


def _counted(options: VisualizeOptions, tracks: Tracks, source: FrameSource) -> Iterator[tuple[int, np.ndarray]]:
    for done, (t, frame) in enumerate(paired(tracks, source), start=1):
        yield t, frame.rgb
        if options.progress is not None:
            options.progress(done, tracks.num_frames)


def _save(picture: np.ndarray, path: Path) -> None:
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, "PNG")
