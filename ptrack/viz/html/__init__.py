"""The HTML viewer: one file that plays a video with its tracks, from disk, without a network."""

from __future__ import annotations

from ptrack.viz.html.builder import viewer_html, write_viewer

__all__ = ["viewer_html", "write_viewer"]
