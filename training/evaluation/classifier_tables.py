"""Tables 4 to 8 of the paper from classifier runs, the paper's figures beside ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from rbcedge.training.evaluation import paper
from rbcedge.training.evaluation.runs import ClassifierRun
from rbcedge.training.evaluation.tables import NOT_AVAILABLE, Missing, Table, number, with_spread
from rbcedge.training.evaluation.uncertainty import spread, t_test
from rbcedge.training.measures import Measures, measure

#: Columns of the paper's tables, by the attribute of `Measures`.
SYMBOLS: Mapping[str, str] = {
    "SN": "sensitivity",
    "SP": "specificity",
    "F1": "f1",
    "PPV": "precision",
    "NPV": "npv",
}
#: Where the paper has no such row.
NONE = "–"
_SUMMARY = ("ACC", "SN", "PPV", "F1")


def name_of(network: str) -> str:
    """A network's name as the paper writes it."""
    return paper.NAMES.get(network, network)


def summary(counts: NDArray[np.integer]) -> dict[str, NDArray[np.float64]]:
    """ACC and the class means of SN, PPV and F1 for each fold of (F, K, K) counts, shares in 0 to 1."""
    m = measure(counts)
    means = {s: np.atleast_1d(m.mean(SYMBOLS[s])) for s in ("SN", "PPV", "F1")}
    return {"ACC": np.atleast_1d(m.accuracy), **means}


def reference(runs: Sequence[ClassifierRun], wanted: str | None = None) -> str | None:
    """Network that Tables 4, 6, 7 and 8 are about.

    `wanted`; else the paper's choice if it is there; else the only one there is; else None.
    """
    networks = {r.network for r in runs}
    if wanted is not None:
        return wanted if wanted in networks else None
    if paper.NETWORK in networks:
        return paper.NETWORK
    return networks.pop() if len(networks) == 1 else None


def pick(runs: Sequence[ClassifierRun], network: str, segmented: bool, weighted: bool) -> ClassifierRun | None:
    """The run of this variant, or None."""
    return next((r for r in runs if r.variant == (network, segmented, weighted)), None)


def how(segmented: bool, weighted: bool) -> str:
    """Name a way of training in words."""
    return f"{'segmented crops' if segmented else 'crops as they are'}, {'class weights' if weighted else 'no weights'}"


def _mean(values: NDArray[np.float64]) -> str:
    s = spread(values)
    return with_spread(s.mean, s.sd)


def _beside(theirs: float | None, digits: int) -> str:
    return NONE if theirs is None else f"{theirs:,.{digits}f}"


def _coverage(m: Measures, codes: Sequence[str]) -> list[str]:
    """Notes on classes that the means leave out."""
    present = np.atleast_2d(m.present)[0]
    absent = [c for c, p in zip(codes, present, strict=True) if not p]
    notes = []
    if absent:
        notes.append(
            f"No test cell of {', '.join(absent)}: n/a there, and the means cover {int(present.sum())} of "
            f"{len(codes)} classes."
        )
    never = np.atleast_2d(np.isnan(m.precision))[:, present].any(0)
    if never.any():
        which = [c for c, n in zip([c for c, p in zip(codes, present, strict=True) if p], never, strict=True) if n]
        notes.append(
            f"In some folds nothing was taken for {', '.join(which)}: their PPV is left out of its mean there."
        )
    return notes


def over(run: ClassifierRun) -> str:
    """Say what figures are taken over, in words."""
    n = len(run.folds)
    return f"mean ± sd over {n} folds" if n > 1 else "one fold, so no spread"


def _unclaimed(rows: Mapping[str, NDArray[np.integer]]) -> list[str]:
    """Note on rows (name to (F, K, K) counts) whose mean PPV leaves out classes that nothing was taken for."""
    measured = {name: measure(counts) for name, counts in rows.items()}
    short = [name for name, m in measured.items() if (m.present & np.isnan(m.precision)).any()]
    text = "In some folds nothing was taken for some class, and the mean PPV leaves it out"
    return [f"{text}: {', '.join(short)}."] if short else []


def _whose(network: str) -> list[str]:
    """Note on whose figures the paper's are, where they are not those of the same network."""
    return [] if network == paper.NETWORK else [f"The paper's figures are those of {name_of(paper.NETWORK)}."]


def table_4(runs: Sequence[ClassifierRun], network: str, weighted: bool) -> Table | Missing:
    """Per class SN, SP, F1, PPV, NPV: mean and spread over the folds."""
    name = "table-4b" if weighted else "table-4a"
    title = f"Table 4{'b' if weighted else 'a'}. Classes, {'with' if weighted else 'without'} class weights"
    run = pick(runs, network, True, weighted)
    if run is None:
        return Missing(name, title, f"no run of {name_of(network)} with {how(True, weighted)}")
    theirs = paper.TABLE_4_WEIGHTED if weighted else paper.TABLE_4_UNWEIGHTED
    counts = run.counts()
    m = measure(counts)
    rows = []
    order = [c for c in theirs if c in run.codes] + [c for c in run.codes if c not in theirs]
    for code in [*order, "mean"]:
        k = run.codes.index(code) if code != "mean" else None
        cells = counts[0].sum() if k is None else counts[0, k].sum()
        row = [code, f"{int(cells):,}"]
        for column, symbol in enumerate(paper.TABLE_4_COLUMNS):
            if k is None:
                row.append(_mean(np.asarray(m.mean(SYMBOLS[symbol]))))
            else:
                here = m.present[:, k]
                row.append(_mean(np.where(here, getattr(m, SYMBOLS[symbol])[:, k], np.nan)))
            row.append(_beside(theirs[code][column] if code in theirs else None, 2))
        rows.append(tuple(row))
    columns = ["class", "cells"]
    for symbol in paper.TABLE_4_COLUMNS:
        columns += [f"{symbol} %", f"{symbol} paper"]
    notes = [f"{name_of(network)}, {how(True, weighted)}; {over(run)}.", *_coverage(m, run.codes), *_whose(network)]
    return Table(name, title, tuple(columns), tuple(rows), tuple(notes))


def _row(values: Mapping[str, NDArray[np.float64]], theirs: Sequence[float] | None, digits: int) -> list[str]:
    out = []
    for k, symbol in enumerate(_SUMMARY):
        out += [_mean(values[symbol]), _beside(None if theirs is None else theirs[k], digits)]
    return out


_SUMMARY_COLUMNS = tuple(c for s in _SUMMARY for c in (f"{s} %", f"{s} paper"))


def table_5(runs: Sequence[ClassifierRun]) -> Table | Missing:
    """Networks beside each other, with their cost."""
    name, title = "table-5", "Table 5. Networks"
    chosen = [r for r in runs if r.segmented and not r.weighted]
    if not chosen:
        return Missing(name, title, f"no run with {how(True, False)}")
    chosen.sort(key=lambda r: list(paper.TABLE_5).index(r.network) if r.network in paper.TABLE_5 else 99)
    rows = []
    for run in chosen:
        theirs = paper.TABLE_5.get(run.network)
        costs = {"train s": number(spread([f.train_s for f in run.folds]).mean, 0), "test s": number(_test_s(run), 1)}
        trainable, size = run.about.get("trainable"), run.about.get("model_bytes")
        costs["M"] = f"{trainable / 1e6:.2f}" if trainable else NOT_AVAILABLE
        costs["MB"] = f"{size / 2**20:.1f}" if size else NOT_AVAILABLE
        row = [name_of(run.network), *_row(summary(run.counts()), theirs, 1)]
        for (column, value), digits in zip(costs.items(), (0, 1, 2, 1), strict=True):
            at = paper.TABLE_5_COLUMNS.index(column)
            row += [value, _beside(None if theirs is None else theirs[at], digits)]
        rows.append(tuple(row))
    columns = ("network", *_SUMMARY_COLUMNS, *(c for n in paper.TABLE_5_COLUMNS[4:] for c in (n, f"{n} paper")))
    machines = sorted({machine_of(r) for r in chosen})
    notes = [
        f"{how(True, False).capitalize()}; {_each(chosen, over)}. Times: ours on "
        f"{'; '.join(machines)}, a fold's training and {paper.TEST_CELLS:,} cells (scaled from "
        f"{len(chosen[0].folds[0].cells):,}); the paper's on a T4.",
        "M: trainable parameters in millions. MB: 2^20 bytes of the saved model with its optimiser.",
        *_unclaimed({name_of(r.network): r.counts() for r in chosen}),
    ]
    return Table(name, title, columns, tuple(rows), tuple(notes))


def _test_s(run: ClassifierRun) -> float:
    """Seconds for as many cells as the paper tested."""
    return spread([f.test_s * paper.TEST_CELLS / len(f.cells) for f in run.folds]).mean


def _each(runs: Sequence[ClassifierRun], text: Callable[[ClassifierRun], str]) -> str:
    """One text where it is the same for all runs, else one for each."""
    texts = [text(r) for r in runs]
    if len(set(texts)) == 1:
        return texts[0]
    return "; ".join(f"{name_of(r.network)}: {t}" for r, t in zip(runs, texts, strict=True))


def machine_of(run: ClassifierRun) -> str:
    """What a run was trained on, in words."""
    machine = run.about.get("machine") or {}
    cpu, gpu, threads = machine.get("cpu") or "an unknown machine", machine.get("gpu"), machine.get("threads")
    text = f"{cpu}, {threads} threads" if threads else str(cpu)
    return f"{gpu} and {text}" if gpu else text


def table_6(runs: Sequence[ClassifierRun], network: str) -> Table | Missing:
    """Two-sample t-tests of one network against each other one."""
    name, title = "table-6", f"Table 6. Two-sample t-tests of {name_of(network)} against the other networks"
    own = pick(runs, network, True, False)
    others = [r for r in runs if r.segmented and not r.weighted and r.network != network]
    if own is None or not others:
        return Missing(name, title, f"it needs {name_of(network)} and another network, both with {how(True, False)}")
    if len(own.folds) < 2 or all(len(r.folds) < 2 for r in others):
        return Missing(name, title, "it needs at least two folds of each network")
    rows = []
    for other in others:
        row = [name_of(other.network)]
        a, b = (_samples(r) for r in (own, other))
        for symbol in (*_SUMMARY, "train s", "test s"):
            test = t_test(a[symbol], b[symbol])
            if math.isnan(test.p):
                row.append(NOT_AVAILABLE)
            else:
                row.append(f"{np.mean(a[symbol]) - np.mean(b[symbol]):+.2f} (p {_p(test.p)})")
        rows.append(tuple(row))
    columns = ("network", *(f"{s} %" for s in _SUMMARY), "train s", "test s")
    notes = (
        f"{name_of(network)} minus the other, and p of Student's two-sided t-test with pooled variance over folds "
        f"({len(own.folds)} of {name_of(network)}). Folds share their test cells and, in part, their training slides, "
        "so p is too small rather than too large.",
    )
    return Table(name, title, columns, tuple(rows), notes)


def _p(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def _samples(run: ClassifierRun) -> dict[str, NDArray[np.float64]]:
    values = {s: 100 * v for s, v in summary(run.counts()).items()}
    scaled = [f.test_s * paper.TEST_CELLS / len(f.cells) for f in run.folds]
    return {**values, "train s": np.array([f.train_s for f in run.folds]), "test s": np.array(scaled)}


def table_7(runs: Sequence[ClassifierRun], network: str) -> Table | Missing:
    """What segmentation and class weights do."""
    name, title = "table-7", f"Table 7. Ablation, {name_of(network)}"
    ways = [(False, False), (False, True), (True, False), (True, True)]
    found = [(way, run) for way in ways if (run := pick(runs, network, *way)) is not None]
    lacking = [how(*way) for way in paper.TABLE_7 if way not in [w for w, _ in found]]
    if lacking:
        return Missing(name, title, f"no run of {name_of(network)} with {'; or with '.join(lacking)}")
    rows = [(how(*way), *_row(summary(run.counts()), paper.TABLE_7.get(way), 1)) for way, run in found]
    notes = (f"{'; '.join(f'{how(*w)}: {over(r)}' for w, r in found).capitalize()}.",)
    notes = (*notes, *_unclaimed({how(*w): r.counts() for w, r in found}), *_whose(network))
    return Table(name, title, ("training", *_SUMMARY_COLUMNS), tuple(tuple(r) for r in rows), notes)


def table_8(runs: Sequence[ClassifierRun], network: str) -> Table | Missing:
    """Test slides one by one."""
    name, title = "table-8", f"Table 8. Test slides, {name_of(network)}"
    run = pick(runs, network, True, False)
    if run is None:
        return Missing(name, title, f"no run of {name_of(network)} with {how(True, False)}")
    first = run.folds[0]
    by_slide = run.counts("slides")
    # Slides of the same number in another split are other slides.
    same = set(by_slide) == set(paper.TEST_SLIDES)
    rows, partial = [], []
    for slide, counts in by_slide.items():
        scanner = ", ".join(sorted(set(first.scanners[first.slides == slide]))) or NONE
        _, cells, theirs = paper.TABLE_8.get(slide, ("", 0, None)) if same else ("", 0, None)
        covered = int(measure(counts[0]).present.sum())
        if covered < len(run.codes):
            partial.append(f"{slide} ({covered})")
        row = [slide, scanner, f"{int(counts[0].sum()):,}", f"{cells:,}" if cells else NONE]
        rows.append(tuple(row + _row(summary(counts), theirs, 2)))
    notes = [f"{how(True, False).capitalize()}; {over(run)}."]
    if partial:
        notes.append(
            f"Slides without cells of every class, and how many classes their means cover: {', '.join(partial)}."
        )
    notes += _unclaimed({f"slide {s}": c for s, c in by_slide.items()})
    notes += _whose(network) if same else []
    columns = ("slide", "scanner", "cells", "cells paper", *_SUMMARY_COLUMNS)
    return Table(name, title, columns, tuple(rows), tuple(notes))


def paper_tables(runs: Sequence[ClassifierRun], network: str | None) -> list[Table | Missing]:
    """Tables 4 to 8, or why not."""
    if network is None:
        titles = [("table-4a", "Table 4a"), ("table-4b", "Table 4b"), ("table-6", "Table 6"), ("table-7", "Table 7"),
                  ("table-8", "Table 8")]  # fmt: skip
        why = "several networks and none of them is EfficientNetB0: say which with --network"
        out: list[Table | Missing] = [Missing(n, t, why) for n, t in titles]
        return [*out[:2], table_5(runs), *out[2:]]
    return [
        table_4(runs, network, False),
        table_4(runs, network, True),
        table_5(runs),
        table_6(runs, network),
        table_7(runs, network),
        table_8(runs, network),
    ]
