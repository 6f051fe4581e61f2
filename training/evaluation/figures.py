"""Figures 6 to 8 of the paper and the reliability diagram, as matplotlib figures; nothing global is touched.

Readable in black and white: classes and networks differ by line or marker as well as by colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rbcedge.training.evaluation import paper
from rbcedge.training.evaluation.classifier_tables import name_of, summary
from rbcedge.training.evaluation.confidence import Reliability, cross_fitted, reliability
from rbcedge.training.evaluation.curves import GRID, mean_roc, roc
from rbcedge.training.evaluation.extra_tables import class_aucs, label
from rbcedge.training.evaluation.runs import ClassifierRun, SegmenterRun, natural
from rbcedge.training.evaluation.segmenter_tables import cell_iou
from rbcedge.training.evaluation.uncertainty import spread

from rbcedge.errors import RbcedgeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, told apart by colour-blind people; yellow is left out: it vanishes on paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F", "#882255")
_LINES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)), (0, (3, 1)), (0, (1, 3)))
_MARKERS = "osD^vP*Xh"


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, inches.

    Raises
    ------
    RbcedgeError
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise RbcedgeError("Figures need matplotlib: pip install 'rbcedge[evaluate]'. Or ask for --tables only.") from e
    return Figure(figsize=(width, height), layout="constrained")


def draw_confusion(axes: Axes, counts: NDArray[np.floating], codes: Sequence[str], title: str) -> None:
    """Shares of each labelled class in percent, cells in small figures below."""
    counts = np.asarray(counts, float)
    with np.errstate(invalid="ignore"):
        shares = 100 * counts / counts.sum(1, keepdims=True)
    # The root brings out mistakes of a few percent beside the diagonal.
    axes.imshow(np.sqrt(np.nan_to_num(shares)), cmap="Blues", vmin=0, vmax=10)
    whole = bool((counts == counts.round()).all())
    for t in range(len(codes)):
        for g in range(len(codes)):
            if np.isnan(shares[t, g]):
                axes.text(g, t, "n/a", ha="center", va="center", fontsize=6, color="0.6")
            elif counts[t, g] > 0:
                colour = "white" if shares[t, g] > 35 else "black"
                axes.text(g, t - 0.1, f"{shares[t, g]:.1f}", ha="center", va="center", fontsize=7.5, color=colour)
                cells = f"{counts[t, g]:,.0f}" if whole or counts[t, g] >= 9.95 else f"{counts[t, g]:.1f}"
                axes.text(g, t + 0.26, cells, ha="center", va="center", fontsize=5.5, color=colour)
    axes.set_xticks(range(len(codes)), codes, fontsize=8)
    axes.set_yticks(range(len(codes)), codes, fontsize=8)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(codes) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(codes) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="0.85", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("called")
    axes.set_ylabel("label")
    axes.set_title(title, fontsize=9)


def figure_6(runs: Sequence[ClassifierRun]) -> Figure:
    """Confusion matrices, mean over folds."""
    size = max(3.6, 0.62 * len(runs[0].codes))
    figure = new_figure(size * len(runs) + 0.3, size + 0.4)
    for axes, run in zip(np.ravel(figure.subplots(1, len(runs))), runs, strict=True):
        mean = f", mean of {len(run.folds)} folds" if len(run.folds) > 1 else ""
        draw_confusion(axes, run.counts().mean(0), run.codes, f"{label(run)}\n% of label (cells{mean})")
    return figure


def figure_7(run: ClassifierRun) -> Figure:
    """ROC curves of each class, whole and zoomed, mean over folds."""
    figure = new_figure(9.6, 4.6)
    whole, near = figure.subplots(1, 2)
    areas = np.stack([class_aucs(f) for f in run.folds])
    mean = f", mean of {len(run.folds)} folds" if len(run.folds) > 1 else ""
    for k, code in enumerate(run.codes):
        curve = mean_roc([roc(f.truth == k, f.probabilities[:, k]) for f in run.folds])
        area = spread(areas[:, k])
        if np.isnan(curve).any():
            whole.plot([], [], color="0.8", label=f"{code}  n/a")
            continue
        style: dict[str, Any] = {
            "color": COLOURS[k % len(COLOURS)],
            "linestyle": _LINES[k % len(_LINES)],
            "linewidth": 1.4,
        }
        # A curve begins at (0, 0), which the mean at rate 0 leaves out.
        x, y = np.append(0, GRID), np.append(0, curve)
        whole.plot(x, y, label=f"{code}  {area.mean:.4f}", **style)
        near.plot(x, y, **style)
    whole.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    whole.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), title="whole")
    near.set(xlim=(0, 0.2), ylim=(0.8, 1.002), title="top left corner")
    for axes in (whole, near):
        axes.set(xlabel="false-positive rate", ylabel="true-positive rate")
        axes.set_title(axes.get_title(), fontsize=9)
    if not any(((line.get_xdata() <= 0.2) & (line.get_ydata() >= 0.8)).any() for line in near.lines):
        near.text(0.1, 0.9, "no curve comes this far", ha="center", va="center", fontsize=9, color="0.5")
    near.set_xticks(np.arange(0, 0.201, 0.05))
    near.set_yticks(np.arange(0.8, 1.001, 0.05))
    for axes in (whole, near):
        axes.grid(color="0.9", linewidth=0.5)
    whole.legend(title="class, area", fontsize=8, title_fontsize=8, loc="lower right")
    figure.suptitle(f"{label(run)}: each class against the rest" + mean, fontsize=9)
    return figure


def figure_8(runs: Sequence[ClassifierRun]) -> Figure:
    """Accuracy against training time, test time and parameters; the paper's networks in outline."""
    figure = new_figure(11, 4.2)
    from matplotlib.ticker import LogLocator

    panels = figure.subplots(1, 3, sharey=True)
    order = [*paper.TABLE_5, *sorted({r.network for r in runs} - set(paper.TABLE_5))]
    names = ("training, s for a fold", f"test, s for {paper.TEST_CELLS:,} cells", "trainable parameters, millions")
    for k, network in enumerate(order):
        style = {"color": COLOURS[k % len(COLOURS)], "marker": _MARKERS[k % len(_MARKERS)]}
        run = next((r for r in runs if r.network == network), None)
        theirs = paper.TABLE_5.get(network)
        if run is None and theirs is None:
            continue
        if run is not None:
            accuracy = spread(100 * summary(run.counts())["ACC"])
            test = [f.test_s * paper.TEST_CELLS / len(f.cells) for f in run.folds]
            costs = (spread([f.train_s for f in run.folds]).mean, spread(test).mean,
                     (run.about.get("trainable") or np.nan) / 1e6)  # fmt: skip
            for axes, cost in zip(panels, costs, strict=True):
                error = None if np.isnan(accuracy.sd) else accuracy.sd
                axes.errorbar(
                    cost, accuracy.mean, error, linestyle="", capsize=2, elinewidth=0.8, markersize=7, **style
                )
        if theirs is not None:
            for axes, cost in zip(panels, theirs[4:7], strict=True):
                axes.plot(
                    cost, theirs[0], linestyle="", markersize=6, markerfacecolor="none", markeredgewidth=1, **style
                )
        panels[0].plot([], [], linestyle="", label=name_of(network), **style)
    for axes, name in zip(panels, names, strict=True):
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        # As many labels as stand beside each other.
        decades = np.log10(high / low)
        subs = (1.0,) if decades > 2.5 else (1.0, 2.0, 5.0) if decades > 1 else (1.0, 2.0, 3.0, 5.0, 7.0)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_xlabel(name)
        axes.grid(color="0.9", linewidth=0.5)
    panels[0].set_ylabel("accuracy, %")
    panels[0].plot([], [], "o", color="0.3", label="filled: here, ± sd")
    panels[0].plot([], [], "o", color="0.3", markerfacecolor="none", label="outline: the paper, T4, its own data")
    figure.legend(loc="outside lower center", ncols=6, fontsize=7.5, frameon=False)
    return figure


def draw_reliability(axes: Axes, below: Axes, seen: Reliability, title: str) -> None:
    """Share right against confidence, and how many cells have that confidence."""
    bins = len(seen.cells)
    some = seen.cells > 0
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    centres = (np.arange(bins) + 0.5) / bins
    axes.bar(centres[some], seen.accuracy[some], 0.9 / bins, color=COLOURS[5], edgecolor=COLOURS[0], linewidth=0.6)
    axes.plot(seen.confidence[some], seen.accuracy[some], "o", markersize=3.5, color="black")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share right")
    axes.set_title(f"{title}\nECE {100 * seen.error:.2f} %", fontsize=9)
    axes.tick_params(labelbottom=False)
    below.bar(centres, seen.cells / max(seen.cells.sum(), 1), 0.9 / bins, color="0.6")
    below.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="probability of the class given", ylabel="cells")


def figure_reliability(run: ClassifierRun) -> Figure:
    """Reliability of all folds together, as they are and with a temperature from the other slides."""
    truth = np.concatenate([f.truth for f in run.folds])
    raw = np.concatenate([f.probabilities for f in run.folds])
    shown = [(f"{label(run)}, as it is", raw)]
    if len(set(run.folds[0].slides)) > 1:
        mended = [cross_fitted(f.truth, f.probabilities, f.slides) for f in run.folds]
        shown.append(("temperature fitted on the other slides", np.concatenate(mended)))
    figure = new_figure(4.2 * len(shown), 4.8)
    grid = figure.subplots(2, len(shown), height_ratios=(3, 1), squeeze=False)
    for k, (title, p) in enumerate(shown):
        draw_reliability(grid[0, k], grid[1, k], reliability(truth, p), title)
    return figure


def figure_cell_iou(run: SegmenterRun) -> Figure:
    """Share of cells whose IoU is at most x, by scanner (by slide where scanners are not known)."""
    by, what = (run.scanners, "scanner") if set(run.scanners) != {""} else (run.slides, "slide")
    figure = new_figure(5.2, 4)
    axes = figure.subplots()
    ious = cell_iou(run)
    for k, name in enumerate(sorted(set(by), key=natural)):
        own = np.sort(ious[(by == name) & ~np.isnan(ious)])
        if len(own):
            axes.step([0, *own, 1], [0, *np.arange(1, len(own) + 1) / len(own), 1], where="post", linewidth=1.4,
                      color=COLOURS[k % len(COLOURS)], linestyle=_LINES[k % len(_LINES)],
                      label=f"{what} {name or 'unknown'}, {len(own):,} cells")  # fmt: skip
    low = float(np.nanquantile(ious, 0.005)) if (~np.isnan(ious)).any() else 0.0
    axes.set(xlim=(max(0.0, low - 0.02), 1), ylim=(0, 1), xlabel="IoU of a cell", ylabel="share of cells at most that")
    axes.grid(color="0.9", linewidth=0.5)
    axes.legend(fontsize=8)
    axes.set_title(run.network, fontsize=9)
    return figure
