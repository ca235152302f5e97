"""Reading files that anybody may have made: sizes are checked before memory is taken, no link is followed, no code run.

``limits`` holds the limits and turns whatever a damaged file brings up into one sentence; ``h5``, ``npz``, ``text`` and
``pickles`` read HDF5, NumPy archives, JSON, YAML, CSV and pickles within them. docs/reliability.md states the limits.
"""

from __future__ import annotations

from ptrack.untrusted.limits import Budget, Refused, reading, reason_of

__all__ = ["Budget", "Refused", "reading", "reason_of"]
