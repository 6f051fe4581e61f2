"""Tables worked by hand, what is said where a table cannot be made, and the written report."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from evaluation_runs import CALLS, CELLS, classifier_run, segmenter_run
from rbcedge.training.evaluation import extra_tables
from rbcedge.training.evaluation.classifier_report import classifier_items
from rbcedge.training.evaluation.classifier_tables import paper_tables, reference, table_5, table_8
from rbcedge.training.evaluation.reading import read_classifiers, read_segmenters
from rbcedge.training.evaluation.report import write_report
from rbcedge.training.evaluation.segmenter_tables import segmenter_tables, table_3
from rbcedge.training.evaluation.tables import Missing, Table

from rbcedge.cli import main
from rbcedge.errors import UsageError

GOLDEN_4A = """\
## Table 4a. Classes, without class weights

| class | cells | SN % | SN paper | SP % | SP paper | F1 % | F1 paper | PPV % | PPV paper | NPV % | NPV paper |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
| NOR | 3 | 83.33 ± 23.57 | 97.78 | 83.33 ± 23.57 | 99.27 | 82.86 ± 4.04 | 97.80 | 87.50 ± 17.68 | 97.81 | 87.50 ± 17.68 | 99.26 |
| TEA | 2 | 75.00 ± 35.36 | 94.61 | 87.50 ± 17.68 | 99.56 | 73.33 ± 9.43 | 94.39 | 83.33 ± 23.57 | 94.17 | 90.00 ± 14.14 | 99.60 |
| TWO | 1 | 100.00 ± 0.00 | 97.76 | 100.00 ± 0.00 | 99.25 | 100.00 ± 0.00 | 97.26 | 100.00 ± 0.00 | 96.76 | 100.00 ± 0.00 | 99.49 |
| mean | 6 | 86.11 ± 3.93 | 94.05 | 90.28 ± 1.96 | 99.46 | 85.40 ± 1.80 | 94.17 | 90.28 ± 1.96 | 94.34 | 92.50 ± 1.18 | 99.47 |

EfficientNetB0, segmented crops, no weights; mean ± sd over 2 folds."""  # noqa: E501


def _tables(*folders: Path, network: str | None = None) -> dict[str, Table | Missing]:
    runs = read_classifiers(folders)
    return {t.name: t for t in paper_tables(runs, reference(runs, network))}


def test_table_4_by_hand(tmp_path: Path) -> None:
    table = _tables(classifier_run(tmp_path / "a"))["table-4a"]
    assert isinstance(table, Table)
    assert table.markdown() == GOLDEN_4A


def test_a_single_run_says_which_tables_it_cannot_give(tmp_path: Path) -> None:
    tables = _tables(classifier_run(tmp_path / "a"))
    missing = {name: t.why for name, t in tables.items() if isinstance(t, Missing)}
    assert set(missing) == {"table-4b", "table-6", "table-7"}
    assert "class weights" in missing["table-4b"]
    assert "another network" in missing["table-6"]
    assert "crops as they are, no weights" in missing["table-7"]


def test_with_all_runs_every_table_is_there(tmp_path: Path) -> None:
    classifier_run(tmp_path / "a")
    classifier_run(tmp_path / "b", weighted=True)
    classifier_run(tmp_path / "c", segmented=False)
    classifier_run(tmp_path / "d", "resnet50", calls=(CALLS[1], CALLS[1]))
    tables = _tables(tmp_path)
    assert all(isinstance(t, Table) for t in tables.values())
    seven = tables["table-7"]
    assert [r[0] for r in seven.rows] == [
        "crops as they are, no weights", "segmented crops, no weights", "segmented crops, class weights",
    ]  # fmt: skip
    assert [r[2] for r in seven.rows] == ["95.5", "96.5", "95.7"]
    # Folds of the one are 5/6 and 5/6, of the other too: no variance, so nothing to test.
    assert tables["table-6"].rows[0][1] == "n/a"
    # Training: 10 and 11 s on both sides.
    assert tables["table-6"].rows[0][5] == "+0.00 (p 1.0000)"


def test_cost_columns(tmp_path: Path) -> None:
    table = table_5(read_classifiers([classifier_run(tmp_path / "a")]))
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["network"] == "EfficientNetB0"
    # The mean of 10 and 11; 0.5 s for 6 cells are 1496.2 s for the paper's 17,954.
    assert (row["train s"], row["test s"], row["M"], row["MB"]) == ("10", "1496.2", "4.00", "47.0")
    assert (row["train s paper"], row["test s paper"], row["M paper"], row["MB paper"]) == (
        "3,378",
        "11.0",
        "4.02",
        "47.0",
    )


def test_slides_say_how_many_classes_their_means_cover(tmp_path: Path) -> None:
    table = table_8(read_classifiers([classifier_run(tmp_path / "a")]), "efficientnetb0")
    rows = {r[0]: dict(zip(table.columns, r, strict=True)) for r in table.rows}
    assert rows["5"]["SN %"] == "100.00 ± 0.00"
    assert rows["5"]["scanner"] == "1"
    assert rows["4"]["ACC %"] == "75.00 ± 0.00"
    # Slide 4 of another split is not the paper's slide 4.
    assert rows["4"]["ACC paper"] == "–"
    assert any("5 (2)" in note for note in table.notes)


def test_a_class_nothing_was_taken_for_is_said_under_the_table(tmp_path: Path) -> None:
    calls = [["NOR"] * 6] * 2
    tables = _tables(classifier_run(tmp_path / "a", calls=calls))
    for name, row in (("table-5", "EfficientNetB0"), ("table-8", "slide 4, slide 5")):
        assert any(f"leaves it out: {row}." in note for note in tables[name].notes)


def test_slides_of_the_papers_split_stand_beside_the_papers(tmp_path: Path) -> None:
    slides = ("4", "5", "6", "13", "16", "4")
    cells = [(c, s, "", t) for (c, _, _, t), s in zip(CELLS, slides, strict=True)]
    table = table_8(read_classifiers([classifier_run(tmp_path / "a", cells=cells)]), "efficientnetb0")
    assert [r[0] for r in table.rows] == ["4", "5", "6", "13", "16"]
    assert table.rows[0][table.columns.index("ACC paper")] == "96.07"
    assert table.rows[0][1] == "–"


def test_an_absent_class_is_na_and_the_mean_says_what_it_covers(tmp_path: Path) -> None:
    codes = ("NOR", "TEA", "TWO", "SICKLE")
    table = _tables(classifier_run(tmp_path / "a", codes=codes))["table-4a"]
    rows = {r[0]: r for r in table.rows}
    assert rows["SICKLE"][1] == "0"
    assert rows["SICKLE"][2::2] == ("n/a",) * 5
    assert rows["SICKLE"][3::2] == ("–",) * 5
    assert rows["mean"][2] == "86.11 ± 3.93"
    assert any("No test cell of SICKLE" in n and "3 of 4 classes" in n for n in table.notes)


def test_a_single_fold_has_no_spread(tmp_path: Path) -> None:
    table = _tables(classifier_run(tmp_path / "a", calls=CALLS[:1]))["table-4a"]
    assert table.rows[-1][2] == "88.89"
    assert "no spread" in table.notes[0]


def test_which_network_the_tables_are_about(tmp_path: Path) -> None:
    a, b = classifier_run(tmp_path / "a", "resnet50"), classifier_run(tmp_path / "b", "xception")
    assert isinstance(_tables(a)["table-4a"], Table)
    undecided = _tables(a, b)
    assert "--network" in undecided["table-4a"].why
    assert isinstance(undecided["table-5"], Table)
    notes = _tables(a, b, network="xception")["table-4a"].notes
    assert "Xception" in notes[0]
    assert notes[-1] == "The paper's figures are those of EfficientNetB0."
    with pytest.raises(UsageError, match=r"No run of vgg16\. There are: resnet50, xception"):
        classifier_items(read_classifiers([a, b]), "vgg16")


def test_table_3_by_hand(tmp_path: Path) -> None:
    table = table_3(read_segmenters([segmenter_run(tmp_path / "a")]))
    assert table.columns == ("segmenter", "SN %", "SP %", "PPV %", "F1 %", "ACC %", "FPR %", "IoU %", "instance F1 %")
    # Five of six cells are among seven objects: 2 x 5 / 13.
    assert table.rows[0] == ("unet2", "90.00", "96.67", "90.00", "90.00", "95.00", "3.33", "81.82", "76.92")
    # Slide 4 has all of its cells, slide 5 one of two cells and of three objects.
    assert (table.rows[1][1], table.rows[1][8]) == ("90.00 to 90.00", "40.00 to 100.00")
    assert table.rows[2] == ("paper", "98.75", "99.89", "99.27", "99.01", "99.73", "0.11", "98.03", "–")


def test_a_run_that_counted_no_objects_has_no_instance_f1(tmp_path: Path) -> None:
    table = table_3(read_segmenters([segmenter_run(tmp_path / "a", objects=None)]))
    assert [row[8] for row in table.rows] == ["n/a", "n/a", "–"]


def test_segmentation_by_slide_scanner_and_class(tmp_path: Path) -> None:
    pixels = [(90, 10, 10, 290)] * 4 + [(40, 60, 60, 240), (0, 0, 0, 400)]
    tables = {t.name: t for t in segmenter_tables(read_segmenters([segmenter_run(tmp_path / "a", pixels=pixels)]))}
    slide = dict(zip(tables["segmentation-slides"].columns, tables["segmentation-slides"].rows[1], strict=True))
    # The cell without a pixel in either mask has no IoU, and is no failure.
    assert (slide["IoU %"], slide["median cell IoU %"], slide["IoU > 0.5 %"]) == ("25.00", "25.00", "0.00")
    assert [r[0] for r in tables["segmentation-scanners"].rows] == ["1", "2"]
    assert [r[0] for r in tables["segmentation-truth"].rows] == ["NOR", "TEA", "TWO"]


def test_scanners_unknown_and_one_slide_are_said(tmp_path: Path) -> None:
    cells = [(c, "7", "", t) for c, _, _, t in CELLS]
    (run,) = read_classifiers([classifier_run(tmp_path / "a", cells=cells)])
    assert isinstance(extra_tables.scanner_table(run), Missing)
    limits = extra_tables.limits_table([run])
    assert isinstance(limits, Missing)
    assert "one slide" in limits.why
    assert extra_tables.calibration_table([run]).rows[0][4] == "n/a"


def test_false_abnormal_with_its_exact_limits(tmp_path: Path) -> None:
    (run,) = read_classifiers([classifier_run(tmp_path / "a")])
    row = extra_tables.false_abnormal_table([run]).rows[0]
    # One of three in the first fold, none in the second: half a cell, rounded to even.
    assert row[:4] == ("EfficientNetB0", "3", "0", "16.67 ± 23.57")
    assert row[4] == "0.00 to 70.76"
    other = read_classifiers([classifier_run(tmp_path / "b", codes=("A", "B"), cells=_renamed(), calls=[["A"] * 6])])
    assert isinstance(extra_tables.false_abnormal_table(other), Missing)


def _renamed() -> list[tuple[str, str, str, str]]:
    return [(c, s, n, "A" if t == "NOR" else "B") for c, s, n, t in CELLS]


def test_agreement_with_labels_folds_and_readers(tmp_path: Path) -> None:
    (run,) = read_classifiers([classifier_run(tmp_path / "a")])
    readers = tmp_path / "readers.csv"
    readers.write_text("cell,R1,R2\n" + "".join(f"{c},{t},{t}\n" for c, _, _, t in CELLS))
    rows = extra_tables.agreement_table([run], readers).rows
    # First fold: 5/6 seen, chance (3*2 + 2*3 + 1*1)/36; second: 5/6, (3*4 + 2*1 + 1)/36.
    first, second = (5 / 6 - 13 / 36) / (23 / 36), (5 / 6 - 15 / 36) / (21 / 36)
    assert rows[0][4].startswith(f"{(first + second) / 2:.3f}")
    assert rows[1][1:3] == ("its own 2 folds", "Fleiss")
    assert rows[2] == ("R1, R2", "each other", "Fleiss", "6", "1.000")
    assert rows[3][1:] == ("R1", "Cohen", "6", f"{(first + second) / 2:.3f}")


def test_commonest_mistakes_first(tmp_path: Path) -> None:
    (run,) = read_classifiers([classifier_run(tmp_path / "a", calls=CALLS[:1])])
    assert extra_tables.confusions_table(run).rows == (("NOR", "TEA", "1", "33.33", "100.00"),)


# --- the report --------------------------------------------------------------------------------------------------


def test_report_holds_every_table_and_figure_and_names_what_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    classifier_run(tmp_path / "runs" / "a")
    classifier_run(tmp_path / "runs" / "w", weighted=True)
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as left:
        main(["evaluate", "classifier", str(tmp_path / "runs"), "--out", str(out)])
    assert left.value.code == 0
    page = (out / "report.md").read_text()
    names = {p.name for p in out.iterdir()}
    for figure in ("figure-6", "figure-7", "figure-8", "figure-reliability"):
        assert f"{figure}.png" in names
        assert f"({figure}.png)" in page
        assert (out / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
    for table in ("table-4a", "table-4b", "table-5", "table-8", "extra-measures", "extra-calibration"):
        assert {f"{table}.md", f"{table}.csv"} <= names
    assert not {"table-6.md", "table-7.csv"} & names
    assert "| Table 7. Ablation, EfficientNetB0 | not made: no run of EfficientNetB0 with crops as they are" in page
    assert not [n for n in names if n.endswith(".part")]
    with (out / "table-4a.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert rows[0]["class"] == "NOR"
    assert rows[0]["SN paper"] == "97.78"
    assert GOLDEN_4A in page


def test_a_second_report_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    many, one = classifier_run(tmp_path / "runs" / "a"), tmp_path / "out"
    classifier_run(tmp_path / "runs" / "w", weighted=True)
    for folder in (tmp_path / "runs", many):
        intro, items = classifier_items(read_classifiers([folder]), pictures=False)
        write_report(one, "Classifiers", intro, items)
    (one / "notes.txt").write_text("mine")
    assert not (one / "table-4b.md").exists()
    assert (one / "table-4a.md").exists()


def test_a_folder_with_other_things_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SystemExit) as left:
        main(["evaluate", "classifier", str(tmp_path / "nowhere"), "--out", str(tmp_path)])
    assert left.value.code == 2
    assert "holds no report.md" in capsys.readouterr().err


def test_unfinished_runs_and_mixed_recipes_are_said(tmp_path: Path) -> None:
    classifier_run(tmp_path / "a", about={"finished": False})
    classifier_run(tmp_path / "b", "resnet50", about={"recipe": {"name": "ours"}, "data": {"sha256": "ff"}})
    intro = " ".join(classifier_items(read_classifiers([tmp_path]), pictures=False)[0])
    assert "a is not finished" in intro
    assert "different recipes** (ours, paper)" in intro
    assert "different versions of the data" in intro


def test_unequal_budgets_are_said(tmp_path: Path) -> None:
    short, whole = {"name": "paper", "epochs": 2, "rate": 1e-4}, {"name": "paper", "epochs": 100, "rate": 1e-4}
    folds = [{"epochs": 2}, {"epochs": 2}]
    classifier_run(tmp_path / "a", about={"recipe": short, "steps": 40, "folds": folds})
    classifier_run(tmp_path / "b", "resnet50", about={"recipe": whole, "weights": {"file": "x.npz", "sha256": "00"}})
    runs = read_classifiers([tmp_path])
    intro = " ".join(classifier_items(runs, pictures=False)[0])
    assert "not trained alike**: they differ in epochs, steps" in intro
    table = extra_tables.runs_table(runs)
    rows = [dict(zip(table.columns, r, strict=True)) for r in table.rows]
    assert [(r["start"], r["epochs"], r["batches"]) for r in rows] == [
        ("none", "2 of 2", "40"),
        ("x.npz", "n/a", "all"),
    ]


def test_a_curve_of_cell_ious_ends_where_all_cells_are(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from rbcedge.training.evaluation.figures import figure_cell_iou

    (run,) = read_segmenters([segmenter_run(tmp_path / "a", pixels=[(90, 10, 10, 290)] * 5 + [(50, 25, 25, 300)])])
    first, second = figure_cell_iou(run).axes[0].lines
    # Scanner 1 has cells of IoU 0.82 and 0.5, scanner 2 four of 0.82.
    assert first.get_xdata() == pytest.approx([0, 0.5, 9 / 11, 1])
    assert list(first.get_ydata()) == [0, 0.5, 1, 1]
    assert list(second.get_ydata()) == [0, 0.25, 0.5, 0.75, 1, 1]


def test_an_empty_corner_of_the_roc_curves_is_said(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from rbcedge.training.evaluation.figures import figure_7

    good, bad = classifier_run(tmp_path / "a"), classifier_run(tmp_path / "b", calls=[["TWO"] * 5 + ["NOR"]])
    texts = [[t.get_text() for t in figure_7(read_classifiers([run])[0]).axes[1].texts] for run in (good, bad)]
    assert texts == [[], ["no curve comes this far"]]


def test_segmenter_report(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    segmenter_run(tmp_path / "a")
    with pytest.raises(SystemExit) as left:
        main(["evaluate", "segmenter", str(tmp_path / "a"), "--out", str(tmp_path / "out")])
    assert left.value.code == 0
    assert {"table-3.md", "table-3.csv", "figure-cell-iou.png", "extra-segmentation-slides.csv"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }


def test_figures_alone_without_matplotlib_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    from rbcedge.training.evaluation.figures import new_figure

    from rbcedge.errors import RbcedgeError

    with pytest.raises(RbcedgeError, match=r"rbcedge\[evaluate\]"):
        new_figure(1, 1)
