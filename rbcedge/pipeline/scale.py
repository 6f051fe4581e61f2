"""Magnification: how many pixels a red cell has here, and how many the networks were trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from rbcedge.cells import Cells, components
from rbcedge.pipeline.illumination import Illumination, estimate

#: Cells that must be measured before the scale is believed for the rest of a run.
ENOUGH = 40
#: A measured scale this near to 1 is taken as 1: slides differ by more, and nothing need be resampled.
NEAR_ONE = 0.12
#: µm per source px that 40x to 100x objectives and common cameras give.
PLAUSIBLE_UM_PER_PX = (0.03, 0.4)
#: Least and largest scale that is tried or believed: beyond, specks would be enlarged to cells.
LIMITS = (0.05, 4.0)


def typical_diameter(cells: Cells) -> tuple[float, int]:
    """Return the diameter of single cells, px, and how many cells speak for it.

    The median over cells off the border, without the small (fragments, platelets) and the large (overlaps):
    those below 0.6 and above 1.5 times the median diameter.
    """
    d = cells.diameters[~cells.on_border]
    for _ in range(3):
        if len(d) == 0:
            return 0.0, 0
        middle = float(np.median(d))
        d = d[(d > 0.6 * middle) & (d < 1.5 * middle)]
    return (float(np.median(d)), len(d)) if len(d) else (0.0, 0)


def guess_diameter(pixels: NDArray[np.uint8], illumination: Illumination | None = None) -> float:
    """Diameter of red cells by plain thresholding, px, to begin with; 0 where nothing looks like cells.

    Green channel after flat field, Otsu, hole filling, components; the median diameter weighted by area, so
    that specks do not decide.
    """
    h, w = pixels.shape[:2]
    shrink = min(1.0, 800 / max(h, w))
    size = (max(1, round(w * shrink)), max(1, round(h * shrink)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    flat = (illumination or estimate(pixels)).apply(small)[..., 1]
    flat = cv2.GaussianBlur(flat, (0, 0), 1.0)
    _, mask = cv2.threshold(flat, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    _, cells = components(mask, 1, min_area=12)
    inner = np.flatnonzero(~cells.on_border)
    round_enough = [
        i for i in inner if cells.areas[i] > 0.6 * np.pi / 4 * max(cells.boxes[i, 2], cells.boxes[i, 3]) ** 2
    ]
    if not round_enough:
        return 0.0
    d = np.sort(cells.diameters[round_enough])
    weight = np.cumsum(d**2)
    return float(d[np.searchsorted(weight, weight[-1] / 2)]) / float(shrink)


def settle(
    guess: float, native: float, measure: Callable[[float], tuple[float, int]], rounds: int = 3
) -> tuple[float, int]:
    """Find the scale at which the segmenter itself sees cells of the native diameter.

    Parameters
    ----------
    guess : float
        Diameter in source px to begin with.
    native : float
        Diameter the networks were trained on, px.
    measure : callable
        Segments at a scale and returns the diameter in source px and the number of cells.
    rounds : int

    Returns
    -------
    scale : float
        native / diameter, within `LIMITS`; 1 where nothing can be measured.
    cells : int
        How many cells speak for it.
    """
    scale = _limited(native / guess) if guess > 0 else 1.0
    best = (1.0, 0)
    for _ in range(rounds):
        diameter, count = measure(scale)
        if count == 0:
            break
        best = (_limited(native / diameter), count)
        if abs(np.log(best[0] / scale)) < 0.06:
            break
        scale = best[0]
    return best


class Search:
    """Native px per source px: given, or measured on the first fields, anew for each picture size.

    Parameters
    ----------
    native_px : float
        Diameter the networks were trained on, px.
    um_per_px : float
        Size of a native pixel, µm.
    fixed : float or None
        The scale, where the user gave it.
    """

    def __init__(self, native_px: float, um_per_px: float, fixed: float | None = None) -> None:
        self._native_px, self._um_per_px, self._fixed = native_px, um_per_px, fixed
        self._measured: dict[tuple[int, int], list[tuple[float, int]]] = {}
        self.scale = fixed or 1.0

    @property
    def known(self) -> float | None:
        """The scale, None before the first field where it is to be measured."""
        return self.scale if self._fixed is not None or self._measured else None

    def settled(self, size: tuple[int, int]) -> bool:
        """Take the scale of pictures of this width and height; False where a field must still be measured."""
        if self._fixed is not None:
            return True
        scale, cells = believed(self._measured.setdefault(size, []), self._um_per_px)
        if cells >= ENOUGH and plausible(self._um_per_px * scale):
            self.scale = scale
            return True
        return False

    def add(self, size: tuple[int, int], guess: float, measure: Callable[[float], tuple[float, int]]) -> None:
        """Measure one more field of this size (see `settle`) and take what is then believed."""
        seen = self._measured.setdefault(size, [])
        seen.append(settle(guess, self._native_px, measure))
        del seen[:-20]
        self.scale = believed(seen, self._um_per_px)[0]


def _limited(scale: float) -> float:
    return min(max(scale, LIMITS[0]), LIMITS[1])


def plausible(um_per_px: float) -> bool:
    """Whether a 40x to 100x objective gives this pixel size."""
    low, high = PLAUSIBLE_UM_PER_PX
    return low <= um_per_px <= high


def warning(um_per_px: float) -> str:
    """Return a warning in words where no 40x to 100x objective gives this pixel size, else ""."""
    if plausible(um_per_px):
        return ""
    low, high = PLAUSIBLE_UM_PER_PX
    return (
        f"The cells look as if a pixel were {um_per_px:.2f} µm; with a 40x to 100x objective it is {low} to {high}. "
        "Check the objective, or give --um-per-px."
    )


def combine(scales: Sequence[tuple[float, int]]) -> tuple[float, int]:
    """Median of scales weighted by their cells, and all cells together; 1 within `NEAR_ONE` of 1."""
    known = sorted(s for s in scales if s[1] > 0)
    total = sum(n for _, n in known)
    if not total:
        return 1.0, 0
    passed = np.cumsum([n for _, n in known])
    middle = known[int(np.searchsorted(passed, total / 2))][0]
    return (1.0 if abs(np.log(middle)) < NEAR_ONE else middle), int(total)


def believed(scales: Sequence[tuple[float, int]], native_um_per_px: float) -> tuple[float, int]:
    """`combine` measurements; those that no objective gives (noise, a field out of focus) only where all are so."""
    good = [(s, n) for s, n in scales if n > 0 and plausible(native_um_per_px * s)]
    return combine(good or scales)
