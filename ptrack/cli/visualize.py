"""``ptrack visualize``: tracks over their video, as video, picture, HTML page, plot or table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptrack.cli import options
from ptrack.cli.console import Output

EPILOG = options.examples(
    "ptrack visualize walk.tracks.h5",
    "ptrack visualize walk.tracks.h5 --html walk.html",
    "ptrack visualize walk.tracks.h5 --style stabilised --colour motion --out walk.gif",
    "ptrack visualize one.h5 two.h5 --truth true.h5 --out compare.mp4",
    "ptrack visualize walk.tracks.h5 --follow 17 --zoom 4 --out close.mp4",
)

shown_option, more_option = options.panel("What is shown"), options.panel("Outputs")


def visualize(
    tracks: Annotated[
        list[Path], typer.Argument(help="Tracks file; several are shown side by side.", show_default=False)
    ],
    video: Annotated[str | None, typer.Option(help="The video, if it is not where the tracks say.")] = None,
    out: Annotated[
        Path | None, more_option(help=".mp4 .mov .mkv .gif, a folder or frame_%05d.png; .png is one picture.")
    ] = None,
    html: Annotated[Path | None, more_option(help="Write the viewer: one HTML file that needs no network.")] = None,
    embed: Annotated[bool, more_option("--embed/--beside", help="Video inside the HTML file, or beside it.")] = True,
    rerun: Annotated[Path | None, more_option(help="Write a recording (.rrd) for the Rerun viewer.")] = None,
    table: Annotated[Path | None, more_option(help="Write a CSV with one row per point.")] = None,
    style: Annotated[
        str,
        options.look_option(
            help="overlay; stabilised: trails without the camera's motion; exposure: all trails in one still; "
            "sheet: contact sheet; plots."
        ),
    ] = "overlay",
    colour: Annotated[str, options.look_option(help="start, id, motion, visibility or confidence.")] = "start",
    trail: options.Trail = None,
    fade: Annotated[float, options.look_option(help="How far a trail fades to its old end, 0 to 1.")] = 1.0,
    width: Annotated[float | None, options.look_option(help="Pixels of a trail.")] = None,
    radius: Annotated[float | None, options.look_option(help="Pixels of a point.")] = None,
    occluded: options.Occluded = None,
    labels: Annotated[bool, options.look_option("--labels", help="Write the ids.")] = False,
    truth: Annotated[Path | None, shown_option(help="Ground truth: draw error lines to it.")] = None,
    points: Annotated[str | None, shown_option(help="Only these ids, separated by commas.")] = None,
    follow: Annotated[str | None, shown_option(help="A zoomed crop that follows this id.")] = None,
    crop: Annotated[int, shown_option(help="Side of that crop in pixels.")] = 160,
    zoom: Annotated[float, shown_option(help="Enlargement of that crop.")] = 3.0,
    attention: Annotated[
        str | None,
        shown_option(
            help="What the model looks at for this id: Track-On2's correlation map, the transformer's attention."
        ),
    ] = None,
    model: Annotated[str, shown_option(help="Model for --attention; default: the one of the tracks.")] = "",
    checkpoint: Annotated[Path | None, shown_option(help="Weights file for --attention.")] = None,
    device: Annotated[str, shown_option(help="auto, cpu, cuda, cuda:1 or mps, for --attention.")] = "auto",
    frame: Annotated[int | None, shown_option(help="One picture of this frame.")] = None,
    count: Annotated[int, shown_option(help="Frames on a contact sheet.")] = 12,
    max_size: Annotated[int | None, shown_option(help="Longest side of what is drawn, in pixels.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Draw over another video than the tracked one.")] = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw tracks over their video: overlay, stabilised trails, stills, side by side, plots, an HTML viewer."""
    given = locals()
    from ptrack.cli.progress import Bar, Display
    from ptrack.viz.render import VisualizeOptions
    from ptrack.viz.render import visualize as draw

    output = Output(json_mode=json, quiet=quiet)
    display = Display(output)

    def drawn(done: int, total: int) -> None:
        display.show(Bar(name="Drawing", done=done, total=total, unit="frames"))

    other = {"tracks": tuple(tracks), "points": options.names(points), "progress": drawn}
    wanted = VisualizeOptions(**options.fields_of(VisualizeOptions, given, **other))
    with display:
        written = draw(wanted)
    output.result(*map(str, written))
    output.document({"written": [str(path) for path in written]})
