"""Sources and outputs behind URLs: a store in memory, its faults, and once a real S3 protocol on loopback."""

import logging
import os
import uuid
from pathlib import Path

import pytest

fsspec = pytest.importorskip("fsspec")

from ptrack.batch import driver as driver_module  # noqa: E402
from ptrack.batch import stores  # noqa: E402
from ptrack.batch.jobs import Shard  # noqa: E402
from ptrack.batch.owner import RunOwner  # noqa: E402
from ptrack.batch.places import RemotePlace  # noqa: E402
from ptrack.batch.report import folder_status  # noqa: E402
from ptrack.batch.stores import expand_remote, fetched, open_store, remote_content  # noqa: E402
from ptrack.errors import InputError, OutputError, TransientError  # noqa: E402
from ptrack.tracks_io import load_tracks  # noqa: E402
from tests.batch.test_tracking import statuses, track, write_clip  # noqa: E402


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The URL of an empty folder in memory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(driver_module, "BACKOFF", (0.01,))
    return f"memory://{uuid.uuid4().hex}"


def put(url, name, frames=4, seed=0):
    write_clip(Path("made.mp4"), frames, seed)
    files, path = fsspec.core.url_to_fs(f"{url}/{name}")
    files.makedirs(path.rpartition("/")[0], exist_ok=True)
    files.pipe_file(path, Path("made.mp4").read_bytes())


def names(url):
    files, path = fsspec.core.url_to_fs(url)
    return sorted(p.rpartition("/")[2] for p in files.ls(path, detail=False))


class Faulty:
    """A store whose ``broken`` call does as ``fault`` says the first ``times`` times."""

    def __init__(self, broken, fault, times=1):
        self.broken, self.fault, self.times = broken, fault, times
        self.real = stores.open_store

    def open(self, url):
        files, path = self.real(url)
        return _Wrapped(files, self), path


class _Wrapped:
    def __init__(self, files, faulty):
        self._files, self._faulty = files, faulty

    def __getattr__(self, name):
        found, faulty = getattr(self._files, name), self._faulty
        if name != faulty.broken:
            return found

        def call(*arguments, **options):
            if faulty.times <= 0:
                return found(*arguments, **options)
            faulty.times -= 1
            return faulty.fault(found, *arguments, **options)

        return call


def raising(error):
    def fault(found, *arguments, **options):
        raise error

    return fault


def cut(found, path, local, **options):
    found(path, local, **options)
    os.truncate(local, 100)


def test_a_place_in_a_store(store, tmp_path):
    place = RemotePlace(f"{store}/out")
    assert (place.read("a"), place.size("a"), place.sizes()) == (None, None, {})
    assert place.create("a", b"one")
    assert not place.create("a", b"two")
    place.write("b", b"three")
    assert (place.read("a"), place.size("b"), place.sizes()) == (b"one", 5, {"a": 3, "b": 5})
    place.remove("a")
    place.remove("a")
    assert place.sizes() == {"b": 5}


def test_where_uploads_can_be_seen_half_they_get_their_name_last(store, tmp_path, monkeypatch):
    place = RemotePlace(f"file://{tmp_path}/out")
    seen = []
    real = place._store.put_file

    def put_file(local, path, **options):
        seen.append(path)
        return real(local, path, **options)

    monkeypatch.setattr(place._store, "put_file", put_file)
    place.write("a.json", b"x")
    assert seen[0].endswith(".tmp")
    assert list(place.sizes()) == ["a.json"]


def test_one_run_at_a_time_in_a_store_too(store):
    place = RemotePlace(f"{store}/out")
    with RunOwner(place, Shard()), pytest.raises(OutputError, match="Another run"):
        RunOwner(place, Shard()).__enter__()
    assert place.sizes() == {}


def test_folders_and_patterns_of_a_store(store):
    for name in ("b.mp4", "a.mov", "notes.txt"):
        put(store, name)
    both = [f"{store}/a.mov", f"{store}/b.mp4"]
    assert [u.replace("memory:///", "memory://") for u in expand_remote(store)] == both
    assert len(expand_remote(f"{store}/*.mp4")) == 1
    assert expand_remote(f"{store}/none.mp4") == [f"{store}/none.mp4"]
    with pytest.raises(InputError, match="holds no videos"):
        expand_remote(f"{store}/*.avi")


def test_videos_of_a_store_into_the_store_and_again(store):
    for i in range(3):
        put(store, f"clips/c{i}.mp4", seed=i)
    put(store, "clips/bad.mp4")
    files, path = fsspec.core.url_to_fs(f"{store}/clips/bad.mp4")
    files.pipe_file(path, b"no video")
    summary = track(f"{store}/clips", out=f"{store}/out", overlay=False)
    assert summary.counts == {"done": 3, "failed": 1}
    failed = next(r.status for r in summary.results if r.state == "failed")
    assert failed.error.startswith(failed.source)  # not the temporary file's name
    assert len([n for n in names(f"{store}/out") if n.endswith(".h5")]) == 3
    with fetched(f"{store}/out/c0.tracks.h5") as local:
        assert load_tracks(local).info.source.endswith("/clips/c0.mp4")
    put(store, "clips/c1.mp4", frames=6, seed=9)
    again = track(f"{store}/clips", out=f"{store}/out", overlay=False)
    assert sorted(statuses(again).values()) == ["done", "failed", "unchanged", "unchanged"]
    assert [r["state"] for r in folder_status(RemotePlace(f"{store}/out")).rows].count("done") == 3


def test_a_transfer_that_is_cut_or_slow_is_tried_again(store, monkeypatch):
    put(store, "a.mp4")
    for fault in (cut, raising(TimeoutError("no byte for 15 s")), raising(OSError("broken pipe"))):
        with monkeypatch.context() as patched:
            patched.setattr(stores, "open_store", Faulty("get_file", fault).open)
            summary = track(f"{store}/a.mp4", out="out", overlay=False, overwrite=True)
        assert summary.complete
        assert summary.results[0].status.tries == 2


def test_an_upload_that_breaks_off_is_tried_again_and_leaves_nothing_half(store, monkeypatch):
    put(store, "a.mp4")
    place = RemotePlace(f"{store}/out")
    faulty = Faulty("put_file", raising(OSError("reset")), times=1)
    monkeypatch.setattr(stores, "open_store", faulty.open)
    with pytest.raises(TransientError, match="broke off"):
        RemotePlace(f"{store}/out").write("a.json", b"x")
    assert place.sizes() == {}


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (PermissionError("Access Denied"), InputError, r"is refused \(Access Denied\). Check the address and the cred"),
        (FileNotFoundError("x"), InputError, "There is no file"),
        (TimeoutError(""), TransientError, "cannot be reached"),
        (type("NoCredentialsError", (Exception,), {})("Unable to locate credentials"), InputError, "is refused"),
    ],
)
def test_what_a_store_says_becomes_a_sentence(store, monkeypatch, error, kind, sentence):
    monkeypatch.setattr(stores, "open_store", Faulty("info", raising(error)).open)
    with pytest.raises(kind, match=sentence):
        remote_content(f"{store}/a.mp4")


def test_a_refusal_fails_the_job_at_once(store, monkeypatch):
    put(store, "a.mp4")
    monkeypatch.setattr(stores, "open_store", Faulty("get_file", raising(PermissionError("no")), times=9).open)
    summary = track(f"{store}/a.mp4", out="out", retries=5)
    assert summary.results[0].status.tries == 1
    assert "is refused" in summary.results[0].status.error


def test_an_address_whose_library_is_missing_names_the_extra(monkeypatch):
    with pytest.raises(InputError, match=r"pip install 'pointtrack\[cloud\]'"):
        open_store("nosuch://bucket/a.mp4")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The URL of a bucket of an S3 server on loopback."""
    pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    for name, value in (("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.chdir(tmp_path)
    name = uuid.uuid4().hex
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    yield f"s3://{name}"
    server.stop()


def test_s3_end_to_end(bucket):
    for i in range(2):
        put(bucket, f"clips/c{i}.mp4", seed=i)
    assert track(f"{bucket}/clips/", out=f"{bucket}/out").counts == {"done": 2}
    assert names(f"{bucket}/out") == sorted(
        f"c{i}.{kind}" for i in range(2) for kind in ("tracks.h5", "overlay.mp4", "status.json")
    )
    put(bucket, "clips/c1.mp4", frames=7, seed=5)
    assert track(f"{bucket}/clips/", out=f"{bucket}/out").counts == {"done": 1, "unchanged": 1}
    with pytest.raises(InputError, match="There is no file"):
        remote_content(f"{bucket}/none.mp4")
