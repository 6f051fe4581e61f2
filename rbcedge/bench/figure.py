"""A picture of a report: how the latency is distributed, and which stage takes what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rbcedge.bench.diagnosis import shares_of
from rbcedge.bench.result import Report, Run
from rbcedge.errors import RbcedgeError

_MOST = 12
_STAGE_COLOURS = ("#4C78A8", "#72B7B2", "#54A24B", "#EECA3B", "#F58518", "#E45756", "#B279A2", "#9D755D", "#79706E")


def save(report: Report, path: Path) -> None:
    """Draw a report into a PNG (or what else the suffix says that matplotlib can write).

    Left: the cumulative distribution of capture to count for each case, p50 and p99 marked. Right: the mean time of
    a picture as a waterfall of its stages, one bar for each case.

    Raises
    ------
    RbcedgeError
        matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as e:
        raise RbcedgeError("--figure needs matplotlib: pip install 'rbcedge[report]'.") from e
    runs = report.runs[:_MOST]
    figure = Figure(figsize=(11, 3.6 + 0.35 * len(runs)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    _distribution(left, runs)
    _waterfall(right, runs)
    figure.suptitle("\n".join(report.machine.lines[:1]), fontsize=9)
    temporary = path.with_name(path.name + ".part")
    try:
        figure.savefig(temporary, format=path.suffix.lstrip(".").lower() or "png", dpi=130)
        temporary.replace(path)
    except (OSError, ValueError) as e:
        temporary.unlink(missing_ok=True)
        raise RbcedgeError(f"{path} cannot be written: {getattr(e, 'strerror', None) or e}.") from e


def _distribution(axes: Any, runs: Sequence[Run]) -> None:
    for run in runs:
        times = sorted(run.fresh.total_ms)
        shares = [(k + 1) / len(times) for k in range(len(times))]
        (line,) = axes.step(times, shares, where="post", label=run.case.title, linewidth=1.4)
        total = run.fresh.total
        axes.plot([total.p50, total.p99], [0.5, 0.99], "o", color=line.get_color(), markersize=4)
    axes.set(xlabel="capture to count, ms", ylabel="share of pictures", ylim=(0, 1.02))
    axes.set_xlim(left=0)
    axes.set_title("latency; dots: p50 and p99", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="best")


def _waterfall(axes: Any, runs: Sequence[Run]) -> None:
    stages = list(dict.fromkeys(stage for run in runs for stage in shares_of(run.staged)))
    colours = {stage: _STAGE_COLOURS[k % len(_STAGE_COLOURS)] for k, stage in enumerate(stages)}
    if len(runs) == 1:
        _steps(axes, runs[0], colours)
        return
    for row, run in enumerate(runs):
        begun = 0.0
        for stage, share in shares_of(run.staged).items():
            width = share * run.staged.total.mean
            axes.barh(row, width, left=begun, color=colours[stage], label=stage if row == 0 else None)
            begun += width
    axes.set_yticks(range(len(runs)), [run.case.title for run in runs], fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="mean of a picture, ms")
    axes.set_title("where the time goes", fontsize=10)
    axes.legend(fontsize=7, ncols=2)


def _steps(axes: Any, run: Run, colours: dict[str, str]) -> None:
    """One case: each stage begins where the one before ends."""
    begun, rows = 0.0, []
    for row, (stage, share) in enumerate(shares_of(run.staged).items()):
        width = share * run.staged.total.mean
        axes.barh(row, width, left=begun, color=colours[stage])
        axes.annotate(f" {width:.1f} ms, {share:.0%}", (begun + width, row), va="center", fontsize=8)
        begun += width
        rows.append(stage)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="ms since the capture (means)", xlim=(0, 1.3 * begun))
    waits = "" if run.by_stage is None else ", waiting after each stage"
    axes.set_title(f"where the time goes: {run.case.title}{waits}", fontsize=10)
