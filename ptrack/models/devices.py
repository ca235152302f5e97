"""Choosing where and in which number type a model runs, and saying why."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch

from ptrack.errors import DeviceError, count, did_you_mean
from ptrack.tensors import dtype_name

DEVICES = ("auto", "cpu", "cuda", "mps")
MEANT = {"gpu": "cuda", "nvidia": "cuda", "metal": "mps", "apple": "mps"}  # words for a device that are not its name
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class DeviceChoice:
    """A device and the reason it was chosen, for the user."""

    device: torch.device
    reason: str


def choose_device(wanted: str | torch.device = "auto") -> DeviceChoice:
    """Return the device for "auto", "cpu", "cuda", "cuda:1" or "mps", or for one of torch.

    Raises:
        DeviceError: unknown name, or the device is not there; the message states what is.
    """
    wanted = str(wanted)
    kind = wanted.partition(":")[0]
    if kind not in DEVICES:
        meant = MEANT.get(kind.lower())
        hint = f" Did you mean '{meant}'?" if meant else did_you_mean(kind, DEVICES)
        raise DeviceError(f"Unknown device '{wanted}'; choose one of {', '.join(DEVICES)}.{hint}")
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if kind == "auto":
        if cuda:
            return DeviceChoice(torch.device("cuda"), f"cuda ({torch.cuda.get_device_name()})")
        if mps:
            return DeviceChoice(torch.device("mps"), "mps (Apple GPU)")
        return DeviceChoice(torch.device("cpu"), f"cpu ({count(torch.get_num_threads(), 'thread')}; no GPU found)")
    if kind == "cuda":
        index = int(wanted.partition(":")[2] or 0) if wanted.partition(":")[2].isdecimal() or ":" not in wanted else -1
        if not cuda or not 0 <= index < torch.cuda.device_count():
            found = f"{torch.cuda.device_count()} found" if cuda else "this PyTorch finds no NVIDIA GPU"
            raise DeviceError(f"The device '{wanted}' is not available ({found}); use 'cpu' or 'auto'.")
    if kind == "mps" and not mps:
        raise DeviceError("The device 'mps' is not available (no Apple GPU); use 'cpu' or 'auto'.")
    return DeviceChoice(torch.device(wanted), f"{wanted} (as asked)")


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def choose_dtype(wanted: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Return the number type for "auto", "float32", "bfloat16", "float16" or one of torch's; "auto" asks ``device``.

    "auto" is bfloat16 on CUDA devices that have it and float32 elsewhere. Coordinates, correlation and sampling are
    float32 in every case. On a CPU bfloat16 pays where the processor multiplies matrices in it (AMX); with AVX512-BF16
    alone a plain ViT-S/14 takes 1.6 times as long as in float32, so that asking for it there is answered by a warning.

    Raises:
        DeviceError: unknown name, or float16 on a CPU.
    """
    wanted = dtype_name(wanted)
    if wanted == "auto":
        half = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if half else torch.float32
    if wanted not in DTYPES:
        known = ["auto", *DTYPES]
        raise DeviceError(
            f"Unknown number type '{wanted}'; choose one of {', '.join(known)}.{did_you_mean(wanted, known)}"
        )
    if wanted == "float16" and device.type == "cpu":
        raise DeviceError("The number type 'float16' pays on a GPU only; on the CPU use 'float32' or 'auto'.")
    if wanted == "bfloat16" and device.type == "cpu" and not _multiplies_bfloat16():
        warnings.warn("bfloat16 is slower than float32 on this processor: it has no AMX.", stacklevel=2)
    return DTYPES[wanted]


def _multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16 matrices."""
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)  # private, and absent in some builds
    return bool(probe and probe())
