import functools
import operator
import os

import pytest

from ptrack.batch.jobs import (
    Entry,
    Job,
    Shard,
    expand,
    job_name,
    make_jobs,
    parse_shard,
    read_list,
    slurm_shard,
)
from ptrack.batch.stores import is_remote
from ptrack.errors import ConfigError, InputError, OutputError


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in ("clips/b10.mp4", "clips/b9.MOV", "clips/.hidden.mp4", "clips/notes.txt", "shots/1.png", "mix/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "mix/a.mp4").touch()
    (tmp_path / "Title [id].mp4").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sources(*names):
    return [entry.source for entry in expand(names)[0]]


def test_folders_and_patterns_of_videos_are_many_sources_and_images_are_one(place):
    assert sources("clips") == ["clips/b9.MOV", "clips/b10.mp4"]
    assert sources("clips/*.mp4") == ["clips/b10.mp4"]
    assert sources("**/*.mp4") == ["clips/b10.mp4", "mix/a.mp4", "Title [id].mp4"]
    assert sources("shots", "shots/*.png", "none/*.mp4") == ["shots", "shots/*.png", "none/*.mp4"]
    assert sources("Title [id].mp4", "-", "none.mp4") == ["Title [id].mp4", "-", "none.mp4"]
    entries, notes = expand(["mix"])
    assert entries == [Entry("mix")]
    assert notes == ["mix holds images and videos; it is read as one sequence of images."]


def test_a_list_with_comments_names_and_a_byte_order_mark(place):
    (place / "list.txt").write_text("\ufeff# my videos\n\n clips/b9.MOV \nclips/b10.mp4\tten\n", encoding="utf-8")
    assert read_list("list.txt") == [Entry("clips/b9.MOV"), Entry("clips/b10.mp4", "ten")]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "No such file"), (b"\xff\xfe\x00\x01", "it is no text"), (b"# nothing\n\n", "names no source")],
)
def test_an_unreadable_or_empty_list_is_one_sentence(place, content, sentence):
    if content is not None:
        (place / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_list("list.txt")


def test_a_source_named_twice_is_one_job(place):
    entries = [Entry("clips/b9.MOV"), Entry("./clips/b9.MOV"), Entry("none.mp4")]
    jobs, notes = make_jobs(entries)
    assert jobs[0] == Job(name="b9", source="clips/b9.MOV", path=str(place / "clips/b9.MOV"))
    assert [j.name for j in jobs] == ["b9", "none"]
    assert notes == ["Sources named more than once are tracked once (1 left out)."]


def test_two_sources_with_one_output_are_refused_unless_a_list_names_them(place):
    with pytest.raises(OutputError, match=r"a/x.mp4 and b/x.mp4 would both be written to x\.\*"):
        make_jobs([Entry("a/x.mp4"), Entry("b/x.mp4")])
    jobs, _ = make_jobs([Entry("a/x.mp4"), Entry("b/x.mp4", "x2")])
    assert [j.name for j in jobs] == ["x", "x2"]
    with pytest.raises(InputError, match="a plain name"):
        make_jobs([Entry("a/x.mp4", "../x")])


def test_the_demo_is_the_packaged_clip(place):
    assert os.path.isfile(make_jobs([Entry("demo")])[0][0].path)


@pytest.mark.parametrize(
    ("source", "remote"),
    [
        ("s3://bucket/a.mp4", True),
        ("gs://bucket/folder/", True),
        ("https://host/a.mp4?token=1", True),
        ("https://host/stream.m3u8", False),
        ("rtsp://host/live", False),
        ("a.mp4", False),
    ],
)
def test_what_is_fetched(source, remote):
    assert is_remote(source) is remote


def test_names_of_remote_files():
    assert job_name("https://host/walk.mp4?token=1") == job_name("s3://bucket/a/walk.mov") == "walk"


def test_shards_cover_every_job_once():
    names = [f"clip{i}" for i in range(100)]
    parts = [[n for n in names if Shard(i, 3).takes(n)] for i in range(3)]
    assert sorted(functools.reduce(operator.iadd, parts, [])) == sorted(names)
    assert min(map(len, parts)) > 20
    assert Shard(1, 2).takes("clip0") is Shard(1, 2).takes("clip0")


@pytest.mark.parametrize("text", ["3/3", "-1/3", "1", "a/b", "1/0", ""])
def test_bad_shards(text):
    with pytest.raises(ConfigError, match="--shard"):
        parse_shard(text)
    assert parse_shard("0/3") == Shard(0, 3)


def slurm(task, count, **more):
    return slurm_shard({"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": str(count), **more})


def test_slurm_arrays_may_begin_anywhere_and_go_in_steps():
    assert slurm_shard({}) is None
    assert slurm(2, 4) == Shard(2, 4)
    assert slurm(4, 4, SLURM_ARRAY_TASK_MIN="1") == Shard(3, 4)
    assert slurm(30, 4, SLURM_ARRAY_TASK_MIN="0", SLURM_ARRAY_TASK_STEP="10") == Shard(3, 4)
    with pytest.raises(ConfigError, match="number the array evenly"):
        slurm(7, 3)
