"""``ptrack live``: follow points on a camera or stream and publish every frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptrack.cli import options
from ptrack.cli.console import Output
from ptrack.cli.progress import Bar, Display
from ptrack.errors import ConfigError, count

if TYPE_CHECKING:
    from ptrack.viz.pick.live import LiveView

EPILOG = options.examples(
    "ptrack live 0 --grid 8 --osc 127.0.0.1:9000",
    "ptrack live rtsp://host/stream --jsonl - --max-lost 30 --min-coverage 0.5",
    "ptrack live video.mp4 --pace --point 320,240 --jsonl tcp://127.0.0.1:5555",
)
stream_option = options.panel("Stream")


def live(
    source: Annotated[
        str,
        typer.Argument(help="Camera number, device, rtsp/udp/tcp/http address, or a file.", show_default=False),
    ],
    grid: Annotated[
        int | None, options.points_option(help="Follow an N x N grid (16 if nothing else).", metavar="N")
    ] = None,
    point: Annotated[
        list[str] | None, options.points_option(help="Follow the pixel X,Y. Repeatable.", metavar="X,Y")
    ] = None,
    queries: options.QueryFile = None,
    mask: options.Mask = None,
    reference: Annotated[
        Path | None,
        options.points_option(
            help="Picture or video on which the points were chosen; they are looked for on the stream.", metavar="FILE"
        ),
    ] = None,
    max_lost: Annotated[
        int | None, options.points_option(help="Remove a point after so many frames unseen.", metavar="FRAMES")
    ] = None,
    min_coverage: Annotated[
        float | None, options.points_option(help="Add points when fewer than this share of the grid's cells hold one.")
    ] = None,
    realtime: Annotated[
        bool | None,
        stream_option(
            "--realtime/--every-frame",
            help="Drop the oldest waiting frame, or track all. Default: drop, except for files without --pace.",
        ),
    ] = None,
    pace: Annotated[bool, stream_option("--pace", help="Play a file as fast as it was taken.")] = False,
    reconnect: Annotated[bool, stream_option(help="Connect again when the stream breaks off.")] = True,
    duration: Annotated[str | None, stream_option(help="Stop after 90, 90s, 5m, 1h.", metavar="TIME")] = None,
    max_size: Annotated[
        int | None, stream_option(help="Reduce pictures to this longest side; coordinates stay.")
    ] = None,
    model: options.Model = "",
    checkpoint: options.Checkpoint = None,
    quality: options.Quality = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    jsonl: Annotated[
        str | None,
        options.output_option(
            help="One JSON line per frame: - for stdout, a file, or tcp://HOST:PORT to listen there.", metavar="TARGET"
        ),
    ] = None,
    osc: Annotated[
        str | None, options.output_option(help="OSC messages over UDP to this address.", metavar="HOST:PORT")
    ] = None,
    page: Annotated[
        bool, options.output_option("--page", help="Show it in the browser, on this machine only.")
    ] = False,
    out: Annotated[Path | None, options.output_option(help="Tracks file (.h5, .npz, .csv, .json).")] = None,
    split: Annotated[
        str | None, options.output_option(help="Begin another tracks file after 10m, 1h, ...", metavar="TIME")
    ] = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Follow points on a camera or stream until Ctrl-C; every frame's result is published at once."""
    given = locals()
    from ptrack.live.points import PointOptions
    from ptrack.live.request import LiveRequest, track_live
    from ptrack.models.zoo import DEFAULT_MODEL
    from ptrack.queries_io import QueryOptions

    if json and jsonl == "-":
        raise ConfigError("--json and --jsonl - both want stdout; send the lines to a file or port.")
    other = {
        "queries": QueryOptions(grid=grid, points=tuple(point or ()), file=queries, mask=mask),
        "model": model or DEFAULT_MODEL,
        "model_options": {"quality": quality},
        "duration": options.seconds_of(duration, "--duration"),
        "points": PointOptions(max_lost=max_lost, min_coverage=min_coverage, grid=grid or 16),
        "jsonl": jsonl or "",
        "osc": osc or "",
        "split": options.seconds_of(split, "--split"),
    }
    request = LiveRequest(**options.fields_of(LiveRequest, given, **other))
    output = Output(json_mode=json, quiet=quiet)
    with LiveDisplay(output) as display, _page(page) as view:
        report = track_live(
            request,
            note=output.note,
            on_frame=display.update,
            on_picture=view.show if view is not None else None,
            loaded=lambda tracker: output.note(f"model {tracker.model.name} on {tracker.model.device}"),
        )
    ages = ", ".join(f"{name} {value:g} ms" for name, value in report.age_ms.items())
    done = f"{report.source}: {count(report.frames, 'frame')}, {report.frames_per_second:g} frames/s"
    lines = [
        f"{done}, {report.dropped} dropped, connected again {report.reconnects} times",
        f"  age      {ages}",
        *(f"  tracks   {path}" for path in report.tracks),
    ]
    (output.note if jsonl == "-" else output.result)(*lines)
    output.document(report.to_mapping())


@contextmanager
def _page(wanted: bool) -> Iterator[LiveView | None]:
    """Yield what the page shows, None without one."""
    if not wanted:
        yield None
        return
    from ptrack.viz.pick.live import LiveServer, LiveView

    view = LiveView()
    with LiveServer(view) as server:
        typer.echo(f"Open {server.url} in a browser on this machine.", err=True)
        yield view


class LiveDisplay(Display):
    """Frames, age, visible points and drops in one line."""

    def update(self, frame: object) -> None:
        """Show a frame."""
        from ptrack.live.publish import LiveFrame

        if isinstance(frame, LiveFrame):
            visible = f"{int((frame.visibility >= 0.5).sum())}/{len(frame.ids)} visible"
            details = (f"{frame.age_ms:.0f} ms old", visible, f"{frame.dropped} dropped")
            self.show(Bar(name="live", done=frame.frame + 1 - frame.dropped, unit="frames", details=details))
