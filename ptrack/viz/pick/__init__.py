"""Picking query points in the browser: a page on this machine only, served by the standard library."""

from __future__ import annotations

from ptrack.viz.pick.server import PickServer
from ptrack.viz.pick.session import PickSession

__all__ = ["PickServer", "PickSession"]
