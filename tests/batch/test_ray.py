"""Ray: what each of its errors means, with a stand-in for the library.

A real cluster takes 20 s to come up and lose a machine: ``python -m scripts.check_batch --ray``.
"""

import itertools
import sys
import types

import pytest

from ptrack.batch import ray_actors
from ptrack.batch.ray_actors import IN_FLIGHT, RayActors, connect
from ptrack.batch.work import WorkSpec
from ptrack.errors import ConfigError, ModelError, PTrackError


class RayTaskError(Exception):
    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


KINDS = types.SimpleNamespace(
    RayTaskError=RayTaskError,
    RayActorError=type("RayActorError", (Exception,), {}),
    NodeDiedError=type("NodeDiedError", (Exception,), {}),
    OutOfMemoryError=type("OutOfMemoryError", (Exception,), {}),
)
KINDS.ActorUnavailableError = type("ActorUnavailableError", (KINDS.RayActorError,), {})


class FakeRay:
    """One actor; ``answers`` says what each reference gives when it is ready: a value or an error."""

    exceptions = KINDS

    def __init__(self, cpus=4, gpus=0):
        self.count, self.answers, self.ready, self.killed = itertools.count(), {}, set(), []
        self.cpus, self.gpus, self.options, self.given = cpus, gpus, None, []

    def cluster_resources(self):
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": self.cpus}}]

    def remote(self, **options):
        self.options = options
        handle = types.SimpleNamespace(
            answer=types.SimpleNamespace(remote=lambda: self.reference("host")),
            do=types.SimpleNamespace(remote=self.give),
        )
        return lambda cls: types.SimpleNamespace(remote=lambda *arguments: handle)

    def reference(self, value=None):
        made = next(self.count)
        self.answers[made] = value
        self.ready.add(made)
        return made

    def give(self, order):
        made = next(self.count)
        self.given.append((made, order["job"]))
        return made

    def finish(self, job, value):
        reference = next(r for r, name in reversed(self.given) if name == job)
        self.answers[reference] = value
        self.ready.add(reference)

    def wait(self, references, num_returns, timeout):
        done = [r for r in references if r in self.ready]
        return done[:num_returns], []

    def get(self, reference):
        value = self.answers[reference]
        if isinstance(value, Exception):
            raise value
        return value

    def kill(self, handle, no_restart):
        self.killed.append(no_restart)

    def shutdown(self):
        pass


def actors(ray, workers=1):
    made = RayActors(WorkSpec(make=dict, place="out", workers=workers), "auto", ray)
    assert made.room() == IN_FLIGHT * workers
    return made


def news(executor):
    return [(e.kind, e.job, e.data.get("begun")) for e in executor.poll(0)]


def test_two_jobs_are_in_flight_and_the_second_begins_when_the_first_ends():
    ray = FakeRay()
    executor = actors(ray)
    executor.submit({"job": "a"})
    executor.submit({"job": "b"})
    assert executor.room() == 0
    assert news(executor) == [("started", "a", None)]
    ray.finish("a", {"status": {}})
    assert news(executor) == [("result", "a", None), ("started", "b", None)]
    assert executor.room() == 1
    assert ray.options == {"num_cpus": 4, "num_gpus": 0, "max_restarts": -1, "max_task_retries": 0}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("RayActorError", "actor died"), ("NodeDiedError", "left the cluster"), ("OutOfMemoryError", "out of memory")],
)
def test_what_ran_is_lost_and_what_waited_had_not_begun(kind, reason):
    ray = FakeRay()
    executor = actors(ray)
    for job in ("a", "b"):
        executor.submit({"job": job})
    executor.poll(0)
    for job in ("b", "a"):
        ray.finish(job, getattr(KINDS, kind)())
    events = executor.poll(0)
    assert [(e.kind, e.job, e.data["begun"]) for e in events] == [("lost", "a", True), ("lost", "b", False)]
    assert reason in events[0].data["reason"]
    assert executor.room() == IN_FLIGHT  # once the new actor has answered


def test_an_actor_gets_no_job_before_it_answers():
    ray = FakeRay()
    executor = actors(ray)
    executor.submit({"job": "a"})
    ray.reference = lambda value=None: next(ray.count)  # a new actor finds no machine
    ray.finish("a", KINDS.RayActorError())
    executor.poll(0)
    assert executor.room() == 0


def test_a_cluster_on_which_nothing_comes_up_is_given_up(monkeypatch):
    monkeypatch.setattr(ray_actors, "START_SECONDS", 0.0)
    ray = FakeRay()
    ray.reference = lambda value=None: next(ray.count)
    executor = RayActors(WorkSpec(make=dict, place="out", workers=3), "auto", ray)
    (event,) = executor.poll(0.01)
    assert event.kind == "broken"
    assert "No Ray actor has come up for 0 s (3 actors of 1 CPUs; the cluster has 4)" in event.data["reason"]


def test_an_actor_that_cannot_be_reached_is_ended_before_its_job_is_given_again():
    ray = FakeRay()
    executor = actors(ray)
    executor.submit({"job": "a"})
    ray.finish("a", KINDS.ActorUnavailableError())
    assert ("lost", "a", True) in news(executor)
    assert ray.killed == [False]


def test_errors_of_the_job_itself():
    ray = FakeRay()
    executor = actors(ray)
    executor.submit({"job": "a"})
    ray.finish("a", RayTaskError(ZeroDivisionError("of nothing")))
    assert ("lost", "a", True) in news(executor)
    executor.submit({"job": "b"})
    ray.finish("b", RayTaskError(ModelError("There is no such model.")))
    assert [e.data["reason"] for e in executor.poll(0) if e.kind == "broken"] == ["There is no such model."]


def test_actors_for_gpus_and_timeouts():
    ray = FakeRay(cpus=32, gpus=4)
    executor = RayActors(WorkSpec(make=dict, place="o", workers=0), "a", ray)
    assert executor.room() == 4 * IN_FLIGHT
    assert (ray.options["num_gpus"], ray.options["num_cpus"]) == (1.0, 8)
    executor.submit({"job": "a"})
    executor.cancel("a")
    executor.cancel("none")
    assert ray.killed == [False]
    executor.stop()
    assert ray.killed[1:] == [True] * 4


def test_a_cluster_that_is_not_there_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'pointtrack\[ray\]'"):
        connect("auto")

    def init(**options):
        raise ConnectionError("Could not find any running Ray instance.\nmore")

    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(init=init))
    with pytest.raises(PTrackError, match="no cluster answers there .*ray start --head"):
        connect("auto")
