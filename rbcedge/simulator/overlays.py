"""What imaging software and eyepieces put over a picture: scale bars, arrows, pointers."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from rbcedge.simulator.view import Debris, View

_COLOURS = ((0, 230, 0), (0, 0, 0), (220, 120, 20), (255, 255, 255), (0, 0, 220), (0, 230, 240))


def with_scale_bar(view: View, rng: np.random.Generator) -> View:
    """Return the view with a burnt-in scale bar and its text."""
    pixels = view.pixels.copy()
    height, width = pixels.shape[:2]
    colour = _COLOURS[int(rng.integers(len(_COLOURS)))]
    length = int(width * rng.uniform(0.05, 0.18))
    thick = int(rng.integers(1, 3 if rng.random() < 0.8 else 6))
    x = int(width - length - rng.uniform(0.02, 0.12) * width) if rng.random() < 0.8 else int(0.04 * width)
    y = int(height * rng.uniform(0.88, 0.97)) if rng.random() < 0.85 else int(height * 0.06)
    cv2.line(pixels, (x, y), (x + length, y), colour, thick)
    tick = int(rng.integers(0, 6))
    for end in (x, x + length):
        cv2.line(pixels, (end, y - tick), (end, y + int(tick * rng.integers(0, 2))), colour, thick)
    number = rng.choice(["20.00µm", "5.00um", "10 um", "50.00", "20 um", "0.00um"])
    text = str(number).replace("µ", "u")
    scale = rng.uniform(0.25, 0.5)
    (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    at = (x + (length - w) // 2, y - int(rng.integers(3, 7)))
    cv2.putText(pixels, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
    box = (min(x, at[0]), y - h - 8, max(length, w), h + 14)
    return replace(view, pixels=pixels, debris=_more(view, "scale_bar", box))


def with_arrow(view: View, rng: np.random.Generator) -> View:
    """Return the view with a drawn arrow."""
    pixels = view.pixels.copy()
    height, width = pixels.shape[:2]
    size = rng.uniform(0.03, 0.09) * width
    angle = rng.uniform(0, 2 * np.pi)
    shape = np.array([[0, 0], [0.45, 0.2], [0.4, 0.09], [1, 0.07], [1, -0.07], [0.4, -0.09], [0.45, -0.2]]) * size
    c, s = np.cos(angle), np.sin(angle)
    points = shape @ np.array([[c, s], [-s, c]]) + rng.uniform((0.1 * width, 0.1 * height), (0.9 * width, 0.9 * height))
    colour = ((0, 240, 250), (0, 0, 0), (40, 40, 220), (250, 250, 250))[int(rng.integers(4))]
    cv2.fillPoly(pixels, [np.rint(points).astype(np.int32)], colour, cv2.LINE_AA)
    box = cv2.boundingRect(np.rint(points).astype(np.int32))
    return replace(view, pixels=pixels, debris=_more(view, "arrow", tuple(int(v) for v in box)))


def with_pointer(view: View, rng: np.random.Generator) -> View:
    """Return the view with an eyepiece pointer: a dark blurred needle from the rim inwards."""
    height, width = view.pixels.shape[:2]
    tip = rng.uniform((0.3 * width, 0.25 * height), (0.9 * width, 0.75 * height))
    angle = rng.uniform(0, 2 * np.pi)
    out = np.array([np.cos(angle), np.sin(angle)])
    far = tip + out * 1.5 * max(width, height)
    side = np.array([-out[1], out[0]]) * rng.uniform(0.004, 0.012) * width
    shade = np.zeros((height, width), np.uint8)
    points = np.array([tip - side * 0.6, tip + side * 0.6, far + side * 1.4, far - side * 1.4])
    cv2.fillPoly(shade, [np.rint(points).astype(np.int32)], 255, cv2.LINE_AA)
    soft = cv2.GaussianBlur(shade, (0, 0), rng.uniform(1.0, 4.0)).astype(np.float32) / 255.0
    factor = 1.0 - soft * np.float32(rng.uniform(0.4, 0.9))
    pixels = np.clip(view.pixels * factor[..., None], 0, 255).astype(np.uint8)
    box = cv2.boundingRect((soft > 0.3).astype(np.uint8))
    return replace(view, pixels=pixels, debris=_more(view, "pointer", tuple(int(v) for v in box)))


def with_random_overlays(view: View, rng: np.random.Generator) -> View:
    """Return the view with some of these, as pictures from laboratories have them."""
    if rng.random() < 0.6:
        view = with_scale_bar(view, rng)
    if rng.random() < 0.15:
        view = with_arrow(view, rng)
    if rng.random() < 0.15:
        view = with_pointer(view, rng)
    return view


def _more(view: View, kind: str, box: tuple[int, ...]) -> Debris:
    boxes = np.vstack([view.debris.boxes, np.array(box, np.int32)[None]]).astype(np.int32)
    return Debris((*view.debris.kinds, kind), boxes)
