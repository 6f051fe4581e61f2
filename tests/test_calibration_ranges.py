"""Where an activation's INT8 range ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rbcedge.calibration.ranges import METHODS, Method, Spread


def spread(*batches: np.ndarray) -> Spread:
    out = Spread()
    for collect in (Spread.widen, Spread.add):
        for values in batches:
            collect(out, values.astype(np.float32))
    return out


@given(hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-100, 100, width=32)), st.sampled_from(METHODS))
def test_a_range_holds_zero_and_never_exceeds_what_was_seen(values: np.ndarray, method: Method) -> None:
    low, high = spread(values).range(method)
    assert min(0.0, float(values.min())) <= low <= 0 <= high <= max(0.0, float(values.max()))


@given(hnp.arrays(np.float32, st.integers(2, 300), elements=st.floats(-100, 100, width=32)))
def test_min_max_is_what_was_seen_and_every_value_is_counted(values: np.ndarray) -> None:
    seen = spread(values)
    assert seen.range("min-max") == (min(0.0, float(values.min())), max(0.0, float(values.max())))
    if values.min() < values.max():
        assert seen.counts.sum() == values.size


def test_batches_add_up() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 1000))
    assert (spread(a, b).counts == spread(np.concatenate([a, b])).counts).all()


def test_percentile_leaves_one_outlier_in_a_million_out() -> None:
    values = np.random.default_rng(0).random(1_000_000)
    values[17] = 500.0
    low, high = spread(values).range("percentile")
    assert (low, high) == (0.0, pytest.approx(1.0, abs=0.5))
    assert spread(values).range("min-max")[1] == 500.0


def test_entropy_cuts_a_thin_tail_and_leaves_a_flat_distribution_alone() -> None:
    rng = np.random.default_rng(0)
    tailed = np.concatenate([np.abs(rng.standard_normal(200_000)), np.linspace(4, 60, 40)])
    _, high = spread(tailed).range("entropy")
    assert 1.5 < high < 30
    flat = rng.random(200_000)
    assert spread(flat).range("entropy")[1] > 0.95


def test_zeros_of_relu_do_not_decide() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([np.zeros(900_000), rng.random(100_000)])
    assert spread(values).range("entropy")[1] > 0.9


def test_a_constant_has_a_range_that_holds_it() -> None:
    assert spread(np.full(10, 3.0)).range("entropy") == (0.0, 3.0)
    assert spread(np.full(10, -3.0)).range("percentile") == (-3.0, 0.0)
