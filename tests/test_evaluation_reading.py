"""What `rbcedge evaluate` reads, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from evaluation_runs import CELLS, CODES, classifier_run, segmenter_run
from rbcedge.training.evaluation.reading import find, read_classifiers, read_readers, read_segmenters

from rbcedge.errors import RbcedgeError, UsageError


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    (run,) = read_classifiers([classifier_run(tmp_path / "run")])
    assert run.variant == ("efficientnetb0", True, False)
    assert run.codes == CODES
    assert [(f.repetition, f.fold, f.train_s, f.test_s) for f in run.folds] == [(1, 1, 10, 0.5), (1, 2, 11, 0.5)]
    assert run.folds[0].counts().tolist() == [[2, 1, 0], [0, 2, 0], [0, 0, 1]]
    assert run.folds[1].counts().tolist() == [[3, 0, 0], [1, 1, 0], [0, 0, 1]]
    by = run.counts("slides")
    assert list(by) == ["4", "5"]
    assert (by["4"] + by["5"] == run.counts()).all()


def test_rows_may_stand_in_any_order(tmp_path: Path) -> None:
    folder = classifier_run(tmp_path / "run")
    before = read_classifiers([folder])[0].counts()
    path = folder / "predictions.csv"
    head, *rows = path.read_text().splitlines()
    np.random.default_rng(0).shuffle(rows)
    path.write_text("\n".join([head, *rows]) + "\n")
    np.testing.assert_array_equal(read_classifiers([folder])[0].counts(), before)


def test_runs_are_found_below_a_folder_each_once(tmp_path: Path) -> None:
    a, b = classifier_run(tmp_path / "all" / "a"), segmenter_run(tmp_path / "all" / "b")
    assert find([tmp_path / "all", a]) == [a, b]
    assert [r.folder for r in read_classifiers([tmp_path])] == [a]
    assert [r.folder for r in read_segmenters([tmp_path])] == [b]


Edit = Callable[[str], str]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda t: t.splitlines()[0] + "\n", "no predictions"),
        (lambda t: "", "columns cell, slide"),
        (lambda t: t.replace("p_TEA", "p_tea"), "column p_TEA missing"),
        (lambda t: t.replace("slide,scanner", "slide,scaner"), "column scanner missing"),
        (lambda t: t.replace("0.800000", "0.300000", 1), r"predictions\.csv:2: the probabilities add up to 0\.5"),
        (lambda t: t.replace("0.800000", "nan", 1), "the probabilities add up to nan"),
        (lambda t: t.replace("0.800000", "1.800000", 1).replace("0.100000", "-0.400000", 2), "not between 0 and 1"),
        (lambda t: t.replace("0.800000", "much", 1), r"predictions\.csv:2: p_NOR is 'much'"),
        (lambda t: t.replace("a2,4,2,TEA", "a2,4,2,XYZ", 1), r"predictions\.csv:3: truth is 'XYZ'"),
        (lambda t: t.replace("a2,4,2,TEA", "a1,4,2,TEA", 1), "a cell occurs twice"),
        (lambda t: t.replace("a2,4,2,TEA", "zz,4,2,TEA", 1), "other test cells"),
        (lambda t: t.replace("efficientnetb0", "resnet50", 1), "runs were mixed"),
        (lambda t: t.replace("efficientnetb0,1,0", "efficientnetb0,1,1", 1), "runs were mixed"),
        (lambda t: t.rstrip("\n") + ",7\n", "values under"),
        (
            lambda t: t.replace("p_NOR,p_TEA", "p_NOR,p_TEA,p_BUR").replace(",0.1", ",0,0.1"),
            "columns|run.json does not",
        ),
    ],
)
def test_a_broken_table_is_one_plain_line(tmp_path: Path, edit: Edit, says: str) -> None:
    path = classifier_run(tmp_path / "run") / "predictions.csv"
    path.write_text(edit(path.read_text()))
    with pytest.raises(RbcedgeError, match=says) as caught:
        read_classifiers([tmp_path])
    assert str(path) in str(caught.value)


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        read_classifiers([tmp_path / "nowhere"])
    with pytest.raises(UsageError, match=r"no run\.json"):
        read_classifiers([tmp_path])
    folder = classifier_run(tmp_path / "run")
    with pytest.raises(UsageError, match=r"None of the 1 runs is a segmenter \(they are: classifier\)"):
        read_segmenters([tmp_path])
    (folder / "predictions.csv").unlink()
    with pytest.raises(RbcedgeError, match="not finished a fold"):
        read_classifiers([tmp_path])
    (folder / "run.json").write_text('{"schema": 2}')
    with pytest.raises(RbcedgeError, match="schema 2, this version reads 1"):
        read_classifiers([tmp_path])
    (folder / "run.json").write_text("{")
    with pytest.raises(RbcedgeError, match="cannot be read"):
        read_classifiers([tmp_path])


def test_run_json_must_name_the_classes(tmp_path: Path) -> None:
    path = classifier_run(tmp_path / "run") / "run.json"
    content = json.loads(path.read_text())
    del content["codes"]
    path.write_text(json.dumps(content))
    with pytest.raises(RbcedgeError, match="'codes' is missing"):
        read_classifiers([tmp_path])


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    first = classifier_run(tmp_path / "a")
    with pytest.raises(UsageError, match="trained in the same way"):
        read_classifiers([first, classifier_run(tmp_path / "b")])
    other = [("x1", *CELLS[0][1:]), *CELLS[1:]]
    with pytest.raises(UsageError, match="different cells"):
        read_classifiers([first, classifier_run(tmp_path / "c", "resnet50", cells=other)])
    relabelled = [(*CELLS[0][:3], "TEA"), *CELLS[1:]]
    with pytest.raises(UsageError, match="disagree on the labels"):
        read_classifiers([first, classifier_run(tmp_path / "d", "resnet50", cells=relabelled)])
    with pytest.raises(UsageError, match="different classes"):
        read_classifiers([first, classifier_run(tmp_path / "e", "resnet50", codes=("NOR", "TEA", "TWO", "THR"))])


def test_segmenter_tables_are_checked(tmp_path: Path) -> None:
    folder = segmenter_run(tmp_path / "a")
    (run,) = read_segmenters([folder])
    assert run.pixels.sum(0).tolist() == [540, 60, 60, 1740]
    assert (run.train_s, run.test_s) == (3, 0.5)
    with pytest.raises(UsageError, match="both unet2"):
        read_segmenters([folder, segmenter_run(tmp_path / "b")])
    path = folder / "segmentation.csv"
    text = path.read_text()
    path.write_text(text.replace("90,10", "90.5,10", 1))
    with pytest.raises(RbcedgeError, match=r"segmentation\.csv:2: .*whole numbers"):
        read_segmenters([folder])
    path.write_text(text.replace(",1,1,unet2", ",0,1,unet2", 1))
    with pytest.raises(RbcedgeError, match=r"segmentation\.csv:2: objects must be"):
        read_segmenters([folder])
    path.write_text(text.replace("a2,", "a1,"))
    with pytest.raises(RbcedgeError, match="occurs twice"):
        read_segmenters([folder])


def test_readers_are_read_where_all_have_looked(tmp_path: Path) -> None:
    path = tmp_path / "readers.csv"
    path.write_text("cell,Reader 1,Reader 2\na1,NOR,TEA\na2,TEA,\n")
    assert read_readers(path, CODES) == (("Reader 1", "Reader 2"), {"a1": (0, 1)})
    path.write_text("cell,Reader 1\na1,XXX\n")
    with pytest.raises(RbcedgeError, match="'XXX'; the classes are NOR, TEA, TWO"):
        read_readers(path, CODES)
    path.write_text("cell\na1\n")
    with pytest.raises(RbcedgeError, match="no reader"):
        read_readers(path, CODES)
    with pytest.raises(RbcedgeError, match="cannot be read"):
        read_readers(tmp_path / "none.csv", CODES)
