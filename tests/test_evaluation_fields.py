"""Runs over labelled pictures: scores, galleries, the model card's parts, and shifts."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from rbcedge.training.datasets.chula import LabelledField
from rbcedge.training.evaluation import changes, gallery
from rbcedge.training.evaluation.card import disagreements, write_card
from rbcedge.training.evaluation.changes import SHIFTS, Shift
from rbcedge.training.evaluation.fields import ScoredRun, field_items, finding_table, score_run, threshold_table
from rbcedge.training.evaluation.report import write_report
from rbcedge.training.evaluation.shifts import Truth, apply, measure_all, simulated_truth
from rbcedge.training.lessons import CODES
from rbcedge.training.scoring import lay_over

from rbcedge.bundle import default_folder, load
from rbcedge.cli import main
from rbcedge.errors import RbcedgeError, UsageError

#: Cells of each picture: x, y of the box, label (Chula's type, None: no mark), what it was called, how surely.
LISTED = (
    (100, 100, 0, "NOR", 0.9),
    (200, 100, 0, "TEA", 0.8),
    (300, 100, 6, "OVA", 0.7),
    (400, 100, 7, "TEA", 0.6),
    (100, 200, 0, "NOR", 0.95),
    (200, 200, 0, "NOR", 0.4),
    (300, 200, 0, "NOR", 0.9),
    (400, 200, None, "FRA", 0.5),
)


def _run(folder: Path, codes: tuple[str, ...] = CODES) -> tuple[Path, list[LabelledField]]:
    """Two pictures with the cells of `LISTED`; in the second one more mark, where nothing was found."""
    (folder / "Dataset").mkdir(parents=True)
    out = folder / "run"
    out.mkdir()
    fields = []
    with (out / "cells.csv").open("w", newline="") as f:
        rows = csv.writer(f)
        columns = ["source", "x", "y", "w", "h", "cx", "cy", "code", "confidence", "unclassified", "counted"]
        rows.writerow([*columns, *(f"p_{c}" for c in codes)])
        for number in (7, 30):
            picture = folder / "Dataset" / f"{number}.jpg"
            cv2.imwrite(str(picture), np.full((480, 640, 3), 200, np.uint8))
            for x, y, _, code, p in LISTED:
                others = (1 - p) / (len(codes) - 1)
                shares = [p if c == code else others for c in codes]
                sure = 0 if p >= 0.5 else 1
                rows.writerow([picture.name, x, y, 40, 40, x + 20, y + 20, code, p, sure, 1 - sure, *shares])
            marks = [(x + 20, y + 20, kind) for x, y, kind, _, _ in LISTED if kind is not None]
            marks += [(500, 400, 0)] if number == 30 else []
            table = np.array(marks, np.int32)
            fields.append(LabelledField(number, picture, table[:, :2], table[:, 2]))
    (out / "fields.csv").write_text("field,source\n1,7.jpg\n2,30.jpg\n")
    return out, fields


@pytest.fixture
def scored(tmp_path: Path) -> ScoredRun:
    folder, fields = _run(tmp_path)
    return score_run(folder, fields, [[f] for f in fields])


def test_marks_and_cells_are_laid_over_each_other(tmp_path: Path) -> None:
    folder, fields = _run(tmp_path)
    compared = lay_over(folder / "cells.csv", fields)
    assert (compared.fields, compared.points, compared.full_fields, compared.full_cells) == (2, 15, 2, 16)
    assert [(p.name, x, y) for p, x, y in compared.missed] == [("30.jpg", 500, 400)]
    assert [(p.name, box) for p, box in compared.unmarked] == [
        ("7.jpg", (400, 200, 40, 40)), ("30.jpg", (400, 200, 40, 40)),
    ]  # fmt: skip
    assert compared.extra == pytest.approx(1 / 8)
    assert [c.truth for c in compared.cells] == ["NOR", "NOR", "OVA", "TEA", "NOR", "NOR", "NOR"] * 2


def test_a_scored_run_is_one_fold_with_blocks_for_slides(scored: ScoredRun) -> None:
    counts = scored.run.counts()[0]
    nor, tea = CODES.index("NOR"), CODES.index("TEA")
    assert counts.sum() == 14
    assert counts[nor, tea] == 2
    assert list(scored.run.counts("slides")) == ["7", "30"]
    row = finding_table([scored]).rows[0]
    assert row[1:5] == ("2", "15", "14", "93.33")
    assert row[7] == "2 of 16"
    kept = {r[0]: r[1:] for r in threshold_table(scored).rows}
    assert kept["0.5"] == ("12", "85.71", "83.33")
    assert kept["0.95"] == ("2", "14.29", "100.00")


def test_everything_there_is_to_say_of_fields(scored: ScoredRun, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path, missing = write_report(tmp_path / "out", "Fields", *field_items([scored]), dpi=50)
    assert not missing
    page = path.read_text()
    for heading in (
        "Finding cells",
        "All measures by class",
        "Blocks of pictures",
        "95 % limits by slide",
        "Confidence",
    ):
        assert f"## {heading}" in page


def test_classes_that_the_labels_lack_or_the_run_lacks(tmp_path: Path) -> None:
    folder, fields = _run(tmp_path, (*CODES, "SICKLE"))
    assert score_run(folder, fields, [fields]).run.codes[-1] == "SICKLE"
    folder, fields = _run(tmp_path / "few", tuple(c for c in CODES if c != "OVA"))
    with pytest.raises(RbcedgeError, match="the labels hold OVA"):
        score_run(folder, fields, [fields])
    with pytest.raises(UsageError, match=r"no cells\.csv"):
        score_run(tmp_path, fields, [fields])
    (folder / "fields.csv").unlink()
    with pytest.raises(RbcedgeError, match=r"fields\.csv: cannot be read"):
        score_run(folder, fields, [fields])


def test_disagreements_are_shown_the_surest_first(scored: ScoredRun) -> None:
    pytest.importorskip("matplotlib")
    wrong = disagreements(scored)
    assert [(d.truth, d.guess, d.confidence) for d in wrong] == [("NOR", "TEA", pytest.approx(0.8))] * 2
    figure = gallery.by_confidence(wrong, columns=2)
    titles = [a.get_title() for a in figure.axes]
    assert titles == ["NOR → TEA 0.80\n7.jpg", "NOR → TEA 0.80\n30.jpg"]
    pairs = gallery.by_pair(
        [*wrong, gallery.Disagreement(wrong[0].picture, wrong[0].box, "OVA", "NOR", 0.99)], columns=2
    )
    assert [t.get_text() for a in pairs.axes for t in a.texts] == ["NOR → TEA\n2 cells", "OVA → NOR\n1 cells"]


def test_a_tile_holds_the_whole_cell_in_its_middle() -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[10:20, 10:20] = (1, 2, 3)
    cut = gallery.tile(pixels, (10, 10, 10, 10))
    assert cut.shape == (80, 80, 3)
    assert (cut[35:45, 35:45] == (3, 2, 1)).all()
    assert (cut[:20] == 200).all()
    assert gallery.tile(pixels, (0, 0, 100, 90)).shape == (80, 80, 3)


def test_the_card_is_written_with_its_pictures(scored: ScoredRun, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = write_card(scored, tmp_path / "docs", dpi=50)
    text = path.read_text()
    names = {p.name for p in path.parent.iterdir()}
    assert names == {
        "model-measured.md", "model-confusion.png", "model-reliability.png", "model-disagreements.png",
        "model-disagreements-by-pair.png", "model-false-abnormal.png", "model-unmarked.png", "model-missed.png",
    }  # fmt: skip
    assert all(f"({n})" in text for n in names if n.endswith(".png"))


def test_the_card_has_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    run, fields = _run(tmp_path / "set")
    (tmp_path / "set" / "Label").mkdir()
    for f in fields:
        rows = "".join(f"{x} {y} {k}\n" for (x, y), k in zip(f.points, f.types, strict=True))
        (tmp_path / "set" / "Label" / f"{f.number}.txt").write_text(rows)
    monkeypatch.chdir(tmp_path)
    arguments = ["card", str(run), str(tmp_path / "set"), "--all"]
    with pytest.raises(SystemExit) as left:
        main(["evaluate", *arguments, "--out", "here"])
    assert left.value.code == 0
    assert (tmp_path / "here" / "model-measured.md").is_file()
    with pytest.raises(SystemExit) as left:
        main(["evaluate", "card", str(tmp_path), str(tmp_path / "set"), "--out", "x"])
    assert left.value.code == 2
    assert not (tmp_path / "x").exists()


def test_a_picture_that_is_gone_is_named(scored: ScoredRun) -> None:
    pytest.importorskip("matplotlib")
    for cell in scored.cells:
        cell.picture.unlink(missing_ok=True)
    with pytest.raises(RbcedgeError, match=r"7\.jpg: cannot be read"):
        gallery.by_confidence(disagreements(scored))


# --- shifts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", SHIFTS, ids=lambda s: f"{s.kind} {s.strength}")
def test_a_shift_changes_the_picture_and_only_scale_the_truth(shift: Shift) -> None:
    (truth,) = _truth()
    before = truth.pixels.copy()
    out = apply(shift, truth)
    assert (truth.pixels == before).all(), "the picture itself must stay as it was"
    assert out.pixels.dtype == np.uint8
    assert out.pixels.shape[:2] == out.labels.shape == out.ignore.shape
    assert out.labels.shape == tuple(round(v * shift.zoom) for v in truth.labels.shape)
    assert set(np.unique(out.labels)) == set(np.unique(truth.labels))
    same = out.pixels.shape == before.shape and (out.pixels == before).all()
    assert same == (shift.kind == "none")


@pytest.mark.parametrize("zoom", [0.5, 0.75, 1.13, 2.0])
def test_magnified_truth_lies_where_the_magnified_picture_has_its_cells(zoom: float) -> None:
    y, x = np.mgrid[:120, :160]
    labels = (np.hypot(x - 70.5, y - 60.5) < 20).astype(np.int32)
    pixels = np.repeat(np.where(labels > 0, 100, 220).astype(np.uint8)[..., None], 3, axis=2)
    truth = Truth("disc", pixels, labels, np.zeros(labels.shape, bool), np.zeros(1, np.int8))
    out = apply(Shift("scale", "", lambda p, _: p, zoom), truth)
    seen = out.pixels[..., 0] < 160
    for axis in (0, 1):
        assert np.argwhere(out.labels > 0)[:, axis].mean() == pytest.approx(np.argwhere(seen)[:, axis].mean(), abs=0.3)


def _truth() -> list[Truth]:
    return simulated_truth(1, (240, 200))


def test_dyes_leave_the_glass_and_change_the_cells() -> None:
    pixels = np.full((60, 60, 3), 200, np.uint8)
    pixels[20:40, 20:40] = 100
    darker = changes._dyes(2, 1, 1)(pixels, np.random.default_rng(0))
    assert darker[0, 0].tolist() == [200, 200, 200]
    # Twice the density: the transmission squared.
    assert darker[30, 30].tolist() == [50, 100, 100]


def test_shifts_are_measured_with_the_shipped_networks() -> None:
    bundle = load(default_folder())
    truths = simulated_truth(2, (320, 240))
    plain, noisy = measure_all(
        bundle, truths, [s for s in SHIFTS if (s.kind, s.strength) in (("none", ""), ("noise", "sd 25"))], threads=1
    )
    cells = sum(len(np.unique(t.labels)) - 1 for t in truths)
    assert plain.overlap.true == cells
    assert plain.overlap.iou > 0.7
    assert plain.labelled >= plain.counts.sum() > 0
    assert noisy.overlap.iou < plain.overlap.iou
    with pytest.raises(RbcedgeError, match="no field"):
        measure_all(bundle, [])
