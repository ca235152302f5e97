"""Running quick jobs; imports little, because other processes use it too."""

from functools import partial

from ptrack.batch.driver import BatchOptions, Driver
from ptrack.batch.executors import InProcess
from ptrack.batch.jobs import Job
from ptrack.batch.local import LocalProcesses
from ptrack.batch.places import LocalPlace
from ptrack.batch.status import read_status
from ptrack.batch.work import WorkSpec
from tests.batch import works
from tests.batch.works import Task

NAMES = ("a", "b", "c")


def jobs(folder, names=NAMES):
    return [Job(name=n, source=f"{n}.mp4", path=str(folder / f"{n}.mp4")) for n in names]


def run(folder, names=NAMES, *, task=None, executor=None, listener=None, **options):
    """Run ``names`` through ``Work`` and return the summary and the jobs that were worked on."""
    log = folder / "log"
    log.write_text("")
    place = LocalPlace(folder / "out")
    spec = WorkSpec(make=partial(works.Work, str(log)), place=str(folder / "out"))
    executor = executor or InProcess(spec)
    made = Driver(jobs(folder, names), place, task or Task(), executor, BatchOptions(**options), "run", listener)
    summary = made.run()
    return summary, [line for line in log.read_text().split("\n") if line and not line.startswith("made")]


def states(summary):
    return {r.job.name: r.state for r in summary.results}


def status(folder, name):
    return read_status(LocalPlace(folder / "out"), name)


def processes(folder, maker="Work", workers=2, threads=1):
    (folder / "log").write_text("")
    return LocalProcesses(
        WorkSpec(
            make=partial(getattr(works, maker), str(folder / "log")),
            place=str(folder / "out"),
            workers=workers,
            threads=threads,
        )
    )
