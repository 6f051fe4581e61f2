"""Measures against the paper's own arithmetic, and marks laid over runs made by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rbcedge.training.datasets.chula import LabelledField
from rbcedge.training.measures import confusion, measure
from rbcedge.training.scoring import lay_over

from rbcedge.errors import RbcedgeError


def test_measures_of_a_known_confusion() -> None:
    m = measure(np.array([[8, 2, 0], [1, 9, 0], [1, 0, 4]]))
    np.testing.assert_allclose(m.sensitivity, [0.8, 0.9, 0.8])
    np.testing.assert_allclose(m.precision, [0.8, 9 / 11, 1.0])
    np.testing.assert_allclose(m.specificity, [13 / 15, 13 / 15, 1.0])
    np.testing.assert_allclose(m.npv, [13 / 15, 13 / 14, 20 / 21])
    np.testing.assert_allclose(m.f1, [0.8, 18 / 21, 8 / 9])
    assert m.accuracy == pytest.approx(21 / 25)


@given(arrays(np.int64, st.integers(1, 50), elements=st.integers(0, 4)))
def test_a_perfect_guess_has_perfect_measures(truth: np.ndarray) -> None:
    m = measure(confusion(truth, truth, 5))
    assert m.accuracy == 1
    assert m.macro_f1 == 1


def test_confusion_counts_every_pair_once() -> None:
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
    counts = confusion(truth, guess, 4)
    for t in range(4):
        for g in range(4):
            assert counts[t, g] == ((truth == t) & (guess == g)).sum()


def _run(path: Path, rows: list[tuple[int, int, int, int, str]]) -> Path:
    with path.open("w", newline="") as f:
        out = csv.writer(f)
        out.writerow(["source", "x", "y", "w", "h", "cx", "cy", "code", "counted"])
        for x, y, w, h, code in rows:
            out.writerow(["a/7.jpg", x, y, w, h, x + w / 2, y + h / 2, code, 1])
    path.with_name("fields.csv").write_text("field,source\n1,a/7.jpg\n2,a/9.jpg\n")
    return path


def test_marks_are_assigned_to_cells(tmp_path: Path) -> None:
    rows = [(100, 100, 40, 40, "NOR"), (200, 100, 40, 40, "TEA"), (300, 100, 70, 40, "TWO"), (0, 300, 40, 40, "OVA")]
    points = [(120, 120, 0), (220, 120, 3), (315, 120, 0), (355, 120, 6), (20, 320, 0), (500, 400, 0)]
    table = np.array(points, np.int32)
    field = LabelledField(7, Path("7.jpg"), table[:, :2], table[:, 2])
    found = lay_over(_run(tmp_path / "cells.csv", rows), [field])
    assert (found.fields, found.points, found.missed) == (1, 6, ((Path("7.jpg"), 500, 400),))
    # Two marks make a TWO; the cell at the edge is left out.
    assert [(c.truth, c.row["code"]) for c in found.cells] == [("NOR", "NOR"), ("NOR", "TEA"), ("TWO", "TWO")]
    assert (found.full_fields, found.full_cells, found.unmarked, found.extra) == (1, 3, (), 0)


def test_a_file_without_the_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text("a,b\n1,2\n")
    (tmp_path / "fields.csv").write_text("source\n")
    with pytest.raises(RbcedgeError, match="columns"):
        lay_over(tmp_path / "cells.csv", [])


def test_it_is_said_when_no_labelled_picture_was_counted(tmp_path: Path) -> None:
    path = _run(tmp_path / "cells.csv", [(1, 1, 2, 2, "NOR")])
    field = LabelledField(8, Path("8.jpg"), np.array([[1, 1]], np.int32), np.array([0], np.int32))
    with pytest.raises(RbcedgeError, match="none of the labelled pictures"):
        lay_over(path, [field])


def test_marks_of_a_picture_in_which_nothing_was_found_are_missed_not_forgotten(tmp_path: Path) -> None:
    path = _run(tmp_path / "cells.csv", [(100, 100, 40, 40, "NOR")])
    one = np.array([[120, 120]], np.int32)
    fields = [LabelledField(n, Path(f"{n}.jpg"), one, np.array([0], np.int32)) for n in (7, 9)]
    found = lay_over(path, fields)
    assert (found.points, found.missed) == (2, ((Path("9.jpg"), 120, 120),))
