"""Tracking as the work of a batch, in this process with the ``static`` model."""

import json
import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ptrack.batch import run as batch_run
from ptrack.batch.driver import BatchOptions
from ptrack.batch.places import LocalPlace
from ptrack.batch.run import BatchRequest, is_batch, plan, prepare, run_batch, threads_each
from ptrack.batch.tracking import content_of
from ptrack.errors import ConfigError, InputError, ModelError, OutputError
from ptrack.queries_io import QueryOptions
from ptrack.tracking import run as run_module
from ptrack.tracking.request import TrackRequest, deciding_settings
from ptrack.tracks_io import load_tracks
from ptrack.video import open_writer
from ptrack.viz.overlay import asked_overlay

GRID = QueryOptions(grid=2)


def write_clip(path, frames=6, seed=0):
    rng = np.random.default_rng(seed)
    with open_writer(path, fps=25, overwrite=True) as writer:
        for t in range(frames):
            writer.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), t / 25)


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "clips").mkdir()
    for i, name in enumerate(("a.mp4", "b.mp4")):
        write_clip(tmp_path / "clips" / name, seed=i)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def request(*sources, out="out", **changes):
    options = {k: changes.pop(k) for k in ("retries", "timeout", "overwrite") if k in changes}
    batch = {k: changes.pop(k) for k in ("list_file", "workers", "shard", "trust_mtime") if k in changes}
    changes = {"queries": GRID, "drawing": asked_overlay, **changes}
    track = TrackRequest(sources=sources, model="static", **changes)
    return BatchRequest(track=track, out=out, options=BatchOptions(**options), **batch)


def track(*sources, **changes):
    return run_batch(prepare(request(*sources, **changes), {}))


def statuses(summary):
    return {r.job.source: r.state for r in summary.results}


def files(folder):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir() if not p.name.endswith(".status.json")}


def test_a_folder_with_a_broken_and_a_missing_video(place):
    (place / "clips/bad.mp4").write_text("no video")
    summary = track("clips", "none.mp4")
    states = {"clips/a.mp4": "done", "clips/b.mp4": "done", "clips/bad.mp4": "failed", "none.mp4": "failed"}
    assert statuses(summary) == states
    errors = [r.status.error for r in summary.results if r.state == "failed"]
    assert errors[0].startswith("clips/bad.mp4 holds text")
    assert errors[1].startswith("There is no file or folder none.mp4")
    assert set(files("out")) == {"a.tracks.h5", "a.overlay.mp4", "b.tracks.h5", "b.overlay.mp4"}
    tracks = load_tracks("out/a.tracks.h5")
    assert (tracks.info.source, tracks.num_frames, tracks.num_points) == ("clips/a.mp4", 6, 4)


def test_nothing_is_loaded_for_a_second_run(place, monkeypatch):
    track("clips", overlay=False)
    monkeypatch.setattr("ptrack.models.zoo.build", None)
    assert track("clips", overlay=False).counts == {"unchanged": 2}


@pytest.mark.parametrize("change", [{"queries": QueryOptions(grid=3)}, {"backward": True}, {"format": "csv"}])
def test_what_decides_the_result_makes_it_be_done_again(place, change):
    track("clips/a.mp4", overlay=False)
    assert track("clips/a.mp4", overlay=False, **change).counts == {"done": 1}
    assert track("clips/a.mp4", overlay=False, **change).counts == {"unchanged": 1}


def test_an_overlay_that_is_asked_for_later_is_made(place):
    track("clips/a.mp4", overlay=False)
    assert track("clips/a.mp4").counts == {"done": 1}
    assert track("clips/a.mp4", overlay=False).counts == {"unchanged": 1}


def test_a_changed_video_is_tracked_again_by_content_or_by_time(place):
    track("clips", overlay=False)
    os.utime("clips/a.mp4", (1, 1))
    assert track("clips", overlay=False).counts == {"unchanged": 2}
    assert track("clips", overlay=False, trust_mtime=True).counts == {"done": 1, "unchanged": 1}
    stamp = os.stat("clips/b.mp4")
    data = bytearray(Path("clips/b.mp4").read_bytes())
    data[-1] ^= 1
    Path("clips/b.mp4").write_bytes(data)
    os.utime("clips/b.mp4", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert track("clips", overlay=False, trust_mtime=True).counts == {"unchanged": 2}
    assert track("clips", overlay=False).counts == {"done": 1, "unchanged": 1}


def test_settings_count_files_by_content(place):
    Path("q.csv").write_text("t,x,y\n0,3,3\n")
    Path("q2.csv").write_text("t,x,y\n0,3,3\n")
    made = TrackRequest(sources=(), queries=QueryOptions(file=Path("q.csv")))
    before = deciding_settings(made)
    assert deciding_settings(replace(made, queries=QueryOptions(file=Path("q2.csv")))) == before
    Path("q.csv").write_text("t,x,y\n0,4,3\n")
    assert deciding_settings(made) != before
    assert json.loads(json.dumps(before)) == before
    assert deciding_settings(replace(made, model="matching"))["weights"] == before["weights"] != ""


def test_contents(place):
    with open_writer(place / "shots") as writer:
        for _ in range(2):
            writer.write(np.zeros((8, 8, 3), np.uint8))
    folder, pattern = content_of("shots"), content_of("shots/*.png")
    assert folder == pattern == {"sha256": folder["sha256"]}
    assert content_of("shots", True)["files"] == 2
    with pytest.raises(InputError):
        content_of("none.mp4")


def test_a_partial_file_of_a_killed_run_is_gone_on_with_and_gives_the_same_bytes(place, monkeypatch):
    write_clip(place / "clips/long.mp4", 70)
    track("clips/long.mp4", out="whole")
    monkeypatch.setattr(run_module, "FLUSH_SECONDS", 0.0)  # another rhythm of flushes
    monkeypatch.setattr(run_module.TrackOptions, "flush_seconds", 0.0, raising=False)
    begun = prepare(request("clips/long.mp4"), {})
    real = run_module._publish

    def killed(run):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "_publish", killed)
    with pytest.raises(KeyboardInterrupt):
        run_batch(begun)
    monkeypatch.setattr(run_module, "_publish", real)
    assert track("clips/long.mp4").complete
    assert files("out") == files("whole")


def test_a_partial_file_of_other_settings_or_damaged_is_begun_anew(place):
    track("clips/a.mp4", out="whole")
    Path("out").mkdir()
    Path("out/a.tracks.partial.h5").write_bytes(b"damaged")
    Path("out/a.tracks.partial.state").write_bytes(b"damaged")
    assert track("clips/a.mp4").complete
    assert files("out") == files("whole")


def test_what_is_wrong_for_all_videos_comes_before_anything_is_written(place):
    (place / "sub").mkdir()
    (place / "sub/a.mp4").touch()
    cases = [
        (request("clips", out="a.h5"), OutputError, "one file"),
        (request("clips/a.mp4", "sub/a.mp4"), OutputError, "would both be written"),
        (request("clips", queries=QueryOptions(file=Path("none.csv"))), Exception, "none.csv"),
        (request("clips", format="mat"), OutputError, "--format mat"),
        (request("clips", list_file="none.txt"), InputError, "--list none.txt"),
        (request("clips", shard="3/3"), ConfigError, "--shard"),
        (request(), InputError, "Name at least one"),
    ]
    for bad, kind, sentence in cases:
        with pytest.raises(kind, match=sentence):
            prepare(bad, {})
    with pytest.raises(ConfigError, match="--workers 0"):
        request("clips", workers=0)
    with pytest.raises(OutputError, match="Cannot make the folder /proc/none"):
        track("clips", out="/proc/none")
    assert not Path("out").exists()


def test_a_model_that_cannot_be_built_ends_the_run(place):
    with pytest.raises(ModelError, match="no option 'memory'"):
        track("clips", model_options={"memory": 3})
    assert list(Path("out").glob("*.h5")) == []
    assert track("clips").complete


def test_shards_by_option_and_by_slurm(place):
    for i in range(8):
        write_clip(place / f"clips/{i}.mp4", 2)
    environment = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "3"}
    slurm = prepare(request("clips"), environment)
    assert [j.name for j in slurm.jobs] == [j.name for j in prepare(request("clips", shard="1/3"), {}).jobs]
    assert slurm.notes == [f"shard 1/3: {len(slurm.jobs)} of 10 videos"]
    assert len(prepare(request("clips", shard="none"), environment).jobs) == 10
    assert sum(len(track("clips", overlay=False, shard=f"{i}/3").results) for i in range(3)) == 10
    assert track("clips", overlay=False).counts == {"unchanged": 10}


def test_a_plan_writes_nothing(place):
    made = plan(prepare(request("clips"), {}))
    assert [job.name for job, _ in made.to_do] == ["a", "b"]
    assert not Path("out").exists()


def test_what_is_a_batch(place):
    assert is_batch(TrackRequest(sources=["clips"]))
    assert is_batch(TrackRequest(sources=["clips/*.mp4"]))
    assert is_batch(TrackRequest(sources=["s3://bucket/a.mp4"]))
    assert not is_batch(TrackRequest(sources=["clips/a.mp4"]))
    assert not is_batch(TrackRequest(sources=["0"], camera=True))


def test_threads_are_shared_out(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_each(2) == 0
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert (threads_each(2), threads_each(3), threads_each(20)) == (4, 2, 1)


def test_a_full_disk_asks_for_the_same_command_again(place, monkeypatch):
    def full(self, *_):
        with self._writing():
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("ptrack.tracks_h5.TracksWriter.append", full)
    summary = track("clips")
    assert "No space left on device" in summary.halted
    assert summary.halted.endswith("Free space and run the same command again.")
    assert "--resume" not in summary.halted
    assert sorted(statuses(summary).values()) == ["failed", "left"]


def test_a_taken_folder_stops_the_run_with_a_sentence(tmp_path, monkeypatch):
    lost = []

    @contextmanager
    def owner(*_, **given):
        lost.append(given["lost"])
        yield SimpleNamespace(run="r")

    monkeypatch.setattr(batch_run, "RunOwner", owner)
    with batch_run.driving([], LocalPlace(tmp_path), None, lambda: None, BatchOptions()) as driver:
        lost[0]()
    assert driver.halted == f"Another run has taken {tmp_path}; this one has stopped."
