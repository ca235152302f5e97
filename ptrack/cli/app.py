"""The ``ptrack`` command: registers the subcommands and turns errors into one line and an exit code."""

from __future__ import annotations

import atexit
import ctypes
import errno
import os
import sys
import warnings
from contextlib import suppress
from typing import Annotated, Any

import typer

from ptrack._version import __version__
from ptrack.cli import console
from ptrack.errors import PTrackError

_M_ARENA_MAX = -8  # mallopt(3)

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
    from ptrack.cli import (
        analyze,
        batch,
        bench,
        bench_live,
        bench_train,
        convert,
        convert_checkpoint,
        convert_synthetic,
        convert_tracks,
        eval,
        export,
        live,
        models,
        pick,
        track,
        train,
        visualize,
    )

    app.command(epilog=track.EPILOG)(track.track)
    app.add_typer(batch.group, name="batch", help="What became of many videos: the status files of a folder.")
    app.command(epilog=live.EPILOG)(live.live)
    app.command()(models.models)
    about = "Convert datasets, tracks and checkpoints; look into converted files."
    app.add_typer(convert.group, name="convert", help=about)
    convert.group.command()(convert_synthetic.synthetic)
    convert.group.command()(convert_checkpoint.checkpoint)
    convert.group.command("tracks", epilog=convert_tracks.EPILOG)(convert_tracks.convert_tracks)
    app.command(epilog=export.EPILOG)(export.export)
    about = "Clean tracks, find jumps, measure with units, corner pins of planes; suggest frames to label."
    app.add_typer(analyze.group, name="analyze", help=about)
    app.command(epilog=pick.EPILOG)(pick.pick)
    app.command(epilog=visualize.EPILOG)(visualize.visualize)
    app.command("eval")(eval.evaluate)
    app.add_typer(bench.group, name="bench", help="Measure speed and memory of models, training and reading.")
    bench.group.command()(bench_train.train)
    bench.group.command()(bench_live.live)
    app.command()(train.train)


_register()


def command() -> None:
    """Be the ``ptrack`` process: run the command line and end without the teardown.

    Unloading PyTorch's CUDA libraries touches 126 MiB that were never used and takes 0.9 s (``python -c "import
    torch"``: 633 MiB, 3.0 s; left as here: 507 MiB, 1.7 s). Everything that Python promises at exit still happens
    before: threads are waited for, and this handler, registered first, runs after all others.
    """
    _share_one_heap()
    _wait_briefly()
    _plain_warnings()
    status = [1]  # of an uncaught error, whose traceback the interpreter prints before the handlers run
    atexit.register(_leave, status)
    try:
        main()
        status[0] = 0
    except SystemExit as end:
        status[0] = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    except KeyboardInterrupt:
        status[0] = 130
        raise


def _share_one_heap() -> None:
    """Let all threads allocate from one heap, where the C library is glibc.

    It gives every thread a heap of its own, and frames are made in one thread and freed in another: tracking 82 frames
    of 854x480 with ``static`` takes 677 MiB so, and 582 MiB with one heap.
    """
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    except (AttributeError, OSError, TypeError):  # another C library; Windows has no CDLL(None)
        return


def _wait_briefly() -> None:
    """Let threads of OpenMP that have nothing to do sleep soon; must run before torch is imported.

    By default they spin for some 10 ms, and where other processes want the CPUs a spinning thread keeps the one with
    work waiting. 36 frames of the packaged clip, 256 points, nano, two cores, seconds without and with two busy
    processes: 4.7 and more than 60 (not waited for) as it was, 5.2 and 12 with this count (about 1 ms), 11.7 and 10.7
    when they sleep at once. Measured at priority -20 on a machine at load 18. What the user has set stays.

    torch's wheels for Linux bring GNU's libgomp, which reads the first one. Those for macOS and Windows bring LLVM's
    libomp and Intel's libiomp5, which read the others: the milliseconds until a thread sleeps, and to yield only where
    threads outnumber the CPUs. 24 frames on Linux with libomp 21 in libgomp's place, idle and with two busy processes:
    3.8 and 30 to 45 s with 1 ms alone, 3.7 and 7.5 to 18 with both (libgomp: 4.0 and 8); 5.2 and 9.4 with 0 ms.
    """
    settings = {"GOMP_SPINCOUNT": "20000", "KMP_BLOCKTIME": "1", "KMP_USE_YIELD": "2"}
    if not {"OMP_WAIT_POLICY", *settings} & set(os.environ):
        os.environ.update(settings)


def _plain_warnings() -> None:
    """Print warnings for the user as one line, as all remarks are, without the place in the code."""
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if category is UserWarning:
            console.remark(str(message), "warning", console.WARNING)
        else:
            shown(message, category, *place, **more)

    warnings.showwarning = show


def _leave(status: list[int]) -> None:
    with suppress(AttributeError, OSError, ValueError):  # nobody reads the remarks: no failure
        sys.stderr.flush()
    try:
        sys.stdout.flush()
    except (AttributeError, OSError, ValueError):  # there is none, the reader has gone, or it is closed
        status[0] = status[0] or 1
    os._exit(status[0])


def main() -> None:
    """Run the command line in this process; errors become one line and ``SystemExit``."""
    console._asked.clear()
    try:
        app()
    except (PTrackError, OSError) as error:
        sentence = error if isinstance(error, PTrackError) else _too_long(error)
        if sentence is None or os.environ.get("PTRACK_DEBUG"):
            raise
        console.failed(sentence)
        sys.exit(sentence.exit_code)


def _too_long(error: OSError) -> PTrackError | None:
    """Return the sentence for a name that no file can have; any option may bring one."""
    if error.errno != errno.ENAMETOOLONG:
        return None
    return PTrackError(f"The name {str(error.filename)[:40]}... is too long for a file; check what was given.")
