"""Words and colour scales on pictures, with a dark halo that keeps them readable on any ground."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ptrack.viz.palette import ColourScale


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


def draw_text(rgb: np.ndarray, text: str, x: float, y: float, size: int) -> None:
    """Write a word with a dark halo into the picture itself, its upper-left corner at (x, y); cut off at the border."""
    inner, halo = _word(text, size)
    left, top = round(x), round(y)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + inner.shape[1], rgb.shape[1]), min(top + inner.shape[0], rgb.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    part = rgb[y0:y1, x0:x1]
    cut = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    dark = part * (1 - 0.7 * halo[cut][..., None])
    part[:] = (dark + (255 - dark) * inner[cut][..., None] + 0.5).astype(np.uint8)


def text_size(height: int) -> int:
    """Return a readable size of letters, pixels, for a picture of this height."""
    return int(np.clip(round(height / 34), 10, 64))


def draw_scale(rgb: np.ndarray, scale: ColourScale, top: bool = False) -> None:
    """Draw a bar of the scale's colours with its label and ends into the picture's lower (or upper) left corner."""
    height, width = rgb.shape[:2]
    size = text_size(height)
    gap, thickness = size // 3, max(4, size // 2)
    length = int(min(max(6 * size, 0.22 * width, word_width(scale.label, size)), width - 2 * gap))
    y = gap if top else height - 2 * size - thickness - 2 * gap
    x, bar = gap, y + size + gap
    back = rgb[max(0, y - gap // 2) : bar + thickness + size + gap, : x + length + gap]
    back[:] = (0.45 * back).astype(np.uint8)
    shades = scale.colours[np.linspace(0, len(scale.colours) - 1, length).round().astype(int)]
    area = rgb[max(bar, 0) : max(bar + thickness, 0), x : x + length]
    area[:] = shades[: area.shape[1]]
    draw_text(rgb, scale.label, x, y, size)
    draw_text(rgb, scale.low, x, bar + thickness, size)
    draw_text(rgb, scale.high, x + length - word_width(scale.high, size), bar + thickness, size)


def word_width(text: str, size: int) -> int:
    """Return the width of a word in pixels, its halo included."""
    return _word(text, size)[0].shape[1]
