"""What four numbers in a file name mean: a corner with width and height, or two corners.

Not established for the published sets, so it is found out: a meaning must give boxes that lie in the patch, fit the
crop, and, where there are masks, are as large as the mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Sides of a patch, px (section 4.1); which is its width is not known.
PATCH = (539, 1076)

MEANINGS = {
    "xyxy": "two corners (x, y, x, y)",
    "yxyx": "two corners (y, x, y, x)",
    "xywh": "corner, width, height (x, y, w, h)",
    "yxhw": "corner, height, width (y, x, h, w)",
}


@dataclass(frozen=True, slots=True)
class Boxes:
    """Result of `detect`.

    Attributes
    ----------
    meaning : str or None
        Key of `MEANINGS`; None where no meaning fits at least `least` of the boxes.
    fits : (N,) bool
        Boxes that make sense under it.
    also : tuple of str
        Other meanings that fit just as well.
    """

    meaning: str | None
    fits: NDArray[np.bool_]
    also: tuple[str, ...]

    def text(self) -> str:
        """For people."""
        if self.meaning is None:
            return "box numbers in the file names: no known meaning fits them; they are not used"
        text = f"box numbers in the file names: {MEANINGS[self.meaning]}"
        if self.also:
            text += f" ({' or '.join(self.also)} would fit as well)"
        return text


def as_xywh(numbers: NDArray[np.int64], meaning: str) -> NDArray[np.int64]:
    """(N, 4) numbers to x, y, w, h."""
    a, b, c, d = numbers.T
    if meaning in ("yxyx", "yxhw"):
        a, b, c, d = b, a, d, c
    if meaning in ("xyxy", "yxyx"):
        c, d = c - a, d - b
    return np.stack([a, b, c, d], 1)


def detect(
    numbers: NDArray[np.int64],
    crop: int,
    sizes: NDArray[np.int64] | None = None,
    patch: tuple[int, int] = PATCH,
    least: float = 0.95,
) -> Boxes:
    """Find the meaning of the numbers.

    Parameters
    ----------
    numbers : (N, 4) int
    crop : int
        Side of the crops, px: a box is at most half as large again.
    sizes : (N, 2) int, optional
        Width and height of each cell in its mask, px; 0 where unknown. A box may differ by 4 px.
    patch : (int, int)
        Sides of the patch, px, in either order.
    least : float
        Share of the boxes that must fit.
    """
    results = {}
    for meaning in MEANINGS:
        x, y, w, h = as_xywh(numbers, meaning).T
        # Overlapped cells may be a little larger than their crop.
        good = (x >= 0) & (y >= 0) & (w > 0) & (h > 0) & (w <= 1.5 * crop) & (h <= 1.5 * crop)
        good &= (x + w <= max(patch)) & (y + h <= max(patch))
        if sizes is not None:
            known = (sizes > 0).all(1)
            wide, high = np.minimum(w, crop) - sizes[:, 0], np.minimum(h, crop) - sizes[:, 1]
            good &= ~known | ((np.abs(wide) <= 4) & (np.abs(high) <= 4))
        results[meaning] = good
    best = max(results, key=lambda m: results[m].mean())
    share = results[best].mean() if len(numbers) else 0.0
    if share < least:
        return Boxes(None, np.ones(len(numbers), bool), ())
    also = tuple(m for m, good in results.items() if m != best and good.mean() >= share - 0.005)
    return Boxes(best, results[best], also)
