"""Parting cells that touch without overlapping, where the neck between them is narrow.

The segmenter leaves a gap between most touching cells; where it leaves a bridge, two cells would be counted as one
overlap. Cells that truly overlap have a wide neck and stay together: they are the classes TWO and THR.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from rbcedge.cells import Cells, components

#: A neck is cut where it is narrower than this share of the component's largest width.
NECK = 0.35
#: Radius from which a part is a cell of its own and not a spicule, in typical diameters.
LEAST_RADIUS = 0.2
#: Components below this share of a typical cell's area are not looked at.
LEAST_AREA = 1.0
#: How far a bridge may reach from a cell's body, in typical diameters.
REACH = 0.5

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
_SQUARE = np.ones((3, 3), np.uint8)


def part(labels: NDArray[np.int32], cells: Cells, diameter: float, least: int) -> tuple[NDArray[np.int32], Cells]:
    """Part touching cells by background lines.

    A component's bodies are what lies deeper inside of it than `NECK` times its largest inscribed radius; where
    there are two or more, each grows back pixel by pixel, and where two meet the mask is cut.

    Parameters
    ----------
    labels : (H, W) int32
        As `rbcedge.cells.components` gives them.
    cells : Cells
        Their cells, none classified.
    diameter : float
        Of a typical single cell, px.
    least : int
        Parts of fewer px² are dropped.

    Returns
    -------
    labels, cells
        As `components` gives them; the same objects where nothing was to be parted.
    """
    cut = [
        (box, line)
        for row in np.flatnonzero(cells.areas >= LEAST_AREA * np.pi / 4 * diameter**2)
        if (line := _lines(_own(labels, row, box := cells.boxes[row]), diameter)) is not None
    ]
    if not cut:
        return labels, cells
    mask = (labels > 0).view(np.uint8)
    for (x, y, w, h), line in cut:
        mask[y : y + h, x : x + w][line] = 0
    return components(mask, cells.probabilities.shape[1], least, fill_holes=False)


def _own(labels: NDArray[np.int32], row: np.intp, box: NDArray[np.int32]) -> NDArray[np.uint8]:
    """One component in its box with a pixel of background around it: (h + 2, w + 2) uint8 of 0 and 1."""
    x, y, w, h = (int(v) for v in box)
    own = np.zeros((h + 2, w + 2), np.uint8)
    np.equal(labels[y : y + h, x : x + w], row + 1, out=own[1:-1, 1:-1], casting="unsafe")
    return own


def _lines(own: NDArray[np.uint8], diameter: float) -> NDArray[np.bool_] | None:
    """Where to cut, without the added edge: (h, w) bool, or None."""
    # Squares are whole numbers, the same on every device.
    deep = np.rint(cv2.distanceTransform(own, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) ** 2)
    core = (deep > NECK**2 * deep.max()).view(np.uint8)
    if cv2.connectedComponents(core)[0] <= 2:
        return None
    bodies, found = components(core, 0, fill_holes=False)
    radius = np.zeros(len(found) + 1)
    np.maximum.at(radius, bodies.ravel(), deep.ravel())
    large = radius[1:] >= (LEAST_RADIUS * diameter) ** 2
    if large.sum() < 2:
        return None
    number = np.concatenate([[0], np.where(large, np.cumsum(large), 0)])
    # Floats, because OpenCV dilates no 32-bit integers.
    grown, inside = number[bodies].astype(np.float32), own > 0
    for step in range(round(REACH * diameter)):
        spread = cv2.dilate(grown, _SQUARE if step % 2 else _CROSS)
        np.copyto(grown, spread, where=inside & (grown == 0))
    lower = cv2.erode(np.where(grown > 0, grown, np.float32(len(found) + 1)), _SQUARE)
    return np.asarray((grown > 0) & (lower < grown))[1:-1, 1:-1]
