"""Figures of a series, and ratios of two with their limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbcedge.bench.statistics import describe, ratio, slope

TIMES = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=60)


@settings(deadline=None)
@given(TIMES)
def test_figures_are_in_order(times: list[float]) -> None:
    d = describe(times)
    assert d.n == len(times)
    assert min(times) <= d.p50 <= d.p90 <= d.p95 <= d.p99 <= d.max == max(times)
    assert d.cv >= 0


def test_figures_of_a_known_series() -> None:
    d = describe([1.0, 2.0, 3.0, 4.0])
    assert (d.mean, d.p50, d.max) == (2.5, 2.5, 4.0)
    assert d.cv == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2.5)
    assert describe([7.0]).cv == 0
    with pytest.raises(ValueError, match="no samples"):
        describe([])


@settings(max_examples=10, deadline=None)
@given(st.floats(0.2, 5.0), st.integers(0, 10_000))
def test_a_series_that_is_slower_by_a_factor_shows_that_factor(factor: float, seed: int) -> None:
    old = np.random.default_rng(seed).gamma(20, 5, 120)
    found = ratio(old * factor, old, 50)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.value == pytest.approx(factor)
    assert found.low <= factor * (1 + 1e-9)
    assert found.high >= factor * (1 - 1e-9)


def test_what_chance_explains_is_not_told_apart() -> None:
    rng = np.random.default_rng(3)
    same = ratio(rng.gamma(20, 5, 200), rng.gamma(20, 5, 200), 50)
    other = ratio(rng.gamma(20, 6, 200), rng.gamma(20, 5, 200), 50)
    assert same is not None
    assert other is not None
    assert not same.told_apart
    assert other.told_apart


def test_too_few_samples_have_no_limits() -> None:
    few = ratio([1.0, 2.0] * 10, [1.0, 2.0] * 10, 99)
    assert few is not None
    assert (few.value, few.low, few.high) == (1.0, None, None)
    assert not few.told_apart
    assert ratio([], [1.0], 50) is None
    assert ratio([1.0], [0.0], 50) is None


def test_slope_compares_the_last_quarter_with_the_first() -> None:
    assert slope([10.0] * 20 + [11.0] * 20) == pytest.approx(0.1)
    assert slope([10.0] * 40) == 0
    assert slope([1.0, 9.0]) == 0
