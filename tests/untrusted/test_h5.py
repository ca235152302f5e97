"""HDF5 files that lead elsewhere, claim too much or are damaged end in one sentence, in every reader of HDF5."""

from __future__ import annotations

import re

import h5py
import numpy as np
import pytest

from ptrack.errors import PTrackError, TracksError
from ptrack.exports import load_any
from ptrack.tracks_io import load_tracks, save_tracks
from ptrack.untrusted import h5
from ptrack.untrusted.limits import Budget, Refused
from tests.test_tracks_io import example


@pytest.fixture
def path(tmp_path):
    return save_tracks(example(), tmp_path / "a.h5")


def spoil(path, name: str, make) -> None:
    """Replace a dataset of a tracks file."""
    with h5py.File(path, "r+") as file:
        del file[name]
        make(file)


def virtual(file) -> None:
    layout = h5py.VirtualLayout((5, 3, 2), "f4")
    layout[:] = h5py.VirtualSource("/etc/hostname.h5", "x", (5, 3, 2))
    file.create_virtual_dataset("tracks", layout)


ELSEWHERE = {
    "external link": lambda f: f.__setitem__("tracks", h5py.ExternalLink("other.h5", "/x")),
    "soft link": lambda f: f.__setitem__("tracks", h5py.SoftLink("/visibility")),
    "virtual": virtual,
    "external storage": lambda f: f.create_dataset("tracks", (5, 3, 2), "f4", external=[("/etc/passwd", 0, 120)]),
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_data_that_lie_elsewhere_are_refused(kind, path):
    spoil(path, "tracks", ELSEWHERE[kind])
    for read in (load_tracks, load_any):
        with pytest.raises(TracksError, match=r"a\.h5 (holds 'tracks' as a link|keeps 'tracks' in other files)"):
            read(path)


HUGE = {
    "never written": lambda f: f.create_dataset("tracks", (5, 1 << 40, 2), "f4", chunks=(1, 1 << 10, 2)),
    "pieces": lambda f: f.create_dataset("tracks", (5, 1 << 22, 2), "f4", chunks=(1, 1, 1)),
    "one chunk": lambda f: f.create_dataset("tracks", (5, 3, 2), "f4", maxshape=(None,) * 3, chunks=(9999, 9999, 2)),
}


@pytest.mark.parametrize("kind", HUGE)
def test_arrays_that_claim_more_than_the_file_could_hold_are_refused(kind, path):
    spoil(path, "tracks", HUGE[kind])
    with pytest.raises(
        TracksError, match=r"claims .* ptrack unpacks at most 512 MiB|splits 'tracks' into more than 4194304 pieces"
    ):
        load_tracks(path)


def test_texts_that_share_one_place_are_counted_each(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["ids"] = np.asarray([b"x" * 4096] * 600, object)
        budget = Budget(0)
        budget.left = 1 << 20
        with pytest.raises(Refused, match="claims 2.3"):
            h5.H5Group(file, budget).texts("ids")


def test_plugins_are_not_loaded(path, monkeypatch):
    monkeypatch.setattr(h5, "FILTERS", set())
    with h5py.File(path, "r+") as file:
        del file["ids"]
        file.create_dataset("ids", data=np.zeros((3, 3)), compression="gzip")
        with pytest.raises(Refused, match="with the filter 1, which ptrack does not load"):
            h5.member(file, "ids")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("visibility", np.full((5, 3), 2.0, np.float32), "outside 0..1"),
        ("confidence", np.full((5, 3), np.nan, np.float32), "outside 0..1"),
        ("frame_index", np.asarray([3, 2, 1, 0, -1]), "do not rise"),
        ("pts_seconds", np.full(5, np.inf), "not all finite"),
        ("queries", np.asarray([b"x"] * 9).reshape(3, 3), "no number of the kind expected"),
        ("ids", np.zeros(3), "not a list of text"),
        ("tracks", np.zeros((5, 3, 2), [("a", "f4")]), "no number of the kind expected"),
    ],
)
def test_values_that_no_run_writes_are_refused(name, value, words, path):
    spoil(path, name, lambda file: file.__setitem__(name, value))
    with pytest.raises(TracksError, match=words):
        load_tracks(path)


@pytest.mark.parametrize(
    ("name", "value"), [("schema_version", "x"), ("width", -3), ("threshold", np.nan), ("fps", [1, 2]), ("model", 7)]
)
def test_attributes_that_no_run_writes_are_refused(name, value, path):
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    with pytest.raises(TracksError, match=r"a\.h5.*(no ptrack tracks|impossible)"):
        load_tracks(path)


def test_damage_anywhere_is_one_sentence(path, tmp_path):
    """One byte changed or the end cut off: once 52 of 400 files gave a traceback, most as the format was guessed."""
    whole = path.read_bytes()
    random = np.random.default_rng(17)
    damaged = tmp_path / "b.h5"
    failed = 0
    for case in range(60):
        if case % 4:
            data = bytearray(whole)
            data[random.integers(len(data) if case % 2 else 4096)] = random.integers(256)
        else:
            data = whole[: random.integers(len(whole))]
        damaged.write_bytes(data)
        try:
            load_any(damaged)
        except PTrackError as error:
            failed += 1
            text = str(error)
            assert re.fullmatch(r"[^\n]*b\.h5[^\n]{1,400}[^.]\.", text), text
    assert failed > 15


def without_end(data, heap=0):
    """Return a file whose heap of texts at or behind a byte has no end."""
    data = bytearray(data)
    at = data.index(b"GCOL", heap) + 16
    while data[at : at + 2] != b"\0\0":  # to the free space behind the texts
        at += 16 + (int.from_bytes(data[at + 8 : at + 16], "little") + 7) // 8 * 8
    data[at + 8 : at + 16] = bytes(8)
    return data


def test_a_heap_of_texts_without_an_end_is_refused(path):
    path.write_bytes(without_end(path.read_bytes()))
    with pytest.raises(TracksError, match="a heap of texts in it has no end"):
        load_tracks(path)


@pytest.mark.parametrize("place", ["front", "middle", "end"])
def test_a_heap_without_an_end_is_found_in_a_large_file_too(tmp_path, monkeypatch, place):
    """Its two ends are searched; in between the heaps that a list of texts names are looked at."""
    monkeypatch.setattr(h5, "SEARCHED_BYTES", 16 << 10)
    path = tmp_path / "a.h5"
    filling = np.arange(30_000, dtype=np.int32)
    with h5py.File(path, "w") as file:
        for name in {"front": "ax", "middle": "xay", "end": "xa"}[place]:
            file[name] = ["nose", "tail"] if name == "a" else filling
            file.flush()
    at = path.read_bytes().index(b"GCOL")
    assert {"front": at < 16 << 10, "middle": 16 << 10 < at < 200_000, "end": at > 100_000}[place]
    path.write_bytes(without_end(path.read_bytes()))
    with pytest.raises(Refused, match="has no end"), h5.opened(path) as group:
        group.texts("a")


def test_a_heap_of_names_without_an_end_is_refused(tmp_path):
    """HDF5 follows its free places for ever, and takes memory for each."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="earliest") as file:
        for name in ("nose", "a much longer name", "tail"):
            file.create_group(name)
        del file["a much longer name"]
    data = bytearray(path.read_bytes())
    with h5.opened(path) as group:
        assert sorted(group.names()) == ["nose", "tail"]
    at = data.index(h5.NAMES)
    free, begin = (int.from_bytes(data[at + k : at + k + 8], "little") for k in (16, 24))
    assert free != 1
    data[begin + free : begin + free + 8] = free.to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(Refused, match="a heap of names in it has no end"), h5.opened(path):
        pass


TEXT = bytes.fromhex("19010100 10000000 10000000 01000000 00000800")  # the type of texts of any length


@pytest.mark.parametrize("place", ["attribute", "data", "member"])
def test_a_kind_of_variable_length_that_does_not_exist_is_refused(tmp_path, place):
    """HDF5 ends the process when it reads a value of it."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("clip")
        if place == "attribute":
            group.attrs["name"] = "nose"
        else:
            text = h5py.string_dtype()
            group.create_dataset("name", 2, text if place == "data" else np.dtype([("a", "f4"), ("b", text)]))
    whole = path.read_bytes()
    at = whole.index(TEXT)
    for kind in (2, 5, 15):
        path.write_bytes(whole[: at + 1] + bytes([kind]) + whole[at + 2 :])
        with h5py.File(path) as file, pytest.raises(Refused, match="'name' is of a type that does not exist"):
            h5.check_tree(file, len(whole))
        with h5.opened(path) as file, pytest.raises(Refused, match="does not exist"):
            h5.attribute(file.group("clip")._group, "name") if place == "attribute" else file.item("clip/name")


def test_a_text_that_claims_to_be_longer_than_the_file_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("ids", data=["nose", "tail"], dtype=h5py.string_dtype())
        place = file["ids"].id.get_offset()
    with h5.opened(path) as group:
        assert group.texts("ids") == ["nose", "tail"]
    damaged = bytearray(path.read_bytes())
    damaged[place + 16 : place + 20] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(damaged)
    with h5.opened(path) as group, pytest.raises(Refused, match="longer than the file"):
        group.texts("ids")
