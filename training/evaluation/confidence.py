"""Do probabilities mean what they say? Calibration error, reliability, and a temperature that mends it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15
_LEAST = 1e-7


@dataclass(frozen=True, slots=True)
class Reliability:
    """Cells in bins of equal width by the probability of the class they were given.

    Attributes
    ----------
    cells : (B,) int64
    confidence, accuracy : (B,) float64
        Mean probability and share right in each bin; NaN in empty ones.
    """

    cells: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error, 0 to 1: mean distance of confidence and accuracy over cells (Guo 2017)."""
        if not self.cells.sum():
            return float("nan")
        distance = np.where(self.cells > 0, np.abs(self.confidence - self.accuracy), 0)
        return float((np.nan_to_num(distance) * self.cells).sum() / self.cells.sum())


def reliability(truth: NDArray[np.integer], probabilities: NDArray[np.floating], bins: int = BINS) -> Reliability:
    """Sort (N,) cells with (N, K) probabilities into bins of their largest probability."""
    top, right = probabilities.max(1), probabilities.argmax(1) == truth
    at = np.minimum((top * bins).astype(int), bins - 1)
    cells = np.bincount(at, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(at, top, bins) / cells
        accuracy = np.bincount(at, right, bins) / cells
    return Reliability(cells, confidence, accuracy)


def temper(probabilities: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Divide the logarithm of (N, K) probabilities by `temperature` and make the rows sum to 1."""
    logs = np.log(np.maximum(probabilities, _LEAST)) / temperature
    p = np.exp(logs - logs.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def surprise(truth: NDArray[np.integer], probabilities: NDArray[np.floating]) -> float:
    """Mean negative logarithm of the true class's probability (log loss)."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], _LEAST)).mean())


def fit_temperature(truth: NDArray[np.integer], probabilities: NDArray[np.floating]) -> float:
    """Temperature of the least log loss, within 0.05 to 20.

    The loss is convex in 1 / temperature: Newton's method, kept within the limits. Where every cell is right with
    the larger part of the probability the least loss lies at the lower limit.
    """
    logs = np.log(np.maximum(probabilities, _LEAST)).astype(float)
    own = logs[np.arange(len(truth)), truth]
    low, high, beta = 1 / 20, 1 / 0.05, 1.0
    for _ in range(100):
        p = temper(probabilities, 1 / beta)
        mean = (p * logs).sum(1)
        slope = float((mean - own).mean())
        low, high = (beta, high) if slope < 0 else (low, beta)
        bend = float(((p * logs**2).sum(1) - mean**2).mean())
        # At the limits and where the curve is flat, Newton's step leaves the bracket: halve it instead.
        step = beta - slope / bend if bend > 0 else np.nan
        new = step if low < step < high else (low * high) ** 0.5
        if abs(new - beta) < 1e-9 * beta:
            break
        beta = new
    return float(1 / beta)


def cross_fitted(
    truth: NDArray[np.integer], probabilities: NDArray[np.floating], groups: NDArray[np.generic]
) -> NDArray[np.float64]:
    """Temper every group of cells by the temperature that fits the *other* groups best: no group judges itself.

    Raises
    ------
    ValueError
        With fewer than two groups.
    """
    names = np.unique(groups)
    if len(names) < 2:
        raise ValueError("a temperature can be judged on other groups only where there are two or more")
    out = np.empty(probabilities.shape, float)
    for name in names:
        own = groups == name
        out[own] = temper(probabilities[own], fit_temperature(truth[~own], probabilities[~own]))
    return out
