"""The measured parts of the model card, from a scored run: figures, tables and galleries of what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rbcedge.training.evaluation import extra_tables, figures, gallery
from rbcedge.training.evaluation.fields import ScoredRun, block_table, finding_table, threshold_table
from rbcedge.training.evaluation.report import write_figure, write_text
from rbcedge.training.measures import ABNORMAL, NORMAL

from rbcedge.errors import RbcedgeError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Everything written begins with this, so that it can be told from what people wrote beside it.
PREFIX = "model-"


def disagreements(scored: ScoredRun) -> list[gallery.Disagreement]:
    """Cells of a scored run whose class differs from the label."""
    fold, codes = scored.run.folds[0], scored.run.codes
    return [
        gallery.Disagreement(cell.picture, cell.box, codes[t], codes[g], float(p[g]))
        for cell, t, g, p in zip(scored.cells, fold.truth, fold.guess, fold.probabilities, strict=True)
        if t != g
    ]


def write_card(scored: ScoredRun, folder: Path, dpi: int = 110) -> Path:
    """Write `model-*.png` and `model-measured.md`, which shows them; return the latter.

    Raises
    ------
    RbcedgeError
        The folder cannot be written, or a picture not read.
    """
    wrong = disagreements(scored)
    compared = scored.compared
    half = gallery.SIDE / 2
    missed = [(p, (x - half / 2, y - half / 2, half, half)) for p, x, y in compared.missed]
    drawings: list[tuple[str, str, Callable[[], Figure]]] = [
        ("confusion", "Confusion matrix", lambda: figures.figure_6([scored.run])),
        ("reliability", "Confidence against share right", lambda: figures.figure_reliability(scored.run)),
    ]
    if wrong:
        drawings += [
            ("disagreements", "The most confident disagreements", lambda: gallery.by_confidence(wrong)),
            ("disagreements-by-pair", "Disagreements by pair of classes", lambda: gallery.by_pair(wrong)),
        ]
    abnormal = [d for d in wrong if d.truth == NORMAL and d.guess in ABNORMAL]
    if abnormal:
        title = "Labelled normal, called TEA, FRA or BUR"
        what = "cells that are labelled normal"
        drawings.append(("false-abnormal", title, lambda: gallery.by_confidence(abnormal, what, rows=6)))
    if compared.unmarked:
        title = "Found, without a mark, in fully marked fields"
        drawings.append(("unmarked", title, lambda: gallery.places(compared.unmarked, title)))
    if missed:
        drawings.append(("missed", "Marked and not found", lambda: gallery.places(missed, "Marked and not found")))
    run = scored.run
    tables = [
        finding_table([scored]), extra_tables.measures_table(run), extra_tables.limits_table([run]),
        extra_tables.false_abnormal_table([run]), extra_tables.calibration_table([run]), threshold_table(scored),
        extra_tables.confusions_table(run), block_table(run),
    ]  # fmt: skip
    bundle = run.about.get("bundle") or {}
    engine = run.about.get("engine") or {}
    lines = [
        f"# Measured: bundle {bundle.get('name', run.network)}",
        "",
        f"{compared.fields} fields, {len(scored.cells):,} labelled cells off the border. Manifest sha256 "
        f"{str(bundle.get('sha256', 'unknown'))[:12]}; {engine.get('name', 'unknown engine')} "
        f"{engine.get('precision', '')}.".replace(" .", "."),
        "",
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for table in tables:
            text = table.markdown() if hasattr(table, "markdown") else f"## {table.title}\n\nNot made: {table.why}."
            lines += [text, ""]
        for name, title, draw in drawings:
            file = f"{PREFIX}{name}.png"
            write_figure(folder / file, draw(), dpi)
            lines += [f"## {title}", "", f"![{title}]({file})", ""]
        path = folder / f"{PREFIX}measured.md"
        write_text(path, "\n".join(lines).rstrip() + "\n")
    except OSError as e:
        raise RbcedgeError(f"{folder} cannot be written ({e.strerror}). Choose another folder.") from e
    return path
