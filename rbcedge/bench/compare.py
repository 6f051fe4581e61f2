"""Two reports side by side: how much faster or slower, and whether chance explains it."""

from __future__ import annotations

from dataclasses import dataclass

from rbcedge.bench.result import TOTAL, Report, Run
from rbcedge.bench.statistics import Ratio, ratio
from rbcedge.errors import UsageError


@dataclass(frozen=True, slots=True)
class Row:
    """One stage: medians of both, ms, and ratios of p50 and p99, now by before."""

    stage: str
    before_ms: float
    now_ms: float
    p50: Ratio | None
    p99: Ratio | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One case that is in both reports."""

    title: str
    rows: tuple[Row, ...]


def compare(now: Report, before: Report) -> tuple[tuple[Comparison, ...], tuple[str, ...]]:
    """Compare the cases two reports have in common.

    Returns
    -------
    comparisons : tuple of Comparison
    warnings : tuple of str
        Why the ratios may not say what they seem to: another machine, bundle, number of threads.

    Raises
    ------
    UsageError
        They have no case in common (engine, precision, picture size, cells); the message lists those of both.
    """
    known = {run.case.key: run for run in before.runs}
    pairs = [(run, known[run.case.key]) for run in now.runs if run.case.key in known]
    if not pairs:
        raise UsageError(
            "nothing to compare: the two have no engine, precision, picture size and number of cells in common.\n"
            f"Now: {_titles(now)}. Before: {_titles(before)}."
        )
    return tuple(_pair(a, b) for a, b in pairs), _doubts(now, before, pairs)


def _pair(now: Run, before: Run) -> Comparison:
    rows = []
    apart = now.by_stage is not None and before.by_stage is not None
    new_loop, old_loop = (now.staged, before.staged) if apart else (now.fresh, before.fresh)
    series = {stage: (values, old_loop.stages_ms.get(stage, ())) for stage, values in new_loop.stages_ms.items()}
    series[TOTAL] = (now.fresh.total_ms, before.fresh.total_ms)
    if now.resting and before.resting:
        series["at rest"] = (now.resting.total_ms, before.resting.total_ms)
    for stage, (new, old) in series.items():
        p50, p99 = ratio(new, old, 50), ratio(new, old, 99)
        if p50 is not None:
            rows.append(Row(stage, _median(old), _median(new), p50, p99))
    return Comparison(now.case.title, tuple(rows))


def _median(values: tuple[float, ...]) -> float:
    ordered = sorted(values)
    k = len(ordered) // 2
    return ordered[k] if len(ordered) % 2 else (ordered[k - 1] + ordered[k]) / 2


def _doubts(now: Report, before: Report, pairs: list[tuple[Run, Run]]) -> tuple[str, ...]:
    doubts = []
    if now.machine.identity != before.machine.identity:
        doubts.append(
            f"Another machine: now {now.machine.lines[0]}; before {before.machine.lines[0]}. "
            "The ratios compare machines, not programs."
        )
    if now.bundle_sha256 != before.bundle_sha256:
        doubts.append(f"Another bundle: now {_bundle(now)}, before {_bundle(before)}.")
    for what, values in (
        ("number of threads", [(str(a.case.threads), str(b.case.threads)) for a, b in pairs]),
        ("source", [(a.case.source, b.case.source) for a, b in pairs]),
    ):
        different = next(((a, b) for a, b in values if a != b), None)
        if different:
            doubts.append(f"Another {what}: now {different[0]}, before {different[1]}.")
    if max(run.watched.load_before for pair in pairs for run in pair) > 0.25:
        doubts.append("Other programs ran beside at least one of the two measurements.")
    return tuple(doubts)


def _bundle(report: Report) -> str:
    return f"{report.bundle} {report.bundle_sha256[:12]}"


def _titles(report: Report) -> str:
    return "; ".join(run.case.title for run in report.runs) or "nothing"
