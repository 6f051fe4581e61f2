"""Table 3 of the paper from segmenter runs, and what it lacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rbcedge.training.evaluation import paper
from rbcedge.training.evaluation.runs import SegmenterRun, natural
from rbcedge.training.evaluation.tables import Missing, Table, limits, number, percent
from rbcedge.training.evaluation.uncertainty import cluster_bootstrap
from rbcedge.training.measures import measure


def confusion_of(pixels: NDArray[np.integer]) -> NDArray[np.int64]:
    """(..., 4) true positive, false positive, false negative, true negative to (..., 2, 2), background first."""
    tp, fp, fn, tn = np.moveaxis(np.asarray(pixels), -1, 0)
    return np.stack([np.stack([tn, fp], -1), np.stack([fn, tp], -1)], -2)


def pooled(pixels: NDArray[np.integer]) -> dict[str, NDArray[np.float64]]:
    """The measures of Table 3 of (..., 4) pixel counts, shares in 0 to 1, each of shape (...)."""
    m = measure(confusion_of(pixels))
    names = {"SN": "sensitivity", "SP": "specificity", "PPV": "precision", "F1": "f1", "ACC": "accuracies",
             "FPR": "fpr", "IoU": "iou"}  # fmt: skip
    return {symbol: getattr(m, name)[..., 1] for symbol, name in names.items()}


def cell_iou(run: SegmenterRun) -> NDArray[np.float64]:
    """(N,) IoU of each cell; NaN where neither mask has a pixel."""
    return pooled(run.pixels)["IoU"]


def instance_f1(objects: NDArray[np.integer]) -> NDArray[np.float64]:
    """F1 of instances at IoU 0.5, (...), from (..., 3) sums of cells, objects and matches."""
    cells, found, matched = np.moveaxis(np.asarray(objects, float), -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        f1: NDArray[np.float64] = 2 * matched / (cells + found)
    return f1


def _objects(run: SegmenterRun, where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(3,) cells, objects and matches among the cells in `where`; NaN where the run did not count them."""
    if run.objects is None:
        return np.full(3, np.nan)
    return np.array([where.sum(), *run.objects[where].sum(0)], float)


def table_3(runs: Sequence[SegmenterRun]) -> Table:
    """All pixels of all test cells together, with limits from drawing whole slides again."""
    rows = []
    slides = sorted(set(runs[0].slides), key=natural)
    for run in runs:
        by_slide = np.stack([run.pixels[run.slides == s].sum(0) for s in slides])
        seen = pooled(by_slide.sum(0))
        row, brackets = [run.network], [f"{run.network}, 95 % limits by slide"]
        for symbol in paper.TABLE_3:
            row.append(percent(float(seen[symbol])))
            brackets.append(limits(*cluster_bootstrap(by_slide, lambda c, s=symbol: pooled(c)[s])))
        objects = np.stack([_objects(run, run.slides == s) for s in slides])
        row.append(percent(float(instance_f1(objects.sum(0)))))
        brackets.append(limits(*cluster_bootstrap(objects, instance_f1)))
        rows += [tuple(row), tuple(brackets)]
    rows.append(("paper", *(f"{v:.2f}" for v in paper.TABLE_3.values()), "–"))
    cells = len(runs[0].cells)
    notes = (
        f"All pixels of {cells:,} cells of {len(slides)} test slides together (the paper: "
        f"{paper.SEGMENTATION_CELLS:,} cells of five slides). Limits: 2,000 draws of whole slides, put back each time; "
        "n/a with one slide.",
        "Instance F1, which the paper lacks: each crop holds one cell; connected parts of its mask are objects, and "
        "one of them is the cell where their IoU is above 0.5. How well touching cells come apart on whole fields is "
        "measured by `rbcedge evaluate shifts`.",
    )
    columns = ("segmenter", *(f"{s} %" for s in paper.TABLE_3), "instance F1 %")
    return Table("table-3", "Table 3. Segmentation", columns, tuple(rows), notes)


def groups_table(run: SegmenterRun, by: str, title: str) -> Table | Missing:
    """Table 3 for each slide, scanner or class (`by`: "slides", "scanners", "truth"), and IoU cell by cell."""
    values = getattr(run, by)
    name = f"segmentation-{by}"
    if set(values) == {""}:
        return Missing(name, title, "the data set does not say")
    ious = cell_iou(run)
    rows = []
    for group in sorted(set(values), key=natural):
        own = values == group
        seen = pooled(run.pixels[own].sum(0))
        cells = ious[own][~np.isnan(ious[own])]
        share = [float((cells > t).mean()) if len(cells) else float("nan") for t in (0.5, 0.9)]
        middle = float(np.median(cells)) if len(cells) else float("nan")
        rows.append(
            (group or "unknown", f"{int(own.sum()):,}", *(percent(float(v)) for v in seen.values()),
             percent(float(instance_f1(_objects(run, own)))), percent(middle), *(percent(s) for s in share))
        )  # fmt: skip
    columns = ("class" if by == "truth" else by.rstrip("s"), "cells", *(f"{s} %" for s in seen), "instance F1 %",
               "median cell IoU %", "IoU > 0.5 %", "IoU > 0.9 %")  # fmt: skip
    return Table(name, title, columns, tuple(rows), (f"{run.network}.",))


def cost_table(runs: Sequence[SegmenterRun]) -> Table:
    """Size and time."""
    rows = []
    for run in runs:
        parameters = run.about.get("parameters")
        machine = (run.about.get("machine") or {}).get("cpu") or "unknown"
        rows.append(
            (run.network, f"{parameters / 1e6:.2f}" if parameters else number(float("nan")), number(run.train_s, 0),
             number(run.test_s, 1), f"{len(run.cells):,}", str(machine))
        )  # fmt: skip
    columns = ("segmenter", "parameters M", "train s", "test s", "cells", "machine")
    return Table("segmentation-cost", "Cost", columns, tuple(rows))


def segmenter_tables(runs: Sequence[SegmenterRun]) -> list[Table | Missing]:
    """Table 3, and for the first run slides, scanners and classes."""
    out: list[Table | Missing] = [table_3(runs)]
    for by, title in (("slides", "Slides"), ("scanners", "Scanners"), ("truth", "Classes")):
        out.append(groups_table(runs[0], by, title))
    return [*out, cost_table(runs)]
