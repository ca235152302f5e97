import hashlib
import os
import subprocess
import sys

import pytest

from ptrack import fileio
from ptrack.errors import OutputError, did_you_mean
from ptrack.fileio import atomic_path, check_writable, new_file, sha256_of, temporary_name


def test_atomic_path_renames_when_whole(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.suffix == ".txt"
    assert target.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_atomic_path_leaves_nothing_after_an_error(tmp_path):
    with pytest.raises(ValueError, match="stop"), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []


def test_atomic_path_turns_os_errors_into_sentences(tmp_path):
    with pytest.raises(OutputError, match="Cannot write .*No space left"), atomic_path(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")


def test_a_temporary_file_is_never_written_through_a_link(tmp_path, monkeypatch):
    (tmp_path / "precious").write_text("kept")
    planted = tmp_path / ".planted.tmp"
    planted.symlink_to(tmp_path / "precious")
    monkeypatch.setattr(fileio, "temporary_name", lambda path: planted)
    with pytest.raises(OutputError, match="File exists"), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("lost")
    assert (tmp_path / "precious").read_text() == "kept"
    (tmp_path / "b.h5").symlink_to(tmp_path / "precious")
    os.close(new_file(tmp_path / "b.h5"))
    assert not (tmp_path / "b.h5").is_symlink()
    assert (tmp_path / "precious").read_text() == "kept"


def test_temporary_names_cannot_be_guessed_and_always_fit(tmp_path):
    assert temporary_name("a.h5") != temporary_name("a.h5")
    long = tmp_path / ("ü" * 124 + ".txt")  # 252 bytes
    with atomic_path(long) as temporary:
        temporary.write_text("x")
        assert len(os.fsencode(temporary.name)) <= 255
    assert long.read_text() == "x"


def test_what_a_killed_process_left_is_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = temporary_name(tmp_path / "a.pth")
    left = left.with_name(left.name.replace(f"-{os.getpid()}.", f"-{ended.pid}."))
    running, other = temporary_name(tmp_path / "a.pth"), tmp_path / "a.tmp.pth"
    for path in (left, running, other):
        path.write_text("half")
    with atomic_path(tmp_path / "a.pth"):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a.pth", running.name, other.name])


def test_a_folder_is_looked_through_once(tmp_path, monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = temporary_name(tmp_path / "b.txt")
    left.with_name(left.name.replace(f"-{os.getpid()}.", f"-{ended.pid}.")).write_text("half")
    looked, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (looked.append(path), scandir(path))[1])
    for name in "abc":
        fileio.write_text(tmp_path / f"{name}.txt", name)
    assert looked == [tmp_path]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.txt", "c.txt"]


def test_a_table_has_empty_cells_for_none(tmp_path):
    fileio.write_csv(tmp_path / "a.csv", [["id", "x"], ["a, b", None], ["ü", 1.5]])
    assert (tmp_path / "a.csv").read_bytes() == 'id,x\r\n"a, b",\r\nü,1.5\r\n'.encode()


def test_the_mode_is_that_of_the_umask(tmp_path):
    with atomic_path(tmp_path / "a.txt") as temporary:
        usual = temporary.stat().st_mode
        os.chmod(temporary, 0o600)  # as a library that writes through its own temporary file leaves it
    assert (tmp_path / "a.txt").stat().st_mode == usual


@pytest.mark.parametrize(
    ("name", "words"), [("file/x.h5", "is a file, not a folder"), ("n" * 300, "File name too long"), ("a\0b", "null")]
)
def test_impossible_places_are_sentences(name, words, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=words):
        check_writable(tmp_path / name, overwrite=True)


def test_a_device_is_no_output():
    with pytest.raises(OutputError, match="is a device or a pipe"):
        check_writable("/dev/null", overwrite=True)


def test_check_writable(tmp_path):
    assert check_writable(tmp_path / "new" / "a.h5", overwrite=False).parent.is_dir()
    (tmp_path / "a.h5").write_text("")
    with pytest.raises(OutputError, match="already exists"):
        check_writable(tmp_path / "a.h5", overwrite=False)
    assert check_writable(tmp_path / "a.h5", overwrite=True) == tmp_path / "a.h5"
    with pytest.raises(OutputError, match="is a folder"):
        check_writable(tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="Choose a writable place"):
        check_writable("/proc/nowhere/a.h5", overwrite=True)


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 1000)
    assert sha256_of(tmp_path / "a", chunk=7) == hashlib.sha256(b"abc" * 1000).hexdigest()


def test_messages_are_one_line_and_steer_no_terminal():
    assert str(OutputError("a\n\x1b[31mb\u2028c")) == "a [31mb c"
    assert len(str(OutputError(f"There is no point '{'x' * 9999}'."))) == 1200


def test_did_you_mean():
    assert did_you_mean("matchin", ["matching", "lk"]) == " Did you mean 'matching'?"
    assert did_you_mean("zzz", ["matching"]) == ""
    assert did_you_mean("learning_rate", ["lr", "epochs", "warmup"]) == " Did you mean 'lr'?"
    assert did_you_mean("learning-rates", ["lr", "epochs", "warmup"]) == " Did you mean 'lr'?"


def test_space_is_proved_before_it_is_needed(tmp_path, monkeypatch):
    fileio.check_space(tmp_path / "a", 4096)
    with pytest.raises(OSError, match="No space left"):
        fileio.check_space(tmp_path / "a", 1 << 62)
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with pytest.raises(OSError, match="No space left"):
        fileio.check_space(tmp_path / "a", 1 << 62)
    assert list(tmp_path.iterdir()) == []
