import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from ptrack.batch import owner as owner_module
from ptrack.batch.jobs import Shard
from ptrack.batch.owner import Owner, RunOwner, birth, living, owners, parse_owner, this_process
from ptrack.batch.places import LocalPlace
from ptrack.errors import OutputError


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(owner_module, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(owner_module, "SETTLE_SECONDS", 0.0)
    return LocalPlace(tmp_path)


def other(place, shard="0/1", **changes):
    """Leave the file of another run."""
    made = replace(this_process("other", Shard()), shard=shard, **changes)
    place.write(".ptrack-run-" + shard.replace("/", "-of-") + ".json", made.to_json())
    return made


def test_a_second_run_is_refused_in_one_sentence_and_works_after_the_first(place):
    with RunOwner(place, Shard()), pytest.raises(OutputError, match=r"Another run \(process \d+ on "):
        RunOwner(place, Shard()).__enter__()
    with RunOwner(place, Shard()):
        pass
    assert list(place.sizes()) == []


def test_a_dead_owner_does_not_count(place):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    other(place, pid=ended.pid)
    with RunOwner(place, Shard()):
        pass


def test_a_process_number_that_was_given_again_is_another_process(place):
    other(place, born="1")
    with RunOwner(place, Shard()):
        pass


@pytest.mark.parametrize("data", [b"", b"{", b'{"run": 3}'])
def test_half_an_owner_file_counts_as_none(place, data):
    place.write(".ptrack-run-0-of-1.json", data)
    with RunOwner(place, Shard()) as run:
        assert parse_owner(place.read(run.file)).run == run.run


def test_other_shards_of_the_same_division_may_run_beside(place):
    other(place, "1/3")
    with RunOwner(place, Shard(0, 3)), pytest.raises(OutputError, match="Another run"):
        RunOwner(place, Shard(0, 1)).__enter__()
    with pytest.raises(OutputError, match="Another run"):
        RunOwner(place, Shard(1, 3)).__enter__()


def test_an_owner_on_another_machine_lives_while_its_number_rises(place):
    dead = other(place, host="elsewhere", boot="b", beat=3)
    assert not living(place, {".ptrack-run-0-of-1.json": dead}, watch=0.1)
    with pytest.raises(OutputError), RunOwner(place, Shard(0, 2), watch=0.1):  # it takes over: the dead one is removed
        owner = Owner(run="x", host="elsewhere", boot="b", pid=1, born="", shard="1/2")
        place.write(".ptrack-run-1-of-2.json", owner.to_json())
        with beating(place, ".ptrack-run-1-of-2.json"):
            RunOwner(place, Shard(1, 2), watch=5.0).__enter__()


@contextmanager
def beating(place, name):
    """Raise the number in an owner's file, as a run on another machine does."""
    over = threading.Event()

    def beat():
        while not over.wait(0.02):
            owner = parse_owner(place.read(name))
            place.write(name, replace(owner, beat=owner.beat + 1).to_json())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_all_runs_of_other_machines_are_watched_at_once(place):
    for i in range(3):
        other(place, f"{i}/4", host="elsewhere", boot="b")
    other(place, "3/4")  # this process
    with beating(place, ".ptrack-run-1-of-4.json"):
        start = time.monotonic()
        assert sorted(o.shard for o in living(place, owners(place), 1.0).values()) == ["1/4", "3/4"]
        assert time.monotonic() - start < 2.5


def test_a_run_whose_folder_was_taken_is_stopped(place):
    lost = []
    with RunOwner(place, Shard(), lost=lambda: lost.append(True)) as run:
        place.write(run.file, replace(run.owner, run="thief").to_json())
        end = time.monotonic() + 5
        while not lost and time.monotonic() < end:
            time.sleep(0.01)
    assert lost == [True]
    assert parse_owner(place.read(run.file)).run == "thief"  # and its file is left alone


def test_births():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert birth(ended.pid) is None
    assert birth(subprocess.os.getpid()) is not None
