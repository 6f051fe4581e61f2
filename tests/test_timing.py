"""Percentiles in bounded memory, and the rate of pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbcedge.timing import Rate, Stages, timed


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=200))
def test_percentiles_are_within_two_percent_of_a_sample(values: list[float]) -> None:
    stages = Stages()
    for v in values:
        stages.add({"segment": v})
    figures = stages.summary()["segment"]
    for name, q in (("p50", 50), ("p90", 90), ("p99", 99)):
        exact = float(np.percentile(values, q, method="inverted_cdf"))
        assert figures[name] == pytest.approx(exact, rel=0.021, abs=0.002)
    assert figures["max"] == pytest.approx(max(values), abs=1e-3)


def test_stages_keep_their_order_and_odd_values_do_no_harm() -> None:
    stages = Stages()
    stages.add({"b": 1.0, "a": 0.0})
    stages.add({"a": 1e12, "c": 2.0})
    assert list(stages.summary()) == ["b", "a", "c"]
    assert stages.summary()["a"]["max"] == 1e12
    assert Stages().summary() == {}


def test_rate_counts_intervals() -> None:
    rate = Rate(window_s=2)
    assert rate.per_second == 0
    rate.tick(10.0)
    assert rate.per_second == 0
    rate.tick(10.5)
    assert rate.per_second == 2
    for k in range(1, 101):
        rate.tick(10.5 + k / 30)
    assert rate.per_second == pytest.approx(30)


def test_rate_forgets_what_is_older_than_its_window() -> None:
    rate = Rate(window_s=2)
    for k in range(50):
        rate.tick(k / 100)
    rate.tick(10.0)
    assert rate.per_second == pytest.approx(1 / (10 - 0.49))
    rate.tick(11.0)
    rate.tick(13.0)
    assert rate.per_second == pytest.approx(1 / 2)


def test_timed_adds_up() -> None:
    timings = {"a": 5.0}
    with timed(timings, "a"):
        pass
    with pytest.raises(KeyError), timed(timings, "b"):
        raise KeyError
    assert timings["a"] >= 5
    assert timings["b"] >= 0
