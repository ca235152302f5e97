"""Damage that knows the format: claims of too much, links, code, depth and repetition in otherwise sound files."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

HUGE = (0, 1, 3, 2**20, 2**31 - 1, 2**40, 2**62)
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1e308,
    float("nan"),
    float("inf"),
    10**30,
    10**5000,
    "",
    "x" * 100_000,
    "\ud800",
    [],
    {},
    [[]],
    {"a": 1},
    [None] * 1000,
    "1e999",
    "../../etc/passwd",
)


def command(marker: Path) -> bytes:
    """Return the end of a pickle that would make the file ``marker``."""
    text = f"touch {marker}".encode()
    return b"cos\nsystem\nX" + struct.pack("<I", len(text)) + text + b"\x85R."


def npy(rng: random.Random, data: bytes) -> bytes:
    """Return a ``.npy`` whose header says something else than its data."""
    shape = tuple(rng.choice(HUGE) for _ in range(rng.randint(0, 4)))
    kind = rng.choice(["<f4", "<f8", "|O", "|u1", "<U9", "|V99999999", "<c16", "<M8[ns]", "|b1", [("a", "<f4")], "<i8"])
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": kind, "fortran_order": rng.random() < 0.5, "shape": shape})
    return buffer.getvalue() + data[-rng.randrange(1, len(data) + 1) :]


def archive(path: Path, rng: random.Random, marker: Path) -> bytes:
    """Return a NumPy or PyTorch archive with one member changed, left out, repeated or made large."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name = rng.choice(list(members))
    data = members[name]
    what = rng.randrange(6)
    if what == 0:
        members[name] = npy(rng, data) if name.endswith(".npy") else program(data, rng, marker)
    elif what == 1:
        del members[name]
    elif what == 2:
        members[name] = data + bytes(rng.choice([1, 1 << 20, 300 << 20]) if rng.random() < 0.1 else 64)
    elif what == 3 and name.endswith(".pkl"):
        members[name] = program(data, rng, marker)
    elif what == 4:
        members["../../evil.npy"] = data
    else:
        members[name] = npy(rng, data)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]), compresslevel=1) as file:
        for key, value in members.items():
            file.writestr(key, value)
    return buffer.getvalue()


def program(data: bytes, rng: random.Random, marker: Path) -> bytes:
    """Return a pickle with something harmful put in."""
    at = rng.randrange(len(data) + 1)
    pieces = (
        command(marker),
        b"r\xff\xff\xff\x7f",
        b"\x8e" + b"\xff" * 7 + b"\x7f",
        b"B\xff\xff\xff\x7f",
        b"(" * 10_000,
        b"]" * 10_000,
        b"\x95" + b"\xff" * 8,
        b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R",
        b"cbuiltins\neval\n",
        b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85\x85R",
        b"L" + b"9" * 5000 + b"\n",
        b"Q",
        b"b",
        b"R",
        b"o",
        b"ios\nsystem\n",
        b"\x82\x01",
        b"h\x00" * 1000,
        b"2" * 5000,
        b"e",
        b"u",
        b"s",
    )
    piece = rng.choice(pieces)
    return piece if piece is pieces[0] and rng.random() < 0.3 else data[:at] + piece + data[at:]


def hdf5(path: Path, rng: random.Random, marker: Path) -> bytes:
    """Return an HDF5 file with a dataset or an attribute replaced."""
    data = io.BytesIO(path.read_bytes())
    with h5py.File(data, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = rng.choice(names)
        owner, _, leaf = name.rpartition("/")
        group = file[owner] if owner else file
        if rng.random() < 0.3:
            item = rng.choice([file, file[name]])
            keys = list(item.attrs) or ["x"]
            item.attrs[rng.choice(keys)] = rng.choice(
                [-1, 2**62, "x", b"\xff", np.nan, np.zeros(5000), [b"a", b"b"], ""]
            )
            return _bytes(file, data)
        old = file[name]
        del group[leaf]
        _replace(group, leaf, old, rng)
        return _bytes(file, data)


def _bytes(file: h5py.File, data: io.BytesIO) -> bytes:
    file.flush()
    return data.getvalue()


def _replace(group: Any, leaf: str, old: Any, rng: random.Random) -> None:
    """Put something else in the place of a dataset or group."""
    shape = getattr(old, "shape", (3,)) or (3,)
    what = rng.randrange(10)
    if what == 0:
        group[leaf] = h5py.ExternalLink(rng.choice(["/etc/passwd", "a.h5"]), "/x")
    elif what == 1:
        group[leaf] = h5py.SoftLink(rng.choice(["/", "/nothing", leaf]))
    elif what == 2:
        large = tuple(rng.choice(HUGE) for _ in shape)
        group.create_dataset(leaf, large, "f4", chunks=tuple(min(max(1, n), 1 << rng.choice([0, 4, 9])) for n in large))
    elif what == 3:
        group.create_dataset(leaf, data=np.asarray([b"text", b"\xff"] * 3, dtype=object))
    elif what == 4:
        group.create_group(leaf)
    elif what == 5:
        layout = h5py.VirtualLayout(shape, "f4")
        layout[...] = h5py.VirtualSource("/etc/passwd", "x", shape)
        group.create_virtual_dataset(leaf, layout)
    elif what == 6:
        group[leaf] = group
    elif what == 7:
        group[leaf] = rng.choice(
            [np.float32(3), np.zeros(0), np.full(shape, np.nan), np.full(shape, -5), np.zeros((2,) * 7)]
        )
    elif what == 8:
        group.create_dataset(leaf, shape, "f4", external=[("/etc/passwd", 0, 10_000)])


def document(path: Path, rng: random.Random, marker: Path) -> bytes:
    """Return a JSON document with values replaced by odd ones, or one that is all depth."""
    if rng.random() < 0.1:
        return rng.choice(
            [b"[" * 10**6, b'{"a":' * 10**5, b"[" + b"[]," * 10**6 + b"1]", b'"' + b"x" * 10**6, b"-", b"\xff\xfe[\x00"]
        )
    value = json.loads(path.read_bytes())
    for _ in range(rng.randint(1, 3)):
        value = _changed(value, rng)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _changed(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        return (
            value | {key: _changed(value[key], rng)}
            if rng.random() < 0.9
            else {k: v for k, v in value.items() if k != key}
        )
    if isinstance(value, list) and value and rng.random() < 0.7:
        i = rng.randrange(len(value))
        return [*value[:i], _changed(value[i], rng), *value[i + 1 :]]
    return rng.choice([v for v in ODD if not (isinstance(v, int) and abs(v) > 10**4000)])


def table(path: Path, rng: random.Random, marker: Path) -> bytes:
    """Return a CSV with cells, columns or rows changed."""
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    for _ in range(rng.randint(1, 3)):
        row = rng.choice(rows)
        cell = rng.randrange(len(row))
        what = rng.randrange(6)
        if what == 0:
            row[cell] = rng.choice(
                ["", "nan", "-1", "1e999", "9" * 30, "9" * 5000, "x" * 200_000, '"', '"""', "\0", "é", "1_0", " 3 "]
            )
        elif what == 1:
            del row[cell]
        elif what == 2:
            row += ["7"] * rng.choice([1, 50, 100_000])
        elif what == 3:
            rows.append([str(rng.randrange(10**9)), "0", f"p{rng.random()}", "1", "2", "1", "1"])
        elif what == 4:
            rows *= rng.choice([1, 2, 30])
        else:
            rows.insert(0, row)
    return rng.choice(["\n", "\r\n", "\r"]).join(",".join(row) for row in rows).encode("utf-8")


def settings(path: Path, rng: random.Random, marker: Path) -> bytes:
    """Return YAML with aliases, depth, tags and code."""
    bombs = "\n".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    parts = (
        "a: &a [x]\n" + bombs,
        "z: " + "[" * 20_000,
        "z: " + "{a: " * 3000,
        "z: &z [*z]",
        f"z: !!python/object/apply:os.system ['touch {marker}']",
        "z: !!int x",
        "z: 0x" + "f" * 100_000,
        "z: 1:2:3:4",
        "? [1]\n: 2",
        "z: !!binary '*'",
        "z: !!set {a, b}",
        "<<: 3",
        "<<: [1]",
        "z: 2001-99-99",
        "z: " + "9" * 5000,
        "- 1",
        "z: '\\x",
        'z: "\\uZ"',
        "z: " + "x" * 300_000,
        "\t",
        "%YAML 9",
        "z: !<tag:yaml.org,2002:omap> [a]",
        "z: .inf",
        "z: =",
    )
    return (path.read_text() + "\n" + rng.choice(parts) + "\n").encode()


def tensors(path: Path, rng: random.Random, marker: Path) -> bytes:
    """Return safetensors with another header."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + length])
    if rng.random() < 0.4:
        inner = json.loads(head["__metadata__"]["config"])
        key = rng.choice(["dim", "radius", "iterations", "hidden", "memory", "token", "input_size", "zzz", "threshold"])
        inner[key] = rng.choice([0, -1, 10**9, 10**400, 1.5, "x", None, [1, 2, 3], [10**9, 10**9], True])
        head["__metadata__"]["config"] = rng.choice([json.dumps(inner), "[" * 10**5, "3", "[1]", "{"])
    else:
        head = _changed(head, rng)
    text = json.dumps(head).encode("utf-8", "surrogatepass")
    claim = len(text) if rng.random() < 0.8 else rng.choice(HUGE)
    return struct.pack("<Q", claim) + text + data[8 + length :]


def picture(path: Path, rng: random.Random, marker: Path) -> bytes:
    """Return a picture whose header claims another size; PNG's checksums are made to fit."""
    data = bytearray(path.read_bytes())
    side = rng.choice([0, 1, 7, 20_000, 65_535, 2**31 - 1])
    if data[:4] == b"\x89PNG":
        data[16 + 4 * rng.randrange(2) :][:4] = b""
        at = rng.choice([16, 20])
        data[at : at + 4] = struct.pack(">I", side)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif data[:3] == b"GIF":
        data[6:10] = struct.pack("<HH", side & 0xFFFF, rng.choice([side & 0xFFFF, 65_535]))
    elif (at := data.find(b"\xff\xc0")) > 0:
        data[at + 5 : at + 9] = struct.pack(">HH", side & 0xFFFF, rng.choice([side & 0xFFFF, 65_535]))
    else:
        at = rng.randrange(min(64, len(data) - 4))
        data[at : at + 4] = struct.pack(rng.choice("<>") + "I", side & 0xFFFFFFFF)
    return bytes(data)


BY_SUFFIX: dict[str, Callable[[Path, random.Random, Path], bytes]] = {
    ".npz": archive,
    ".pt": archive,
    ".pth": archive,
    ".h5": hdf5,
    ".json": document,
    ".csv": table,
    ".yaml": settings,
    ".safetensors": tensors,
    ".png": picture,
    ".jpg": picture,
    ".gif": picture,
    ".tif": picture,
    ".webp": picture,
    ".bmp": picture,
    ".pkl": lambda path, rng, marker: program(path.read_bytes(), rng, marker),
    ".npy": lambda path, rng, marker: npy(rng, path.read_bytes()),
}


def damaged(path: Path, rng: random.Random, marker: Path) -> bytes | None:
    """Return a harmful variant of a sound file, None where nothing is known of its format."""
    change = BY_SUFFIX.get(path.suffix)
    if change is None:
        return None
    try:
        return change(path, rng, marker)
    except (KeyError, ValueError, TypeError, OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile):
        return None  # this variant cannot be made of this file, such as an archive of the old kind
