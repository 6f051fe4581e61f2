"""What the terminal shows, as rich renderables made from values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from rbcedge.counting.differential import Differential
from rbcedge.counting.quality import MOVING
from rbcedge.palette import colours
from rbcedge.sinks.base import Start, Status
from rbcedge.summary import Summary

# Rows beside classes, flags and warnings where a goal is set.
_OTHER_ROWS = 9
_STAGES_SHOWN = ("register", "segment", "classify", "store")


class Bar:
    """A horizontal bar, `share` of the room it gets; plain characters where the terminal knows no others."""

    def __init__(self, share: float, style: str) -> None:
        self._share, self._style = min(1.0, max(0.0, share)), style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        eighths = round(self._share * options.max_width * 8)
        if options.ascii_only:
            text = "#" * round(eighths / 8)
        else:
            text = "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]
        yield Text(text.ljust(options.max_width), style=self._style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(4, options.max_width)


def live(start: Start, status: Status | None, width: int = 80, height: int = 24) -> RenderableType:
    """Return the whole screen of a run, for a terminal of that size.

    Every line has its place: nothing moves while numbers grow.
    """
    if status is None:
        return Group(header(start), Text("waiting for the first picture", style="dim"))
    count = status.differential
    # Before the first field was searched the scale is only the start value.
    searched = status.counted or status.repeated or any(why != MOVING for why in status.rejected)
    parts: list[RenderableType] = [
        header(start, status.scale if searched else None),
        differential_table(count),
        totals(count),
        _fields_lines(status),
        _state_line(status),
        _speed_line(status),
    ]
    progress = _progress(start, status)
    if progress is not None:
        parts.append(progress)
    parts += _fitting(notes(status.flags, status.warnings), width, height - _OTHER_ROWS - len(count.classes))
    return Group(*parts)


def opening(start: Start) -> RenderableType:
    """Return what a run begins with, to stay on the screen."""
    goal = [] if start.until is None else [f"{start.until} cells"]
    goal += [] if start.until_ci is None else [f"intervals within ±{start.until_ci:g} points"]
    lines = [
        f"source   {start.description}",
        f"bundle   {start.bundle.name}, {start.engine} {start.precision}",
        f"scale    {_scale(start, start.scale)}",
        f"results  {start.folder}",
    ]
    return Text("\n".join(lines + ([f"until    {' or '.join(goal)}"] if goal else [])))


def _scale(start: Start, scale: float | None) -> str:
    if scale is None:
        return "measured on the first fields"
    origin = "measured" if start.scale is None else "given"
    return f"{scale:.3f} {origin} ({start.bundle.um_per_px * scale:.3f} µm/px)"


def header(start: Start, scale: float | None = None) -> RenderableType:
    """Return what runs: source, networks, and the scale once it is known."""
    return Group(
        Text(start.description, style="bold", no_wrap=True, overflow="ellipsis"),
        Text(
            f"bundle {start.bundle.name}   {start.engine} {start.precision}   "
            f"scale {_scale(start, start.scale if scale is None else scale)}",
            style="dim",
            no_wrap=True,
            overflow="ellipsis",
        ),
    )


def differential_table(count: Differential) -> Table:
    """Return one row per class: code, name, count, percent, 95 % interval, grade, bar."""
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("class", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis", max_width=24, style="dim")
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("percent", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("grade", justify="center", no_wrap=True)
    table.add_column("", ratio=1, no_wrap=True, min_width=6)
    for c, rgb in zip(count.classes, colours(len(count.classes)), strict=True):
        style = f"rgb({rgb[0]},{rgb[1]},{rgb[2]})"
        known = count.counted > count.unclassified
        table.add_row(
            Text(c.label.code, style=f"bold {style}"),
            c.label.name,
            str(c.count),
            f"{c.percent:.1f} %" if known else "",
            f"{c.ci95[0]:.1f} – {c.ci95[1]:.1f}" if known else "",
            c.grade,
            Bar(c.percent / 100, style),
        )
    return table


def totals(count: Differential) -> Text:
    """Return the line below the table."""
    return Text(
        f"{count.counted} counted: {count.single} single, {count.overlapped} overlapped, "
        f"{count.unclassified} unclassified; about {count.red_cells} red cells",
    )


def notes(flags: Sequence[str], warnings: Sequence[str]) -> list[Text]:
    """Return flags and warnings, one paragraph each."""
    return [Text(f"! {t}", style="yellow") for t in flags] + [Text(f"! {t}", style="red") for t in warnings]


def _fitting(lines: list[Text], width: int, rows: int) -> list[Text]:
    """Return as many of `lines` as fit, at least one, and the number of the others."""
    ends = list(accumulate(len(text.wrap(Console(width=width), width)) for text in lines))
    if not ends or ends[-1] <= rows:
        return lines
    fit = max(1, sum(end < rows for end in ends))
    return [*lines[:fit], Text(f"! and {len(lines) - fit} more", style="yellow")]


def pictures(seen: int, counted: int, repeated: int, rejected: Mapping[str, int], dropped: int, skipped: int) -> Text:
    """Return what became of the pictures: one line of sums, one of those rejected and why."""
    parts = [f"{seen} picture{'' if seen == 1 else 's'}: {counted} counted"]
    if repeated:
        parts.append(f"{repeated} nothing new")
    if dropped:
        parts.append(f"{dropped} dropped")
    if skipped:
        parts.append(f"{skipped} skipped")
    reasons = ", ".join(f"{why} {n}" for why, n in sorted(rejected.items(), key=lambda item: -item[1]))
    return Text(f"{', '.join(parts)}\n{sum(rejected.values())} rejected" + (f": {reasons}" if reasons else ""))


def _fields_lines(status: Status) -> Text:
    text = pictures(status.seen, status.counted, status.repeated, status.rejected, status.dropped, status.skipped)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


_STATES = {"counted": ("counting", "green"), "repeated": ("all counted here: move on", "cyan")}


def _state_line(status: Status) -> Text:
    """Return what happens now: what the hand on the stage must know."""
    words, style = _STATES.get(status.state, (f"{status.state}: {status.reason}", "yellow"))
    if status.reason == MOVING:
        words = "moving: hold still to count"
    return Text(f"{duration(status.elapsed_s)}  now {words}", style=f"bold {style}", no_wrap=True, overflow="ellipsis")


def _speed_line(status: Status) -> Text:
    stages = ", ".join(f"{s} {_ms(status.timing_ms[s]['p50'])}" for s in _STAGES_SHOWN if s in status.timing_ms)
    total = status.timing_ms.get("total")
    times = f"; ms: {stages}; total {_ms(total['p50'])}" if total else ""
    return Text(f"{status.fps:.1f} fps{times}", style="dim", no_wrap=True, overflow="ellipsis")


def _ms(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _progress(start: Start, status: Status) -> RenderableType | None:
    """Return how far the run is, to its goal or else through its pictures; None where nobody knows."""
    count = status.differential
    if start.until is not None or start.until_ci is not None:
        share = count.progress(start.until, start.until_ci)
        goals = []
        if start.until is not None:
            goals.append(f"{count.counted} of {start.until} cells")
        if start.until_ci is not None and count.widest is not None:
            goals.append(f"{count.widest.label.code} ±{count.widest.half_width:.1f} of ±{start.until_ci:g} points")
        text = ", ".join(goals)
    elif start.total:
        done = status.seen + status.skipped
        share, text = done / start.total, f"{done} of {start.total} pictures"
    else:
        return None
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_row(text, Bar(share, "cyan"), f"{100 * min(share, 1):.0f} %")
    return grid


def line(start: Start, status: Status) -> str:
    """Return the state of a run in one plain line, for logs."""
    count = status.differential
    share = ", ".join(f"{c.label.code} {c.percent:.1f} %" for c in count.classes if c.count)
    of = f" of {start.total}" if start.total else ""
    done = status.seen + status.skipped
    return f"{duration(status.elapsed_s)}  picture {done}{of}, {count.counted} cells" + (f": {share}" if share else "")


def final(summary: Summary) -> RenderableType:
    """Return the result of a session."""
    parts: list[RenderableType] = [
        differential_table(summary.differential),
        totals(summary.differential),
        pictures(
            summary.seen,
            summary.counted,
            summary.repeated,
            summary.rejected,
            summary.dropped,
            len(summary.gaps),
        ),
    ]
    total = summary.timing_ms.get("total")
    if total:
        figures = ", ".join(f"{_ms(total[p])} ({p})" for p in ("p50", "p90", "p99"))
        parts.append(Text(f"{summary.fps:.1f} pictures/s; ms for each: {figures}", style="dim"))
    ended = summary.session.outcome or "still running, or cut off"
    parts.append(Text(f"{ended}; grades: {summary.differential.scheme}", style="dim"))
    parts += notes(summary.flags, summary.warnings)
    shown = summary.gaps[:10]
    parts += [Text(f"! skipped {gap.source}: {gap.reason}", style="red") for gap in shown]
    if len(summary.gaps) > len(shown):
        parts.append(Text(f"! and {len(summary.gaps) - len(shown)} more, see summary.json", style="red"))
    return Group(*parts)


def duration(seconds: float) -> str:
    """Return hours, minutes and seconds."""
    whole = int(seconds)
    return f"{whole // 3600:d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
