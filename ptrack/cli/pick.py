"""``ptrack pick``: choose points on a video in the browser, track them live, correct them, save."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptrack.cli import options
from ptrack.cli.console import Output

EPILOG = options.examples(
    "ptrack pick walk.mp4",
    "ptrack pick walk.mp4 --model track-on2-dinov2 --checkpoint weights.pt --out walk.tracks.csv",
    "ptrack track walk.mp4 --queries walk.queries.csv    (the same tracks again, without the page)",
)


def pick(
    video: Annotated[str, typer.Argument(help="Video file or image folder.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Tracks file (.h5, .npz, .csv, .json). Default: VIDEO.tracks.h5 in this folder.")
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="Queries CSV (t,x,y,id,colour). Default: VIDEO.queries.csv in this folder.")
    ] = None,
    model: options.Model = "",
    checkpoint: options.Checkpoint = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    port: Annotated[int, typer.Option(help="Port on this machine; 0 takes a free one.", min=0, max=65535)] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in the default browser.")] = True,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Pick points on a video in the browser, track them live, correct them and save.

    The page is served on this machine only (127.0.0.1), under an address that contains a random token, until "Done" is
    pressed or Ctrl-C stops it.
    """
    from ptrack.models import zoo
    from ptrack.tracking.load import load
    from ptrack.tracking.request import resolve, source_stem
    from ptrack.viz.pick import PickServer, PickSession

    output = Output(json_mode=json, quiet=quiet)
    zoo.find(model or zoo.DEFAULT_MODEL)  # a wrong name is an error now, not when tracking starts
    stem = source_stem(video)
    session = PickSession(
        resolve(video),
        lambda: load(model or zoo.DEFAULT_MODEL, checkpoint=checkpoint, device=device),
        out or Path(f"{stem}.tracks.h5"),
        queries or Path(f"{stem}.queries.csv"),
        overwrite=overwrite,
    )
    with PickServer(session, port) as server:
        try:
            typer.echo(f"Open {server.url} in a browser on this machine. Ctrl-C stops.", err=True)
            if browser:
                import webbrowser

                webbrowser.open(server.url)
            server.wait()
        except KeyboardInterrupt:
            output.note("stopped")
    if session.unsaved:
        output.warning("changes since the last save are lost")
    output.result(*map(str, session.saved))
    output.document({"saved": [str(path) for path in session.saved]})
