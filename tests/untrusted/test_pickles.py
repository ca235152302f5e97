"""Pickles: arrays and containers come back; programs in them do not run; claims do not take memory."""

from __future__ import annotations

import pickle
import resource

import numpy as np
import pytest

from ptrack.data.pickles import load_npy, load_pickle
from ptrack.errors import DataError

CORE = "numpy._core.multiarray" if hasattr(np, "_core") else "numpy.core.multiarray"


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_containers_come_back(protocol, tmp_path):
    value = {
        "a": np.arange(12, dtype=">i4").reshape(3, 4),
        "f": np.asfortranarray(np.eye(3, 4)),
        "s": np.float32(2.5),
        "o": np.asarray([[1], (2, 3), "x"], dtype=object),
        "t": np.asarray(["ab", "c"]),
        "n": [1, (2.5, None), {3}, b""],
        "big": np.zeros(17 << 20 if protocol == 4 else 9, np.uint8),
        "empty": np.zeros((0, 3)),
        "flag": np.bool_(True),
        "same": 1,
    }
    value["same"] = value["a"]
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    back = load_pickle(path)
    for name in ("a", "f", "s", "t", "big", "empty", "flag", "same"):
        np.testing.assert_array_equal(back[name], value[name])
        assert np.asarray(back[name]).dtype == np.asarray(value[name]).dtype
    assert back["n"] == value["n"]
    assert back["o"].tolist() == value["o"].tolist()
    assert back["same"] is back["a"]


def test_an_array_of_objects_comes_back(tmp_path):
    np.save(tmp_path / "a.npy", np.asarray({"x": np.arange(3)}, dtype=object))
    assert load_npy(tmp_path / "a.npy")["x"].tolist() == [0, 1, 2]


def program(*lines: bytes) -> bytes:
    return b"\x80\x02" + b"".join(lines) + b"."


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


ARRAY = name(CORE, "_reconstruct") + name("numpy", "ndarray") + b"K\x00\x85U\x01b\x87R"
FLOAT = name("numpy", "dtype") + b"X\x02\x00\x00\x00f8\x85R"
PROGRAMS = {
    "system": (program(name("os", "system"), b"X\x04\x00\x00\x00true\x85R"), "asks for 'os.system'"),
    "long name": (program(name("os", "x" * 5000)), r"asks for 'os\.x{77}'; "),
    "eval": (program(name("builtins", "eval"), b"X\x01\x00\x00\x001\x85R"), "asks for 'builtins.eval'"),
    "memory of a name": (program(b"N", b"r\xff\xff\xff\x7f"), ""),
    "text longer than the file": (program(b"X\xff\xff\xff\x7fabc"), "ends too early"),
    "bytes longer than memory": (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc.", "ends too early|damaged"),
    "bytearray longer than the file": (b"\x80\x05\x96" + bytes(3) + b"\xff\x00\x00\x00\x00abc.", "ends too early"),
    "array by its class": (
        program(name("numpy", "ndarray"), b"J\xff\xff\xff\x7f\x85\x85R"),
        "'numpy.ndarray'",
    ),
    "bytearray": (program(name("builtins", "bytearray"), b"J\xff\xff\xff\x7f\x85R"), "bytearray of another kind"),
    "large start": (
        program(name(CORE, "_reconstruct"), name("numpy", "ndarray"), b"J\xff\xff\xff\x7f\x85U\x01b\x87R"),
        "an array of another kind",
    ),
    "shape without data": (
        program(ARRAY, b"(K\x01J\xff\xff\xff\x7f\x85", FLOAT, b"\x89U\x08", bytes(8), b"tb"),
        "claims 16 GiB for an array",
    ),
    "objects beyond the list": (
        program(ARRAY, b"(K\x01M\xff\x00\x85", name("numpy", "dtype"), b"X\x01\x00\x00\x00O\x85R", b"\x89]tb"),
        "another number of values",
    ),
    "type with fields": (
        program(FLOAT, b"(K\x03U\x01<NU\x01aJ\xff\xff\xff\xffJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"),
        "structured arrays|an array of another kind",
    ),
    "state of a dict": (program(b"}", b"}b"), "objects with a state of their own"),
    "lists of lists": (program(b"]q\x00" + b"(h\x00h\x00lq\x00" * 40), "stands for more than 50000000 values"),
    "a list in itself": (program(b"]q\x00h\x00a"), "contains itself"),
    "copies of copies": (
        program(b"(" + b"K\x01" * 1000 + b"lq\x01", (name("builtins", "tuple") + b"h\x01\x85R0") * 70_000, b"N"),
        "claims .* for values",
    ),
}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_programs_do_not_run_and_claims_take_no_memory(kind, tmp_path):
    data, words = PROGRAMS[kind]
    (tmp_path / "a.pkl").write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if words:
        with pytest.raises(DataError, match=words):
            load_pickle(tmp_path / "a.pkl")
    else:
        load_pickle(tmp_path / "a.pkl")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB
