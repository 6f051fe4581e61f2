"""Edges and light of a field, measured on the green channel, which haemoglobin absorbs.

A device measures the same with kernels of its own (`rbcedge.pipeline.gpu.measuring`): everything that decides is an
integer here, so that both count the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

#: Larger pictures are measured at their centre: the time must not grow with the camera.
LARGEST_SIDE = 1000
#: Pictures at less than this native px per source px are reduced first.
REDUCE = 0.75
#: Directions in which edges are judged, and edge pixels needed in one of them.
SECTORS, FEWEST_EDGES = 4, 20
#: Edges are sampled on every third row, levels on every second row and column: medians need no more.
EVERY, THIN = 3, 2
#: Steepness is counted in whole steps of 1 / STEPS grey levels per px, below LEVELS: the square of a Sobel gradient
#: (8 times the slope) times 8 is an integer below LEVELS², and so is its root's whole part.
STEPS, LEVELS = 8 * np.sqrt(8.0), 4096

Median = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Light:
    """What was measured.

    Attributes
    ----------
    sharpness : float
        Steepness of cell edges, the share of the contrast per native px; the lowest over four directions, so
        that motion blur shows as well as defocus. A perfect edge has about 0.5. NaN where there are no edges.
    exposure : float
        Brightness of the empty background, 0 to 1.
    contrast : float
        How much darker the cells' rims are than the background, as a share of it, 0 to 1. NaN without cells.
    """

    sharpness: float
    exposure: float
    contrast: float


@dataclass(frozen=True, slots=True)
class Sampling:
    """Where a picture is measured, and at what size.

    Attributes
    ----------
    left, top, width, height : int
        The window, source px.
    size : (int, int)
        Width and height at which it is measured.
    scale : float
        Native px per px of that size.
    """

    left: int
    top: int
    width: int
    height: int
    size: tuple[int, int]
    scale: float

    @classmethod
    def of(cls, size: tuple[int, int], scale: float) -> Sampling:
        """Return the sampling of pictures of this width and height with `scale` native px per source px."""
        left, top = (max(0, (s - LARGEST_SIDE) // 2) for s in size)
        width, height = (min(s, LARGEST_SIDE) for s in size)
        if scale < REDUCE and min(width, height) * scale >= 2:
            # Larger cells than needed: the same measure at less cost.
            return cls(left, top, width, height, (round(width * scale), round(height * scale)), 1.0)
        return cls(left, top, width, height, (width, height), scale)

    @property
    def reach(self) -> int:
        """How far from its outline a cell's rim begins and background begins, px."""
        return max(1, round(2 / self.scale))

    def green(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Green channel of a (H, W, 3) picture as it is measured."""
        window = pixels[self.top : self.top + self.height, self.left : self.left + self.width]
        green = cv2.extractChannel(window, 1)
        if self.size != (self.width, self.height):
            green = cv2.resize(green, self.size, interpolation=cv2.INTER_AREA)
        return np.asarray(green, np.uint8)

    def cells(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The mask as it is measured."""
        if self.size == (self.width, self.height):
            window = np.s_[self.top : self.top + self.height, self.left : self.left + self.width]
            return np.ascontiguousarray(mask[window])
        return mask.take(self.near(1), axis=0).take(self.near(0), axis=1)

    def near(self, axis: int) -> NDArray[np.intp]:
        """Source px, from the picture's edge, of each column (0) or row (1) of the mask as it is measured."""
        source, target = (self.width, self.height)[axis], self.size[axis]
        at = np.floor(np.arange(target) * (1 / (target / source))).astype(np.intp)
        near: NDArray[np.intp] = np.minimum(at, source - 1) + (self.left, self.top)[axis]
        return near

    def light(self, background: Median, rim: Median, edges: Sequence[Median], pixels: NDArray[np.uint8]) -> Light:
        """Put together what was counted.

        Parameters
        ----------
        background, rim : (int, int)
            Number of pixels and their median grey level.
        edges : sequence of (int, int)
            For each sector number and median of steepness.
        pixels : (H, W, 3) uint8
            The picture.
        """
        nan = float("nan")
        if not background[0]:
            # All cell: the brightest pixels are as near to background as it gets.
            return Light(nan, float(np.percentile(self.green(pixels), 99)) / 255, nan)
        if not rim[0]:
            return Light(nan, background[1] / 255, nan)
        contrast = float(background[1] - rim[1])
        known = [(m + 0.5) / float(STEPS) for n, m in edges if n >= FEWEST_EDGES]
        sharpness = min(known, default=nan) / max(contrast, 1.0) / self.scale
        return Light(sharpness, background[1] / 255, contrast / max(float(background[1]), 1.0))


def measure(pixels: NDArray[np.uint8], mask: NDArray[np.uint8], scale: float) -> Light:
    """Measure a picture.

    Parameters
    ----------
    pixels : (H, W, 3) uint8 BGR
    mask : (H, W) uint8
        255 on cells.
    scale : float
        Native px per source px.
    """
    sampling = Sampling.of((mask.shape[1], mask.shape[0]), scale)
    green = sampling.green(pixels)
    cell = sampling.cells(mask)
    reach = sampling.reach
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    grown, shrunk = cv2.dilate(cell, kernel), cv2.erode(cell, kernel)
    background = _level(green, cv2.bitwise_not(grown))
    # The rim, not the whole cell: central pallor says nothing of the light.
    rim = _level(green, cv2.subtract(shrunk, cv2.erode(shrunk, kernel))) if background[0] else (0, 0)
    edges = _edges(green, cell) if rim[0] else ()
    return sampling.light(background, rim, edges, pixels)


def median(counts: NDArray[np.int64]) -> Median:
    """Number of values and their (lower) median, from how often each whole number occurs."""
    total = int(counts.sum())
    return (total, int(np.searchsorted(2 * np.cumsum(counts), total))) if total else (0, 0)


def _level(green: NDArray[np.uint8], where: NDArray[np.uint8]) -> Median:
    """Median of `green` where `where` is not zero."""
    thin = np.s_[::THIN, ::THIN]
    values, where = np.ascontiguousarray(green[thin]), np.ascontiguousarray(where[thin])
    return median(cv2.calcHist([values], [0], where, [256], [0, 256]).ravel().astype(np.int64))


def _edges(green: NDArray[np.uint8], cell: NDArray[np.uint8]) -> Sequence[Median]:
    """Steepness across cell edges, for each direction."""
    outline = cv2.morphologyEx(cell, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    # The picture's own edge is no cell edge.
    outline[:, :2] = 0
    outline[:, -2:] = 0
    rows = np.s_[2:-2:EVERY]
    at = np.flatnonzero(outline[rows])
    if not len(at):
        return ()
    gx, gy = cv2.spatialGradient(green)
    length = cv2.magnitude(gx.astype(np.float32), gy.astype(np.float32))
    # The mask's edge may miss the steepest place by a pixel.
    steep = cv2.dilate(length, np.ones((3, 3), np.uint8))[rows].ravel()[at].astype(np.float64)
    step = np.sqrt(8 * np.rint(steep**2)).astype(np.int64)
    # Direction of the outline itself, from the mask: blur would turn the picture's own gradient.
    nx, ny = cv2.spatialGradient(cv2.blur(cell, (5, 5)))
    angle = np.arctan2(ny[rows].ravel()[at].astype(np.float64), nx[rows].ravel()[at].astype(np.float64))
    sector = np.round(angle * (SECTORS / np.pi)).astype(np.int64) % SECTORS
    counts = np.bincount(sector * LEVELS + step, minlength=SECTORS * LEVELS).reshape(SECTORS, LEVELS)
    return [median(c) for c in counts]
