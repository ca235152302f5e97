"""Workers on the machines of a Ray cluster: actors with one model each, which write their own outputs.

Ray runs every call at most once; trying again is the driver's matter, because an error may arrive although the job
succeeded, and only the status file knows. Frames never travel: orders and answers are small dictionaries. An actor that
died is made again by Ray, on another machine where its own is gone, and gets no job before it answers.
"""

from __future__ import annotations

import importlib
import socket
import time
from typing import Any

from ptrack.batch.executors import JobEvent
from ptrack.batch.work import Order, WorkSpec
from ptrack.errors import ConfigError, PTrackError

IN_FLIGHT = 2  # jobs given to an actor at once, so that it never waits for the driver
CPUS_EACH = 4  # of an actor, where there is no GPU and nobody states how many there are
START_SECONDS = 120.0  # until a cluster on which no actor comes up is given up


class _Worker:
    """What an actor is."""

    def __init__(self, spec: WorkSpec, index: int) -> None:
        from ptrack.batch.places import open_place

        self._place, self._work = open_place(spec.place), spec.work(index)

    def answer(self) -> str:
        """Return the machine's name: the actor is there."""
        return socket.gethostname()

    def do(self, order: Order) -> dict[str, Any]:
        """Do a job."""
        from ptrack.batch.work import do_job

        return do_job(self._work, self._place, order, lambda data: None)


class _Actor:
    """The driver's side of an actor."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.jobs: dict[Any, str] = {}  # reference of each job in flight, in the order given
        self.ping: Any = handle.answer.remote()  # unanswered while it is being made; None when it is there

    def head(self) -> str:
        """Return the job that runs, "" if none does."""
        return next(iter(self.jobs.values()), "")


def connect(address: str) -> Any:
    """Return the ray module, connected to "local", "auto" or an address.

    Raises:
        ConfigError: Ray is not installed.
        PTrackError: there is no cluster.
    """
    try:
        ray: Any = importlib.import_module("ray")  # an extra: type checkers need not have it
    except ImportError as error:
        raise ConfigError("--ray needs Ray, which is not installed; pip install 'pointtrack[ray]'.") from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "ignore_reinit_error": True}
    try:
        if address == "local":
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except Exception as error:  # ConnectionError, RuntimeError, ValueError, and Ray's own
        raise PTrackError(
            f"--ray {address}: no cluster answers there ({str(error).splitlines()[0].rstrip('.')}). "
            "Start one with 'ray start --head', or use --ray local."
        ) from error
    return ray


class RayActors:
    """Actors on a Ray cluster.

    Args:
        spec: what they run; ``workers`` 0 takes one per GPU, or one per four CPUs where there is none.
        address: "local", "auto" or that of a cluster.
        ray: the connected module, for tests.

    Raises:
        PTrackError: see ``connect``.
    """

    def __init__(self, spec: WorkSpec, address: str, ray: Any = None) -> None:
        self._ray = ray or connect(address)
        total = self._ray.cluster_resources()
        gpus, cpus = int(total.get("GPU", 0)), int(total.get("CPU", 1))
        count = spec.workers or gpus or max(1, cpus // CPUS_EACH)
        smallest = min((int(n["Resources"].get("CPU", 0)) for n in self._ray.nodes() if n["Alive"]), default=1)
        options = {
            "num_cpus": max(1, min(cpus // count, smallest or 1)),
            "num_gpus": min(1.0, gpus / count) if gpus else 0,
            "max_restarts": -1,
            "max_task_retries": 0,
        }
        remote = self._ray.remote(**options)(_Worker)
        self._actors = [_Actor(remote.remote(spec, index)) for index in range(count)]
        self._resources = f"{count} actors of {options['num_cpus']} CPUs; the cluster has {cpus}"
        self._since = time.monotonic()  # when an actor last was there
        self._news: list[JobEvent] = []
        self._closed = False

    # -- what the driver calls

    def room(self) -> int:
        """Return how many more jobs can be given now."""
        self._answers()
        return sum(IN_FLIGHT - len(a.jobs) for a in self._actors if a.ping is None)

    def submit(self, order: Order) -> None:
        """Give a job to the actor that has the fewest."""
        ready = [a for a in self._actors if a.ping is None and len(a.jobs) < IN_FLIGHT]
        actor = min(ready, key=lambda a: len(a.jobs))
        actor.jobs[actor.handle.do.remote(order)] = order["job"]
        if len(actor.jobs) == 1:
            self._news.append(JobEvent("started", order["job"]))

    def poll(self, seconds: float) -> list[JobEvent]:
        """Wait up to ``seconds`` for news."""
        self._answers()
        references = [ref for actor in self._actors for ref in actor.jobs]
        if references:
            self._ray.wait(references, num_returns=1, timeout=0 if self._news else seconds)
            done, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
            for reference in (ref for ref in references if ref in set(done)):  # in the order given, by actor
                self._ended(reference)
        elif not self._news:
            time.sleep(seconds)
            self._give_up()
        news, self._news = self._news, []
        return news

    def cancel(self, job: str) -> None:
        """Kill the actor that runs a job; Ray makes it again."""
        for actor in self._actors:
            if job in actor.jobs.values():
                self._ray.kill(actor.handle, no_restart=False)

    def stop(self) -> None:
        """Kill all actors: their finished rows are on the disk."""
        for actor in self._actors:
            self._ray.kill(actor.handle, no_restart=True)

    def close(self) -> None:
        """Leave the cluster, which ends the actors."""
        if not self._closed:
            self._closed = True
            self._ray.shutdown()

    # -- answers

    def _give_up(self) -> None:
        """End the run if no actor has been there for too long."""
        if any(a.ping is None for a in self._actors):
            self._since = time.monotonic()
        elif time.monotonic() - self._since > START_SECONDS:
            reason = f"No Ray actor has come up for {START_SECONDS:.0f} s ({self._resources})."
            self._news.append(JobEvent("broken", "", {"reason": reason, "exit_code": 1}))

    def _answers(self) -> None:
        """Find out which actors are there."""
        pings = {a.ping: a for a in self._actors if a.ping is not None}
        if not pings:
            return
        done, _ = self._ray.wait(list(pings), num_returns=len(pings), timeout=0)
        for ping in done:
            actor = pings[ping]
            try:
                self._ray.get(ping)
                actor.ping = None
            except Exception as error:  # it died while it was made, or cannot be made
                sentence = self._broken(error)
                if sentence:
                    self._news.append(JobEvent("broken", "", {"reason": sentence, "exit_code": 1}))
                else:
                    actor.ping = actor.handle.answer.remote()

    def _ended(self, reference: Any) -> None:
        """Turn the answer or the error of a job into an event."""
        actor = next(a for a in self._actors if reference in a.jobs)
        job = actor.jobs.pop(reference)
        try:
            answer = self._ray.get(reference)
        except Exception as error:  # Ray's many kinds, and what the job itself raised
            self._failed(actor, job, error)
            return
        self._news.append(JobEvent("result", job, answer))
        if actor.head():
            self._news.append(JobEvent("started", actor.head()))

    def _failed(self, actor: _Actor, job: str, error: Exception) -> None:
        sentence = self._broken(error)
        if sentence:
            self._news.append(JobEvent("broken", "", {"reason": sentence, "exit_code": 1}))
            return
        begun = actor.ping is None  # the first call that fails was running, those behind it had not begun
        self._news.append(JobEvent("lost", job, {"reason": self._reason(error), "begun": begun}))
        if self._is_task_error(error) or not begun:
            return
        if isinstance(error, self._ray.exceptions.ActorUnavailableError):
            self._ray.kill(actor.handle, no_restart=False)  # it may still be at the job, which another will get
        actor.ping = actor.handle.answer.remote()

    def _is_task_error(self, error: Exception) -> bool:
        return isinstance(error, self._ray.exceptions.RayTaskError)

    def _broken(self, error: Exception) -> str:
        """Return the sentence of an error that every worker would have, "" for others."""
        cause = getattr(error, "cause", None)
        return str(cause) if self._is_task_error(error) and isinstance(cause, PTrackError) else ""

    def _reason(self, error: Exception) -> str:
        kinds = self._ray.exceptions
        if isinstance(error, kinds.OutOfMemoryError):
            return "its machine ran out of memory"
        if isinstance(error, kinds.NodeDiedError):
            return "its machine has left the cluster"
        if isinstance(error, kinds.RayActorError):
            return "its actor died (killed, out of memory, or its machine has left the cluster)"
        return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[-1]}"
