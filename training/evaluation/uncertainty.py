"""Spread over folds, two-sample t-tests, and confidence limits that know that cells of a slide are alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rbcedge.counting.intervals import beta_cdf

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and sample standard deviation (n - 1) over folds; NaN folds are left out.

    Attributes
    ----------
    mean, sd : float
        NaN without a fold, and `sd` with one.
    n : int
        Folds it was taken over.
    """

    mean: float
    sd: float
    n: int


def spread(values: Sequence[float] | NDArray[np.floating]) -> Spread:
    """Summarise one value per fold."""
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    if not len(known):
        return Spread(math.nan, math.nan, 0)
    return Spread(float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else math.nan, len(known))


@dataclass(frozen=True, slots=True)
class TTest:
    """Two-sided two-sample t-test: t, degrees of freedom, and p; NaN where there is nothing to test."""

    t: float
    df: float
    p: float


def t_test(a: Sequence[float], b: Sequence[float]) -> TTest:
    """Student's two-sample t-test with pooled variance, two-sided (the paper's Table 6).

    NaN with fewer than two values on a side, or where neither side varies.
    """
    x, y = (np.asarray(v, float)[~np.isnan(np.asarray(v, float))] for v in (a, b))
    df = len(x) + len(y) - 2
    if len(x) < 2 or len(y) < 2:
        return TTest(math.nan, float(df), math.nan)
    pooled = (((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum()) / df
    # Equal values leave a rounding error behind.
    if pooled <= 1e-24 * max(float((x**2).max()), float((y**2).max())):
        return TTest(math.nan, float(df), math.nan)
    t = float((x.mean() - y.mean()) / math.sqrt(pooled * (1 / len(x) + 1 / len(y))))
    # The two tails of Student's distribution as an incomplete beta function (DLMF 8.17).
    return TTest(t, float(df), beta_cdf(df / (df + t * t), df / 2, 0.5))


def cluster_bootstrap(
    counts: NDArray[np.integer],
    statistic: Callable[[NDArray[np.integer]], NDArray[np.floating]],
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile limits of a statistic when whole slides, not cells, are drawn again with replacement.

    Parameters
    ----------
    counts : (S, ...) int
        Counts of each slide, which add up.
    statistic : callable
        From (B, ...) counts, each the sum over one draw of S slides, to (B,) values.
    confidence : float
    resamples : int
    seed : int

    Returns
    -------
    low, high : float
        NaN with fewer than two slides, or where no draw gives a value.
    """
    counts = np.asarray(counts)
    slides = len(counts)
    if slides < 2:
        return math.nan, math.nan
    weights = np.random.default_rng(seed).multinomial(slides, np.full(slides, 1 / slides), resamples)
    values = np.asarray(statistic(np.tensordot(weights, counts, 1)), float)
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
