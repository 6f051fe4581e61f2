"""Random changes that other microscopes make: stain, colour, blur, noise, scale, direction.

Pictures here are what the networks see: red, green, blue after flat field, the background at `BACKGROUND`.
Stain changes work on optical density, where a stronger or another dye is a product and a mixture is a sum.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from rbcedge.pipeline.illumination import BACKGROUND

Pixels = NDArray[np.uint8]
_GREY = np.arange(256, dtype=np.float32)
# Drawing noise anew for every picture would cost more than everything else here.
_NOISE = np.random.default_rng(0).standard_normal(1 << 21, np.float32)


def stain(rng: np.random.Generator, pixels: Pixels, strength: float = 1.0) -> Pixels:
    """Change dye strength and hue per channel, mix channels, turn grey at times. (H, W, 3) uint8 to the same."""
    common = rng.lognormal(0, 0.25 * strength)
    each = rng.lognormal(0, 0.25 * strength, 3) * common
    level = BACKGROUND * (1 + strength * rng.normal(0, 0.02, 3))
    with np.errstate(divide="ignore"):
        density = np.log(BACKGROUND / np.maximum(_GREY, 1))
    tables = np.clip(level[:, None] * np.exp(-density[None] * each[:, None]), 0, 255)
    out: Pixels = cv2.LUT(pixels, tables.T.reshape(256, 1, 3).round().astype(np.uint8))
    choice = rng.random()
    if choice < 0.3 * strength:
        mix = np.eye(3) + rng.uniform(0, 0.35, (3, 3)) * (1 - np.eye(3))
        out = cv2.transform(out, (mix / mix.sum(1, keepdims=True)).astype(np.float32))
    elif choice < 0.38 * strength:
        out = np.ascontiguousarray(np.repeat(out[..., 1:2], 3, axis=2))
    return out


def optics(rng: np.random.Generator, pixels: Pixels, strength: float = 1.0) -> Pixels:
    """Blur or sharpen a little, add noise, lose resolution, compress. (H, W, 3) uint8 to the same.

    Resolution is lost as by an objective or a camera of half the magnification whose pictures are enlarged.
    """
    out = pixels
    choice = rng.random()
    coarse = rng.uniform(0.45, 0.9) if rng.random() < 0.2 * strength else 1.0
    if coarse < 1:
        out = cv2.resize(out, None, fx=coarse, fy=coarse, interpolation=cv2.INTER_AREA)
    if choice < 0.35:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.4, 1.0 + 0.7 * strength))
    elif choice < 0.5:
        out = cv2.addWeighted(out, 1.6, cv2.GaussianBlur(out, (0, 0), 1.2), -0.6, 0)
    if rng.random() < 0.4:
        start = int(rng.integers(_NOISE.size - out.size))
        noise = _NOISE[start : start + out.size].reshape(out.shape) * np.float32(rng.uniform(1, 2 + 13 * strength))
        out = cv2.add(out, noise, dtype=cv2.CV_8U)
    if rng.random() < 0.2:
        _, data = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 90))])
        out = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if coarse < 1:
        h, w = pixels.shape[:2]
        out = cv2.resize(out, (w, h), interpolation=cv2.INTER_LINEAR)
    return out


def turn(
    rng: np.random.Generator, size: int, out: int, zoom: tuple[float, float] = (0.9, 1.1), shift: float = 0.0
) -> NDArray[np.float32]:
    """Return a (2, 3) matrix that turns, mirrors, zooms and shifts a square of `size` px into one of `out` px."""
    angle = rng.uniform(0, 2 * np.pi)
    scale = rng.uniform(*zoom)
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    linear = np.array([[c * mirror, -s], [s * mirror, c]])
    centre = np.array([out / 2 - 0.5, out / 2 - 0.5]) + rng.uniform(-shift, shift, 2)
    offset = centre - linear @ np.array([size / 2 - 0.5, size / 2 - 0.5])
    return np.hstack([linear, offset[:, None]]).astype(np.float32)
