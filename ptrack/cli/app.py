"""The ``ptrack`` command: registers the subcommands and turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ptrack._version import __version__
from ptrack.errors import PTrackError

app = typer.Typer(
    name="ptrack",
    help="Track any point through any video.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        print(f"ptrack {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")] = False,
) -> None:
    if debug:
        os.environ["PTRACK_DEBUG"] = "1"


def _register() -> None:
    """Add the subcommands. Their modules import nothing heavy at the top: ``--help`` and completion stay quick."""
    from ptrack.cli import bench, convert, models, pick, track, train, visualize
    from ptrack.cli import eval as evaluation

    track.register(app)
    models.register(app)
    convert.register(app)
    pick.register(app)
    visualize.register(app)
    evaluation.register(app)
    bench.register(app)
    train.register(app)


_register()


def main() -> None:
    """Run the command line; the console script's entry point."""
    try:
        app()
    except PTrackError as error:
        if os.environ.get("PTRACK_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
