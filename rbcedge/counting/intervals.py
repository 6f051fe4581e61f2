"""Exact binomial confidence limits (Clopper and Pearson 1934), without SciPy."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_TINY = 1e-300


@lru_cache(maxsize=4096)
def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact two-sided confidence limits of a share of which `k` in `n` were seen.

    Parameters
    ----------
    k, n : int
        0 <= k <= n. With n = 0 nothing is known: the limits are 0 and 1.
    confidence : float
        Above 0, below 1.

    Returns
    -------
    low, high : float
        0 to 1, low <= k / n <= high.

    Raises
    ------
    ValueError
        If k, n or confidence are out of range.

    Notes
    -----
    Clopper and Pearson, Biometrika 26 (1934) 404: the limits are quantiles of the beta distribution.

    Examples
    --------
    >>> low, high = clopper_pearson(1, 100)
    >>> f"{low:.2%} {high:.1%}"
    '0.03% 5.4%'
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is no share")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    if n == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if k == 0 else beta_quantile(tail, k, n - k + 1)
    # By symmetry: one minus the lower limit of the cells that are not of this class.
    high = 1.0 if k == n else 1.0 - beta_quantile(tail, n - k, k + 1)
    return low, high


def beta_quantile(p: float, a: float, b: float) -> float:
    """Return x with I_x(a, b) = p for 0 < p < 1 and a, b > 0, by Halley's method inside a bracket."""
    low, high = 0.0, 1.0
    x = _near_quantile(p, a, b)
    log_norm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    for _ in range(200):
        error = beta_cdf(x, a, b) - p
        if error > 0:
            high = x
        else:
            low = x
        log_density = log_norm + (a - 1) * math.log(x) + (b - 1) * math.log1p(-x)
        step = error / math.exp(log_density) if -700 < log_density < 700 else math.inf
        # The density's own slope: what is left after a step is then of third order. Far away it would only mislead.
        bend = 0.5 * step * ((a - 1) / x - (b - 1) / (1 - x))
        near = abs(bend) < 0.5
        nearer = x - step / (1 - bend) if near else x - step
        # A step may leave the bracket far from the root; halving always gets there.
        inside = low < nearer < high
        if not inside:
            nearer = (low + high) / 2
        moved = abs(nearer - x)
        # After so small a step of third order what is left is below the last digit.
        small = 1e-6 * min(x, 1 - x) if near and inside else 1e-14 * x
        if moved <= small or nearer in (low, high):
            return nearer
        x = nearer
    return x


def _near_quantile(p: float, a: float, b: float) -> float:
    """Return a guess of the quantile: Abramowitz and Stegun 26.5.22, and the mean for a or b below 1."""
    if a < 1 or b < 1:
        return a / (a + b)
    z = -NormalDist().inv_cdf(p)
    first, second = 1 / (2 * a - 1), 1 / (2 * b - 1)
    mean = 2 / (first + second)
    curve = (z * z - 3) / 6
    w = z * math.sqrt(curve + mean) / mean - (second - first) * (curve + 5 / 6 - 2 / (3 * mean))
    x = a / (a + b * math.exp(2 * w))
    return x if 0 < x < 1 else a / (a + b)


def beta_cdf(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), 0 <= x <= 1, a, b > 0.

    Continued fraction of DLMF 8.17.22, evaluated by Lentz's method.
    """
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    # The fraction converges fast below the mean only.
    if x > (a + 1) / (a + b + 2):
        return 1.0 - beta_cdf(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    c, d = 1.0, 1.0 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 20_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / _away_from_zero(1 + even * d)
        c = _away_from_zero(1 + even / c)
        value *= c * d
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1.0 / _away_from_zero(1 + odd * d)
        c = _away_from_zero(1 + odd / c)
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * value / a


def _away_from_zero(x: float) -> float:
    return x if abs(x) > _TINY else _TINY
