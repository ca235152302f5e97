"""A model for ptrack: block matching. This module is read whenever models are listed, so it imports no torch."""

from ptrack.models.entry import ModelEntry

ENTRY = ModelEntry(
    name="block-matching",
    summary="the grey block of the query frame, looked for around the last position",
    licence="none needed",
    weights="none",
    builder="ptrack_block_matching.model:build",
    options=("radius",),  # ptrack.load("block-matching", radius=20)
)
