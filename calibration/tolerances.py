"""How much a small network may lose against the float one, and whether it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    if n == 0:
        return Change(points, (-100.0, 100.0), gained, lost, n)
    moved = gained + lost
    if moved == 0:
        most = 100 * clopper_pearson(0, n)[1]
        return Change(points, (-most, most), gained, lost, n)
    low, high = clopper_pearson(gained, moved)
    scale = 100 * moved / n
    return Change(points, (scale * (2 * low - 1), scale * (2 * high - 1)), gained, lost, n)
