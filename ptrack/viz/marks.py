"""Words on pictures, with a dark halo that keeps them readable on any ground."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=4096)
def _word(text: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the coverage (h, w) in 0..1 of a word and of its dark halo, both padded by 2 pixels."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text, stroke_width=2)
    masks = []
    for stroke in (0, 2):
        image = Image.new("L", (max(1, int(right - left) + 2), max(1, int(bottom - top) + 2)))
        ImageDraw.Draw(image).text((1 - left, 1 - top), text, fill=255, font=font, stroke_width=stroke)
        masks.append(np.asarray(image, dtype=np.float32) / 255)
    return masks[0], masks[1]


def draw_text(rgb: np.ndarray, text: str, x: float, y: float, size: int, colour: np.ndarray | None = None) -> None:
    """Write a word with a dark halo into the picture itself, its upper-left corner at (x, y); cut off at the border."""
    inner, halo = _word(text, size)
    left, top = round(x), round(y)
    x0, y0, x1, y1 = (
        max(left, 0),
        max(top, 0),
        min(left + inner.shape[1], rgb.shape[1]),
        min(top + inner.shape[0], rgb.shape[0]),
    )
    if x0 >= x1 or y0 >= y1:
        return
    part = rgb[y0:y1, x0:x1]
    cut = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    white = np.full(3, 255, np.float32) if colour is None else colour.astype(np.float32)
    dark = part * (1 - 0.7 * halo[cut][..., None])
    part[:] = (dark + (white - dark) * inner[cut][..., None] + 0.5).astype(np.uint8)


def text_size(height: int) -> int:
    """Return a readable size of letters, pixels, for a picture of this height."""
    return int(np.clip(round(height / 34), 10, 64))
