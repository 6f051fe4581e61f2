"""Measures of a classification from one confusion count (paper, section 4.5, Eqs. 2 to 9)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Measures:
    """Per class, one against the rest; shares in 0 to 1, NaN where nothing was there to measure.

    Attributes
    ----------
    sensitivity, specificity, precision, npv, f1 : (K,) float64
        Eqs. 2, 3, 5, 9, 7.
    accuracy : float
        Share of all that is right (Eq. 4 over all classes).
    """

    sensitivity: NDArray[np.float64]
    specificity: NDArray[np.float64]
    precision: NDArray[np.float64]
    npv: NDArray[np.float64]
    f1: NDArray[np.float64]
    accuracy: float

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur."""
        return float(np.nanmean(self.f1))


def confusion(truth: NDArray[np.integer], guess: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """(K, K) counts, true class in rows."""
    flat = np.bincount(np.asarray(truth) * classes + np.asarray(guess), minlength=classes * classes)
    return flat.reshape(classes, classes)


def measure(counts: NDArray[np.integer]) -> Measures:
    """Compute the measures of a (K, K) confusion count, true class in rows."""
    tp = np.diag(counts).astype(float)
    fn = counts.sum(1) - tp
    fp = counts.sum(0) - tp
    tn = counts.sum() - tp - fn - fp
    with np.errstate(divide="ignore", invalid="ignore"):
        f1 = np.where(tp + fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan)
        return Measures(
            tp / (tp + fn),
            tn / (tn + fp),
            tp / (tp + fp),
            tn / (tn + fn),
            f1,
            float(tp.sum() / counts.sum()) if counts.sum() else float("nan"),
        )
