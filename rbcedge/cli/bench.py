"""`rbcedge bench`: how long a picture takes, from the camera to the count."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rbcedge.errors import RbcedgeError, UsageError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from rbcedge.bench.result import Report

_WHAT, _NETWORKS, _RESULTS = "What to measure", "Networks and scale", "Results"


def bench(
    source: Annotated[
        list[str] | None,
        typer.Argument(
            help="As 'rbcedge run' takes it. Default, and for sim:, simulated fields that are drawn beforehand.",
            show_default=False,
        ),
    ] = None,
    camera: Annotated[int | None, typer.Option(help="Camera number.", rich_help_panel=_WHAT)] = None,
    frames: Annotated[
        int, typer.Option("--frames", "-n", min=2, help="Pictures to measure in each case.", rich_help_panel=_WHAT)
    ] = 200,
    warm_up: Annotated[
        int, typer.Option(min=0, help="Pictures before them that do not count.", rich_help_panel=_WHAT)
    ] = 10,
    sizes: Annotated[
        str | None,
        typer.Option(metavar="WxH,...", help="Sizes of simulated fields; default 640x480.", rich_help_panel=_WHAT),
    ] = None,
    cells: Annotated[
        str | None,
        typer.Option(
            metavar="N,...", help="Cells in each simulated field; default 75 for 640x480.", rich_help_panel=_WHAT
        ),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Time each layer of the networks, too.", rich_help_panel=_WHAT)
    ] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Networks to use; default: those that come along.", rich_help_panel=_NETWORKS),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="As for 'rbcedge run'; 'all': every engine and precision in turn.", rich_help_panel=_NETWORKS
        ),
    ] = "auto",
    precision: Annotated[str, typer.Option(help="auto, int8, fp16 or fp32.", rich_help_panel=_NETWORKS)] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default: all cores.", rich_help_panel=_NETWORKS)
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            metavar="auto|F", help="Enlargement of pictures that are not simulated.", rich_help_panel=_NETWORKS
        ),
    ] = "auto",
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write all figures and raw samples.", rich_help_panel=_RESULTS),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Compare with a file of --json.", rich_help_panel=_RESULTS),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw a PNG (needs matplotlib).", rich_help_panel=_RESULTS)
    ] = None,
) -> None:
    """Measure latency by stage and from capture to count, on fresh fields and on one at rest.

    The run loop itself is measured, with its record on disk. Ctrl-C ends it; what was measured is shown.
    """
    from rich.console import Console

    from rbcedge.bench import cases, view
    from rbcedge.bench.compare import compare as compared
    from rbcedge.bench.gpu import first_gpu
    from rbcedge.bench.measuring import Plan
    from rbcedge.bench.result import Run, read
    from rbcedge.bench.series import Wish, assemble, series
    from rbcedge.bundle import default_folder, load
    from rbcedge.cli.run import _factor, _uris
    from rbcedge.sources.quiet import hush
    from rbcedge.stopping import stopping

    console = Console(highlight=False)
    before = None if compare is None else read(compare)
    for path in (json, figure):
        if path is not None and not path.absolute().parent.is_dir():
            raise UsageError(f"{path}: there is no folder {path.absolute().parent} to write it to.")
    uris = _uris(source, camera) if source or camera is not None else []
    networks = load(default_folder() if bundle is None else bundle)
    wanted, left_out = cases.engines_of(networks, engine, precision)
    if not wanted:
        raise RbcedgeError("no engine can be measured here. " + " ".join(left_out))
    factor = _factor(scale, None, networks.um_per_px)
    hush()
    with nullcontext() if uris else console.status("drawing simulated fields"):
        shown, unfit = cases.pictures(
            uris,
            () if sizes is None else cases.sizes_of(sizes),
            () if cells is None else cases.cells_of(cells),
            frames,
            networks,
        )
    wish = Wish(wanted, threads, factor, Plan(frames, warm_up), layers)
    gpu = first_gpu()
    runs, skipped = [], [*left_out, *unfit]
    with stopping() as stop, console.status("loading") as status:

        def progress(case: str, done: int, whole: int) -> None:
            status.update(f"{case}: picture {done} of {whole}")

        for outcome in series(networks, shown, wish, stop, gpu, progress):
            if isinstance(outcome, Run):
                runs.append(outcome)
                _show(console, view.run_view(outcome))
                for part in outcome.layers:
                    _show(console, view.layers_view(part))
            else:
                skipped.append(outcome)
    report = assemble(networks, runs, skipped, gpu)
    if len(runs) > 1:
        _show(console, view.overview(runs))
    for line in (*report.notes, *(f"left out: {s}" for s in skipped)):
        console.print(f"- {line}", markup=False)
    console.print()
    _show(console, view.opening(report))
    _keep(report, json, figure, console)
    if before is not None:
        _show(console, view.comparison_view(*compared(report, before)))
    if not runs:
        raise RbcedgeError("nothing was measured. " + " ".join(skipped))


def _show(console: "Console", what: "RenderableType") -> None:
    console.print(what, soft_wrap=not console.is_terminal)


def _keep(report: "Report", json: Path | None, figure: Path | None, console: "Console") -> None:
    from rbcedge.bench.result import write

    if json is not None:
        write(report, json)
        console.print(f"all figures and samples: {json}", soft_wrap=True, markup=False)
    if figure is not None and report.runs:
        from rbcedge.bench.figure import save

        save(report, figure)
        console.print(f"figure: {figure}", soft_wrap=True, markup=False)
