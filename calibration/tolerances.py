"""How much a small network may lose against the float one, and whether it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rbcedge.counting.intervals import clopper_pearson

#: "noise": beyond the tolerance, but so few cells changed sides that chance explains it.
Verdict = Literal["within", "beyond", "noise"]


@dataclass(frozen=True, slots=True)
class Tolerances:
    """Largest accepted changes against float32, in points (hundredths).

    Attributes
    ----------
    mask_iou : float
        Change of the mask's IoU, against any truth whatever: `1 - IoU` is a metric (Jaccard distance), so the IoU
        with a true mask can change by no more than the two masks differ from each other.
    accuracy : float
        Change of the share of labelled cells that are named rightly.
    percentage : float
        Change of any class's percentage in the differential.
    cells : int
        Whole cells that must have been compared for a judgement to mean anything.
    """

    mask_iou: float = 0.3
    accuracy: float = 0.3
    percentage: float = 0.5
    cells: int = 100


@dataclass(frozen=True, slots=True)
class Change:
    """A share before and after, over the same cells.

    Attributes
    ----------
    points : float
        After minus before, in points.
    ci95 : (float, float)
        95 % interval of `points`.
    gained, lost : int
        Cells that came in and that went.
    n : int
        Cells.
    """

    points: float
    ci95: tuple[float, float]
    gained: int
    lost: int
    n: int

    def judge(self, tolerance: float) -> Verdict:
        """Whether it is within ± `tolerance` points."""
        if abs(self.points) <= tolerance:
            return "within"
        return "noise" if self.ci95[0] <= 0 <= self.ci95[1] else "beyond"


def paired(points: float, gained: int, lost: int, n: int) -> Change:
    """Attach its interval to a change of a share that was measured twice on the same `n` cells.

    Only cells that changed sides say anything: of these the share that came in has exact Clopper-Pearson limits
    (the interval behind McNemar's exact test, McNemar 1947). Where none changed, the limits are those of 0 in `n`.
    """
    moved = gained + lost
    if moved == 0:
        most = 100 * clopper_pearson(0, n)[1]
        return Change(points, (-most, most), gained, lost, n)
    low, high = clopper_pearson(gained, moved)
    scale = 100 * moved / n
    return Change(points, (scale * (2 * low - 1), scale * (2 * high - 1)), gained, lost, n)


def of_shares(of_class: NDArray[np.bool_], in_base: NDArray[np.bool_]) -> Change:
    """Change of a class's percentage, measured twice on the same cells, with its interval.

    Both the class and the base (cells that are assessable at all) may change. The variance is that of the
    linearised difference of the two ratios, cell by cell (Taylor linearisation as in survey sampling: Cochran,
    Sampling Techniques, 1977, section 6.3); where no cell came or went, the limits are at least those of 0 in n.

    Parameters
    ----------
    of_class, in_base : (N, 2) bool
        Whether a cell is of the class, and counts towards its percentage, before and after.
    """
    totals = in_base.sum(axis=0)
    shares = np.divide(of_class.sum(axis=0), totals, out=np.zeros(2), where=totals > 0)
    parts = np.divide(of_class - shares * in_base, totals, out=np.zeros(of_class.shape), where=totals > 0)
    points, n = 100 * float(shares[1] - shares[0]), int(in_base.any(axis=1).sum())
    gained, lost = int((of_class[:, 1] & ~of_class[:, 0]).sum()), int((of_class[:, 0] & ~of_class[:, 1]).sum())
    half = 196 * float(np.sqrt(np.square(parts[:, 1] - parts[:, 0]).sum()))
    if gained + lost == 0:
        half = max(half, 100 * clopper_pearson(0, n)[1])
    return Change(points, (points - half, points + half), gained, lost, n)
