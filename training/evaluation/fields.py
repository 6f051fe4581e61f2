"""A run of `rbcedge run` over labelled pictures, laid over the labels: counted cells as a classifier run and more."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rbcedge.training.datasets import chula
from rbcedge.training.evaluation import extra_tables, figures
from rbcedge.training.evaluation.report import Item, Picture
from rbcedge.training.evaluation.runs import ClassifierRun, Fold, natural
from rbcedge.training.evaluation.tables import Table, percent
from rbcedge.training.scoring import Comparison, Labelled, lay_over

from rbcedge.counting.intervals import clopper_pearson
from rbcedge.errors import RbcedgeError, UsageError

#: Thresholds below which a cell would be "unclassified".
THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True, slots=True)
class ScoredRun:
    """A run against the labels.

    Attributes
    ----------
    folder : Path
    compared : Comparison
        Cells found, missed, and with a label.
    cells : tuple of Labelled
        Those with a label and probabilities, in the order of `run`.
    run : ClassifierRun
        The same cells as one fold; its slides are blocks of neighbouring pictures.
    threshold : float
        Below it the run called a cell unclassified.
    """

    folder: Path
    compared: Comparison
    cells: tuple[Labelled, ...]
    run: ClassifierRun
    threshold: float


def labelled_fields(folder: Path, everything: bool = False, seed: int = 0) -> list[chula.LabelledField]:
    """Fields of Chula-RBC-12: the blocks held out from training by `seed`, or all."""
    fields = chula.read(folder)
    return fields if everything else chula.split(fields, seed=seed)[1]


def score_runs(folders: Sequence[Path], labels: Path, everything: bool = False, seed: int = 0) -> list[ScoredRun]:
    """Lay several runs over the labels of Chula-RBC-12 in `labels`; see `labelled_fields` and `score_run`.

    Raises
    ------
    UsageError, RbcedgeError
        A run is broken, or two have different classes.
    """
    fields, blocks = labelled_fields(labels, everything, seed), chula.blocks(chula.read(labels))
    scored = [score_run(folder, fields, blocks) for folder in folders]
    for other in scored[1:]:
        if set(other.run.codes) != set(scored[0].run.codes):
            raise UsageError(f"{scored[0].folder} and {other.folder} know different classes. Evaluate one at a time.")
    return scored


def score_run(
    folder: Path, fields: Sequence[chula.LabelledField], blocks: Sequence[Sequence[chula.LabelledField]]
) -> ScoredRun:
    """Lay a run's cells over the labels of `fields`.

    Parameters
    ----------
    folder : Path
        The --out folder of `rbcedge run` over the pictures.
    fields : sequence of LabelledField
        Whose marks count.
    blocks : sequence of sequences of LabelledField
        Which pictures share a slide.

    Raises
    ------
    UsageError, RbcedgeError
        No run there; none of the pictures in it; classes without a column of probabilities.
    """
    if not (folder / "cells.csv").is_file():
        raise UsageError(f"{folder}: no cells.csv. Give the --out folder of 'rbcedge run' over the labelled pictures.")
    compared = lay_over(folder / "cells.csv", fields)
    if not compared.cells:
        raise RbcedgeError(f"{folder}: no cell off a border has a label.")
    codes = tuple(k[2:] for k in compared.cells[0].row if k and k.startswith("p_"))
    unknown = sorted({c.truth for c in compared.cells} - set(codes))
    if unknown:
        raise RbcedgeError(
            f"{folder / 'cells.csv'}: the labels hold {', '.join(unknown)}, and no column holds their "
            f"probabilities ({', '.join(f'p_{c}' for c in codes) or 'none at all'})."
        )
    # A cell that was not classified has empty probabilities.
    cells = tuple(c for c in compared.cells if all(c.row[f"p_{k}"] not in ("", "nan") for k in codes))
    if not cells:
        raise RbcedgeError(f"{folder / 'cells.csv'}: no labelled cell was classified.")
    slide = {f.number: f"{b[0].number}-{b[-1].number}" if len(b) > 1 else str(b[0].number) for b in blocks for f in b}
    p = np.array([[float(c.row[f"p_{k}"]) for k in codes] for c in cells])
    about = _summary(folder)
    name = str(about.get("bundle", {}).get("name", folder.name))
    fold = Fold(
        1,
        1,
        np.array([f"{c.picture.name} {c.box[0]:g} {c.box[1]:g}" for c in cells]),
        np.array([slide[c.number] for c in cells]),
        np.full(len(cells), ""),
        np.array([codes.index(c.truth) for c in cells]),
        p / p.sum(1, keepdims=True),
    )
    run = ClassifierRun(folder, about, name, True, False, codes, (fold,))
    sure = [float(c.row["confidence"]) for c in cells if c.row.get("unclassified") == "0" and c.row.get("confidence")]
    return ScoredRun(folder, compared, cells, run, min(sure) if sure else math.nan)


def _summary(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def finding_table(scored: Sequence[ScoredRun]) -> Table:
    """Cells found and objects that are none."""
    rows = []
    for s in scored:
        c = s.compared
        found = c.points - len(c.missed)
        low, high = clopper_pearson(found, c.points)
        rows.append(
            (s.folder.name, f"{c.fields}", f"{c.points:,}", f"{found:,}", f"{percent(found / c.points)}",
             f"{100 * low:.2f} to {100 * high:.2f}", f"{c.full_fields}", f"{len(c.unmarked):,} of {c.full_cells:,}",
             percent(c.extra))
        )  # fmt: skip
    columns = ("run", "fields", "marks", "found", "found %", "exact 95 % limits", "fully marked fields",
               "objects without a mark there", "mean share %")  # fmt: skip
    notes = (
        "Found: a mark lies in the box of a listed cell. In a field counted as fully marked at least 85 % of the cells "
        "off the border hold a mark; what holds none there is an object that is no red cell, or a cell nobody marked.",
    )
    return Table("finding", "Finding cells", columns, tuple(rows), notes)


def threshold_table(s: ScoredRun) -> Table:
    """What a confidence threshold buys."""
    fold = s.run.folds[0]
    top, right = fold.probabilities.max(1), fold.guess == fold.truth
    rows = []
    for threshold in THRESHOLDS:
        kept = top >= threshold
        share = float(right[kept].mean()) if kept.any() else math.nan
        rows.append((f"{threshold:g}", f"{int(kept.sum()):,}", percent(float(kept.mean())), percent(share)))
    columns = ("threshold", "classified", "classified %", "accuracy among them %")
    return Table("thresholds", f"Confidence thresholds, {s.run.network}", columns, tuple(rows))


def field_items(
    scored: Sequence[ScoredRun], tables: bool = True, pictures: bool = True
) -> tuple[list[str], list[Item]]:
    """Introduction, tables and figures of scored runs."""
    items: list[Item] = []
    runs = [s.run for s in scored]
    first = scored[0]
    if tables:
        items += [
            finding_table(scored),
            extra_tables.measures_table(first.run),
            extra_tables.confusions_table(first.run),
        ]
        items.append(block_table(first.run))
        items += [
            extra_tables.limits_table(runs),
            extra_tables.false_abnormal_table(runs),
            extra_tables.calibration_table(runs),
            extra_tables.agreement_table(runs),
            threshold_table(first),
        ]
    if pictures:
        items.append(Picture("figure-6", "Confusion matrix", lambda: figures.figure_6(runs)))
        items.append(Picture("figure-7", "ROC curves", lambda: figures.figure_7(first.run)))
        items.append(Picture("figure-reliability", "Reliability", lambda: figures.figure_reliability(first.run)))
    intro = [
        f"{first.compared.fields} labelled fields, {len(first.cells):,} cells off the border with a label and a class. "
        "A cell with one mark has that mark's class, one with two or three is TWO or THR. "
        "Slides are not known: blocks of neighbouring pictures stand for them."
    ]
    return intro, items


def block_table(run: ClassifierRun) -> Table:
    """Accuracy by block."""
    rows = []
    for block, counts in sorted(run.counts("slides").items(), key=lambda kv: natural(kv[0].split("-")[0])):
        n, right = int(counts.sum()), int(np.trace(counts[0]))
        low, high = clopper_pearson(right, n)
        wrong = counts[0] * (1 - np.eye(len(run.codes), dtype=int))
        t, g = np.unravel_index(wrong.argmax(), wrong.shape)
        most = f"{run.codes[t]} called {run.codes[g]}: {wrong[t, g]}" if wrong.any() else ""
        rows.append((block, f"{n:,}", percent(right / n), f"{100 * low:.1f} to {100 * high:.1f}", most))
    columns = ("pictures", "cells", "accuracy %", "exact 95 % limits", "commonest mistake")
    return Table("blocks", "Blocks of pictures", columns, tuple(rows))
