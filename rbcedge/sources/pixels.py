"""From whatever a decoder returns to (H, W, 3) uint8 blue, green, red."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# White levels of cameras with 8, 10, 12, 14 and 16 bits.
_WHITE = (255, 1023, 4095, 16383, 65535)


def to_bgr8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert a decoded picture to contiguous (H, W, 3) uint8.

    - Grey is repeated in the three channels; a transparent picture is laid over white, the background of a
      smear.
    - More than 8 bits: the white level is the smallest of 255, 1023, 4095, 16383, 65535 that holds the
      brightest value, so that a 12-bit camera's data in a 16-bit file keep their brightness (a smear always
      has bright background), and values are divided by it. Full 16-bit data become ``v / 65535 * 255``, which
      is ``v >> 8`` to within one grey level.
    - Floats up to 1 are taken as 0..1, larger ones by the rule above; negative values become 0.

    Parameters
    ----------
    pixels : (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), any number type
        Channels in OpenCV's order.

    Raises
    ------
    ValueError
        In words fit for the user: the shape or the values are not those of a picture.
    """
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4) or pixels.size == 0:
        raise ValueError(f"not a grey or colour picture (its array is {'x'.join(map(str, pixels.shape))})")
    if pixels.dtype != np.uint8:
        pixels = _to_8bit(pixels)
    channels = pixels.shape[2]
    if channels == 3:
        return np.ascontiguousarray(pixels)
    if channels == 1:
        return np.ascontiguousarray(np.repeat(pixels, 3, axis=2))
    colour, alpha = pixels[:, :, :-1], pixels[:, :, -1:]
    if channels == 2:
        colour = np.repeat(colour, 3, axis=2)
    if alpha.min() == 255:
        return np.ascontiguousarray(colour)
    a = alpha.astype(np.uint16)
    return ((colour * a + 255 * (255 - a) + 127) // 255).astype(np.uint8)


def _to_8bit(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale to 8 bits by the white level. An alpha channel always uses the type's full range."""
    channels = pixels.shape[2]
    colours = pixels[:, :, : channels - (channels in (2, 4))]
    if pixels.dtype.kind == "f":
        if not np.isfinite(pixels).all():
            raise ValueError("some of its values are not numbers")
        full = 1.0
    else:
        full = float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind in "iu" else 1.0
    brightest = float(colours.max())
    if pixels.dtype.kind == "f" and brightest <= 1.0:
        white = 1.0
    else:
        white = next((float(w) for w in _WHITE if brightest <= w), 0.0)
        if not white:
            raise ValueError(f"its brightest value is {brightest:g}, above the 65535 of a 16-bit picture")
    out = np.empty(pixels.shape, np.uint8)
    for c in range(channels):
        level = white if c < colours.shape[2] else full
        scaled = pixels[:, :, c].astype(np.float32) * np.float32(255.0 / level)
        out[:, :, c] = np.clip(scaled + np.float32(0.5), 0, 255)
    return out


def frame_to_bgr8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert one picture of a stream, by a rule that is the same for every picture of it.

    As `to_bgr8`, but more than 8 bits are always taken as full 16: a rule that looks at the brightest value
    would make a live picture flicker.
    """
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.ndim == 2 and pixels.dtype == np.uint8:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR), np.uint8)
    return to_bgr8(pixels)
