"""Peak memory of one measurement, not of the whole life of the process."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Peak:
    """Largest memory of a measurement, bytes."""

    process: int  # resident
    gpu: int  # allocated by torch; 0 without a GPU


class MemoryMeter:
    """Starts measuring when it is made.

    On Linux the kernel's high-water mark is reset; elsewhere ``peak`` is the largest value since the process began.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device if device is not None and device.type == "cuda" else None
        if self.device is not None:
            torch.cuda.reset_peak_memory_stats(self.device)
        with suppress(OSError):
            RESET.write_text("5")  # resets VmHWM, see proc(5)

    def now(self) -> int:
        """Return the resident memory in bytes, 0 where the system does not report it."""
        return _status("VmRSS")

    def peak(self) -> Peak:
        """Return the largest memory since the start."""
        gpu = torch.cuda.max_memory_allocated(self.device) if self.device is not None else 0
        return Peak(_status("VmHWM") or resident_peak(), gpu)


def _status(key: str) -> int:
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return 0


def resident_peak() -> int:
    """Return the largest resident memory in bytes since the process began, 0 where the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
