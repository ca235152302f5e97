"""Clips of a dataset as jobs: the same store as without, and what became of each clip after a kill or a full disk."""

import errno
import json
import os
import time

import numpy as np
import pytest

from ptrack.batch import converting
from ptrack.batch.converting import ConvertWork, job_name, worker_loader
from ptrack.batch.driver import BatchOptions
from ptrack.batch.executors import InProcess
from ptrack.batch.work import WorkSpec
from ptrack.data.clips import ArrayFrames
from ptrack.data.convert import ConvertOptions, convert, dry_run, jobs_folder
from ptrack.data.hdf5 import ClipStore
from ptrack.data.packed_file import read_packed, write_packed
from ptrack.data.packing import pack
from ptrack.data.source import ClipRef, Source
from ptrack.errors import DataError, OutputError
from tests.data.helpers import raw_clip

NAMES = ("a", "b", "c", "d")


class Raw(Source):
    """Four clips; ``b`` cannot be read."""

    name = "raw"
    title = "a test"
    layout = "nothing"

    def listed(self):
        return [self.ref("all", name) for name in NAMES]

    def load(self, ref):
        if ref.name == "b":
            raise DataError("b is damaged.")
        return raw_clip(ref.name, seed=ord(ref.name))


@pytest.fixture
def here(monkeypatch):
    """Jobs are done in this process; the list of the clips that were loaded."""
    loaded = []
    real = ConvertWork.run

    def run(self, order, place, progress):
        loaded.append(order["path"][-1])
        return real(self, order, place, progress)

    monkeypatch.setattr(ConvertWork, "run", run)
    monkeypatch.setattr(
        converting, "local_processes", lambda make, place, workers: InProcess(WorkSpec(make=make, place=place))
    )
    return loaded


def converted(folder, name, **more):
    report = convert(Raw(folder), folder / name, ConvertOptions(**more), loader=worker_loader(2))
    return report, (folder / name).read_bytes()


def test_the_same_bytes_as_without_workers_and_nothing_left(tmp_path, here):
    alone = convert(Raw(tmp_path), tmp_path / "one.h5", ConvertOptions())
    report, data = converted(tmp_path, "two.h5")
    assert data == (tmp_path / "one.h5").read_bytes()
    assert report.skipped == alone.skipped == [("raw/all/b", "b is damaged.")]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.h5", "two.h5"]
    convert(Raw(tmp_path), tmp_path / "three.h5", ConvertOptions(shards=3), loader=worker_loader(2))
    assert sorted(p.name for p in tmp_path.glob("three*")) == [f"three-0000{i}-of-00003.h5" for i in range(3)]


def test_what_a_killed_run_left_is_not_loaded_again(tmp_path, here):
    def stop(event):
        raise RuntimeError("killed")

    loader = worker_loader(2)
    with pytest.raises(RuntimeError):
        convert(Raw(tmp_path), tmp_path / "o.h5", ConvertOptions(), stop, loader)
    jobs = jobs_folder(tmp_path / "o.h5")
    states = {p.name[8]: json.loads(p.read_text())["state"] for p in jobs.glob("*.status.json")}
    assert states["a"] == "done"
    here.clear()
    again = converted(tmp_path, "o.h5")
    assert "a" not in here
    assert again[0].kept == 1
    assert again[1] == converted(tmp_path, "whole.h5")[1]
    assert not jobs.exists()


def test_a_clip_that_waits_for_the_store_is_kept_with_the_same_options_only(tmp_path, here):
    source, target = Raw(tmp_path), tmp_path / "o.h5"
    refs = source.refs()[2:]
    taken = worker_loader(2)(source, refs, ConvertOptions(), target)
    next(taken)
    taken.close()
    here.clear()
    assert [r.clip.name for _, r in worker_loader(2)(source, refs, ConvertOptions(), target)] == ["c", "d"]
    assert here == ["d"]
    here.clear()
    list(worker_loader(2)(source, refs, ConvertOptions(codec="png"), target))
    assert here == ["c", "d"]


def test_a_full_disk_ends_the_conversion_and_loses_nothing(tmp_path, here, monkeypatch):
    real = converting.write_packed

    def full(path, packed):
        if "_c-" in path.name:
            raise OutputError(f"Cannot write {path}: no space.") from OSError(errno.ENOSPC, "No space left on device")
        real(path, packed)

    monkeypatch.setattr(converting, "write_packed", full)
    with pytest.raises(OutputError, match=r"no space\. Run the same command again to go on"):
        converted(tmp_path, "o.h5")
    monkeypatch.setattr(converting, "write_packed", real)
    report, data = converted(tmp_path, "o.h5")
    assert (report.kept, report.clips) == (1, 3)
    assert data == converted(tmp_path, "whole.h5")[1]


def test_a_dry_run_with_workers_writes_nothing(tmp_path, here):
    report = dry_run(Raw(tmp_path), ConvertOptions(), worker_loader(2))
    assert (report.clips, len(report.skipped)) == (3, 1)
    assert list(tmp_path.iterdir()) == []


class Deadly(Raw):
    """Clip ``a`` hangs, ``b`` kills the process that loads it."""

    def load(self, ref):
        if ref.name == "a":
            time.sleep(60)
        if ref.name == "b":
            os._exit(11)
        return super().load(ref)


def test_clips_that_hang_or_kill_their_worker_cost_only_themselves(tmp_path):
    loader = worker_loader(0, BatchOptions(timeout=0.5, retries=0))
    report = convert(Deadly(tmp_path), tmp_path / "o.h5", ConvertOptions(clips=("a", "b", "c")), loader=loader)
    assert report.skipped == [
        ("raw/all/a", "it took longer than 0.5 s"),
        ("raw/all/b", "its worker process ended with exit code 11"),
    ]
    assert ClipStore(tmp_path / "o.h5").names == ["c"]
    assert [p.name for p in tmp_path.iterdir()] == ["o.h5"]


def test_a_packed_clip_comes_back_as_it_was(tmp_path):
    clip = raw_clip("x", seed=3)
    packed = pack(clip, "png")
    write_packed(tmp_path / "x.h5", packed)
    back = read_packed(tmp_path / "x.h5")
    assert (back.clip.id, back.clip.size, back.clip.fps) == (clip.id, clip.size, clip.fps)
    assert back.clip.frames.encoded(1) == packed.clip.frames.encoded(1)
    np.testing.assert_array_equal(back.clip.tracks, clip.tracks)
    write_packed(tmp_path / "raw.h5", pack(clip, "raw"))
    assert isinstance(read_packed(tmp_path / "raw.h5").clip.frames, ArrayFrames)
    (tmp_path / "x.h5").write_bytes(b"no HDF5")
    with pytest.raises(DataError, match="x.h5"):
        read_packed(tmp_path / "x.h5")


def test_names_of_jobs_are_file_names_and_differ():
    ids = ["s/all/a b", "s/all/a_b", "s/all/" + "x" * 300]
    names = [job_name(ClipRef(i, "all", i)) for i in ids]
    assert len(set(names)) == 3
    assert not any("/" in name or " " in name for name in names)
    assert len(converting.file_name(names[2])) <= 255
