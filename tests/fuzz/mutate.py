"""Damage that knows nothing of formats: cut, flipped, swapped, repeated and overwritten bytes."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable

NUMBERS = (
    0,
    1,
    2,
    7,
    127,
    128,
    255,
    256,
    32767,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63 - 1,
    2**64 - 1,
)
HEAD = 512  # bytes in which most formats keep their header


def place(data: bytearray, rng: random.Random) -> int:
    """Return a position, half of the time in the header."""
    return rng.randrange(min(len(data), HEAD) if rng.random() < 0.5 else len(data))


def truncate(data: bytearray, rng: random.Random) -> None:
    """Cut the end off."""
    del data[rng.randrange(len(data)) :]


def flip(data: bytearray, rng: random.Random) -> None:
    """Flip 1 to 8 single bits."""
    for _ in range(rng.randint(1, 8)):
        data[place(data, rng)] ^= 1 << rng.randrange(8)


def overwrite(data: bytearray, rng: random.Random) -> None:
    """Replace up to 16 bytes by random ones, zeros or ones."""
    at, n = place(data, rng), rng.randint(1, 16)
    data[at : at + n] = rng.choice([rng.randbytes(n), bytes(n), b"\xff" * n])


def number(data: bytearray, rng: random.Random) -> None:
    """Write a number at which programs break, in any width and order."""
    at, width = place(data, rng), rng.choice("BHIQ")
    packed = struct.pack(rng.choice("<>") + width, rng.choice(NUMBERS) & (2 ** (8 * struct.calcsize(width)) - 1))
    data[at : at + len(packed)] = packed


def digits(data: bytearray, rng: random.Random) -> None:
    """Replace a number written in digits."""
    found = list(re.finditer(rb"\d+", data[:65536]))
    if found:
        one = rng.choice(found)
        new = rng.choice([b"0", b"-1", b"1e999", b"nan", b"", b"9" * rng.choice([3, 20, 5000]), b"0.5"])
        data[one.start() : one.end()] = new


def swap(data: bytearray, rng: random.Random) -> None:
    """Exchange two blocks."""
    n = rng.randint(1, max(1, len(data) // 4))
    a, b = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    data[a : a + n], data[b : b + n] = data[b : b + n], data[a : a + n]


def repeat(data: bytearray, rng: random.Random) -> None:
    """Insert a block again, a few or many times."""
    a = rng.randrange(len(data))
    block = data[a : a + rng.randint(1, 64)]
    data[a:a] = block * rng.choice([1, 2, 50, 2000])


def remove(data: bytearray, rng: random.Random) -> None:
    """Take a block out."""
    a = place(data, rng)
    del data[a : a + rng.randint(1, 64)]


KINDS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    truncate,
    flip,
    flip,
    overwrite,
    number,
    number,
    number,
    digits,
    swap,
    repeat,
    remove,
)


def damaged(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """Return ``data`` with one to three kinds of damage, or its start with the end of ``other``."""
    if other and rng.random() < 0.05:
        return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if changed:
            rng.choice(KINDS)(changed, rng)
    return bytes(changed)
