"""Measures of a classification from one confusion count (paper, section 4.5, Eqs. 2 to 9)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: False among normal cells, these are what would start a needless work-up.
ABNORMAL = ("TEA", "FRA", "BUR")
NORMAL = "NOR"


@dataclass(frozen=True, slots=True)
class Measures:
    """Per class, one against the rest; shares in 0 to 1, NaN where nothing was there to measure.

    Counts of shape (..., K, K) give measures of shape (..., K).

    Attributes
    ----------
    sensitivity, specificity, precision, npv, f1, fpr, iou, accuracies : (..., K) float64
        Eqs. 2, 3, 5, 9, 7, 8, 6 and 4, each class against the rest. Sensitivity, precision, F1 and IoU of a class
        without a cell are NaN, whatever was taken for it.
    accuracy : float or (...) float64
        Share of all cells that is right: what the paper's tables call ACC.
    present : (..., K) bool
        Classes that have cells.
    """

    sensitivity: NDArray[np.float64]
    specificity: NDArray[np.float64]
    precision: NDArray[np.float64]
    npv: NDArray[np.float64]
    f1: NDArray[np.float64]
    fpr: NDArray[np.float64]
    iou: NDArray[np.float64]
    accuracies: NDArray[np.float64]
    accuracy: float | NDArray[np.float64]
    present: NDArray[np.bool_]

    def mean(self, name: str) -> float | NDArray[np.float64]:
        """Mean of a measure over the classes that have cells and for which it is defined; NaN without any.

        A precision is not defined for a class that nothing was taken for.
        """
        values = np.where(self.present, getattr(self, name), np.nan)
        known = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            mean = np.where(known, values, 0).sum(-1) / known.sum(-1)
        return float(mean) if mean.ndim == 0 else mean

    def covered(self, name: str) -> int:
        """How many classes `mean` is taken over, for a single confusion count."""
        return int((self.present & ~np.isnan(getattr(self, name))).sum())

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur."""
        return float(self.mean("f1"))


def confusion(truth: NDArray[np.integer], guess: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """(K, K) counts, true class in rows."""
    flat = np.bincount(np.asarray(truth) * classes + np.asarray(guess), minlength=classes * classes)
    return flat.reshape(classes, classes)


def measure(counts: NDArray[np.integer]) -> Measures:
    """Compute the measures of a (..., K, K) confusion count, true class in rows."""
    counts = np.asarray(counts)
    tp = np.diagonal(counts, axis1=-2, axis2=-1).astype(float)
    all_ = counts.sum((-2, -1)).astype(float)
    fn = counts.sum(-1) - tp
    fp = counts.sum(-2) - tp
    tn = all_[..., None] - tp - fn - fp
    present = tp + fn > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracy = tp.sum(-1) / all_
        return Measures(
            sensitivity=tp / (tp + fn),
            specificity=tn / (tn + fp),
            precision=np.where(present, tp / (tp + fp), np.nan),
            npv=tn / (tn + fn),
            f1=np.where(present, 2 * tp / (2 * tp + fp + fn), np.nan),
            fpr=fp / (fp + tn),
            iou=np.where(present, tp / (tp + fp + fn), np.nan),
            accuracies=(tp + tn) / all_[..., None],
            accuracy=float(accuracy) if accuracy.ndim == 0 else accuracy,
            present=present,
        )


def false_abnormal(
    counts: NDArray[np.integer], codes: Iterable[str], normal: str = NORMAL, abnormal: Iterable[str] = ABNORMAL
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """How many normal cells of (..., K, K) counts were taken for an abnormal class, and how many there are.

    None where the class set lacks the normal class or every abnormal one.
    """
    order = list(codes)
    wrong = [order.index(c) for c in abnormal if c in order]
    if normal not in order or not wrong:
        return None
    row = np.asarray(counts)[..., order.index(normal), :]
    return row[..., wrong].sum(-1), row.sum(-1)
