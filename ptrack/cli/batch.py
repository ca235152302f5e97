"""``ptrack track`` over many videos, and ``ptrack batch``: what became of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptrack.cli import options
from ptrack.cli.console import Output, last_part, terminal_columns
from ptrack.cli.progress import NARROW, Bar, Display, duration
from ptrack.errors import count

if TYPE_CHECKING:
    from ptrack.batch.driver import BatchListener, JobResult, Summary
    from ptrack.batch.jobs import Job
    from ptrack.batch.run import Batch, BatchRequest

MOST_ROWS = 40  # of the closing table; beyond that only what failed is listed
MOST_BARS = 12  # running videos that are shown at once

group = typer.Typer(no_args_is_help=True)


@group.command("status")
def status(
    folder: Annotated[str, typer.Argument(help="Folder or URL with the outputs of a run.", show_default=False)],
    report: Annotated[Path | None, typer.Option(help="Write all jobs into this .json or .csv.")] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Count what is done, running, failed and left in a folder, over all shards; exit code 0 only if all is done."""
    from ptrack.batch.places import open_place
    from ptrack.batch.report import check_report, counts_of, folder_status, write_report

    output = Output(json_mode=json, quiet=quiet)
    if report is not None:
        check_report(report)
    found = folder_status(open_place(folder))
    counts = counts_of(found.rows)
    output.result(", ".join(f"{number} {state}" for state, number in counts.items()))
    for row in found.rows:
        if row["state"] == "failed":
            output.result(f"failed: {_named(row['source'] or row['job'], row['error'])}")
        elif row["state"] == "running":
            output.result(f"running: {row['source']} on {row['host']} since {row['started']}")
    output.note(*(f"at work: {run}" for run in found.runs))
    if report is not None:
        write_report(report, found.rows, {"counts": counts})
    output.document({"counts": counts, "runs": found.runs, "jobs": found.rows})
    if not found.complete:
        raise typer.Exit(1)


def track_many(request: BatchRequest, output: Output, report: Path | None, dry_run: bool) -> None:
    """Track many videos with progress on stderr, then print what came of them."""
    from ptrack.batch.report import check_report
    from ptrack.batch.run import prepare, run_batch

    if report is not None:
        check_report(report)
    batch = prepare(request)
    output.note(*batch.notes)
    if dry_run:
        _print_plan(batch, output)
        return
    with BatchDisplay(output, len(batch.jobs)) as display:
        summary = run_batch(batch, display.listener())
    finish(summary, output, report)


def _print_plan(batch: Batch, output: Output) -> None:
    from ptrack.batch.run import plan

    made = plan(batch)
    for job, reason in made.to_do:
        output.result(f"{job.source}: would be tracked{f', {reason}' if reason else ''}")
    for job, _ in made.to_compare:
        output.result(f"{job.source}: done, unless it has changed")
    output.result(f"dry run: {len(made.to_do)} to do, {len(made.to_compare)} done")
    to_do = [{"source": job.source, "reason": reason} for job, reason in made.to_do]
    output.document({"to_do": to_do, "done": [job.source for job, _ in made.to_compare]})


class BatchDisplay(Display):
    """A bar over all videos and a line for each that runs; one line on stdout for each that has ended."""

    def __init__(self, output: Output, total: int) -> None:
        super().__init__(output)
        self._total, self._ended = total, 0
        self._running: dict[str, tuple[Job, float, Mapping[str, Any]]] = {}  # since when, in monotonic seconds

    def listener(self) -> BatchListener:
        """Return what the driver calls."""
        from ptrack.batch.driver import BatchListener

        return BatchListener(
            started=self._started, progress=self._progress, finished=self._finished, note=self._output.note
        )

    def _started(self, job: Job, tries: int) -> None:
        self._running[job.name] = job, time.monotonic(), {}
        self._redraw()

    def _progress(self, job: Job, data: Mapping[str, Any]) -> None:
        if job.name in self._running:
            self._running[job.name] = job, self._running[job.name][1], data
        self._redraw()

    def _finished(self, result: JobResult) -> None:
        self._running.pop(result.job.name, None)
        self._ended += 1
        status, name = result.status, result.job.source
        if result.state == "done":
            self._output.warning(*status.warnings)
            amount = f"{count(status.points, 'point')}, {count(status.frames, 'frame')}"
            speed = f"{status.seconds:.1f} s, {status.frames_per_second:.1f} frames/s"
            self._output.result(f"{name}: {amount}, {speed}")
        elif result.state == "failed":
            self._output.warning(_named(name, status.error))
        self._redraw()

    def _redraw(self) -> None:
        bars = [Bar(name="videos", done=self._ended, total=self._total, unit="videos")]
        for job, began, data in list(self._running.values())[:MOST_BARS]:
            done, expected = data.get("done", 0), data.get("expected")
            phase = data.get("phase", "tracking") if data else "starting"  # its worker may have to load the model
            total = max(expected, done) if expected else None
            details = ("" if phase == "tracking" else phase, duration(time.monotonic() - began))
            bars.append(Bar(name=job.name, done=done, total=total, unit="frames", details=details))
        self.show(*(bars if self.live else bars[:1]))


def _named(source: str, sentence: str) -> str:
    """Return a sentence that begins with the source, as most do already."""
    return sentence if sentence.startswith(source) else f"{source}: {sentence}"


def finish(summary: Summary, output: Output, report: Path | None) -> None:
    """Print the table and the counts, write the report, and end with the right exit code."""
    from ptrack.batch.report import row_of, write_report

    about = {"counts": summary.counts, "halted": summary.halted}
    if len(summary.results) > 1:
        shown = [r for r in summary.results if len(summary.results) <= MOST_ROWS or not r.good]
        wide = not sys.stdout.isatty() or terminal_columns(sys.stdout) >= NARROW
        cells = [_row(r) for r in shown[:MOST_ROWS]]
        if cells and wide:
            output.table("Summary", ["source", "frames", "points", "seconds", "result"], cells)
        elif cells:
            output.table("Summary", ["source", "seconds", "result"], [[r[0], r[3], r[4]] for r in cells])
    output.result(", ".join(f"{number} {state}" for state, number in summary.counts.items()) or "nothing to do")
    rows = [row_of(r.status, r.state) for r in summary.results]
    sources = [{"ok": r.good, **row} for r, row in zip(summary.results, rows, strict=True)]
    output.document({"sources": sources, **about})
    if report is not None:
        write_report(report, rows, about)
    left = sum(not r.good and r.state != "failed" for r in summary.results)
    failed = summary.counts.get("failed", 0)
    if summary.halted:
        output.warning(f"{summary.halted} {left} of {len(summary.results)} are left.")
    if failed:
        output.note(f"{failed} of {len(summary.results)} sources failed")
    if summary.signum:
        output.note(f"stopped; {left} of {len(summary.results)} are left. Run the same command again to go on.")
        raise typer.Exit(128 + summary.signum)
    if not summary.complete:
        raise typer.Exit(1)


def _row(result: JobResult) -> list[str]:
    s, name = result.status, last_part(result.job.source)
    if not result.good:
        return [name, "", "", "", result.state]
    what = next(iter(s.outputs), "") if result.state == "done" else result.state
    return [name, str(s.frames), str(s.points), f"{s.seconds:.1f}", what]
