"""Cells of one field as parallel arrays, connected components, and the crops the classifier sees."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells found in one field, one row each. Positions are in pixels of the source picture.

    Attributes
    ----------
    boxes : (N, 4) int32
        x, y, width, height in px.
    centroids : (N, 2) float32
        x, y of the centre of mass in px.
    areas : (N,) int32
        px².
    on_border : (N,) bool
        The component touches the picture's edge, so part of it may be missing.
    probabilities : (N, K) float32
        Class probabilities in the order of the bundle's labels; a row of NaN is not classified (yet).
    """

    boxes: NDArray[np.int32]
    centroids: NDArray[np.float32]
    areas: NDArray[np.int32]
    on_border: NDArray[np.bool_]
    probabilities: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.boxes)
        for name, shape, dtype in (
            ("boxes", (n, 4), np.int32),
            ("centroids", (n, 2), np.float32),
            ("areas", (n,), np.int32),
            ("on_border", (n,), np.bool_),
        ):
            a = getattr(self, name)
            if a.shape != shape or a.dtype != dtype:
                raise ValueError(f"{name} must be {shape} {np.dtype(dtype)}, got {a.shape} {a.dtype}")
            a.setflags(write=False)
        p = self.probabilities
        if p.ndim != 2 or p.shape[0] != n or p.dtype != np.float32:
            raise ValueError(f"probabilities must be ({n}, K) float32, got {p.shape} {p.dtype}")
        p.setflags(write=False)

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def empty(cls, classes: int) -> Cells:
        """No cells at all, for a bundle of `classes` labels."""
        return cls(
            np.zeros((0, 4), np.int32),
            np.zeros((0, 2), np.float32),
            np.zeros(0, np.int32),
            np.zeros(0, np.bool_),
            np.zeros((0, classes), np.float32),
        )

    @property
    def classified(self) -> NDArray[np.bool_]:
        """(N,) bool: rows that have probabilities."""
        known: NDArray[np.bool_] = np.asarray(~np.isnan(self.probabilities).any(axis=1))
        return known

    @property
    def best(self) -> NDArray[np.intp]:
        """(N,) index of the most probable class; -1 where the row is not classified."""
        if not len(self):
            return np.zeros(0, np.intp)
        known = self.classified
        return np.where(known, np.where(known[:, None], self.probabilities, 0).argmax(1), -1)

    @property
    def confidences(self) -> NDArray[np.float32]:
        """(N,) largest class probability, NaN where the row is not classified."""
        if not len(self):
            return np.zeros(0, np.float32)
        top: NDArray[np.float32] = self.probabilities.max(axis=1)
        return top

    @property
    def diameters(self) -> NDArray[np.float32]:
        """(N,) diameter in px of the circle of equal area."""
        diameters: NDArray[np.float32] = np.sqrt(self.areas * np.float32(4 / np.pi)).astype(np.float32)
        return diameters

    def with_probabilities(self, rows: NDArray[np.intp], probabilities: NDArray[np.float32]) -> Cells:
        """Return the same cells with `probabilities` (len(rows), K) written into `rows`."""
        p = self.probabilities.copy()
        p[rows] = probabilities
        return replace(self, probabilities=p)


def components(mask: Mask, classes: int, min_area: int = 1, fill_holes: bool = True) -> tuple[NDArray[np.int32], Cells]:
    """Find the cells of a mask: its 8-connected components, in raster order of their first pixel.

    Parameters
    ----------
    mask : (H, W) uint8
        Non-zero is cell.
    classes : int
        K, the width of the (still unknown) probabilities.
    min_area : int
        Components of fewer px² are dropped.
    fill_holes : bool
        Holes (background not 4-connected to the picture's edge) become cell before the areas are taken.

    Returns
    -------
    labels : (H, W) int32
        0 background, i + 1 for row i of the cells.
    cells : Cells
    """
    binary = (mask != 0).astype(np.uint8)
    if fill_holes:
        binary = fill(binary)
    n, labels, stats, centroids = cv2.connectedComponentsWithStats(binary, connectivity=8, ltype=cv2.CV_32S)
    keep = np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= min_area) + 1
    if len(keep):
        # OpenCV's order depends on its algorithm; raster order of the first pixel is the same everywhere.
        flat = labels.ravel()
        first = np.full(n, flat.size, np.int64)
        starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        np.minimum.at(first, flat[starts], starts)
        first[flat[0]] = 0
        keep = keep[np.argsort(first[keep], kind="stable")]
    lookup = np.zeros(n, np.int32)
    lookup[keep] = np.arange(1, len(keep) + 1, dtype=np.int32)
    raster = lookup.take(labels.ravel()).reshape(mask.shape)
    boxes = stats[keep, :4].astype(np.int32)
    h, w = mask.shape
    border = (
        (boxes[:, 0] == 0) | (boxes[:, 1] == 0) | (boxes[:, 0] + boxes[:, 2] == w) | (boxes[:, 1] + boxes[:, 3] == h)
    )
    cells = Cells(
        boxes,
        centroids[keep].astype(np.float32),
        stats[keep, cv2.CC_STAT_AREA].astype(np.int32),
        border,
        np.full((len(keep), classes), np.nan, np.float32),
    )
    return raster, cells


def fill(binary: Mask) -> Mask:
    """Fill the holes of a (H, W) uint8 mask of 0 and 1: background not 4-connected to the edge becomes 1."""
    padded = cv2.copyMakeBorder(binary, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(padded, None, (0, 0), 2, flags=4)
    filled: Mask = (padded[1:-1, 1:-1] != 2).astype(np.uint8)
    return filled


def rim_kernel(px: int) -> Mask:
    """Structuring element that grows a mask by `px` in every direction."""
    kernel: Mask = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * px + 1, 2 * px + 1))
    return kernel


def crops(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int32],
    cells: Cells,
    rows: NDArray[np.intp],
    scale: float = 1.0,
    side: int = 80,
    rim: int = 0,
) -> NDArray[np.uint8]:
    """Cut cells out on black, as the classifier wants them (paper, section 4.1: crops 80x80, other cells zeroed).

    A fixed square of `side` px at native scale around the centre of the component's box, never stretched;
    pixels farther than `rim` from this component, on another one, or beyond the picture's edge are zero.

    Parameters
    ----------
    pixels : (H, W, 3) uint8
        The source picture, blue, green, red.
    labels : (H, W) int32
        As `components` returns it.
    cells : Cells
    rows : (M,) int
        Which cells.
    scale : float
        Native px per source px; the window is `side / scale` source px wide.
    side : int
        Side of a crop in native px.
    rim : int
        Background shown around the cell, native px.

    Returns
    -------
    (M, side, side, 3) uint8
    """
    out = np.zeros((len(rows), side, side, 3), np.uint8)
    h, w = labels.shape
    window = max(1, round(side / scale))
    # At another scale a little more is looked at, so that no black is mixed into what is shown.
    reach = rim if window == side else int(np.ceil(rim / scale)) + 2
    kernel = rim_kernel(rim) if rim else None
    for k, row in enumerate(rows):
        bx, by, bw, bh = (int(v) for v in cells.boxes[row])
        x0, y0 = bx + bw // 2 - window // 2, by + bh // 2 - window // 2
        # Only the component's own box and what is near to it can be non-zero.
        xa, ya = max(bx - reach, x0, 0), max(by - reach, y0, 0)
        xb, yb = min(bx + bw + reach, x0 + window, w), min(by + bh + reach, y0 + window, h)
        part = labels[ya:yb, xa:xb]
        own = (part == row + 1).view(np.uint8)
        other = (part > 0) & (own == 0)
        at = (slice(ya - y0, yb - y0), slice(xa - x0, xb - x0))
        if window == side:
            shown = own if kernel is None else cv2.dilate(own, kernel)
            shown[other] = 0
            cv2.copyTo(pixels[ya:yb, xa:xb], shown, out[k][at])
            continue
        square, mask = np.zeros((window, window, 3), np.uint8), np.zeros((2, window, window), np.uint8)
        square[at], mask[0][at], mask[1][at] = pixels[ya:yb, xa:xb], own * np.uint8(255), other * np.uint8(255)
        # The outline is cut after scaling, for the same reason.
        method = cv2.INTER_AREA if window > side else cv2.INTER_LINEAR
        inner, outer = (cv2.resize(m, (side, side), interpolation=method) & 128 for m in mask)
        shown = inner if kernel is None else cv2.dilate(inner, kernel)
        shown[outer > 0] = 0
        cv2.copyTo(cv2.resize(square, (side, side), interpolation=method), shown, out[k])
    return out
