"""Figures of a series of times, and ratios of two series with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Least samples for a percentile to be more than the largest sample under another name.
ENOUGH = {50: 5, 99: 100}
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Distribution:
    """A series of times in ms. `cv` is the coefficient of variation: standard deviation by mean, 0.025 is 2.5 %."""

    n: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float
    cv: float


def describe(samples: Sequence[float]) -> Distribution:
    """Describe a series of at least one time in ms.

    Percentiles are interpolated between neighbours; `cv` has n - 1 degrees of freedom and is 0 for one sample.
    """
    x = np.asarray(samples, np.float64)
    if not len(x):
        raise ValueError("no samples")
    p50, p90, p95, p99 = (float(v) for v in np.percentile(x, (50, 90, 95, 99)))
    mean = float(x.mean())
    spread = float(x.std(ddof=1)) if len(x) > 1 else 0.0
    return Distribution(len(x), mean, p50, p90, p95, p99, float(x.max()), spread / mean if mean > 0 else 0.0)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A percentile of one series over the same of another, with 95 % limits; None where samples are too few."""

    value: float
    low: float | None
    high: float | None

    @property
    def told_apart(self) -> bool:
        """Whether the limits exclude 1: the two differ by more than chance."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


def ratio(new: Sequence[float], old: Sequence[float], percent: int, seed: int = 0) -> Ratio | None:
    """Compare a percentile of two series of times.

    Limits are those of a circular block bootstrap (Politis and Romano 1992) with blocks of n^(1/3): neighbouring
    times depend on each other, and resampling them one by one would give limits that are too narrow.

    Parameters
    ----------
    new, old : sequence of float
        Times in order.
    percent : int
        50 or 99.
    seed : int
        Of the resampling.

    Returns
    -------
    Ratio or None
        None where a series is empty or the old percentile is zero.
    """
    if not len(new) or not len(old):
        return None
    a, b = np.asarray(new, np.float64), np.asarray(old, np.float64)
    below = float(np.percentile(b, percent))
    if below <= 0:
        return None
    value = float(np.percentile(a, percent)) / below
    if min(len(a), len(b)) < ENOUGH[percent]:
        return Ratio(value, None, None)
    rng = np.random.default_rng(seed)
    tops, bottoms = _resampled(a, percent, rng), _resampled(b, percent, rng)
    ratios = tops / np.maximum(bottoms, 1e-12)
    low, high = np.percentile(ratios, (2.5, 97.5))
    return Ratio(value, float(low), float(high))


def _resampled(x: NDArray[np.float64], percent: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the percentile of `_RESAMPLES` series put together from blocks of `x`."""
    n = len(x)
    length = max(1, round(n ** (1 / 3)))
    starts = rng.integers(0, n, (_RESAMPLES, -(-n // length)))
    index = (starts[:, :, None] + np.arange(length)) % n
    series = x[index.reshape(_RESAMPLES, -1)[:, :n]]
    out: NDArray[np.float64] = np.percentile(series, percent, axis=1)
    return out


def slope(samples: Sequence[float]) -> float:
    """Return how much the median of the last quarter exceeds that of the first, as a share; 0 below 8 samples."""
    quarter = len(samples) // 4
    if quarter < 2:
        return 0.0
    first, last = float(np.median(samples[:quarter])), float(np.median(samples[-quarter:]))
    return last / first - 1 if first > 0 else 0.0
