"""A plain segmentation and small helpers for the tests of counting: independent of the networks."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from rbcedge.cells import components
from rbcedge.field import Field
from rbcedge.frame import Frame

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


class DiscSlide:
    """A slide of ellipses with exact truth: which objects are whole in a window, under which number.

    Parameters
    ----------
    seed : int
    size : (int, int)
        Width and height, px.
    cells : int
        Wanted number; fewer where they do not fit without touching.
    lattice : bool
        Put them on a square lattice, displaced by at most 2 px.
    """

    def __init__(self, seed: int, size: tuple[int, int] = (2400, 1800), cells: int = 900, lattice: bool = False):
        rng = np.random.default_rng(seed)
        w, h = size
        self.size = size
        self.labels = np.zeros((h, w), np.int32)
        occupied = np.zeros((h, w), np.uint8)
        number = 0
        if lattice:
            step = 56
            grid = np.stack(np.meshgrid(np.arange(40, w - 40, step), np.arange(40, h - 40, step)), -1)
            spots = grid.reshape(-1, 2) + rng.uniform(-2, 2, (grid.size // 2, 2))
        else:
            spots = rng.uniform((30, 30), (w - 30, h - 30), (4 * cells, 2))
        for x, y in spots:
            if number == cells:
                break
            axes = 19 * rng.normal(1, 0.08) * np.array([1, rng.uniform(0.75, 1)])
            shape = ((int(x * 16), int(y * 16)), tuple(int(a * 16) for a in axes), float(rng.uniform(0, 180)))
            alone = np.zeros((101, 101), np.uint8)
            x0, y0 = int(x) - 50, int(y) - 50
            centre = (int((x - x0) * 16), int((y - y0) * 16))
            cv2.ellipse(alone, centre, shape[1], shape[2], 0, 360, 1, -1, cv2.LINE_8, 4)
            ya, xa, yb, xb = max(y0, 0), max(x0, 0), min(y0 + 101, h), min(x0 + 101, w)
            part = alone[ya - y0 : yb - y0, xa - x0 : xb - x0]
            if (occupied[ya:yb, xa:xb] & cv2.dilate(part, np.ones((3, 3), np.uint8))).any():
                continue
            number += 1
            occupied[ya:yb, xa:xb] |= part
            self.labels[ya:yb, xa:xb][part > 0] = number
        self.cells = number
        shade = rng.uniform(90, 150, number + 1)
        shade[0] = 225
        grey = cv2.GaussianBlur(shade[self.labels].astype(np.float32), (0, 0), 1.2)
        self.pixels = np.repeat((grey + rng.normal(0, 2, grey.shape)).clip(0, 255).astype(np.uint8)[..., None], 3, 2)

    def frame(self, index: int, x: int, y: int, size: tuple[int, int] = (640, 480), fps: float = 30.0) -> Frame:
        """The picture of a window."""
        w, h = size
        return Frame(index, index / fps, np.ascontiguousarray(self.pixels[y : y + h, x : x + w]), "slide")

    def truth(self, x: int, y: int, size: tuple[int, int] = (640, 480)) -> NDArray[np.int32]:
        """(H, W) numbers of the objects in a window."""
        return self.labels[y : y + size[1], x : x + size[0]]


def field_of(frame: Frame, labels: NDArray[np.int32], scale: float = 1.0) -> tuple[Field, NDArray[np.int32]]:
    """Make a field from a label picture (objects do not touch), and return each cell's number."""
    dense, cells = components((labels > 0).astype(np.uint8), CLASSES, fill_holes=False)
    first = np.zeros(len(cells) + 1, np.int32)
    first[dense.ravel()] = labels.ravel()
    return Field(frame, scale, (labels > 0).astype(np.uint8) * 255, dense, cells), first[1:]


def classified(field: Field) -> Field:
    """Give every cell some probabilities."""
    n = len(field.cells)
    p = np.full((n, CLASSES), 0.02, np.float32)
    p[np.arange(n), field.cells.areas % CLASSES] = 0.86
    return replace(field, cells=field.cells.with_probabilities(np.arange(n), p))
