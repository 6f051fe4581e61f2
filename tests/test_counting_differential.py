"""Tally, percentages, goals and flags."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbcedge.bundle import Label
from rbcedge.counting.differential import Differential, Tally, differential
from rbcedge.counting.flags import Rules, flags
from rbcedge.counting.grading import icsh_2015

LABELS = (
    Label("NOR", "normal"),
    Label("OVA", "ovalocyte", significant=True),
    Label("TEA", "teardrop", significant=True),
    Label("FRA", "fragment", significant=True),
    Label("BUR", "burr cell", significant=True),
    Label("TWO", "two overlapped", cells=2),
    Label("THR", "three overlapped", cells=3),
    Label("OTH", "other"),
)
CODES = [label.code for label in LABELS]


def count(unsure: int = 0, **cells: int) -> Differential:
    """A differential with so many cells of each class."""
    confident = tuple(cells.get(code, 0) for code in CODES)
    return differential(Tally(confident, (unsure, *[0] * 7)), LABELS, icsh_2015())


def rows(classes: list[int], confidence: float = 0.9) -> np.ndarray:
    p = np.full((len(classes), 8), (1 - confidence) / 7, np.float32)
    p[np.arange(len(classes)), classes] = confidence
    return p


def test_percentages_are_of_single_cells_and_overlaps_give_the_ratio() -> None:
    d = count(NOR=80, OVA=15, FRA=5, TWO=8, THR=2, unsure=10)
    assert (d.counted, d.single, d.overlapped, d.unclassified) == (120, 100, 10, 10)
    assert d.red_cells == 100 + 16 + 6 + 10
    assert d.overlap_ratio == pytest.approx(0.1)
    percent = {c.label.code: c.percent for c in d.classes}
    assert percent["OVA"] == 15
    assert percent["FRA"] == 5
    assert percent["TWO"] == pytest.approx(100 * 8 / 110)
    assert {c.label.code: c.grade for c in d.classes} == {
        "NOR": "", "OVA": "2+", "TEA": "-", "FRA": "3+", "BUR": "-", "TWO": "", "THR": "", "OTH": "",
    }  # fmt: skip


def test_confidence_decides_what_is_unclassified() -> None:
    p = np.concatenate([rows([0, 1, 5]), rows([1, 1], confidence=0.4)])
    tally = Tally.of(p, threshold=0.5)
    assert tally.confident == (1, 1, 0, 0, 0, 1, 0, 0)
    assert tally.doubtful == (0, 2, 0, 0, 0, 0, 0, 0)
    assert Tally.of(rows([3], 0.5), threshold=0.5).confident[3] == 1


def test_unclassified_rows_are_refused() -> None:
    p = rows([0, 1])
    p[1] = np.nan
    with pytest.raises(ValueError, match="classified"):
        Tally.of(p, 0.5)


def test_an_empty_count_is_a_count() -> None:
    d = differential(Tally.empty(8), LABELS, icsh_2015())
    assert d.counted == d.single == d.red_cells == 0
    assert all(c.percent == 0 and c.ci95 == (0, 100) and c.grade == "" for c in d.classes)
    assert d.progress(until=1000) == 0
    assert flags(d) == ()
    assert Tally.of(np.zeros((0, 8), np.float32), 0.5) == Tally.empty(8)


batches = st.lists(st.lists(st.tuples(st.integers(0, 7), st.sampled_from([0.3, 0.9])), max_size=30), max_size=6)


@settings(max_examples=60, deadline=None)
@given(batches, st.randoms())
def test_order_and_batches_do_not_matter(parts: list[list[tuple[int, float]]], shuffle) -> None:
    def tally(cells: list[tuple[int, float]]) -> Tally:
        p = np.concatenate([rows([k], c) for k, c in cells]) if cells else np.zeros((0, 8), np.float32)
        return Tally.of(p, 0.5)

    total = sum((tally(part) for part in parts), Tally.empty(8))
    everything = [cell for part in parts for cell in part]
    shuffle.shuffle(everything)
    assert tally(everything) == total
    assert total.counted == len(everything)
    for part in parts:
        total = total - tally(part)
    assert total == Tally.empty(8)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=8, max_size=8))
def test_percentages_of_single_classes_sum_to_a_hundred(numbers: list[int]) -> None:
    d = differential(Tally(tuple(numbers), (0,) * 8), LABELS, icsh_2015())
    singles = [c for c in d.classes if c.label.cells == 1]
    assert sum(c.percent for c in singles) == pytest.approx(100 if d.single else 0)
    assert all(c.ci95[0] - 1e-9 <= c.percent <= c.ci95[1] + 1e-9 for c in d.classes)
    assert d.counted == d.single + d.overlapped + d.unclassified


def test_any_number_of_classes() -> None:
    labels = tuple(Label(f"C{k}", f"class {k}") for k in range(12))
    d = differential(Tally((1,) * 12, (0,) * 12), labels, icsh_2015())
    assert d.by_code("C11").percent == pytest.approx(100 / 12)
    assert d.by_code("FRA") is None
    assert flags(d) == ("Only 12 single cells counted: percentages are rough.",)
    with pytest.raises(ValueError, match="8 classes for 12 labels"):
        differential(Tally.empty(8), labels, icsh_2015())


def test_goals() -> None:
    d = count(NOR=900, OVA=100)
    assert d.reached(until=1000)
    assert not d.reached(until=1001)
    assert d.progress(until=2000) == pytest.approx(0.5)
    assert d.widest.label.code == "OVA"
    half = d.widest.half_width
    assert 1.5 < half < 2
    assert d.reached(until_ci=2)
    assert not d.reached(until_ci=1)
    assert d.progress(until_ci=1) == pytest.approx(1 / half**2)
    assert d.reached(until=5000, until_ci=2)
    assert not d.reached()


def test_flags_speak_of_what_was_found() -> None:
    assert flags(count(NOR=1000)) == ()
    assert any("Ovalocytes 10.0 %" in f for f in flags(count(NOR=900, OVA=100)))
    assert not any("Ovalocytes" in f for f in flags(count(NOR=950, OVA=50)))
    assert any(f.startswith("1 teardrop cell") for f in flags(count(NOR=999, TEA=1)))
    assert any("check the stain" in f for f in flags(count(NOR=700, BUR=300)))
    assert any("thinner area" in f for f in flags(count(NOR=600, TWO=350)))
    assert any("Only 50 single" in f for f in flags(count(NOR=50)))
    assert any("could not be classified" in f for f in flags(count(NOR=600, unsure=400)))


def test_schistocytes_ask_for_a_thousand_cells() -> None:
    few, enough = flags(count(NOR=490, FRA=10)), flags(count(NOR=990, FRA=10))
    assert any("count at least 1000" in f for f in few)
    assert enough == ("Schistocytes 1.0 % (from 1 % on significant).",)
    assert flags(count(NOR=991, FRA=9)) == ()
    assert any("Schistocytes" in f for f in flags(count(NOR=991, FRA=9), Rules(schistocytes=0.5)))
