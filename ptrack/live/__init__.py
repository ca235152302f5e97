"""Live streams: frames are tracked as they come, every result is published at once, and memory stays flat for days.

``capture`` reads in a thread (drops, reconnects), ``session`` is the loop, ``points`` decides which points come and go,
``publish`` has the outputs and ``recorder`` the tracks files. ``reference`` finds points that were chosen on a picture.
"""

from __future__ import annotations

from ptrack.live.capture import Capture, CaptureOptions
from ptrack.live.publish import LiveFrame
from ptrack.live.session import LiveOptions, LiveReport, run_live

__all__ = ["Capture", "CaptureOptions", "LiveFrame", "LiveOptions", "LiveReport", "run_live"]
