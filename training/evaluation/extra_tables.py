"""What the paper's tables lack: every measure, scanners, limits by slide, calibration, agreement, false alarms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rbcedge.training.evaluation.agreement import cohen_kappa, fleiss_kappa
from rbcedge.training.evaluation.classifier_tables import how, name_of, over, summary
from rbcedge.training.evaluation.confidence import cross_fitted, fit_temperature, reliability, surprise
from rbcedge.training.evaluation.curves import auc
from rbcedge.training.evaluation.reading import read_readers
from rbcedge.training.evaluation.runs import ClassifierRun, Fold
from rbcedge.training.evaluation.tables import NOT_AVAILABLE, Missing, Table, limits, number, percent, with_spread
from rbcedge.training.evaluation.uncertainty import cluster_bootstrap, spread
from rbcedge.training.measures import false_abnormal, measure

from rbcedge.counting.intervals import clopper_pearson

_ALL: Mapping[str, str] = {
    "SN": "sensitivity", "SP": "specificity", "ACC": "accuracies", "PPV": "precision", "NPV": "npv", "F1": "f1",
    "FPR": "fpr", "IoU": "iou",
}  # fmt: skip


def label(run: ClassifierRun) -> str:
    """Network and way of training, short."""
    parts = [name_of(run.network)]
    if not run.segmented:
        parts.append("not segmented")
    if run.weighted:
        parts.append("weighted")
    return ", ".join(parts)


def class_aucs(fold: Fold) -> NDArray[np.float64]:
    """(K,) area under each class's ROC curve, NaN for a class without cells."""
    return np.array([auc(fold.truth == k, p) for k, p in enumerate(fold.probabilities.T)])


def measures_table(run: ClassifierRun) -> Table:
    """Every measure of Eqs. 2 to 9 and the area under the ROC curve, by class."""
    counts = run.counts()
    m = measure(counts)
    areas = np.stack([class_aucs(f) for f in run.folds])
    columns = {s: np.where(m.present, getattr(m, n), np.nan) for s, n in _ALL.items()} | {"AUC": areas}
    rows = []
    for k, code in enumerate(run.codes):
        values = [_spread(column[:, k]) for column in columns.values()]
        rows.append((code, f"{int(counts[0, k].sum()):,}", *values))
    with np.errstate(invalid="ignore"):
        means = [_spread(_nanmean(column)) for column in columns.values()]
    rows.append(("mean", f"{int(counts[0].sum()):,}", *means))
    covered = int(m.present[0].sum())
    notes = (
        f"{label(run)}: each class against the rest, {over(run)}; means over the {covered} "
        f"classes that have cells. ACC here is Eq. 4 of a class against the rest; the share of all cells that is right "
        f"is {_spread(np.asarray(m.accuracy))} %.",
    )
    columns_shown = ("class", "cells", *(f"{s} %" for s in columns))
    return Table("measures", "All measures by class", columns_shown, tuple(rows), notes)


def _nanmean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(1) / known.sum(1)


def _spread(values: NDArray[np.float64]) -> str:
    s = spread(values)
    return with_spread(s.mean, s.sd)


def scanner_table(run: ClassifierRun) -> Table | Missing:
    """ACC, SN, PPV and F1 by scanner."""
    title = "Scanners"
    by = run.counts("scanners")
    if set(by) == {""}:
        return Missing("scanners", title, "the data set does not say which scanner a slide is from")
    first = run.folds[0]
    rows = []
    for scanner, counts in by.items():
        s = summary(counts)
        slides = len(set(first.slides[first.scanners == scanner]))
        covered = int(measure(counts[0]).present.sum())
        rows.append(
            (scanner or "unknown", f"{slides}", f"{int(counts[0].sum()):,}", f"{covered}", *map(_spread, s.values()))
        )
    columns = ("scanner", "slides", "cells", "classes", *(f"{c} %" for c in s))
    notes = (f"{label(run)}; {over(run)}; means over the classes that have cells there.",)
    return Table("scanners", title, columns, tuple(rows), notes)


def limits_table(runs: Sequence[ClassifierRun]) -> Table | Missing:
    """95 % limits from drawing whole slides again."""
    title = "95 % limits by slide"
    slides = len(set(runs[0].folds[0].slides))
    if slides < 2:
        return Missing("limits", title, "all test cells are of one slide: nothing is known of other slides")
    rows = []
    for run in runs:
        counts = np.stack(list(run.counts("slides").values()))
        seen = summary(run.counts())
        row = [label(run)]
        for symbol in seen:
            low, high = cluster_bootstrap(counts, lambda c, s=symbol: _fold_mean(c, s))
            row.append(f"{percent(spread(seen[symbol]).mean)} ({limits(low, high)})")
        rows.append(tuple(row))
    notes = (
        f"Mean over folds; in brackets percentile limits from 2,000 draws of the {slides} test slides, put back each "
        "time. "
        "Cells of a slide share patient, stain and scanner, so limits that count cells would be far too narrow; with "
        "few slides these, too, are narrow rather than wide.",
    )
    return Table("limits", title, ("run", *(f"{s} %" for s in seen)), tuple(rows), notes)


def _fold_mean(counts: NDArray[np.integer], symbol: str) -> NDArray[np.float64]:
    """(B, F, K, K) counts to (B,): the mean over folds."""
    b, folds = counts.shape[:2]
    return _nanmean(summary(counts.reshape(b * folds, *counts.shape[2:]))[symbol].reshape(b, folds))


def false_abnormal_table(runs: Sequence[ClassifierRun]) -> Table | Missing:
    """Rounded cells called TEA, FRA or BUR."""
    title = "Normal cells called TEA, FRA or BUR"
    rows = []
    for run in runs:
        found = false_abnormal(run.counts(), run.codes)
        if found is None:
            return Missing("false-abnormal", title, "the class set lacks NOR, or all of TEA, FRA and BUR")
        wrong, normal = found
        n = int(normal[0])
        if not n:
            return Missing("false-abnormal", title, "there is no test cell of NOR")
        rate = spread(wrong / normal)
        k = round(rate.mean * n)
        by_slide = np.stack([_wrong(c, run.codes) for c in run.counts("slides").values()])
        slide_limits = cluster_bootstrap(by_slide, _share)
        rows.append(
            (label(run), f"{n:,}", f"{k:,}", with_spread(rate.mean, rate.sd), limits(*clopper_pearson(k, n)),
             limits(*slide_limits))
        )  # fmt: skip
    columns = ("run", "normal cells", "called abnormal", "share %", "exact 95 % limits", "95 % limits by slide")
    notes = (
        "Called abnormal: mean over folds, rounded. Exact limits (Clopper and Pearson) take cells as independent; "
        "those by slide draw whole slides again. At 1 % the schistocyte cut-off is reached by normal cells alone.",
    )
    return Table("false-abnormal", title, columns, tuple(rows), notes)


def _wrong(counts: NDArray[np.integer], codes: Sequence[str]) -> NDArray[np.int64]:
    found = false_abnormal(counts, codes)
    assert found is not None
    return np.stack(found, axis=-1)


def _share(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """(B, F, 2) wrong and normal cells to (B,): mean share over folds."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return _nanmean(counts[..., 0] / counts[..., 1])


def calibration_table(runs: Sequence[ClassifierRun]) -> Table:
    """Calibration error of the confidences, and the temperature that mends it."""
    rows = []
    for run in runs:
        several = len(set(run.folds[0].slides)) > 1
        values: dict[str, list[float]] = {n: [] for n in ("before", "after", "temperature", "loss", "loss after")}
        for fold in run.folds:
            values["before"].append(reliability(fold.truth, fold.probabilities).error)
            values["loss"].append(surprise(fold.truth, fold.probabilities))
            values["temperature"].append(fit_temperature(fold.truth, fold.probabilities))
            if several:
                p = cross_fitted(fold.truth, fold.probabilities, fold.slides)
                values["after"].append(reliability(fold.truth, p).error)
                values["loss after"].append(surprise(fold.truth, p))
        s = {n: spread(v) for n, v in values.items()}
        rows.append(
            (label(run), with_spread(s["before"].mean, s["before"].sd), number(s["loss"].mean, 3),
             number(s["temperature"].mean), with_spread(s["after"].mean, s["after"].sd),
             number(s["loss after"].mean, 3))
        )  # fmt: skip
    columns = ("run", "ECE %", "log loss", "temperature", "ECE % after", "log loss after")
    notes = (
        "ECE: expected calibration error in 15 bins of the given class's probability. Temperature: fitted on all test "
        "cells; after: each slide with the temperature that fits the other slides (n/a with one slide). Mean over "
        "folds.",
    )
    return Table("calibration", "Confidence", columns, tuple(rows), notes)


def agreement_table(runs: Sequence[ClassifierRun], readers: Path | None = None) -> Table:
    """Kappa with the labels, among the trained networks, and with and among readers."""
    rows = []
    for run in runs:
        counts = run.counts()
        kappas = spread([cohen_kappa(c) for c in counts])
        by_slide = np.stack(list(run.counts("slides").values()))
        low, high = cluster_bootstrap(by_slide, _kappas, resamples=500)
        between = f"{kappas.mean:.3f}" + ("" if math.isnan(low) else f" ({low:.3f} to {high:.3f})")
        rows.append((label(run), "the labels", "Cohen", f"{int(counts[0].sum()):,}", between))
        if len(run.folds) > 1:
            votes = _votes(np.stack([f.guess for f in run.folds], 1), len(run.codes))
            rows.append(
                (label(run), f"its own {len(run.folds)} folds", "Fleiss", f"{len(votes):,}", _k(fleiss_kappa(votes)))
            )
    if readers is not None:
        rows += _reader_rows(runs, readers)
    notes = (
        "Cohen's kappa: mean over folds, 95 % limits by slide. Among folds: how far what a network says depends on the "
        "slides it was trained on. Between experts counting schistocytes Fleiss' kappa was 0.50.",
    )
    return Table(
        "agreement", "Agreement beyond chance", ("who", "with", "kappa of", "cells", "kappa"), tuple(rows), notes
    )


def _kappas(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    return np.array([spread([cohen_kappa(c) for c in folds]).mean for folds in counts])


def _votes(calls: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    return np.stack([(calls == k).sum(1) for k in range(classes)], 1)


def _k(kappa: float) -> str:
    return number(kappa, 3)


def _reader_rows(runs: Sequence[ClassifierRun], path: Path) -> list[tuple[str, ...]]:
    codes = runs[0].codes
    names, calls = read_readers(path, codes)
    rows = []
    table = np.array(list(calls.values()), int).reshape(-1, len(names))
    if len(names) > 1:
        rows.append(
            (", ".join(names), "each other", "Fleiss", f"{len(table):,}", _k(fleiss_kappa(_votes(table, len(codes)))))
        )
    for run in runs:
        fold = run.folds[0]
        at = [i for i, cell in enumerate(fold.cells) if str(cell) in calls]
        if not at:
            rows.append((label(run), f"readers of {path.name}", "Cohen", "0", NOT_AVAILABLE))
            continue
        theirs = np.array([calls[str(fold.cells[i])] for i in at])
        for r, reader in enumerate(names):
            kappa = spread(
                [
                    cohen_kappa(np.histogram2d(theirs[:, r], f.guess[at], [np.arange(len(codes) + 1)] * 2)[0])
                    for f in run.folds
                ]
            )
            rows.append((label(run), reader, "Cohen", f"{len(at):,}", _k(kappa.mean)))
    return rows


def confusions_table(run: ClassifierRun, most: int = 12) -> Table:
    """The commonest mistakes."""
    counts = run.counts().mean(0)
    wrong = counts * (1 - np.eye(len(counts)))
    rows = []
    for flat in np.argsort(-wrong, axis=None, kind="stable")[:most]:
        t, g = np.unravel_index(flat, wrong.shape)
        if wrong[t, g] > 0:
            cells = f"{wrong[t, g]:.1f}" if len(run.folds) > 1 else f"{wrong[t, g]:.0f}"
            share, of_all = wrong[t, g] / counts[t].sum(), wrong[t, g] / wrong.sum()
            rows.append((run.codes[t], run.codes[g], cells, percent(share), percent(of_all)))
    columns = ("label", "called", "cells", "of the label's cells %", "of all mistakes %")
    notes = (f"{label(run)}; {f'mean over {len(run.folds)} folds' if len(run.folds) > 1 else 'one fold'}.",)
    return Table("mistakes", "Commonest mistakes", columns, tuple(rows), notes)


def runs_table(runs: Sequence[ClassifierRun]) -> Table:
    """What was read."""
    rows = []
    for run in runs:
        recipe = run.about.get("recipe") or {}
        planned = len((run.about.get("split") or {}).get("folds") or run.folds)
        rows.append(
            (run.folder.name, name_of(run.network), how(run.segmented, run.weighted), str(recipe.get("name", "")),
             _start(run), _epochs(run), str(run.about.get("steps") or "all"), f"{len(run.folds)} of {planned}",
             f"{len(run.folds[0].cells):,}")
        )  # fmt: skip
    columns = ("run", "network", "training", "recipe", "start", "epochs", "batches", "folds", "test cells")
    notes = (
        "Start: the first weights. Epochs: those trained in the folds, of as many as were allowed. Batches: of an "
        "epoch, where they were limited.",
    )
    return Table("runs", "Runs", columns, tuple(rows), notes)


def _start(run: ClassifierRun) -> str:
    """Where a training started."""
    weights = run.about.get("weights", "")
    return str(weights.get("file", "a file")) if isinstance(weights, Mapping) else str(weights)


def _epochs(run: ClassifierRun) -> str:
    """Epochs of the folds, least to most, and what was allowed."""
    done = [int(f["epochs"]) for f in run.about.get("folds") or [] if "epochs" in f]
    allowed = (run.about.get("recipe") or {}).get("epochs")
    if not done:
        return NOT_AVAILABLE
    text = f"{min(done)}" if min(done) == max(done) else f"{min(done)} to {max(done)}"
    return text if allowed is None else f"{text} of {allowed}"
