"""Two results for the same picture: matching, distances, percentages, intervals, tolerances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rbcedge.calibration.agreement import ABSENT, UNSURE, compare_fields, pool
from rbcedge.calibration.marks import Mark, read, write
from rbcedge.calibration.matching import boundary_distances, pairs
from rbcedge.calibration.tolerances import Tolerances, of_shares, paired
from session_fakes import CODES, DarkPipeline, disc_picture, field_of_discs, make_bundle

from rbcedge.errors import RbcedgeError
from rbcedge.field import Field
from rbcedge.frame import Frame


def seen(pixels: np.ndarray, source: str = "x") -> Field:
    pipeline = DarkPipeline()
    field = pipeline.find(Frame(0, 0.0, pixels, source))
    return pipeline.classify(field, np.arange(len(field.cells)))


def renamed(field: Field, row: int, code: str, sure: float = 0.97) -> Field:
    p = np.full((1, len(CODES)), (1 - sure) / (len(CODES) - 1), np.float32)
    p[0, CODES.index(code)] = sure
    return replace(field, cells=field.cells.with_probabilities(np.array([row]), p))


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "bundle")


def test_pairs_match_by_overlap_whatever_the_numbers() -> None:
    first, second = np.zeros((2, 40, 60), np.int32)
    first[5:15, 5:15], first[5:15, 30:40] = 1, 2
    second[5:15, 31:41], second[6:16, 5:15], second[30:35, 5:10] = 1, 2, 3
    a, b = pairs(first, second)
    assert sorted(zip(a.tolist(), b.tolist(), strict=True)) == [(0, 1), (1, 0)]


def test_half_an_overlap_is_no_match() -> None:
    first, second = np.zeros((2, 10, 40), np.int32)
    first[2:8, 0:10], second[2:8, 5:15] = 1, 1
    assert len(pairs(first, second)[0]) == 0


def test_the_distance_of_a_shifted_square_is_its_shift() -> None:
    a, b = np.zeros((2, 60, 60), bool)
    a[10:40, 10:40], b[10:40, 13:43] = True, True
    d = boundary_distances(a, b)
    assert d.max() == 3.0
    # Two of the four sides lie 3 px apart, the two others on each other but for their ends.
    assert d.mean() == pytest.approx(3 * 60 / 116, abs=0.25)
    assert boundary_distances(a, a).max() == 0
    assert len(boundary_distances(a, np.zeros_like(a))) == 0


def test_the_edge_of_the_picture_is_no_outline() -> None:
    a = np.zeros((30, 30), bool)
    a[:, :10] = True
    b = a.copy()
    b[:, 10] = True
    assert np.allclose(boundary_distances(a, b), 1)


def test_a_result_agrees_with_itself(bundle) -> None:
    field = seen(field_of_discs())
    a = pool([compare_fields(field, field, bundle)], bundle.labels, "a", "b")
    assert (a.mask_iou, a.boundary_mean, a.labels_agree, a.cells) == (1.0, 0.0, 1.0, (12, 12, 12))
    assert {c.verdict for c in a.checks(Tolerances())} == {"within"}
    percent = {c.label.code: c.before for c in a.classes}
    # Seven, two and one of ten sure single cells; one overlapped of eleven; one doubtful, one at the border.
    assert percent == {"NOR": 70.0, "OVA": 20.0, "TEA": 10.0, "TWO": pytest.approx(100 / 11)}
    assert a.unclassified == (pytest.approx(100 / 12), pytest.approx(100 / 12))


def test_a_renamed_cell_changes_labels_and_percentages(bundle) -> None:
    before = seen(field_of_discs())
    row = int(np.flatnonzero((before.cells.best == 0) & ~before.cells.on_border)[0])
    after = renamed(before, row, "TEA")
    a = pool([compare_fields(before, after, bundle)], bundle.labels, "a", "b")
    assert a.labels_agree == pytest.approx(11 / 12)
    change = {c.label.code: c.change for c in a.classes}
    assert (change["NOR"].points, change["TEA"].points) == (pytest.approx(-10), pytest.approx(10))
    assert (change["TEA"].gained, change["TEA"].lost, change["TEA"].n) == (1, 0, 10)
    assert a.largest.label.code in ("NOR", "TEA")
    assert {c.verdict for c in a.checks(Tolerances()) if c.name.endswith(("NOR", "TEA"))} == {"noise"}


def test_a_cell_that_is_lost_and_one_that_appears(bundle) -> None:
    discs = [(60 + 60 * i, 60, 60) for i in range(4)]
    before, after = seen(disc_picture(discs)), seen(disc_picture([*discs[1:], (60, 180, 80)]))
    found = compare_fields(before, after, bundle)
    a = pool([found], bundle.labels, "a", "b")
    assert a.cells == (4, 4, 3)
    assert sorted((p.before, p.after) for p in found.pairs) == [(ABSENT, 1), (0, ABSENT), (0, 0), (0, 0), (0, 0)]


def test_a_doubtful_cell_is_unclassified_on_that_side_only(bundle) -> None:
    before = seen(disc_picture([(60, 60, 60), (150, 60, 60)]))
    after = renamed(before, 0, "NOR", sure=0.5)
    (first, second) = compare_fields(before, after, bundle).pairs
    assert (first.before, first.after, first.named_after) == (0, UNSURE, 0)
    assert (second.before, second.after) == (0, 0)


def test_accuracy_counts_marked_cells_only(bundle) -> None:
    before = seen(disc_picture([(60, 60, 60), (150, 60, 80), (240, 60, 100)]))
    after = renamed(before, 1, "NOR")
    marks = [Mark(60, 60, "NOR"), Mark(150, 61, "OVA")]
    a = pool([compare_fields(before, after, bundle, marks)], bundle.labels, "a", "b")
    assert a.accuracy == (100.0, 50.0)
    assert a.accuracy_change is not None
    assert (a.accuracy_change.gained, a.accuracy_change.lost, a.accuracy_change.n) == (0, 1, 2)


def test_bland_altman_is_over_fields(bundle) -> None:
    fields = []
    for k, code in enumerate(("NOR", "TEA", "TEA")):
        before = seen(disc_picture([(60 + 60 * i, 60, 60) for i in range(4)]), str(k))
        fields.append(compare_fields(before, renamed(before, 0, code), bundle))
    tea = next(c for c in pool(fields, bundle.labels, "a", "b").classes if c.label.code == "TEA")
    assert tea.by_field.tolist() == [[0, 0], [0, 25], [0, 25]]
    assert tea.bias == pytest.approx(50 / 3)
    sd = np.std([0, 25, 25], ddof=1)
    assert tea.limits == (pytest.approx(50 / 3 - 1.96 * sd), pytest.approx(50 / 3 + 1.96 * sd))


def test_what_chance_explains_is_not_beyond_and_what_it_does_not_is() -> None:
    assert paired(0.4, 6, 2, 1000).judge(0.5) == "within"
    assert paired(1.0, 3, 1, 200).judge(0.5) == "noise"
    assert paired(2.0, 22, 2, 1000).judge(0.5) == "beyond"


@given(st.integers(0, 60), st.integers(0, 60), st.integers(120, 2000))
def test_the_interval_of_a_paired_change_holds_the_change(gained: int, lost: int, n: int) -> None:
    change = paired(100 * (gained - lost) / n, gained, lost, n)
    assert change.ci95[0] - 1e-9 <= change.points <= change.ci95[1] + 1e-9
    assert change.ci95[0] < change.ci95[1], "something is always uncertain"


def test_the_interval_of_a_changed_percentage_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    truth, held = 1.0, 0  # 4 % go, 5 % come
    for _ in range(400):
        u = rng.random(1500)
        before = (u < 0.04) | (u >= 0.7)
        after = ((u >= 0.04) & (u < 0.09)) | (u >= 0.7)
        base = np.ones((1500, 2), bool)
        low, high = of_shares(np.stack([before, after], 1), base).ci95
        held += low <= truth <= high
    assert 0.92 <= held / 400 <= 0.98


def test_a_share_changes_too_when_only_its_base_does() -> None:
    of_class = np.array([[True, True]] * 5 + [[False, False]] * 5)
    base = np.array([[True, True]] * 8 + [[True, False]] * 2)
    change = of_shares(of_class, base)
    assert change.points == pytest.approx(100 * (5 / 8 - 5 / 10))
    assert (change.gained, change.lost) == (0, 0)


def test_marks_are_read_as_written_and_errors_name_the_line(tmp_path) -> None:
    path = tmp_path / "marks.csv"
    marks = {"a.png": [Mark(1.5, 2.0, "NOR"), Mark(7.0, 8.0, "TEA")]}
    write(path, marks)
    assert read(path, CODES) == marks
    path.write_text("source,x,y,code\na.png,1,2,NOR\na.png,1,2,XXX\n")
    with pytest.raises(RbcedgeError, match=r"marks.csv:3: class 'XXX'"):
        read(path, CODES)
    path.write_text("source,x,y,code\na.png,one,2,NOR\n")
    with pytest.raises(RbcedgeError, match=r"marks.csv:2: x and y must be numbers"):
        read(path, CODES)
    path.write_text("source,x\n")
    with pytest.raises(RbcedgeError, match=r"no column y, code"):
        read(path, CODES)
    with pytest.raises(RbcedgeError, match="cannot be read"):
        read(tmp_path / "none.csv", CODES)
