"""Every command and program of docs/batch.md is run, on tiny clips and with the model that moves nothing."""

import json
import os
import re
import shlex
from pathlib import Path

import fsspec
import pytest

from ptrack.batch import local, ray_actors, stores
from ptrack.batch.executors import InProcess
from ptrack.batch.jobs import Shard
from ptrack.cli import app
from tests.batch.test_tracking import write_clip
from tests.docs import blocks, commands

COMMANDS = [words for words in commands("batch.md") if words[0] == "ptrack"]
OTHERS = {" ".join(words) for words in commands("batch.md") if words[0] != "ptrack"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the page's clips. Stores are in memory, worker processes and Ray actors are this process."""
    (tmp_path / "clips").mkdir()
    for i, name in enumerate(("a.mp4", "b.mp4", "c.mp4")):
        write_clip(tmp_path / "clips" / name, 2, i)
    (tmp_path / "videos.txt").write_text("clips/a.mp4\nclips/b.mp4\tother\n")
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for name in ("bucket/clips/a.mp4", "bucket/clips/b.mp4", "example.org/walk.mp4"):
        memory.pipe_file(f"/{name}", (tmp_path / "clips/a.mp4").read_bytes())
    monkeypatch.setattr(stores, "open_store", lambda url: (memory, f"/{url.partition('://')[2]}"))
    monkeypatch.setattr(local, "LocalProcesses", InProcess)
    monkeypatch.setattr(ray_actors, "RayActors", lambda spec, address: InProcess(spec))
    monkeypatch.setattr("ptrack.models.zoo.DEFAULT_MODEL", "static")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ptrack(words, monkeypatch):
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as end:
        app.main()
    return end.value.code or 0


def test_what_is_not_ptracks_own_is_as_expected():
    assert {"pip install pointtrack[ray]", "ray start --head", "pip install pointtrack[cloud]"} == OTHERS


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands(words, place, monkeypatch, capsys):
    if words[1] == "batch":  # it looks at what an earlier command of the page has made
        store = any("s3://" in word for word in words)
        first = next(c for c in COMMANDS if c[1] == "track" and store == any("s3://" in word for word in c))
        assert ptrack(first, monkeypatch) == 0
    capsys.readouterr()
    assert ptrack(words, monkeypatch) == 0
    out = capsys.readouterr().out
    assert "done" in out or "--shard" in words
    if "--report" in words:
        assert Path(words[words.index("--report") + 1]).stat().st_size > 100
    if "--dry-run" in words:
        assert not Path("results").exists()


def test_shards_of_the_page_cover_all_videos_once(place, monkeypatch, capsys):
    parts = [words for words in COMMANDS if "--shard" in words]
    assert len(parts) == 3
    for words in parts:
        assert ptrack(words, monkeypatch) == 0
    capsys.readouterr()
    assert ptrack(["ptrack", "batch", "status", "results/", "--json"], monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"done": 3}


def test_the_slurm_script_as_an_array(place, monkeypatch, capsys):
    (script,) = (b for b in blocks("batch.md", "bash") if "#SBATCH" in b)
    first, last = map(int, re.search(r"--array=(\d+)-(\d+)", script).groups())
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", str(last - first + 1))
    line = shlex.split(script.strip().splitlines()[-1])
    count = last - first + 1
    tasks = {i for i in range(count) for name in "abc" if Shard(i, count).takes(name)}
    idle = next(i for i in range(count) if i not in tasks)
    for task in (*sorted(tasks), idle):  # the other seven have nothing to do either
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        assert ptrack(line, monkeypatch) == 0
    assert len(list(Path("results").glob("*.tracks.h5"))) == 3


def test_the_python_program(place, monkeypatch, capsys):
    (code,) = blocks("batch.md", "python")
    quick = code.replace('sources=["clips"]', 'sources=["clips"], model="static"')
    exec(compile(quick, "batch.md", "exec"), {})
    assert capsys.readouterr().out == "{'done': 3} []\n"
    assert os.path.exists("results/a.tracks.h5")
