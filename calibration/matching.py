"""Two sets of cells found in the same picture: which are the same, and how far their outlines lie apart."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def pairs(
    first: NDArray[np.int32], second: NDArray[np.int32], least: float = 0.5
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Match instances whose IoU is above `least`; at one half or more each has one partner at the most.

    Parameters
    ----------
    first, second : (H, W) int32
        0 background, i + 1 for row i of the cells.
    least : float
        0.5 to 1.

    Returns
    -------
    rows of the first, rows of the second : (M,) int
    """
    n, m = int(first.max()) + 1, int(second.max()) + 1
    shared = np.bincount(first.ravel().astype(np.int64) * m + second.ravel(), minlength=n * m).reshape(n, m)
    own, other = shared.sum(1)[1:], shared.sum(0)[1:]
    inner = shared[1:, 1:]
    a, b = np.nonzero(inner > least * (own[:, None] + other[None] - inner))
    return a, b


def boundary_distances(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distances between the outlines of two (H, W) masks, px, from each outline to the other.

    Every pixel of an outline (the mask's own pixels that touch the background) gives its Euclidean distance to the
    nearest one of the other: the mean of all is the symmetric mean boundary error, their 95th percentile the robust
    Hausdorff distance.

    Returns
    -------
    (K,) float32
        Empty where one mask has no outline.
    """
    a, b = (_outline(m) for m in (first, second))
    if not a.any() or not b.any():
        return np.zeros(0, np.float32)
    to_a, to_b = (
        cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for edge in (a, b)
    )
    return np.concatenate([to_b[a], to_a[b]]).astype(np.float32)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    binary = mask.astype(np.uint8)
    # The picture's edge is no outline.
    padded = cv2.copyMakeBorder(binary, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8))[1:-1, 1:-1]
    edge: NDArray[np.bool_] = (binary > 0) & (inner == 0)
    return edge
