"""Changes that other microscopes and cameras make to a picture, each at several strengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Shift:
    """One change of one strength.

    Attributes
    ----------
    kind, strength : str
        What it is called in the table.
    change : callable
        (H, W, 3) uint8 BGR and a seeded generator to the changed picture of the same size.
    zoom : float
        Magnification applied afterwards.
    """

    kind: str
    strength: str
    change: Callable[[Pixels, np.random.Generator], Pixels]
    zoom: float = 1.0


def _same(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return pixels


def _dyes(blue: float, green: float, red: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    """Multiply the optical density over the glass, channel by channel."""

    def change(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        glass = np.quantile(pixels.reshape(-1, 3)[::7], 0.9, axis=0)
        grey = np.maximum(np.arange(256), 1)[:, None]
        # What is brighter than glass (halos, noise) stays as it is.
        density = np.maximum(np.log(glass[None] / grey), 0)
        table = np.where(density > 0, glass * np.exp(-density * (blue, green, red)), grey)
        return cv2.LUT(pixels, np.clip(table, 0, 255).round().astype(np.uint8)[:, None])

    return change


def _mixed(share: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    """Bring the channels together by `share`; 1 is a grey picture of the green channel."""

    def change(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        green = np.repeat(pixels[..., 1:2], 3, axis=2)
        return cv2.addWeighted(pixels, 1 - share, green, share, 0)

    return change


def _blur(sigma: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    return lambda pixels, rng: cv2.GaussianBlur(pixels, (0, 0), sigma)


def _sharp(amount: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    return lambda pixels, rng: cv2.addWeighted(
        pixels, 1 + amount, cv2.GaussianBlur(pixels, (0, 0), 1.2), -amount, 0
    )  # fmt: skip


def _noise(sd: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    def change(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        return cv2.add(pixels, rng.standard_normal(pixels.shape, np.float32) * np.float32(sd), dtype=cv2.CV_8U)

    return change


def _light(factor: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    return lambda pixels, rng: cv2.multiply(pixels, np.full(4, factor), dtype=cv2.CV_8U)


def _tint(blue: float, green: float, red: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    return lambda pixels, rng: cv2.multiply(pixels, np.array([blue, green, red, 1.0]), dtype=cv2.CV_8U)


def _gamma(exponent: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    table = (255 * (np.arange(256) / 255) ** exponent).round().astype(np.uint8)
    return lambda pixels, rng: cv2.LUT(pixels, table)


def _vignette(loss: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    def change(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        h, w = pixels.shape[:2]
        y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
        return (pixels * (1 - loss * (x**2 + y**2) / 2)[..., None]).round().astype(np.uint8)

    return change


def _jpeg(quality: int) -> Callable[[Pixels, np.random.Generator], Pixels]:
    def change(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)

    return change


#: Every shift measured, mild to strong within a kind.
SHIFTS: tuple[Shift, ...] = (
    Shift("none", "", _same),
    Shift("stain strength", "x 0.4", _dyes(0.4, 0.4, 0.4)),
    Shift("stain strength", "x 0.6", _dyes(0.6, 0.6, 0.6)),
    Shift("stain strength", "x 1.5", _dyes(1.5, 1.5, 1.5)),
    Shift("stain strength", "x 2.2", _dyes(2.2, 2.2, 2.2)),
    Shift("stain hue", "orange (blue x 1.8)", _dyes(1.8, 0.9, 1.0)),
    Shift("stain hue", "blue-grey (red x 3, blue x 0.6)", _dyes(0.6, 0.9, 3.0)),
    Shift("stain hue", "pink (red x 0.3)", _dyes(1.0, 1.2, 0.3)),
    Shift("stain hue", "grey", _mixed(1.0)),
    Shift("blur", "sigma 1 px", _blur(1.0)),
    Shift("blur", "sigma 2 px", _blur(2.0)),
    Shift("blur", "sigma 3 px", _blur(3.0)),
    Shift("sharpening", "1.5", _sharp(1.5)),
    Shift("noise", "sd 5", _noise(5)),
    Shift("noise", "sd 12", _noise(12)),
    Shift("noise", "sd 25", _noise(25)),
    Shift("JPEG", "quality 30", _jpeg(30)),
    Shift("brightness", "x 0.4", _light(0.4)),
    Shift("brightness", "x 0.7", _light(0.7)),
    Shift("brightness", "x 1.4", _light(1.4)),
    Shift("gamma", "0.6", _gamma(0.6)),
    Shift("gamma", "1.6", _gamma(1.6)),
    Shift("white balance", "yellow", _tint(0.7, 0.95, 1.0)),
    Shift("white balance", "blue", _tint(1.0, 0.9, 0.75)),
    Shift("vignette", "40 % in the corners", _vignette(0.4)),
    Shift("scale", "x 0.5", _same, 0.5),
    Shift("scale", "x 0.75", _same, 0.75),
    Shift("scale", "x 0.88", _same, 0.88),
    Shift("scale", "x 1.13", _same, 1.13),
    Shift("scale", "x 1.5", _same, 1.5),
    Shift("scale", "x 2", _same, 2.0),
)
