"""`rbcedge calibrate`: INT8 networks for your own fields, and what they lose."""

from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rbcedge.errors import UsageError

if TYPE_CHECKING:
    from rbcedge.calibration.report import Report

_SET, _JUDGE, _NETWORKS = "Calibration set", "Judgement", "Networks and scale"


def calibrate(
    fields: Annotated[
        list[str],
        typer.Argument(
            help="Fields to calibrate on and to judge by: folders, pictures, 'globs', a video, sim:. "
            "Thirty fields of several slides are a good beginning.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the new bundle.", show_default=False)],
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Bundle with float networks; default: the one that comes along.",
            rich_help_panel=_NETWORKS,
        ),
    ] = None,
    format: Annotated[
        str, typer.Option(metavar="tflite,onnx", help="What to make, joined by commas.", rich_help_panel=_NETWORKS)
    ] = "tflite",
    ranges: Annotated[
        str,
        typer.Option(
            metavar="auto|NAME",
            help="How INT8 ranges are chosen: min-max, percentile, entropy; auto tries all three.",
            rich_help_panel=_NETWORKS,
        ),
    ] = "auto",
    keep_layers: Annotated[
        bool,
        typer.Option(
            "--keep-layers/--all-int8",
            help="Leave layers that lose too much in float, or make all INT8.",
            rich_help_panel=_NETWORKS,
        ),
    ] = True,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default: all cores.", rich_help_panel=_NETWORKS)
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="Enlargement, as for 'rbcedge run'; default: measured.", rich_help_panel=_NETWORKS),
    ] = None,
    calibrate_on: Annotated[
        int, typer.Option("--fields", min=1, metavar="N", help="Fields to calibrate on.", rich_help_panel=_SET)
    ] = 16,
    cells: Annotated[int, typer.Option(min=8, metavar="N", help="Cells to calibrate on.", rich_help_panel=_SET)] = 512,
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="Fields looked at, spread over all.", rich_help_panel=_SET)
    ] = 200,
    seed: Annotated[int, typer.Option(help="For the choice among cells of a class.", rich_help_panel=_SET)] = 0,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Cells that people have named (source,x,y,code), to measure accuracy.",
            rich_help_panel=_JUDGE,
        ),
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELDS",
            help="Fields to judge by, may be given several times; default: those of FIELDS not calibrated on.",
            show_default=False,
            rich_help_panel=_JUDGE,
        ),
    ] = None,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Write the bundle also where INT8 loses more than is tolerated; the manifest then says so.",
            rich_help_panel=_JUDGE,
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Make INT8 networks calibrated on your own fields, and hold them against the float ones.

    Half of the fields at most are calibrated on, the others judge. The new bundle holds a report (report.html) and
    the calibration set; 'rbcedge run --bundle DIR' uses it at once. Beyond the tolerances no bundle is written.
    """
    from rbcedge.calibration.fitting import Wanted
    from rbcedge.calibration.job import Options
    from rbcedge.calibration.job import calibrate as run
    from rbcedge.calibration.marks import read
    from rbcedge.calibration.ranges import METHODS
    from rbcedge.calibration.target import check_free
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from rbcedge.bundle import default_folder, load
    from rbcedge.sources import open_source

    formats = tuple(part.strip() for part in format.split(","))
    if not set(formats) <= {"tflite", "onnx"}:
        raise UsageError(f"--format {format}: known are tflite and onnx, joined by commas.")
    if ranges != "auto" and ranges not in METHODS:
        raise UsageError(f"--ranges {ranges}: known are auto, {', '.join(METHODS)}.")
    if scale is not None and not scale > 0:
        raise UsageError(f"--scale {scale:g}: give a number above zero.")
    check_free(out)
    networks = load(default_folder() if bundle is None else bundle)
    marks = None if labels is None else read(labels, networks.codes)
    options = Options(
        formats=formats,
        fields=calibrate_on,
        cells=cells,
        most=limit,
        wanted=Wanted(tuple(m for m in METHODS if ranges in ("auto", m)), keep_layers),
        accept_loss=accept_loss,
        scale=scale,
        threads=threads,
        seed=seed,
    )
    console = Console(highlight=False, quiet=quiet)
    with ExitStack() as opened:
        source = opened.enter_context(closing(open_source(fields)))
        others = opened.enter_context(closing(open_source(judge))) if judge else None
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
            task = bar.add_task("reading", total=None)

            def show(what: str, done: int, total: int) -> None:
                bar.update(task, description=what, completed=done, total=total or None)

            report = run(networks, source, out, options, marks, show, others)
    _show(report, out, console)
    if marks is not None and all(a.accuracy is None for a in report.agreements.values()):
        console.print(f"note: no label of {labels} lies on a compared cell; are its sources named as in cells.csv?")


def _show(report: "Report", out: Path, console: object) -> None:
    from rich.console import Console
    from rich.table import Table

    assert isinstance(console, Console)
    found = report.examined
    console.print(
        f"{len(found.candidates)} countable fields, {len(found.left_out)} left out; calibrated on "
        f"{len(report.chosen.fields)} fields and {len(report.chosen.cells)} cells"
    )
    for source, reason in found.left_out[:5]:
        console.print(f"  left out: {source}: {reason}", markup=False, soft_wrap=True)
    for format, agreement in report.agreements.items():
        table = Table(box=None, pad_edge=False, header_style="dim", title=f"{format} INT8", title_justify="left")
        for head in ("", "change", "tolerated", ""):
            table.add_column(head, justify="left" if not head else "right")
        for check in agreement.checks(report.tolerances):
            verdict = {"within": "ok", "noise": "within chance", "beyond": "[red]beyond[/]"}[check.verdict]
            table.add_row(check.name, f"{check.measured:.2f}", f"{check.tolerance:g}", verdict)
        console.print(table)
        console.print(f"same class: {100 * agreement.labels_agree:.2f} % of {agreement.cells[2]} cells")
        for role, made in report.quantised[format].items():
            kept = ", ".join(g.title for g in made.kept)
            console.print(f"{role}: {made.method} ranges; " + (f"in float stay {kept}" if kept else "all in INT8"))
    console.print(f"bundle: {out.resolve()}   report: {(out / 'report.html').resolve()}", soft_wrap=True, markup=False)
