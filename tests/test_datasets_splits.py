"""Splits by slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rbcedge.training.datasets import splits
from rbcedge.training.datasets.cellset import CellSet, LabelledCell
from rbcedge.training.datasets.scanners import SCANNER_OF, TEST_SLIDES

from rbcedge.errors import RbcedgeError


def _set(slides: list[str | None], codes: tuple[str, ...] = ("A", "B"), each: int = 4, scanner: bool = True) -> CellSet:
    cells = [
        LabelledCell(f"{s}-{c}-{k}", Path("x.png"), c, slide=s, scanner=SCANNER_OF.get(str(s)) if scanner else None)
        for s in slides
        for c in codes
        for k in range(each)
    ]
    return CellSet(Path("data"), "folders", codes, tuple(cells), {})


PAPER = [str(i) for i in range(1, 26)]


def test_the_papers_test_slides_and_five_times_two_folds() -> None:
    split = splits.for_classifier(_set(list(PAPER)))
    assert set(split.test) == set(TEST_SLIDES)
    assert [(f.repetition, f.fold) for f in split.folds] == [(r, f) for r in range(1, 6) for f in (1, 2)]
    for one, two in zip(split.folds[::2], split.folds[1::2], strict=True):
        assert (one.training, one.validation) == (two.validation, two.training)
        assert not set(one.training) & set(one.validation)
        assert set(one.training) | set(one.validation) == set(PAPER) - set(TEST_SLIDES)
    assert len({f.training for f in split.folds}) == 10
    # The paper's own test slides leave scanner 3 out.
    assert any("test part" in w and "scanner 3" in w for w in split.warnings)


def test_the_segmentation_split_has_every_scanner_in_each_part() -> None:
    split = splits.for_segmenter(_set(list(PAPER)))
    fold = split.folds[0]
    assert (len(fold.training), len(fold.validation), len(split.test)) == (15, 5, 5)
    for part in (fold.training, fold.validation, split.test):
        assert {SCANNER_OF[s] for s in part} == {"1", "2", "3", "4"}
    assert not split.warnings


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=5, max_size=18, unique=True),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 9),
)
def test_no_slide_is_ever_in_two_parts(numbers: list[int], repetitions: int, folds: int, seed: int) -> None:
    slides = [str(n) for n in numbers]
    split = splits.for_classifier(_set(list(slides), scanner=False), repetitions, folds, seed, test=slides[:1])
    assert len(split.folds) == repetitions * folds
    for f in split.folds:
        parts = [*split.test, *f.training, *f.validation]
        assert sorted(parts) == sorted(slides)
        assert f.training
        assert f.validation


def test_equal_seeds_give_equal_splits() -> None:
    cells = _set(list(PAPER))
    assert splits.for_classifier(cells, seed=3) == splits.for_classifier(cells, seed=3)
    assert splits.for_classifier(cells, seed=3) != splits.for_classifier(cells, seed=4)


def test_unknown_slides_are_refused() -> None:
    with pytest.raises(RbcedgeError, match=r"8 of 40 cells have no known slide.*--each-file-a-slide"):
        splits.for_classifier(_set([None, "1", "2", "3", "4"]))


def test_one_slide_is_refused() -> None:
    with pytest.raises(RbcedgeError, match="1 slide only"):
        splits.for_classifier(_set(["7"]))


def test_an_empty_class_is_refused() -> None:
    cells = _set(["1", "2", "3", "4"])
    with pytest.raises(RbcedgeError, match="no cell of class C"):
        splits.for_classifier(CellSet(cells.folder, cells.layout, ("A", "B", "C"), cells.cells, {}))


def test_a_class_that_is_missing_in_a_part_is_refused() -> None:
    cells = _set(["1", "2", "3", "4"])
    rare = LabelledCell("rare", Path("x.png"), "C", slide="1")
    with pytest.raises(RbcedgeError, match="has no cell of class C"):
        splits.for_classifier(CellSet(cells.folder, cells.layout, ("A", "B", "C"), (*cells.cells, rare), {}))


def test_a_draw_keeps_rare_classes_in_all_parts() -> None:
    cells = _set([str(i) for i in range(1, 13)], each=5, scanner=False)
    rare = tuple(LabelledCell(f"rare{s}", Path("x.png"), "C", slide=s) for s in ("1", "5", "9"))
    split = splits.for_segmenter(CellSet(cells.folder, cells.layout, ("A", "B", "C"), (*cells.cells, *rare), {}))
    fold = split.folds[0]
    for part in (fold.training, fold.validation, split.test):
        assert set(part) & {"1", "5", "9"}


def test_foreign_test_slides_are_refused() -> None:
    with pytest.raises(RbcedgeError, match="Test slides 99 are not in the set"):
        splits.for_classifier(_set(["1", "2", "3", "4"]), test=["99"])
    with pytest.raises(RbcedgeError, match="1 slides beside"):
        splits.for_classifier(_set(["1", "2", "3"]), test=["1", "2"])
    with pytest.raises(RbcedgeError, match="9 folds of 3 slides"):
        splits.for_classifier(_set(["1", "2", "3", "4"]), folds=9, test=["1"])


def test_three_folds_train_on_two_thirds() -> None:
    split = splits.for_classifier(_set([str(i) for i in range(1, 11)], scanner=False), 1, 3, test=["10"])
    assert all((len(f.training), len(f.validation)) == (6, 3) for f in split.folds)
    assert np.unique([s for f in split.folds for s in f.validation]).size == 9
