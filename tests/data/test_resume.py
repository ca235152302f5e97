"""A conversion that is killed at any moment goes on without losing or doubling a clip."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptrack.data.convert import ConvertOptions, convert, partial_path
from ptrack.data.hdf5 import ClipStore
from ptrack.data.inspect import verify
from ptrack.data.journal import JournaledFile, rollback
from ptrack.data.packing import pack
from ptrack.data.sources import open_dataset
from ptrack.data.store_writer import StoreWriter
from ptrack.errors import DataError, Interrupted, OutputError
from tests.data.helpers import raw_clip, write_simple, write_store

CLIPS = 40


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("many")
    for i in range(CLIPS):
        write_simple(root, f"v{i:02d}", frames=5, seed=i)
    return root


@pytest.fixture(scope="module")
def digest(dataset, tmp_path_factory) -> str:
    """Content of the undisturbed conversion."""
    out = tmp_path_factory.mktemp("clean") / "o.h5"
    convert(open_dataset("point-odyssey", dataset), out, ConvertOptions())
    return verify(out).digest


KILLED_BY_CLOCK = """
import sys
from ptrack.batch.converting import worker_loader
from ptrack.data.convert import ConvertOptions, convert
from ptrack.data.sources import open_dataset
def tell(event):
    print(event.position, flush=True)
loader = worker_loader(int(sys.argv[3]))
convert(open_dataset("point-odyssey", sys.argv[1]), sys.argv[2], ConvertOptions(), tell, loader)
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_kill_9_then_resume(dataset, digest, tmp_path, workers):
    """Killed three times after some clips were reported, at a random moment of the next one."""
    out = tmp_path / "o.h5"
    rng = random.Random(workers)
    for _ in range(3):
        command = [sys.executable, "-c", KILLED_BY_CLOCK, str(dataset), str(out), str(workers)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        reported = 0
        for line in process.stdout or ():
            reported = int(line)
            if rng.random() < 0.15:
                break
        time.sleep(rng.random() * 0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if out.exists():  # it had finished before it was killed
            break
        assert reported <= CLIPS
        partial = partial_path(out)
        rollback(partial)
        with h5py.File(partial, "r") as file:
            assert len(file["videos"]) >= reported
    if not out.exists():
        report = convert(open_dataset("point-odyssey", dataset), out, ConvertOptions())
        assert 0 < report.kept <= CLIPS
    store = ClipStore(out)
    assert store.ids == [f"point-odyssey/all/v{i:02d}" for i in range(CLIPS)]
    assert verify(out).digest == digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.h5"]


KILLED_AT_WRITE = """
import os, sys
from ptrack.data import journal
from ptrack.data.convert import ConvertOptions, convert
from ptrack.data.sources import open_dataset
left = int(sys.argv[3])
original = journal.JournaledFile.write
def write(self, data):
    global left
    left -= 1
    if left < 0:
        half = bytes(memoryview(data).cast("B")[: len(data) // 2])
        original(self, half)
        os._exit(9)
    return original(self, data)
journal.JournaledFile.write = write
convert(open_dataset("point-odyssey", sys.argv[1]), sys.argv[2], ConvertOptions(limit=6))
"""


def test_killed_in_the_middle_of_any_write(dataset, tmp_path):
    """Death in the middle of single writes, those of HDF5's own tables included: the file always opens again."""
    clean = tmp_path / "clean.h5"
    source = open_dataset("point-odyssey", dataset)
    convert(source, clean, ConvertOptions(limit=6))
    wanted = verify(clean).digest
    for k, writes in enumerate((1, 9, 30, 47, 64, 101)):
        out = tmp_path / f"{k}.h5"
        run = subprocess.run(
            [sys.executable, "-c", KILLED_AT_WRITE, str(dataset), str(out), str(writes)],
            capture_output=True,
            check=False,
        )
        assert run.returncode == 9, run.stderr
        convert(source, out, ConvertOptions(limit=6))
        assert verify(out).digest == wanted
        assert len(set(ClipStore(out).ids)) == 6


def test_journal_undoes_what_was_not_committed(tmp_path):
    path = tmp_path / "f"
    rng = np.random.default_rng(0)
    file = JournaledFile(path)
    file.write(rng.bytes(20_000))
    file.commit()
    committed = path.read_bytes()
    for _ in range(30):
        file.seek(int(rng.integers(0, 25_000)))
        file.write(rng.bytes(int(rng.integers(1, 9_000))))
    file.truncate(7_000)
    assert path.read_bytes() != committed
    file.close()
    assert rollback(path)
    assert path.read_bytes() == committed
    assert not rollback(path)


def test_journal_ignores_a_record_that_was_cut(tmp_path):
    path = tmp_path / "f"
    file = JournaledFile(path)
    file.write(b"a" * 10_000)
    file.commit()
    file.seek(100)
    file.write(b"b" * 10)
    file.close()
    with open(file.undo_path, "r+b") as undo:
        undo.seek(0, os.SEEK_END)
        undo.write(b"\x00" * 7)
    rollback(path)
    assert path.read_bytes() == b"a" * 10_000


class Full:
    """A file on a disk that takes ``room`` more bytes."""

    def __init__(self, real, room=0):
        self.real, self.room = real, room

    def __getattr__(self, name):
        return getattr(self.real, name)

    def write(self, data):
        if len(data) > self.room:
            raise OSError(28, "No space left on device")
        self.room -= len(data)
        return self.real.write(data)


def test_after_a_failed_write_the_file_reads_as_if_it_had_worked_and_is_undone_when_opened_again(tmp_path):
    path = tmp_path / "f"
    file = JournaledFile(path)
    file.write(b"a" * 10_000)
    file.commit()
    file._file = Full(file._file)
    for at, data in ((9_000, b"b" * 5_000), (4_090, b"c" * 12), (20_000, b"d")):
        file.seek(at)
        assert file.write(data) == len(data)
        assert file.tell() == at + len(data)
    file.seek(0)
    wanted = b"a" * 4_090 + b"c" * 12 + b"a" * 4_898 + b"b" * 5_000 + b"\0" * 6_000 + b"d"
    assert file.readall() == wanted
    assert file.seek(0, os.SEEK_END) == 20_001
    assert file.truncate(11_000) == 11_000
    file.seek(10_998)
    assert file.readall() == b"bb"
    with pytest.raises(OutputError, match="No space left on device"):
        file.commit()
    file.close()
    again = JournaledFile(path)
    assert again.readall() == b"a" * 10_000
    again.close()


@pytest.mark.parametrize("room", [0, 100, 3_000, 10_000])
def test_no_space_left_in_the_store(tmp_path, room):
    """HDF5 never sees the failure, wherever it comes: an exception inside it has crashed the process."""
    writer = StoreWriter(tmp_path / "p", {"source": "test"})
    writer.add(pack(raw_clip("a", seed=1)).clip)
    writer._disk._file = Full(writer._disk._file, room)
    with pytest.raises(OutputError, match="No space left on device. The clip before is kept") as caught:
        writer.add(pack(raw_clip("b", seed=2)).clip)
    assert isinstance(caught.value.__cause__, OutputError)  # of the commit
    assert not writer._file  # HDF5's file is closed before anybody hears of it
    writer.close()
    writer = StoreWriter(tmp_path / "p", {"source": "test"})
    assert list(writer.done) == ["test/all/a"]
    writer.add(pack(raw_clip("b", seed=2)).clip)
    writer.finish(["test/all/a", "test/all/b"], tmp_path / "o.h5")
    writer.close()
    assert verify(tmp_path / "o.h5").problems == []


def test_a_ctrl_c_waits_until_hdf5_has_written(tmp_path):
    writer = StoreWriter(tmp_path / "p", {"source": "test"})
    write, done = writer._disk._file.write, []

    class Interrupting(Full):
        def write(self, data):
            if not done:
                signal.raise_signal(signal.SIGINT)
            done.append(len(data))
            return write(data)

    writer._disk._file = Interrupting(writer._disk._file)
    with pytest.raises(KeyboardInterrupt):
        writer.add(pack(raw_clip("a", seed=1)).clip)
    assert list(writer.done) == ["test/all/a"]
    writer.close()


def test_one_writer_at_a_time(dataset, tmp_path):
    out = tmp_path / "o.h5"
    source = open_dataset("point-odyssey", dataset)

    def start_again(event):
        for overwrite in (False, True):
            with pytest.raises(OutputError, match="is being written by another process"):
                convert(source, out, ConvertOptions(limit=3, overwrite=overwrite))

    report = convert(source, out, ConvertOptions(limit=3), start_again)
    assert report.clips == 3
    assert verify(out).problems == []


def test_overwriting_keeps_the_old_file_until_the_new_one_is_whole(dataset, tmp_path):
    out = tmp_path / "o.h5"
    source = open_dataset("point-odyssey", dataset)
    convert(source, out, ConvertOptions(limit=2))
    old = out.read_bytes()

    def stop(event):
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        convert(source, out, ConvertOptions(limit=3, overwrite=True), stop)
    assert out.read_bytes() == old
    bad = tmp_path / "bad"
    (write_simple(bad, "x") / "anno.npz").write_bytes(b"x")
    with pytest.raises(DataError, match="None of the 1 clips"):
        convert(open_dataset("point-odyssey", bad), out, ConvertOptions(overwrite=True))
    assert out.read_bytes() == old
    convert(source, out, ConvertOptions(limit=3, overwrite=True))
    assert len(ClipStore(out)) == 3
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["o.h5"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_do_not_outlive_a_killed_parent(dataset, tmp_path):
    command = [sys.executable, "-c", KILLED_BY_CLOCK, str(dataset), str(tmp_path / "o.h5"), "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    children = [int(p) for p in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert len(children) >= 2
    process.kill()
    process.wait()
    for _ in range(600):
        if not any(_running(child) for child in children):
            break
        time.sleep(0.1)
    assert [child for child in children if _running(child)] == []


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_going_on_with_other_options_is_refused(dataset, tmp_path):
    out = tmp_path / "o.h5"
    source = open_dataset("point-odyssey", dataset)

    def stop(event):
        if event.position == 3:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="Stopped. 3 clips are kept") as caught:
        convert(source, out, ConvertOptions(), stop)
    assert caught.value.exit_code == 130
    with pytest.raises(OutputError, match="begun with other options"):
        convert(source, out, ConvertOptions(codec="png"))
    with pytest.raises(OutputError, match="holds the clip 'point-odyssey/all/v01', which is not asked for"):
        convert(source, out, ConvertOptions(limit=1))
    report = convert(source, out, ConvertOptions())
    assert (report.kept, report.clips) == (3, CLIPS)


def test_a_partial_file_of_something_else(tmp_path, dataset):
    out = tmp_path / "o.h5"
    partial_path(out).write_bytes(b"this is no HDF5 file" * 100)
    with pytest.raises(OutputError, match="cannot be continued"):
        convert(open_dataset("point-odyssey", dataset), out, ConvertOptions(limit=2))
    report = convert(open_dataset("point-odyssey", dataset), out, ConvertOptions(limit=2, overwrite=True))
    assert report.clips == 2


def test_shards_go_on_where_they_stopped(dataset, digest, tmp_path):
    source = open_dataset("point-odyssey", dataset)
    out = tmp_path / "o.h5"

    def stop(event):
        if event.position == 25:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        convert(source, out, ConvertOptions(shards=4), stop)
    assert len(list(tmp_path.glob("*.h5"))) == 2
    report = convert(source, out, ConvertOptions(shards=4))
    assert (report.kept, report.clips) == (25, CLIPS)
    assert ClipStore(tmp_path).ids == [f"point-odyssey/all/v{i:02d}" for i in range(CLIPS)]
    assert verify(tmp_path).digest == digest


def test_a_skipped_clip_is_tried_again(tmp_path):
    for i in range(4):
        write_simple(tmp_path / "in", f"v{i}", seed=i)
    broken = tmp_path / "in" / "v1" / "anno.npz"
    good = broken.read_bytes()
    broken.write_bytes(b"x")
    source = open_dataset("point-odyssey", tmp_path / "in")

    def stop(event):
        if event.position == 3:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        convert(source, tmp_path / "o.h5", ConvertOptions(), stop)
    broken.write_bytes(good)
    report = convert(source, tmp_path / "o.h5", ConvertOptions())
    assert report.skipped == []
    assert ClipStore(tmp_path / "o.h5").names == ["v0", "v1", "v2", "v3"]


def test_unfinished_and_foreign_files_are_refused(tmp_path):
    writer = StoreWriter(tmp_path / "unfinished.h5", {"source": "test"})
    writer.add(pack(raw_clip()).clip)
    writer.close()
    with pytest.raises(DataError, match="is not complete; run the same"):
        ClipStore(tmp_path / "unfinished.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(DataError, match="not one of ptrack's clip stores"):
        ClipStore(tmp_path / "other.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(DataError, match="cannot be read as a clip store"):
        ClipStore(tmp_path / "text.h5")
    with pytest.raises(DataError, match="no clip store at"):
        ClipStore(tmp_path / "absent.h5")
    with h5py.File(write_store(tmp_path / "new.h5", [raw_clip()]), "r+") as file:
        file.attrs["ptrack_schema"] = 9
    with pytest.raises(DataError, match="has the schema 9"):
        ClipStore(tmp_path / "new.h5")
