"""The documentation site, made of the pages of this folder: ``sphinx-build -W docs site`` (extra ``docs``).

``index.md`` is both the list of pages that people read in the repository and the site's contents.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

VERSION = Path(__file__).resolve().parents[1] / "ptrack" / "_version.py"

project = "ptrack"
author = "The ptrack authors"
copyright = f"2026, {author}"
release = re.findall(r'"(\d.+)"', VERSION.read_text(encoding="utf-8"))[0]

extensions = ["myst_parser"]
exclude_patterns = ["examples"]
myst_heading_anchors = 3  # links to headings are made as GitHub makes them
nitpicky = True

html_theme = "furo"
html_title = f"ptrack {release}"
html_copy_source = False


def contents(index: str) -> str:
    """Return the site's contents: a caption for each heading of the index, an entry for each page linked below it."""
    parts = re.split(r"^## (.+)$", index, flags=re.MULTILINE)[1:]
    pages = [re.findall(r"\]\(([\w/]+)\.md\)", text) for text in parts[1::2]]
    trees = [
        "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", *found, "```"])
        for caption, found in zip(parts[::2], pages, strict=True)
    ]
    return "\n\n".join(trees)


def adapt(app: Any, page: str, source: list[str]) -> None:
    """Make a page of the repository one of the site: what lies outside this folder is named without a link."""
    text = re.sub(r"(?<!!)\[([^\]]+)\]\(\.\./(?!\w+\.md(?:#[\w-]+)?\))[^)]*\)", r"\1", source[0])
    text = re.sub(r"\[([^\]]+)\]\((?:\.\./)+[A-Z]+\.md(?:#[\w-]+)?\)", r"\1", text)
    source[0] = text + "\n\n" + contents(text) if page == "index" else text


def setup(app: Any) -> None:
    """Register ``adapt`` with Sphinx."""
    app.connect("source-read", adapt)
