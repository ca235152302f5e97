import hashlib

import pytest

from ptrack.errors import OutputError, did_you_mean
from ptrack.fileio import atomic_path, check_writable, sha256_of


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


def test_did_you_mean():
    assert did_you_mean("matchin", ["matching", "lk"]) == " Did you mean 'matching'?"
    assert did_you_mean("zzz", ["matching"]) == ""
