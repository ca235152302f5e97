"""Options that several commands share: each stands here once."""

from __future__ import annotations

from typing import Annotated

import typer

Occluded = Annotated[
    bool | None,
    typer.Option(
        "--occluded/--no-occluded",
        help="Draw occluded points, as rings, always or never. Default: fading, for some frames.",
        rich_help_panel="Look",
        show_default=False,
    ),
]
Trail = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Frames of a trail, 0 for none. Default: 12, and no longer than a quarter of the frame.",
        rich_help_panel="Look",
        show_default=False,
    ),
]
