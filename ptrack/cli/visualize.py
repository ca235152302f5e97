"""``ptrack visualize``: tracks over their video, as video, picture, HTML page, plot or table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptrack.cli import options
from ptrack.cli.console import Output

_EPILOG = """Examples:

ptrack visualize walk.tracks.h5

ptrack visualize walk.tracks.h5 --html walk.html

ptrack visualize walk.tracks.h5 --style stabilised --colour motion --out walk.gif

ptrack visualize one.h5 two.h5 --truth true.h5 --out compare.mp4

ptrack visualize walk.tracks.h5 --follow 17 --zoom 4 --out close.mp4
"""

_LOOK, _PLACE, _MORE = "Look", "What is shown", "Outputs"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG)(visualize)


def visualize(
    tracks: Annotated[
        list[Path], typer.Argument(help="Tracks file; several are shown side by side.", show_default=False)
    ],
    video: Annotated[str | None, typer.Option(help="The video, if it is not where the tracks say.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help=".mp4 .mov .mkv .gif, a folder or frame_%05d.png; .png is one picture.", rich_help_panel=_MORE
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the viewer: one HTML file that needs no network.", rich_help_panel=_MORE)
    ] = None,
    embed: Annotated[
        bool, typer.Option("--embed/--beside", help="Video inside the HTML file, or beside it.", rich_help_panel=_MORE)
    ] = True,
    rerun: Annotated[
        Path | None, typer.Option(help="Write a recording (.rrd) for the Rerun viewer.", rich_help_panel=_MORE)
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="Write a CSV with one row per point.", rich_help_panel=_MORE)
    ] = None,
    style: Annotated[
        str,
        typer.Option(
            help="overlay; stabilised: trails without the camera's motion; exposure: all trails in one "
            "still; sheet: contact sheet; plots.",
            rich_help_panel=_LOOK,
        ),
    ] = "overlay",
    colour: Annotated[
        str, typer.Option(help="start, id, motion, visibility or confidence.", rich_help_panel=_LOOK)
    ] = "start",
    trail: options.Trail = None,
    fade: Annotated[
        float, typer.Option(help="How far a trail fades to its old end, 0 to 1.", rich_help_panel=_LOOK)
    ] = 1.0,
    width: Annotated[float | None, typer.Option(help="Pixels of a trail.", rich_help_panel=_LOOK)] = None,
    radius: Annotated[float | None, typer.Option(help="Pixels of a point.", rich_help_panel=_LOOK)] = None,
    occluded: options.Occluded = None,
    labels: Annotated[bool, typer.Option("--labels", help="Write the ids.", rich_help_panel=_LOOK)] = False,
    truth: Annotated[
        Path | None, typer.Option(help="Ground truth: draw error lines to it.", rich_help_panel=_PLACE)
    ] = None,
    points: Annotated[
        str | None, typer.Option(help="Only these ids, separated by commas.", rich_help_panel=_PLACE)
    ] = None,
    follow: Annotated[
        str | None, typer.Option(help="A zoomed crop that follows this id.", rich_help_panel=_PLACE)
    ] = None,
    crop: Annotated[int, typer.Option(help="Side of that crop in pixels.", rich_help_panel=_PLACE)] = 160,
    zoom: Annotated[float, typer.Option(help="Enlargement of that crop.", rich_help_panel=_PLACE)] = 3.0,
    attention: Annotated[
        str | None,
        typer.Option(
            help="What the model looks at for this id: Track-On2's correlation map, the transformer's attention.",
            rich_help_panel=_PLACE,
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Model for --attention; default: the one of the tracks.", rich_help_panel=_PLACE)
    ] = "",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights file for --attention.", rich_help_panel=_PLACE)
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps, for --attention.", rich_help_panel=_PLACE)
    ] = "auto",
    frame: Annotated[int | None, typer.Option(help="One picture of this frame.", rich_help_panel=_PLACE)] = None,
    count: Annotated[int, typer.Option(help="Frames on a contact sheet.", rich_help_panel=_PLACE)] = 12,
    max_size: Annotated[
        int | None, typer.Option(help="Longest side of what is drawn, in pixels.", rich_help_panel=_PLACE)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Draw over another video than the tracked one.")] = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw tracks over their video: overlay, stabilised trails, stills, side by side, plots, an HTML viewer."""
    from ptrack.cli.progress import Bar, Display
    from ptrack.viz.render import VisualizeOptions
    from ptrack.viz.render import visualize as draw

    output = Output(json_mode=json, quiet=quiet)
    display = Display(output)

    def drawn(done: int, total: int) -> None:
        display.show(Bar(name="Drawing", done=done, total=total, unit="frames"))

    wanted = VisualizeOptions(
        tracks=tuple(tracks), video=video, truth=truth, style=style, out=out, html=html, embed=embed, rerun=rerun,
        table=table, colour=colour, trail=trail, fade=fade, width=width, radius=radius, occluded=occluded,
        labels=labels, points=_names(points), follow=follow, crop=crop, zoom=zoom, attention=attention, model=model,
        checkpoint=checkpoint, device=device, frame=frame, count=count, max_size=max_size, force=force,
        overwrite=overwrite, progress=drawn,
    )  # fmt: skip
    with display:
        written = draw(wanted)
    for path in written:
        output.result(str(path))
    output.document({"written": [str(path) for path in written]})


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()
