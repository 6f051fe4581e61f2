"""A plain segmentation and small helpers for the tests of counting: independent of the networks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rbcedge.cells import components
from rbcedge.field import Field
from rbcedge.frame import Frame

DATA = Path(__file__).parents[1].parent / "shared" / "data"
CLASSES = 8


def plain_mask(pixels: NDArray[np.uint8], diameter: float = 38.0) -> NDArray[np.uint8]:
    """Red cells by background flattening on green, Otsu and hole filling; 0 or 255."""
    green = cv2.GaussianBlur(pixels[:, :, 1], (0, 0), max(0.6, diameter / 38))
    small = cv2.resize(green, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    k = int(diameter * 1.5 / 4) | 1
    light = cv2.GaussianBlur(cv2.dilate(small, np.ones((k, k), np.uint8)), (0, 0), k)
    light = cv2.resize(light, (green.shape[1], green.shape[0]))
    dark = cv2.subtract(light, green)
    _, mask = cv2.threshold(dark, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    open_ = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    return cv2.morphologyEx(mask, cv2.MORPH_OPEN, open_)


def plain_field(frame: Frame, diameter: float = 38.0) -> Field:
    """A field whose cells are those of `plain_mask`; platelets (below a tenth of a cell) are left out."""
    mask = plain_mask(frame.pixels, diameter)
    labels, cells = components(mask, CLASSES, min_area=int(0.1 * np.pi / 4 * diameter**2))
    return Field(frame, 38.0 / diameter, ((labels > 0) * 255).astype(np.uint8), labels, cells)
