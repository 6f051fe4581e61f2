"""Exact confidence limits against SciPy and against the published table."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from rbcedge.counting.intervals import beta_cdf, clopper_pearson

shares = st.integers(0, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("n", "low", "high"), [(100, 0.03, 5.45), (500, 0.33, 2.32), (1000, 0.48, 1.83), (2000, 0.61, 1.54)]
)
def test_one_percent_of_n(n: int, low: float, high: float) -> None:
    assert [100 * v for v in clopper_pearson(n // 100, n)] == pytest.approx([low, high], abs=0.006)


@settings(max_examples=150, deadline=None)
@given(shares)
def test_agrees_with_scipy_and_contains_the_estimate(share: tuple[int, int]) -> None:
    k, n = share
    low, high = clopper_pearson(k, n)
    assert 0 <= low <= high <= 1
    if n:
        assert low <= k / n <= high
    assert low == pytest.approx(beta.ppf(0.025, k, n - k + 1) if k else 0, rel=1e-8, abs=1e-13)
    assert high == pytest.approx(beta.ppf(0.975, k + 1, n - k) if k < n else 1, rel=1e-8)


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 3000).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))))
def test_grows_with_the_share_and_shrinks_with_the_count(share: tuple[int, int]) -> None:
    k, n = share
    here, more = clopper_pearson(k, n), clopper_pearson(k + 1, n)
    assert here[0] < more[0]
    assert here[1] < more[1] or more[1] == 1
    tenfold = clopper_pearson(10 * k, 10 * n)
    assert tenfold[1] - tenfold[0] < here[1] - here[0]
    wider = clopper_pearson(k, n, confidence=0.99)
    assert wider[0] <= here[0]
    assert wider[1] >= here[1]


def test_large_counts() -> None:
    low, high = clopper_pearson(123_456, 10_000_000)
    assert low == pytest.approx(beta.ppf(0.025, 123_456, 10_000_000 - 123_456 + 1), rel=1e-9)
    assert high == pytest.approx(beta.ppf(0.975, 123_457, 10_000_000 - 123_456), rel=1e-9)


def test_nothing_counted_says_nothing() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert beta_cdf(0, 2, 3) == 0
    assert beta_cdf(1, 2, 3) == 1


@pytest.mark.parametrize(("k", "n", "confidence"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0), (1, 2, 0.0)])
def test_nonsense_is_refused(k: int, n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"share|confidence"):
        clopper_pearson(k, n, confidence)
