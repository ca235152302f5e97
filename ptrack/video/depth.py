"""From numbers of more than eight bits to 0..255: one range for a whole source, never one per frame.

Sensors put 10, 12 or 14 bits into 16-bit numbers, thermal cameras use a narrow band of them, and floating-point
pictures have any scale. Taking the upper eight bits would leave most of these black. So the range is chosen once, from
the type of the numbers and from a few frames spread over the whole source; the same source always gives the same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

SAMPLES = 8  # frames that are looked at, spread evenly over the source
_MOST_VALUES = 250_000  # of each of them
_OUTLIERS = 0.01  # per cent of the values at either end that do not count: hot and dead pixels
_BITS = (8, 10, 12, 14, 16, 24, 32)  # what integers are meant to have
_SCALES = (1.0, 255.0, 65535.0)  # where floating-point pictures are meant to be white
_LEAST = 1 / 8  # share of a natural range that must be used; a narrower band is stretched
_MARGIN = 1 / 8  # of a band, added on both sides for the frames that were not looked at


def slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Yield the rows of an array in parts of about four million values: arithmetic on larger ones takes much memory."""
    rows = max(1, (1 << 22) // max(1, int(np.prod(shape[1:]))))
    return (slice(begin, begin + rows) for begin in range(0, shape[0], rows))


class Depth:
    """Maps values to 0..255; what lies outside the range is black or white.

    Args:
        low, high: values that become 0 and 255.
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = float(low), float(high)
        self._table: np.ndarray | None = None

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return ``values`` of any number type and shape as uint8; NaN becomes 0."""
        if values.dtype in (np.uint8, np.uint16):
            if self._table is None or len(self._table) < np.iinfo(values.dtype).max + 1:
                self._table = self._map(np.arange(np.iinfo(values.dtype).max + 1))
            return self._table[values]
        mapped = np.empty(values.shape, np.uint8)
        for rows in slabs(values.shape):
            mapped[rows] = self._map(values[rows])
        return mapped

    def _map(self, values: np.ndarray) -> np.ndarray:
        scaled = (np.asarray(values, np.float64) - self.low) / (self.high - self.low) * 255
        return np.nan_to_num(np.clip(np.rint(scaled), 0, 255), nan=0.0).astype(np.uint8)


def type_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the range of a number type: 0..1 for floating point, 0 up to the largest number for integers."""
    return (0.0, 1.0) if dtype.kind == "f" else (0.0, float(np.iinfo(dtype).max))


def chosen_range(samples: Sequence[np.ndarray], bits: int | None = None, whole: bool = True) -> tuple[float, float]:
    """Return the (low, high) values that become black and white.

    Args:
        samples: values of pictures of one source (``sample_of``), all of one number type.
        bits: bits that the integers use by the file's header, if it has them.
        whole: the samples are spread over the whole source. If not, a narrow band is not stretched: the rest may
            be brighter.
    """
    values = np.concatenate(samples).astype(np.float64)
    values = values[np.isfinite(values)]
    kind = samples[0].dtype
    if values.size == 0:
        return type_range(kind)
    low, high = (float(v) for v in np.percentile(values, [_OUTLIERS, 100 - _OUTLIERS]))
    tops = _SCALES if kind.kind == "f" else [2.0**b - 1 for b in ([bits] if bits else _BITS)]
    top = next((t for t in tops if high <= t), None)
    if low >= 0 and top is not None and (not whole or high - low >= _LEAST * top):
        return 0.0, top
    if not whole:
        return type_range(kind)
    margin = _MARGIN * (high - low) or 0.5
    return low - margin, high + margin


def sample_of(values: np.ndarray) -> np.ndarray:
    """Return at most about _MOST_VALUES of a picture's values, evenly taken, with its least and greatest one."""
    flat = np.asarray(values).reshape(-1)
    finite = np.isfinite(flat)
    start, end = (np.inf, -np.inf) if flat.dtype.kind == "f" else (np.iinfo(flat.dtype).max, np.iinfo(flat.dtype).min)
    ends = [flat.min(where=finite, initial=start), flat.max(where=finite, initial=end)]
    return np.append(flat[:: max(1, flat.size // _MOST_VALUES)], np.array(ends, flat.dtype))


def spread(count: int) -> list[int]:
    """Return the numbers of the frames to look at out of ``count``: the first, the last and others between."""
    return sorted({round(i * (count - 1) / (SAMPLES - 1)) for i in range(SAMPLES)}) if count else []


def range_warning(name: str, samples: Sequence[np.ndarray], chosen: tuple[float, float]) -> str:
    """Return the sentence for the user with the range that was taken."""
    kind = samples[0].dtype
    finite = [sample[np.isfinite(sample)] for sample in samples]
    low = min((float(s.min()) for s in finite if s.size), default=0.0)
    high = max((float(s.max()) for s in finite if s.size), default=0.0)
    numbers = f"{kind.itemsize * 8}-bit {'floating-point ' if kind.kind == 'f' else ''}numbers"
    return (
        f"{name}: {numbers}, {low:g} to {high:g} in the frames looked at; {chosen[0]:g} to {chosen[1]:g} become "
        "black to white in every frame. Give range to change that."
    )
