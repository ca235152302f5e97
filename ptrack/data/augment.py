"""Augmentation of training clips, each step with its exact effect on the tracks (CoTracker and Track-On2's family).

Geometry (padding, zoom walk, moving crop, flips) is one source rectangle per frame: a frame is resampled once, with
antialiasing, and points go through the same linear map. Then rectangles are erased, which hides the points
under them, and colours and sharpness change, which moves nothing. The published code erases and jitters before it
resamples; here both happen on the cropped frame, so their sizes are output pixels and no pixel outside of the crop is
worked on.

Letters: T frames, N points, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from ptrack.config import check_bounds
from ptrack.errors import ConfigError

Rng = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is changed at random. The defaults are the published Track-On2 recipe (arXiv 2509.19115)."""

    erase: float = 0.5  # probability per frame (never the first) of erased rectangles
    erase_count: tuple[int, int] = (1, 10)  # rectangles in such a frame, inclusive
    erase_size: tuple[int, int] = (2, 99)  # their width and height, pixels, inclusive
    colour: float = 0.25  # probability per clip of colour jitter, drawn for every frame
    brightness: float = 0.2  # factor in 1 +- this
    contrast: float = 0.2  # factor in 1 +- this
    saturation: float = 0.2  # factor in 1 +- this
    hue: float = 0.25 / 3.14  # turn of the colour circle, +- this
    blur: float = 0.25  # probability per clip of Gaussian blur, drawn for every frame
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # pixels
    pad: int = 24  # black border of 0..pad source pixels on each side
    zoom: bool = True  # the walk of zoom and crop; False: the whole frame is stretched to the output size
    zoom_range: tuple[float, float] = (0.75, 1.25)  # scale of the clip
    zoom_relative: bool = False  # scale 1 is the smallest that covers the output, not the source's own pixels
    zoom_step: float = 0.05  # of the walk of each axis' scale
    zoom_limits: tuple[float, float] = (0.2, 2.0)  # scale of any frame (times the covering scale if relative)
    momentum: float = 0.8  # of the walks of zoom and crop
    crop_step: int = 15  # of the walk of the crop, pixels
    flip_x: float = 0.5  # probability per clip
    flip_y: float = 0.5  # probability per clip
    reverse: float = 0.0  # probability per clip of playing backwards (applied when frames are chosen)
    far: float = 1000.0  # points farther than this from the centre of any frame are dropped, pixels

    def __post_init__(self) -> None:
        probabilities = ("erase", "colour", "blur", "flip_x", "flip_y", "reverse")
        check_bounds(self, *probabilities, least=0, most=1, where="augment: ")
        for name in ("erase_count", "erase_size", "blur_sigma", "zoom_range"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"augment: {name} must be two rising positive numbers, not {low}, {high}.")

    @classmethod
    def none(cls) -> AugmentConfig:
        """Return the configuration that only stretches frames to the output size."""
        return cls(erase=0.0, colour=0.0, blur=0.0, pad=0, zoom=False, flip_x=0.0, flip_y=0.0)


# --- geometry ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Framing:
    """Where every output frame lies in its source frame."""

    boxes: np.ndarray  # (T, 4) float64 source pixels x0, y0, x1, y1; may reach outside, which is black
    size: tuple[int, int]  # output (H, W)
    flip_x: bool = False
    flip_y: bool = False

    def points(self, tracks: np.ndarray) -> np.ndarray:
        """Map (T, N, 2) source pixels to output pixels, float32; NaN stays NaN."""
        h, w = self.size
        low, extent = self.boxes[:, None, :2], self.boxes[:, None, 2:] - self.boxes[:, None, :2]
        out = (tracks - low) / extent * np.asarray([w, h], np.float64)
        if self.flip_x:
            out[..., 0] = w - out[..., 0]
        if self.flip_y:
            out[..., 1] = h - out[..., 1]
        with np.errstate(over="ignore"):  # absurdly far points become infinite, and are dropped as too far
            return out.astype(np.float32)

    def least_size(self, t: int, source: tuple[int, int]) -> tuple[int, int]:
        """Return the (H, W) to which frame ``t`` of ``source`` (H, W) may be reduced before it is resampled."""
        x0, y0, x1, y1 = self.boxes[t]
        return round(self.size[0] / (y1 - y0) * source[0]), round(self.size[1] / (x1 - x0) * source[1])

    def image(self, picture: Image.Image, t: int, reduced: int = 1) -> np.ndarray:
        """Resample frame ``t``, decoded at 1/``reduced`` of its size: (H, W, 3) uint8."""
        x0, y0, x1, y1 = self.boxes[t] / reduced
        left, top = max(0, int(np.ceil(-x0))), max(0, int(np.ceil(-y0)))
        right, bottom = max(0, int(np.ceil(x1 - picture.width))), max(0, int(np.ceil(y1 - picture.height)))
        if left or top or right or bottom:
            canvas = Image.new("RGB", (picture.width + left + right, picture.height + top + bottom))
            canvas.paste(picture, (left, top))
            picture = canvas
        h, w = self.size
        box = (x0 + left, y0 + top, min(x1 + left, picture.width), min(y1 + top, picture.height))
        if box != (0, 0, w, h) or picture.size != (w, h):
            picture = picture.resize((w, h), Image.Resampling.BILINEAR, box=box)
        if self.flip_x:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.flip_y:
            picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        return np.asarray(picture)


def draw_geometry(
    config: AugmentConfig,
    rng: Rng,
    source: tuple[int, int],
    size: tuple[int, int],
    tracks: np.ndarray,
    visible: np.ndarray,
) -> Framing:
    """Draw the geometry of a clip.

    Args:
        config: what is random.
        rng: random generator.
        source: (H, W) of the frames.
        size: (H, W) to give out.
        tracks: (T, N, 2) source pixels; the crop starts centred on the points visible in frame 0.
        visible: (T, N) bool.
    """
    t = len(tracks)
    border = rng.integers(0, config.pad + 1, 4) if config.pad else np.zeros(4, np.int64)  # left, top, right, bottom
    padded = (source[0] + border[1] + border[3], source[1] + border[0] + border[2])
    if config.zoom:
        centre = tracks[0][visible[0]].mean(axis=0) + border[:2] if visible[0].any() else None
        boxes = _walk(config, rng, padded, size, t, centre)
    else:
        boxes = np.tile(np.asarray([0.0, 0.0, padded[1], padded[0]]), (t, 1))
    boxes -= np.tile(border[:2], 2)
    return Framing(boxes, size, bool(rng.random() < config.flip_x), bool(rng.random() < config.flip_y))


def _walk(
    config: AugmentConfig, rng: Rng, padded: tuple[int, int], size: tuple[int, int], t: int, centre: np.ndarray | None
) -> np.ndarray:
    """Return (T, 4) boxes in the padded frame from the walks of zoom and crop."""
    source = np.asarray(padded[::-1], np.float64)  # (W, H) as all of this function
    crop = np.asarray(size[::-1], np.int64)
    unit = float((crop / source).max()) if config.zoom_relative else 1.0
    scale = np.full(2, rng.uniform(*config.zoom_range) * unit)
    limits = np.asarray(config.zoom_limits) * unit
    drift, shift = np.zeros(2), np.zeros(2, np.int64)
    corner = np.zeros(2, np.int64)
    boxes = np.zeros((t, 4))
    for k in range(t):
        if k:
            change = rng.uniform(-config.zoom_step, config.zoom_step, 2) * unit
            drift = change if k == 1 else config.momentum * drift + (1 - config.momentum) * change
        scale = scale + drift
        scale = np.clip((scale + scale.mean()) / 2, *limits)
        scaled = np.maximum((source * scale).astype(np.int64), crop + 10)
        scale = scaled / source
        if k == 0:
            start = crop if centre is None else centre * scale
            corner = (start - crop / 2).astype(np.int64)
        else:
            jump = rng.integers(-config.crop_step, config.crop_step + (k > 1), 2)
            shift = jump if k == 1 else (config.momentum * shift + (1 - config.momentum) * jump).astype(np.int64)
        corner = np.clip(corner + shift, 0, scaled - crop)
        boxes[k] = np.concatenate([corner / scale, (corner + crop) / scale])
    return boxes


# --- patches -----------------------------------------------------------------------------------------------------


def erase(config: AugmentConfig, rng: Rng, frames: np.ndarray, tracks: np.ndarray, visible: np.ndarray) -> None:
    """Fill rectangles with their mean colour and hide the points under them, in place.

    Args:
        config: what is random.
        rng: random generator.
        frames: (T, H, W, 3) uint8, changed.
        tracks: (T, N, 2) pixels.
        visible: (T, N) bool, changed.
    """
    for t in range(1, len(frames)):
        if rng.random() >= config.erase:
            continue
        for x0, y0, x1, y1 in _rectangles(rng, frames.shape[1:3], config.erase_count, config.erase_size):
            patch = frames[t, y0:y1, x0:x1]
            patch[...] = patch.reshape(-1, 3).mean(axis=0)
            _hide(tracks[t], visible[t], (x0, y0, x1, y1))


def _rectangles(
    rng: Rng, size: tuple[int, ...], count: tuple[int, int], extent: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """Draw rectangles with centres uniform over the frame, cut at its border, at least one pixel large."""
    number = int(rng.integers(count[0], count[1] + 1))
    centre = rng.uniform(0, 1, (number, 2)) * (size[1], size[0])
    half = rng.integers(extent[0], extent[1] + 1, (number, 2)) / 2
    low = np.clip(np.round(centre - half), 0, (size[1] - 1, size[0] - 1)).astype(int)
    high = np.clip(np.round(centre + half), low + 1, (size[1], size[0])).astype(int)
    return [(int(a), int(b), int(c), int(d)) for (a, b), (c, d) in zip(low, high, strict=True)]


def _hide(xy: np.ndarray, visible: np.ndarray, box: tuple[int, int, int, int]) -> None:
    """Hide the points of one frame that lie on the pixels of a rectangle."""
    x, y = xy[:, 0], xy[:, 1]
    visible &= ~((x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3]))


# --- colours -----------------------------------------------------------------------------------------------------


def photometric(config: AugmentConfig, rng: Rng, frames: np.ndarray) -> None:
    """Change colours and sharpness of (T, H, W, 3) uint8 frames in place."""
    jitter, blur = rng.random() < config.colour, rng.random() < config.blur
    if not (jitter or blur):
        return
    for t in range(len(frames)):
        picture = Image.fromarray(frames[t])
        if jitter:
            picture = _jitter(config, rng, picture)
        if blur:
            picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(*config.blur_sigma)))
        frames[t] = np.asarray(picture)


def _jitter(config: AugmentConfig, rng: Rng, picture: Image.Image) -> Image.Image:
    """Change brightness, contrast, saturation and hue in random order."""
    steps = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }
    for name in rng.permutation(["brightness", "contrast", "saturation", "hue"]):
        amount = getattr(config, name)
        if name == "hue":
            picture = _turn_hue(picture, rng.uniform(-amount, amount))
        else:
            picture = steps[name](picture).enhance(rng.uniform(max(0.0, 1 - amount), 1 + amount))
    return picture


def _turn_hue(picture: Image.Image, turn: float) -> Image.Image:
    """Turn the colour circle by a fraction of a full turn."""
    hue, saturation, value = picture.convert("HSV").split()
    shift = round(turn * 256)
    turned = hue.point([(h + shift) % 256 for h in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")
