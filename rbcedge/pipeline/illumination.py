"""Flat field and white balance from the picture's own background.

Every picture is divided by its background, channel by channel, so that a network sees the same white glass on
every microscope, lamp and camera. Training uses the same function.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

#: Grey value the background is brought to; the room above it keeps noise and bright dust from clipping.
BACKGROUND = 235.0
#: Blocks along the longer side in which the background is looked for.
BLOCKS = 8
#: Share of a block's pixels that may be darker than its background: cells cover most of a crowded block.
QUANTILE = 0.88


@dataclass(frozen=True, slots=True)
class Illumination:
    """Background of a picture.

    Attributes
    ----------
    background : (h, w, 3) float32
        Blue, green, red grey value of empty glass on a coarse grid over the picture, 1 to 255.
    """

    background: NDArray[np.float32]

    @property
    def level(self) -> NDArray[np.float32]:
        """(3,) median background, blue, green, red, 1 to 255: brightness and white balance of the lamp."""
        return np.median(self.background.reshape(-1, 3), axis=0).astype(np.float32)

    @property
    def warning(self) -> str:
        """What is wrong with the light, in words, or ""."""
        low, high = float(self.level.min()), float(self.level.max())
        if high < 60:
            return f"The picture is dark (background {high:.0f} of 255). Open the diaphragm or raise the exposure."
        if low > 252:
            return "The background is overexposed. Lower the lamp or the exposure."
        if low < 0.4 * high:
            return "The background is strongly tinted. Set the camera's white balance on empty glass."
        return ""

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (H, W, 3) uint8 `pixels` with the background at `BACKGROUND`; any size, same field of view."""
        h, w = pixels.shape[:2]
        gain = cv2.resize(BACKGROUND / self.background, (w, h), interpolation=cv2.INTER_LINEAR)
        out: NDArray[np.uint8] = cv2.multiply(pixels, gain, dtype=cv2.CV_8U)
        return out


@dataclass(frozen=True, slots=True)
class Layout:
    """How the background of pictures of one size is looked for.

    Attributes
    ----------
    reduced : (int, int)
        Width and height of the reduced picture, px, about 160 along the longer side.
    x_edges, y_edges : (columns + 1,), (rows + 1,) int
        Where blocks begin and end in it, px.
    ranks : (rows, columns) int
        How many of a block's pixels are darker than its background.
    """

    reduced: tuple[int, int]
    x_edges: NDArray[np.intp]
    y_edges: NDArray[np.intp]
    ranks: NDArray[np.intp]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        return len(self.y_edges) - 1, len(self.x_edges) - 1

    @classmethod
    def of(cls, size: tuple[int, int]) -> Layout:
        """Return the layout for pictures of this width and height."""
        step = max(1, round(max(size) / 160))
        width, height = max(1, size[0] // step), max(1, size[1] // step)
        block = max(1, max(width, height) // BLOCKS)
        x_edges, y_edges = (np.linspace(0, n, max(1, n // block) + 1).astype(np.intp) for n in (width, height))
        pixels = np.diff(y_edges)[:, None] * np.diff(x_edges)[None, :]
        return cls((width, height), x_edges, y_edges, (QUANTILE * (pixels - 1)).astype(np.intp))


def estimate(pixels: NDArray[np.uint8]) -> Illumination:
    """Find the background of a picture of (H, W, 3) uint8.

    The picture is averaged down to about 160 px, the bright quantile of each block taken, blocks without glass
    (inside clumps, under a pointer) are lifted to their neighbours, and the grid is smoothed.
    """
    layout = Layout.of((pixels.shape[1], pixels.shape[0]))
    small = cv2.resize(pixels, layout.reduced, interpolation=cv2.INTER_AREA)
    rows, cols = layout.grid
    xs, ys = layout.x_edges, layout.y_edges
    grid = np.empty((rows, cols, 3), np.float32)
    for r in range(rows):
        for c in range(cols):
            rank = layout.ranks[r, c]
            grid[r, c] = np.partition(small[ys[r] : ys[r + 1], xs[c] : xs[c + 1]].reshape(-1, 3), rank, axis=0)[rank]
    if rows >= 3 and cols >= 3:
        median = cv2.medianBlur(grid, 3)
        grid = np.where(grid < 0.93 * median, median, np.minimum(grid, 1.07 * median))
        grid = cv2.GaussianBlur(grid, (3, 3), 0.8, borderType=cv2.BORDER_REPLICATE)
    return Illumination(np.maximum(grid, 1).astype(np.float32))
