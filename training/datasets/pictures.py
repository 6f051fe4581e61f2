"""Pictures of labelled cells as arrays: squares at native scale, never stretched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rbcedge.training.datasets.cellset import LabelledCell

from rbcedge.errors import RbcedgeError

#: Largest share of unreadable pictures with which a set is still used.
TOLERATED = 0.01


@dataclass(frozen=True, slots=True)
class Crops:
    """Cells in memory; parallel arrays, one row for each cell.

    Attributes
    ----------
    cells : tuple of LabelledCell
        Those that could be read.
    pixels : (N, side, side, 3) uint8
        Red, green, blue.
    masks : (N, side, side) uint8 or None
        1 where this cell is; None where the masks were not asked for.
    problems : tuple of str
        Pictures that could not be read.
    """

    cells: tuple[LabelledCell, ...]
    pixels: NDArray[np.uint8]
    masks: NDArray[np.uint8] | None
    problems: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.cells)


def load(
    cells: Sequence[LabelledCell],
    segmented: bool = False,
    masks: bool = False,
    side: int = 80,
    progress: Callable[[], None] = lambda: None,
) -> Crops:
    """Read crops.

    Parameters
    ----------
    cells : sequence of LabelledCell
    segmented : bool
        Set everything but the cell to zero (section 4.1): by the mask where there is one, else the segmented picture.
    masks : bool
        Read the masks too.
    side : int
        Side of the squares, px. Larger pictures are cut, smaller ones padded with zero, both about their middle.
    progress : callable
        Called for each cell.

    Raises
    ------
    RbcedgeError
        Where masks are needed and missing, or more than `TOLERATED` of the pictures cannot be read.
    """
    lacking = [c for c in cells if c.mask is None and (masks or (segmented and c.segmented is None))]
    if lacking:
        hint = "" if masks else " Without them train with --no-segmentation."
        raise RbcedgeError(
            f"{len(lacking)} of {len(cells)} cells have no mask{'' if masks else ' and no segmented picture'}; "
            f"the first: {lacking[0].picture}.{hint}"
        )
    reader = _Reader()
    kept: list[LabelledCell] = []
    problems: list[str] = []
    pixels = np.zeros((len(cells), side, side, 3), np.uint8)
    shapes = np.zeros((len(cells) if masks else 0, side, side), np.uint8)
    for cell in cells:
        k = len(kept)
        try:
            square, own = _cell(reader, cell, side, segmented, masks)
        except ValueError as e:
            problems.append(f"{e}; not used")
        else:
            pixels[k] = square
            if masks:
                shapes[k] = own
            kept.append(cell)
        progress()
    if len(problems) > TOLERATED * len(cells):
        raise RbcedgeError(f"{len(problems)} of {len(cells)} cells cannot be read; the first: {problems[0]}.")
    n = len(kept)
    return Crops(tuple(kept), pixels[:n], shapes[:n] if masks else None, tuple(problems))


def refuse_segmented(cells: Sequence[LabelledCell]) -> None:
    """Refuse cells of which there is no plain crop: black around them, they are no test of what is left in.

    Raises
    ------
    RbcedgeError
    """
    black = [c for c in cells if c.picture == c.segmented]
    if black:
        raise RbcedgeError(
            f"{len(black)} of {len(cells)} cells have no plain crop, only a segmented picture, black around the cell; "
            f"the first: {black[0].picture}. Such a set trains classifiers with segmentation alone."
        )


def _cell(
    reader: _Reader, cell: LabelledCell, side: int, segmented: bool, masks: bool
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    if segmented and cell.mask is None:
        assert cell.segmented is not None
        return square(reader.colour(cell.segmented), None, side)[..., ::-1], None
    pixels = square(reader.colour(cell.picture), cell.box, side)[..., ::-1]
    if cell.mask is None or not (segmented or masks):
        return pixels, None
    whole = reader.grey(cell.mask)
    if whole.shape != reader.colour(cell.picture).shape[:2]:
        raise ValueError(f"{cell.mask}: not of the size of its picture")
    # Masks of published sets are not always 0 and 255, and .jpg smears them.
    own = (square(whole, cell.box, side) >= 128).astype(np.uint8)
    if not own.any():
        raise ValueError(f"{cell.mask}: an empty mask")
    return (pixels * own[..., None] if segmented else pixels), own


class _Reader:
    """Reads pictures; the last one is kept, as a field holds many cells."""

    def __init__(self) -> None:
        self._colour: tuple[Path | None, NDArray[np.uint8]] = (None, np.zeros((0, 0, 3), np.uint8))

    def colour(self, path: Path) -> NDArray[np.uint8]:
        if self._colour[0] != path:
            self._colour = (path, _read(path, cv2.IMREAD_COLOR))
        return self._colour[1]

    def grey(self, path: Path) -> NDArray[np.uint8]:
        return _read(path, cv2.IMREAD_GRAYSCALE)


def _read(path: Path, how: int) -> NDArray[np.uint8]:
    picture = cv2.imread(str(path), how)
    if picture is None:
        raise ValueError(f"{path}: cannot be read as a picture")
    out: NDArray[np.uint8] = picture
    return out


def square(picture: NDArray[np.uint8], box: tuple[int, int, int, int] | None, side: int) -> NDArray[np.uint8]:
    """Cut a square of `side` px about the middle of `box` (x, y, w, h; None: of the picture), zero beyond the edge."""
    height, width = picture.shape[:2]
    x, y, w, h = box or (0, 0, width, height)
    x0, y0 = x + w // 2 - side // 2, y + h // 2 - side // 2
    out = np.zeros((side, side, *picture.shape[2:]), np.uint8)
    xa, ya, xb, yb = max(x0, 0), max(y0, 0), min(x0 + side, width), min(y0 + side, height)
    if xb > xa and yb > ya:
        out[ya - y0 : yb - y0, xa - x0 : xb - x0] = picture[ya:yb, xa:xb]
    return out


def diameter(crops: Crops, single: Sequence[str] = ("NOR",)) -> float | None:
    """Median diameter of single cells, px, of the circle of equal area; None without masks or such cells."""
    if crops.masks is None:
        return None
    rows = [i for i, c in enumerate(crops.cells) if c.code in single]
    if not rows:
        return None
    areas = crops.masks[rows].reshape(len(rows), -1).sum(1, dtype=np.int64)
    return float(np.median(np.sqrt(areas * 4 / np.pi)))
