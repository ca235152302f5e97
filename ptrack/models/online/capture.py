"""Compiled inference on GPUs: fixed shapes, one captured graph per buffer size instead of hundreds of launches.

The encoder has fixed shapes anyway. A step gets them by tracking whole buffers (they grow by doubling): rows that are
no points are computed and hidden from the others in query attention, the only place where points meet.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch

from ptrack.models.online.model import TrackOn2


def captured(model: TrackOn2, **options: Any) -> TrackOn2:
    """Switch a model to compiled inference, in place, and return it.

    Whatever keeps the compiler from working (no C compiler, an unsupported GPU) costs one warning, and the model goes
    on uncompiled with the same results.

    Args:
        model: in evaluation mode.
        **options: of ``torch.compile``; by default CUDA graphs are captured on CUDA devices.
    """
    if not options and model.device.type == "cuda":
        options = {"mode": "reduce-overhead"}
    model.fixed_shapes = True
    plain = model._track
    compiled = torch.compile(plain, dynamic=False, **options)

    def find(*args: Any, **kwargs: Any) -> Any:
        try:
            torch.compiler.cudagraph_mark_step_begin()
            return compiled(*args, **kwargs)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            warnings.warn(f"Compiling the tracker failed ({reason}); it runs uncompiled.", stacklevel=2)
            model._find = plain
            return plain(*args, **kwargs)

    model._find = find
    return model
