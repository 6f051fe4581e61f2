"""What `rbcedge bench` shows, as rich renderables; at most 80 columns wide."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rbcedge.bench.compare import Comparison
from rbcedge.bench.layers import Profile
from rbcedge.bench.result import TOTAL, Loop, Report, Run
from rbcedge.bench.statistics import Distribution, Ratio

_LAYERS_SHOWN = 12


def opening(report: Report) -> RenderableType:
    """Machine, bundle and versions."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines = [*report.machine.lines, f"bundle {report.bundle} {report.bundle_sha256[:12]}", versions]
    return Text("\n".join(lines), style="dim")


def run_view(run: Run) -> RenderableType:
    """One case: stages, totals, what they mean."""
    table = _times(run.fresh, TOTAL)
    if run.resting is not None:
        table.add_row("a field at rest", *_figures(run.resting.total))
    parts: list[RenderableType] = [Text(), Text(run.case.title, style="bold"), table]
    if run.by_stage is not None:
        title = Text("the stages, in a second pass that waits after each of them", style="bold")
        parts += [Text(), title, _times(run.by_stage, "all, waiting"), Text()]
    return Group(*parts, Text("\n".join(_facts(run))), Text("\n".join(f"- {d}" for d in run.diagnosis)))


def _times(loop: Loop, total: str) -> Table:
    table = _table("ms", "n", "mean", "p50", "p90", "p95", "p99", "max", "CV")
    for stage, figures in loop.stages.items():
        if stage != "draw":
            table.add_row(stage, *_figures(figures))
    table.add_row(total, *_figures(loop.total), style="bold")
    if "draw" in loop.stages:
        table.add_row("draw (after it)", *_figures(loop.stages["draw"]), style="dim")
    return table


def _facts(run: Run) -> list[str]:
    cells = sorted(run.fresh.cells)
    different = f"{run.pictures} different pictures in turn" if run.pictures else "every picture a new one"
    first = [
        f"{run.fresh.per_second:.1f} pictures/s",
        f"{cells[len(cells) // 2]} cells found in each (median)",
        f"{run.fresh.dropped} dropped",
    ]
    if run.fresh.skipped:
        first.append(f"{run.fresh.skipped} skipped")
    second = [f"{run.case.source}: {different}", f"warm-up {run.warm_up}", f"threads {run.case.threads}"]
    third = [] if run.peak_bytes is None else [f"peak memory {run.peak_bytes / 2**20:.0f} MB"]
    if run.device_bytes is not None:
        third.append(f"device memory up to {run.device_bytes / 2**20:.0f} MB")
    watched = run.watched
    if watched.energy_j is not None and run.fresh.total_ms:
        pictures = len(run.fresh.total_ms) + run.warm_up
        third.append(f"{watched.energy_j / pictures:.3f} J a picture ({watched.energy_of})")
    for name, (low, high) in watched.clocks_mhz.items():
        third.append(f"{name} {low:.0f} to {high:.0f} MHz")
    if watched.temperatures_c:
        name, (first_c, high_c) = max(watched.temperatures_c.items(), key=lambda t: t[1][1])
        third.append(f"{name} {first_c:.0f} to {high_c:.0f} °C")
    files = [f"{n.role} {n.file or n.format} {n.sha256[:12]}".rstrip() for n in run.networks]
    return [", ".join(part) for part in (first, second, third, _moved(run), files) if part]


def _moved(run: Run) -> list[str]:
    """Copies and bytes of a picture on a device, counted."""
    moved, n = run.moved, len(run.fresh.total_ms)
    if moved is None:
        return []
    ways = (
        ("copied by the CPU", moved.staged, moved.staged_bytes),
        ("uploads", moved.uploads, moved.upload_bytes),
        ("downloads", moved.downloads, moved.download_bytes),
        ("results read in place", moved.results, moved.result_bytes),
    )
    parts = [f"{what} {count / n:.3g} ({nbytes / n:,.0f} bytes)" for what, count, nbytes in ways]
    return [f"counted for each picture: {parts[0]}", *parts[1:]]


def overview(runs: Sequence[Run]) -> RenderableType:
    """All cases in one table, and how many times as long each takes as the fastest of its size and cells."""
    table = _table("case", "p50 ms", "p99 ms", "CV", "per s", "cells", "at rest", "MB", "times")
    for run in runs:
        total = run.fresh.total
        same = [r.fresh.total.p50 for r in runs if r.case.key[2:] == run.case.key[2:]]
        rest = f"{run.resting.total.p50:.2g}" if run.resting else "-"
        case = run.case
        cells = sorted(run.fresh.cells)
        table.add_row(
            f"{case.engine} {case.precision} {case.width}x{case.height}",
            _ms(total.p50),
            _ms(total.p99),
            f"{total.cv:.0%}",
            f"{run.fresh.per_second:.3g}",
            str(cells[len(cells) // 2]),
            rest,
            "-" if run.peak_bytes is None else f"{run.peak_bytes / 2**20:.0f}",
            f"{total.p50 / min(same):.2f}" if len(same) > 1 else "",
        )
    return Group(Text(), Text("all cases", style="bold"), table)


def comparison_view(comparisons: Sequence[Comparison], doubts: Sequence[str]) -> RenderableType:
    """Ratios now : before, with 95 % limits."""
    parts: list[RenderableType] = []
    for comparison in comparisons:
        table = _table("now : before", "before", "now", "p50", "limits", "p99", "limits")
        for row in comparison.rows:
            table.add_row(
                row.stage,
                _ms(row.before_ms),
                _ms(row.now_ms),
                *_ratio(row.p50),
                *_ratio(row.p99),
                style=_style(row.p50),
            )
        parts += [Text(), Text(comparison.title, style="bold"), table]
    parts.append(Text("ms; ratios of p50 and p99 with 95 % limits", style="dim"))
    parts += [Text(f"- {doubt}", style="yellow") for doubt in doubts]
    return Group(*parts)


def layers_view(profile: Profile) -> RenderableType:
    """The slowest layers of a network."""
    table = _table("layer", "kind", "ms", "share", "MMAC", "GMAC/s")
    whole = profile.sum_ms or 1.0
    ordered = sorted(profile.layers, key=lambda layer: -layer.ms)
    for layer in ordered[:_LAYERS_SHOWN]:
        macs = layer.macs
        table.add_row(
            Text(layer.name[-30:], no_wrap=True),
            Text(layer.kind.lower()[:18], no_wrap=True),
            _ms(layer.ms),
            f"{layer.ms / whole:.0%}",
            "-" if not macs else f"{macs / 1e6:.1f}",
            "-" if not macs or layer.ms <= 0 else f"{macs / layer.ms / 1e6:.0f}",
        )
    shape = "x".join(str(v) for v in profile.shape)
    title = Text(f"{profile.role}, {shape}", style="bold")
    rest = len(profile.layers) - _LAYERS_SHOWN
    note = f"{profile.method}; all {len(profile.layers)} together {_ms(profile.sum_ms)} ms, "
    note += f"the whole network {_ms(profile.whole_ms)} ms" + (f"; {rest} more not shown" if rest > 0 else "")
    return Group(Text(), title, table, Text(note, style="dim"))


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True)
    for title in others:
        table.add_column(title, justify="left" if title == "kind" else "right", no_wrap=True)
    return table


def _figures(d: Distribution) -> tuple[str, ...]:
    times = tuple(_ms(v) for v in (d.mean, d.p50, d.p90, d.p95, d.p99, d.max))
    return str(d.n), *times, f"{d.cv:.1%}"


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _ratio(ratio: Ratio | None) -> tuple[str, str]:
    if ratio is None:
        return "-", "-"
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:.2f}", "too few"
    return f"{ratio.value:.2f}", f"{ratio.low:.2f}-{ratio.high:.2f}"


def _style(ratio: Ratio | None) -> str:
    if ratio is None or not ratio.told_apart:
        return ""
    return "red" if ratio.value > 1 else "green"
