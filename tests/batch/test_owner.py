import subprocess
import sys
import time
from dataclasses import replace

import pytest

from ptrack.batch import owner as owner_module
from ptrack.batch.jobs import Shard
from ptrack.batch.owner import Owner, RunOwner, alive, birth, parse_owner, this_process
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
    assert not alive(place, ".ptrack-run-0-of-1.json", dead, watch=0.1)
    with pytest.raises(OutputError), RunOwner(place, Shard(0, 2), watch=0.1):  # it takes over: the dead one is removed
        owner = Owner(run="x", host="elsewhere", boot="b", pid=1, born="", shard="1/2")
        place.write(".ptrack-run-1-of-2.json", owner.to_json())
        beating = subprocess.Popen([sys.executable, "-c", BEAT, str(place.folder)])
        try:
            time.sleep(0.4)
            RunOwner(place, Shard(1, 2), watch=2.0).__enter__()
        finally:
            beating.kill()
            beating.wait()


BEAT = """
import json, sys, time
path = sys.argv[1] + "/.ptrack-run-1-of-2.json"
owner = json.load(open(path))
while True:
    owner["beat"] += 1
    open(path, "w").write(json.dumps(owner))
    time.sleep(0.05)
"""


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
