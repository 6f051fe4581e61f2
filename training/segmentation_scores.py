"""How well a mask agrees with instance labels: foreground IoU (Eq. 6) and instance F1."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

#: Parts of a crop's mask below this share of the cell are specks, not objects.
_SPECK = 0.05


@dataclass(frozen=True, slots=True)
class Overlap:
    """Counts over one or more fields; add them up to pool fields.

    Attributes
    ----------
    both, either : int
        Pixels of intersection and union of the foregrounds.
    matched, true, found : int
        Instances with IoU above 0.5, instances in truth, instances found.
    """

    both: int = 0
    either: int = 0
    matched: int = 0
    true: int = 0
    found: int = 0

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(
            self.both + other.both,
            self.either + other.either,
            self.matched + other.matched,
            self.true + other.true,
            self.found + other.found,
        )

    @property
    def iou(self) -> float:
        """Foreground intersection over union."""
        return self.both / self.either if self.either else float("nan")

    @property
    def instance_f1(self) -> float:
        """F1 of instances at IoU 0.5."""
        total = self.true + self.found
        return 2 * self.matched / total if total else float("nan")


def compare(truth: NDArray[np.integer], guess: NDArray[np.integer], ignore: NDArray[np.bool_] | None = None) -> Overlap:
    """Compare two (H, W) instance maps (0 background); instances mostly in `ignore` are left out of both."""
    return match(truth, guess, ignore)[0]


def match(
    truth: NDArray[np.integer], guess: NDArray[np.integer], ignore: NDArray[np.bool_] | None = None
) -> tuple[Overlap, NDArray[np.int64]]:
    """Compare two (H, W) instance maps and say which instances are the same.

    Returns
    -------
    overlap : Overlap
    pairs : (M, 2) int64
        Labels in `truth` and in `guess` of the instances with IoU above 0.5, by the first.
    """
    known = np.ones(truth.shape, bool) if ignore is None else ~ignore
    t, g = np.where(known, truth, 0).ravel(), np.where(known, guess, 0).ravel()
    nt, ng = int(truth.max()) + 1, int(guess.max()) + 1
    shared = np.bincount(t.astype(np.int64) * ng + g, minlength=nt * ng).reshape(nt, ng)
    at, ag = np.bincount(truth.ravel(), minlength=nt), np.bincount(guess.ravel(), minlength=ng)
    kt, kg = shared.sum(1), shared.sum(0)
    keep_t, keep_g = np.flatnonzero(kt[1:] > 0.5 * at[1:]) + 1, np.flatnonzero(kg[1:] > 0.5 * ag[1:]) + 1
    inner = shared[np.ix_(keep_t, keep_g)]
    union = kt[keep_t][:, None] + kg[keep_g][None] - inner
    # At more than one half an instance can match one other at the most.
    rows, columns = np.nonzero(inner > 0.5 * union)
    either = int(((t > 0) | (g > 0)).sum())
    overlap = Overlap(int(((t > 0) & (g > 0)).sum()), either, len(rows), len(keep_t), len(keep_g))
    return overlap, np.stack([keep_t[rows], keep_g[columns]], axis=1)


def parts(truth: NDArray[np.bool_], guess: NDArray[np.bool_]) -> tuple[int, bool]:
    """Look at the parts of a crop's mask as at objects.

    Parameters
    ----------
    truth : (side, side) bool
        The one cell of the crop.
    guess : (side, side) bool

    Returns
    -------
    objects : int
        Connected parts of `guess`, specks left out.
    matched : bool
        Whether one of them is the cell: IoU above 0.5.
    """
    count, labels = cv2.connectedComponents(guess.astype(np.uint8), connectivity=8)
    area, cell = np.bincount(labels.ravel(), minlength=count)[1:], int(truth.sum())
    shared = np.bincount(labels[truth], minlength=count)[1:]
    matched = shared > 0.5 * (area + cell - shared)
    return int(((area >= _SPECK * cell) | matched).sum()), bool(matched.any())
