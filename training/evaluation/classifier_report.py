"""Everything there is to say about classifier and segmenter runs, in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rbcedge.training.evaluation import extra_tables, figures
from rbcedge.training.evaluation.classifier_tables import how, name_of, paper_tables, pick, reference
from rbcedge.training.evaluation.report import Item, Picture
from rbcedge.training.evaluation.runs import ClassifierRun, SegmenterRun
from rbcedge.training.evaluation.segmenter_tables import segmenter_tables
from rbcedge.training.evaluation.tables import Missing, Table

from rbcedge.errors import UsageError

BESIDE = (
    "The paper's figures stand in the columns named so; they are of its own data, and are comparable with ours only "
    "where this is that data. n/a: nothing was there to measure; –: the paper has no such figure."
)


def data_of(run: ClassifierRun | SegmenterRun) -> str:
    """Say what data a run was tested on."""
    data = run.about.get("data") or {}
    split = (run.about.get("split") or {}).get("test") or []
    cells = len(run.folds[0].cells) if isinstance(run, ClassifierRun) else len(run.cells)
    folder, digest = data.get("folder"), str(data.get("sha256", ""))[:12]
    text = f"Data: {Path(str(folder)).name if folder else 'not named'}" + (f" (sha256 {digest})" if digest else "")
    return f"{text}; {cells:,} test cells" + (f" of slides {', '.join(map(str, split))}." if split else ".")


def _doubts(runs: Sequence[ClassifierRun] | Sequence[SegmenterRun]) -> list[str]:
    """What a reader should know before believing the tables."""
    out = []
    for run in runs:
        if not run.about.get("finished", False):
            out.append(f"**{run.folder.name} is not finished**: its figures are those of the folds done so far.")
    digests = {str((r.about.get("data") or {}).get("sha256")) for r in runs}
    if len(digests) > 1:
        out.append(
            "**The runs were made on different versions of the data** (sha256 in run.json), with the same test cells."
        )
    recipes = {str((r.about.get("recipe") or {}).get("name")) for r in runs}
    if len(recipes) > 1:
        out.append(
            f"**The runs follow different recipes** ({', '.join(sorted(recipes))}): "
            "differences are not of the network alone."
        )
    else:
        unlike = [name for name, values in _budgets(runs).items() if len(values) > 1]
        if unlike:
            out.append(
                f"**The runs were not trained alike**: they differ in {', '.join(unlike)} (run.json). "
                "Differences are not of the network alone."
            )
    return out


def _budgets(runs: Sequence[ClassifierRun] | Sequence[SegmenterRun]) -> dict[str, set[str]]:
    """What each value of a training was in the runs, where the recipes have one name."""
    tables = []
    for run in runs:
        folds = (run.about.get("split") or {}).get("folds") or ()
        limits = {key: run.about.get(key) for key in ("steps", "crop_px")}
        tables.append({**(run.about.get("recipe") or {}), **limits, "folds": len(folds)})
    return {name: {str(t.get(name)) for t in tables} for name in dict.fromkeys(k for t in tables for k in t)}


def classifier_items(
    runs: Sequence[ClassifierRun],
    network: str | None = None,
    readers: Path | None = None,
    tables: bool = True,
    pictures: bool = True,
) -> tuple[list[str], list[Item]]:
    """Introduction, tables and figures of classifier runs.

    Parameters
    ----------
    runs : sequence of ClassifierRun
    network : str or None
        What Tables 4, 6, 7 and 8 and Figures 6 and 7 are about; None: see `reference`.
    readers : Path or None
        CSV with what readers called the cells.
    tables, pictures : bool
        Which to make.

    Raises
    ------
    UsageError
        `network` is not among the runs.
    """
    chosen = reference(runs, network)
    if network is not None and chosen is None:
        raise UsageError(f"No run of {network}. There are: {', '.join(sorted({r.network for r in runs}))}.")
    main = None if chosen is None else pick(runs, chosen, True, False)
    if main is None and chosen is not None:
        main = next(r for r in runs if r.network == chosen)
    items: list[Item] = []
    if tables:
        items += paper_tables(runs, chosen)
    if pictures:
        items += _pictures(runs, chosen, main)
    if tables:
        items.append(extra_tables.runs_table(runs))
        several = Missing("measures", "Measures, scanners, mistakes of one run", "say which network with --network")
        items += (
            [several]
            if main is None
            else [
                extra_tables.measures_table(main),
                extra_tables.scanner_table(main),
                extra_tables.confusions_table(main),
            ]
        )
        items += [
            extra_tables.limits_table(runs),
            extra_tables.false_abnormal_table(runs),
            extra_tables.calibration_table(runs),
            extra_tables.agreement_table(runs, readers),
        ]
    return [data_of(runs[0]), BESIDE, *_doubts(runs)], items


def _pictures(runs: Sequence[ClassifierRun], network: str | None, main: ClassifierRun | None) -> list[Item]:
    if network is None or main is None:
        why = "several networks and none of them is EfficientNetB0: say which with --network"
        out: list[Item] = [
            Missing("figure-6", "Figure 6. Confusion matrices", why),
            Missing("figure-7", "Figure 7. ROC curves", why),
        ]
    else:
        both = [r for w in (False, True) if (r := pick(runs, network, True, w)) is not None] or [main]
        title = f"Figure 6. Confusion matrices, {name_of(network)}"
        out = [Picture("figure-6", title, lambda: figures.figure_6(both))]
        if pick(runs, network, True, True) is None:
            out.append(Missing("figure-6b", "Figure 6, with class weights", f"no run with {how(True, True)}"))
        out.append(Picture("figure-7", f"Figure 7. ROC curves, {name_of(network)}", lambda: figures.figure_7(main)))
    alike = [r for r in runs if r.segmented and not r.weighted]
    title = "Figure 8. Accuracy against cost"
    if alike:
        out.append(Picture("figure-8", title, lambda: figures.figure_8(alike)))
    else:
        out.append(Missing("figure-8", title, f"no run with {how(True, False)}"))
    if main is not None:
        note = (
            "Bars: share right among cells of that confidence; dots: at their mean confidence. All folds together.",
        )
        out.append(
            Picture(
                "figure-reliability",
                f"Reliability, {name_of(main.network)}",
                lambda: figures.figure_reliability(main),
                note,
            )
        )
    return out


def segmenter_items(
    runs: Sequence[SegmenterRun], tables: bool = True, pictures: bool = True
) -> tuple[list[str], list[Item]]:
    """Introduction, tables and figure of segmenter runs."""
    items: list[Item] = list[Table | Missing | Picture](segmenter_tables(runs)) if tables else []
    if pictures:
        for n, run in enumerate(runs):
            name = "figure-cell-iou" if n == 0 else f"figure-cell-iou-{n + 1}"
            items.append(
                Picture(name, f"IoU cell by cell, {run.network}", lambda run=run: figures.figure_cell_iou(run))
            )
    return [data_of(runs[0]), BESIDE, *_doubts(runs)], items
