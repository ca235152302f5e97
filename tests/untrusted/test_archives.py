"""Archives, JSON and CSV that claim or unpack too much end in one sentence before memory is taken."""

from __future__ import annotations

import io
import json
import re
import zipfile

import numpy as np
import pytest

from ptrack.errors import PTrackError, QueryError, TracksError
from ptrack.exports import load_any
from ptrack.queries_io import load_queries
from ptrack.tracks_io import load_tracks, save_tracks
from ptrack.untrusted import limits, text
from ptrack.untrusted.limits import Refused
from tests.test_tracks_io import example

READERS = {"tracks": load_tracks, "any format": load_any, "queries": load_queries}


def archive(path, **members: bytes):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return path


def npy(shape: tuple[int, ...], data: bytes = b"", dtype: str = "<f4") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + data


def spoiled(path, **members: bytes):
    """Write a tracks archive with some members replaced."""
    whole = save_tracks(example(), path.with_name("whole.npz"))
    with zipfile.ZipFile(whole) as file:
        found = {name.removesuffix(".npy"): file.read(name) for name in file.namelist()}
    return archive(path, **found | {"queries": npy((3, 3), bytes(36))} | members)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("member", "words"),
    [
        (npy((1 << 40,)), r"claims 4 TiB for '\w+'"),
        (npy((1 << 62, 1 << 62)), "claims .* EiB"),
        (npy((1000,), b"1234"), "claims 4000 bytes where the archive holds 4"),
        (npy((-1, 3)), "impossible shape"),
        (npy((3,), bytes(24), "|O"), "Python objects"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b" " * 999, "a header of 2147483647 bytes"),
        (b"no array", "damaged or something else"),
        (b"", "damaged or something else"),
    ],
)
def test_headers_are_checked_against_the_file(reader, member, words, tmp_path):
    path = spoiled(tmp_path / "a.npz", tracks=member, queries=member)
    with pytest.raises(PTrackError, match=words) as caught:
        READERS[reader](path)
    assert "a.npz" in str(caught.value)


def test_an_archive_of_zeros_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "UNPACKED_BYTES", 32 << 20)
    zeros = {name: npy((16 << 20,), bytes(16 << 20), "|u1") for name in ("points", "occluded", "image_size")}
    path = archive(tmp_path / "a.npz", **zeros)
    with pytest.raises(TracksError, match=r"claims 16 MiB for 'image_size'; from a file of .* at most 32 MiB"):
        load_any(path, "tapvid")


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.npz", "a.h5"])
@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"[" * 100_000, b"\x00" * 100, b"null", b'{"a": 1}', b"[1, 2]"])
def test_nonsense_is_one_sentence_in_every_reader(name, data, tmp_path):
    (tmp_path / name).write_bytes(data)
    for reader in READERS.values() if name != "a.h5" else (load_tracks, load_any):
        with pytest.raises(PTrackError) as caught:
            reader(tmp_path / name)
        words = str(caught.value)
        assert re.fullmatch(rf"[^\n]*{name}[^\n]*[^.]\.", words), words


def test_json_that_is_small_on_disk_and_large_in_memory_is_refused(monkeypatch):
    monkeypatch.setattr(text, "JSON_BYTES", 1 << 20)
    assert text.parse_json(b"[" + b"1," * 1000 + b"1]")
    with pytest.raises(Refused, match="would take about .* in memory"):
        text.parse_json(b"[" + b"[]," * 20_000 + b"1]")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("9" * 30 + ",0,a,1,2", "too (large|big)"),
        ("0,0,a,one,2", "could not convert"),
        ("0,0,a,1," + "2" * 200_000, "field larger than field limit"),
        ("0,0,a,1,2,3", "outside 0..1"),
    ],
)
def test_rows_that_are_no_points_are_named(row, words, tmp_path):
    (tmp_path / "a.csv").write_text("frame,time_s,id,x,y,visibility\n" + row + "\n")
    with pytest.raises(TracksError, match=words):
        load_tracks(tmp_path / "a.csv")


def test_a_table_of_one_row_per_frame_and_point_cannot_grow_quadratically(tmp_path):
    rows = "".join(f"{i},0,{i},1,1\n" for i in range(6000))
    (tmp_path / "a.csv").write_text("frame,time_s,id,x,y\n" + rows)
    with pytest.raises(TracksError, match=r"claims .* for 6000 frames of 6000 points"):
        load_tracks(tmp_path / "a.csv")


def test_a_device_is_not_read(tmp_path):
    for path in ("/dev/zero", tmp_path):
        with pytest.raises(TracksError, match="csv|a device or a pipe|a folder|end in"):
            load_any(path, "csv")
    (tmp_path / "q.json").mkdir()
    with pytest.raises(QueryError, match="is a folder, not a query file"):
        load_queries(tmp_path / "q.json")


def test_queries_in_json_are_checked(tmp_path):
    for data in ([{"t": 0}], [[0, 1]], {"queries": [[0, 1, "x"]]}, 3, {"queries": {"a": 1}}, [None], [{"t": 1}, 2]):
        (tmp_path / "q.json").write_text(json.dumps(data))
        with pytest.raises(QueryError, match=r"q\.json"):
            load_queries(tmp_path / "q.json")
