"""Tracks in the file formats of other programs. Every format states where its coordinates start.

``FORMATS`` lists them; ``export`` writes one and ``load_any`` reads those that can be read back. ptrack's own formats
(HDF5, NPZ, CSV, JSON) belong to ``ptrack.tracks_io`` and are reached through the same two functions.
"""

from __future__ import annotations

from ptrack.exports.formats import FORMATS, Format, export, find_format, guess_format, load_any

__all__ = ["FORMATS", "Format", "export", "find_format", "guess_format", "load_any"]
