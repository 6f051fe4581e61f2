"""Measures, curves, tests and kappas against hand-worked cases, brute force and the paper's own arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rbcedge.training.evaluation import paper
from rbcedge.training.evaluation.agreement import cohen_kappa, fleiss_kappa
from rbcedge.training.evaluation.confidence import cross_fitted, fit_temperature, reliability, surprise, temper
from rbcedge.training.evaluation.curves import GRID, auc, mean_roc, roc
from rbcedge.training.evaluation.uncertainty import cluster_bootstrap, spread, t_test
from rbcedge.training.measures import confusion, false_abnormal, measure
from rbcedge.training.segmentation_scores import compare, match, parts

few = settings(max_examples=30, deadline=None)


# --- the paper's figures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [paper.TABLE_4_UNWEIGHTED, paper.TABLE_4_WEIGHTED])
def test_mean_row_of_table_4_follows_from_its_class_rows(table: dict[str, tuple[float, ...]]) -> None:
    classes = np.array([row for name, row in table.items() if name != "mean"])
    assert classes.shape == (8, 5)
    # Rows are rounded to 0.01, so their mean is known to about that.
    np.testing.assert_allclose(classes.mean(0), table["mean"], atol=0.0101)


def test_tables_of_the_paper_agree_with_each_other() -> None:
    summary = dict(zip(paper.TABLE_4_COLUMNS, paper.TABLE_4_UNWEIGHTED["mean"], strict=True))
    for row in (paper.TABLE_5[paper.NETWORK][:4], paper.TABLE_7[True, False]):
        for symbol, value in zip(paper.TABLE_7_COLUMNS[1:], row[1:], strict=True):
            assert value == pytest.approx(summary[symbol], abs=0.06), symbol
    assert sum(cells for _, cells, _ in paper.TABLE_8.values()) == paper.TEST_CELLS
    accuracies = sum(cells * row[0] for _, cells, row in paper.TABLE_8.values()) / paper.TEST_CELLS
    assert accuracies == pytest.approx(paper.TABLE_5[paper.NETWORK][0], abs=0.06)
    assert set(paper.TABLE_8) == set(paper.TEST_SLIDES)
    assert set(paper.NAMES) == set(paper.TABLE_5)
    f1 = 2 * paper.TABLE_3["SN"] * paper.TABLE_3["PPV"] / (paper.TABLE_3["SN"] + paper.TABLE_3["PPV"])
    assert f1 == pytest.approx(paper.TABLE_3["F1"], abs=0.01)
    assert 100 * f1 / (200 - f1) == pytest.approx(paper.TABLE_3["IoU"], abs=0.02)
    assert paper.TABLE_3["SP"] + paper.TABLE_3["FPR"] == pytest.approx(100)


# --- measures ----------------------------------------------------------------------------------------------------


@few
@given(arrays(np.int64, (4, 4), elements=st.integers(0, 9)))
def test_measures_are_their_equations_cell_by_cell(counts: np.ndarray) -> None:
    m = measure(counts)
    pairs = [(t, g) for t in range(4) for g in range(4) for _ in range(counts[t, g])]
    for k in range(4):
        tp = sum(t == k and g == k for t, g in pairs)
        fp = sum(t != k and g == k for t, g in pairs)
        fn = sum(t == k and g != k for t, g in pairs)
        tn = len(pairs) - tp - fp - fn
        assert m.present[k] == (tp + fn > 0)
        for seen, above, below, needs in (
            (m.sensitivity, tp, tp + fn, True),
            (m.specificity, tn, tn + fp, False),
            (m.precision, tp, tp + fp, True),
            (m.npv, tn, tn + fn, False),
            (m.f1, 2 * tp, 2 * tp + fp + fn, True),
            (m.fpr, fp, fp + tn, False),
            (m.iou, tp, tp + fp + fn, True),
            (m.accuracies, tp + tn, len(pairs), False),
        ):
            if below == 0 or (needs and not m.present[k]):
                assert math.isnan(seen[k])
            else:
                assert seen[k] == pytest.approx(above / below)


@few
@given(arrays(np.int64, (3, 2, 4, 4), elements=st.integers(0, 9)))
def test_measures_of_many_counts_are_those_of_each(counts: np.ndarray) -> None:
    together = measure(counts)
    for i in np.ndindex(3, 2):
        one = measure(counts[i])
        np.testing.assert_array_equal(together.f1[i], one.f1)
        np.testing.assert_array_equal(together.mean("precision")[i], one.mean("precision"))
        np.testing.assert_array_equal(together.accuracy[i], one.accuracy)


def test_a_class_without_a_cell_is_left_out_of_means_and_said_so() -> None:
    m = measure(np.array([[8, 2, 1], [0, 9, 0], [0, 0, 0]]))
    assert math.isnan(m.sensitivity[2])
    assert math.isnan(m.precision[2]), "one cell was taken for it, and still there is nothing to measure"
    assert math.isnan(m.f1[2])
    assert m.mean("sensitivity") == pytest.approx((8 / 11 + 1) / 2)
    assert m.covered("sensitivity") == m.covered("f1") == 2


def test_a_class_nothing_was_taken_for_has_no_precision_but_an_f1_of_0() -> None:
    m = measure(np.array([[5, 0], [3, 0]]))
    assert math.isnan(m.precision[1])
    assert m.f1[1] == 0
    assert (m.covered("precision"), m.covered("f1")) == (1, 2)


def test_nothing_at_all_gives_nan_and_no_warning() -> None:
    m = measure(np.zeros((3, 3), int))
    assert math.isnan(m.mean("f1"))
    assert math.isnan(m.accuracy)


def test_false_abnormal_counts_normal_cells_only() -> None:
    codes = ("NOR", "OVA", "TEA", "FRA", "BUR")
    counts = np.array([[90, 5, 1, 2, 2], [0, 10, 9, 9, 9], [5, 0, 5, 0, 0], [0] * 5, [0] * 5])
    assert tuple(int(v) for v in false_abnormal(counts, codes)) == (5, 100)
    assert false_abnormal(counts[:2, :2], ("NOR", "OVA")) is None
    assert false_abnormal(counts, ("A", "B", "TEA", "D", "E")) is None


# --- instances ---------------------------------------------------------------------------------------------------


def test_pairs_are_the_instances_that_overlap_by_more_than_half() -> None:
    truth, guess = np.zeros((20, 40), int), np.zeros((20, 40), int)
    truth[2:12, 2:12], truth[2:12, 20:30], truth[15:18, 2:8] = 1, 2, 3
    guess[2:12, 3:13], guess[2:12, 25:35] = 2, 1
    overlap, pairs = match(truth, guess)
    assert pairs.tolist() == [[1, 2]]
    assert overlap == compare(truth, guess)
    assert (overlap.matched, overlap.true, overlap.found) == (1, 3, 2)
    assert overlap.iou == pytest.approx((90 + 50) / (218 + 200 - 140))


# --- curves ------------------------------------------------------------------------------------------------------


@few
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=40))
def test_auc_is_the_share_of_pairs_in_the_right_order(cells: list[tuple[bool, int]]) -> None:
    positive = np.array([p for p, _ in cells])
    score = np.array([s / 6 for _, s in cells])
    up, down = score[positive], score[~positive]
    area = auc(positive, score)
    if not len(up) or not len(down):
        assert math.isnan(area)
        return
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in up for b in down]
    assert area == pytest.approx(np.mean(pairs))
    fpr, tpr = roc(positive, score)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    assert area == pytest.approx(float((np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2).sum()))


def test_mean_curve_of_one_is_that_curve_at_the_grid() -> None:
    positive = np.array([1, 0, 1, 1, 0, 0, 1, 0], bool)
    score = np.array([0.9, 0.8, 0.7, 0.7, 0.7, 0.3, 0.2, 0.1])
    curve = mean_roc([roc(positive, score)])
    at = dict(zip(GRID.round(6), curve, strict=True))
    assert at[0.0] == 0.25
    assert at[0.15] == 0.25
    assert at[0.5] == 0.75
    assert at[0.4] == pytest.approx(0.25 + 0.5 * 0.15 / 0.25)
    assert at[1.0] == 1.0
    assert np.isnan(mean_roc([roc(np.ones(3, bool), np.arange(3))])).all()


# --- confidence --------------------------------------------------------------------------------------------------


def test_calibration_error_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    seen = reliability(np.array([0, 1, 0, 1]), p, bins=5)
    assert seen.cells.tolist() == [0, 0, 0, 2, 2]
    # 0.6 lies on the lower edge of its bin.
    assert seen.error == pytest.approx((2 * abs(0.65 - 1) + 2 * abs(0.9 - 0.5)) / 4)


def _drawn(cells: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([0.4] * 4, cells)
    return np.array([rng.choice(4, p=row) for row in p]), p


def test_temperature_takes_back_what_was_done_to_true_probabilities() -> None:
    truth, p = _drawn(4000, 1)
    assert fit_temperature(truth, p) == pytest.approx(1, abs=0.06)
    sharp = temper(p, 0.4)
    assert fit_temperature(truth, sharp) == pytest.approx(2.5, abs=0.15)
    mended = temper(sharp, fit_temperature(truth, sharp))
    assert reliability(truth, mended).error < 0.3 * reliability(truth, sharp).error


@few
@given(st.integers(0, 10_000), st.floats(0.2, 5))
def test_fitted_temperature_is_the_best_of_many(seed: int, done: float) -> None:
    truth, p = _drawn(30, seed)
    p = temper(p, done)
    best = surprise(truth, temper(p, fit_temperature(truth, p)))
    for t in np.geomspace(0.06, 19, 40):
        assert best <= surprise(truth, temper(p, t)) + 1e-6


def test_temperature_of_cells_that_are_all_right_stays_within_limits() -> None:
    p = np.array([[0.8, 0.2], [0.3, 0.7]])
    assert fit_temperature(np.array([0, 1]), p) == pytest.approx(0.05, rel=1e-3)


def test_no_group_judges_itself() -> None:
    truth, p = _drawn(400, 2)
    groups = np.arange(400) % 3
    out = cross_fitted(truth, p, groups)
    for g in range(3):
        own = groups == g
        np.testing.assert_allclose(out[own], temper(p[own], fit_temperature(truth[~own], p[~own])))
    with pytest.raises(ValueError, match="two or more"):
        cross_fitted(truth, p, np.zeros(400))


# --- agreement ---------------------------------------------------------------------------------------------------


def test_cohen_kappa_by_hand() -> None:
    # 50 cells; seen 0.7, chance (25*30 + 25*20) / 2500 = 0.5.
    assert cohen_kappa(np.array([[20, 5], [10, 15]])) == pytest.approx(0.4)
    assert cohen_kappa(np.diag([3, 4])) == 1
    assert math.isnan(cohen_kappa(np.array([[7, 0], [0, 0]])))
    assert math.isnan(cohen_kappa(np.zeros((2, 2))))


def test_fleiss_kappa_of_the_published_example() -> None:
    # Ten subjects, fourteen raters, five categories: 0.210 in every textbook.
    votes = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(np.array(votes)) == pytest.approx(0.20993, abs=1e-5)
    assert fleiss_kappa(np.array([[2, 0], [0, 2]])) == 1
    assert math.isnan(fleiss_kappa(np.array([[1, 0], [0, 1]])))
    with pytest.raises(ValueError, match="same number"):
        fleiss_kappa(np.array([[2, 0], [0, 3]]))


# --- tests and limits --------------------------------------------------------------------------------------------


def test_t_test_against_known_values() -> None:
    # Means 3 and 4, pooled variance 2.5: t = -1 / sqrt(2.5 * 2/5) = -1 with 8 degrees of freedom.
    test = t_test([1, 2, 3, 4, 5], [2, 3, 4, 5, 6])
    assert (test.t, test.df) == (pytest.approx(-1), 8)
    assert test.p == pytest.approx(0.3465935)


@few
@given(
    st.lists(st.floats(-100, 100), min_size=2, max_size=10),
    st.lists(st.floats(-100, 100), min_size=2, max_size=10),
)
def test_t_test_is_scipys(a: list[float], b: list[float]) -> None:
    stats = pytest.importorskip("scipy.stats")
    if np.ptp(a) < 1e-3 or np.ptp(b) < 1e-3:
        return
    test, theirs = t_test(a, b), stats.ttest_ind(a, b)
    assert test.t == pytest.approx(float(theirs.statistic), rel=1e-9, abs=1e-12)
    assert test.p == pytest.approx(float(theirs.pvalue), rel=1e-8, abs=1e-300)


def test_t_test_without_variance_or_values_is_not_available() -> None:
    for a, b in (([1, 1], [1, 1]), ([0.1 + 0.2, 0.3], [0.3, 0.3]), ([1], [1, 2]), ([math.nan, 1], [1, 2])):
        assert math.isnan(t_test(a, b).p)


def test_spread_leaves_folds_without_a_value_out() -> None:
    s = spread([1, math.nan, 3])
    assert (s.mean, s.sd, s.n) == (2, pytest.approx(math.sqrt(2)), 2)
    assert math.isnan(spread([5]).sd)
    assert math.isnan(spread([]).mean)


def _share(counts: np.ndarray) -> np.ndarray:
    return counts[:, 0] / counts.sum(1)


def test_limits_by_slide_know_that_cells_of_a_slide_are_alike() -> None:
    # Four slides, all right or all wrong: the share may well be anything, however many cells there are.
    low, high = cluster_bootstrap(np.array([[1000, 0], [1000, 0], [0, 1000], [0, 1000]]), _share)
    assert (low, high) == (0.0, 1.0)
    same = cluster_bootstrap(np.array([[700, 300]] * 4), _share)
    assert same == (0.7, 0.7)
    assert all(math.isnan(v) for v in cluster_bootstrap(np.array([[5, 5]]), _share))


def test_limits_by_slide_hold_the_mean_at_its_usual_error() -> None:
    shares = np.random.default_rng(3).normal(0.8, 0.05, 60)
    low, high = cluster_bootstrap(np.stack([100 * shares, 100 * (1 - shares)], 1), _share)
    error = shares.std() / math.sqrt(60)
    assert low == pytest.approx(shares.mean() - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(shares.mean() + 1.96 * error, abs=0.3 * error)


def test_confusion_of_nothing_is_zero() -> None:
    assert confusion(np.zeros(0, int), np.zeros(0, int), 3).sum() == 0


def test_parts_of_a_mask_are_objects() -> None:
    truth = np.zeros((40, 40), bool)
    truth[10:30, 10:30] = True

    def drawn(*squares: tuple[int, int, int]) -> np.ndarray:
        guess = np.zeros((40, 40), bool)
        for y, x, side in squares:
            guess[y : y + side, x : x + side] = True
        return guess

    assert parts(truth, truth) == (1, True)
    assert parts(truth, drawn()) == (0, False)
    # A neighbour is a second object, a speck of 4 of 400 px is none.
    assert parts(truth, drawn((10, 10, 20), (32, 32, 8))) == (2, True)
    assert parts(truth, drawn((10, 10, 20), (36, 36, 2))) == (1, True)
    # Half of the cell is not the cell: the IoU must be above one half.
    half = truth.copy()
    half[:, 20:] = False
    assert parts(truth, half) == (1, False)
    # Grown together with what is beside it, it is not found.
    assert parts(truth, np.ones((40, 40), bool)) == (1, False)
