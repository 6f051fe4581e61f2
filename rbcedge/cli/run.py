"""`rbcedge run`: count the cells of a source."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rbcedge.errors import RbcedgeError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from rbcedge.counting.grading import Scheme
    from rbcedge.sinks.base import Sink
    from rbcedge.sources.base import Source
    from rbcedge.sources.options import SourceOptions

_CAMERA, _RESULTS, _STOP, _NETWORKS = "Camera", "Results", "When to stop", "Networks and scale"


def run(
    source: Annotated[
        list[str] | None,
        typer.Argument(
            help="Pictures, folders, 'globs', a video, a camera (0, /dev/video0), rtsp://..., http://..., "
            "gst:PIPELINE, or sim: for the simulated microscope.",
            show_default=False,
        ),
    ] = None,
    camera: Annotated[
        int | None, typer.Option(help="Camera number, as 'rbcedge cameras' lists them.", rich_help_panel=_CAMERA)
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Picture size to ask for, e.g. 1280x720.", rich_help_panel=_CAMERA),
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Pictures per second to ask for.", rich_help_panel=_CAMERA)] = None,
    exposure: Annotated[
        float | None, typer.Option(metavar="MS", help="Exposure in ms; default automatic.", rich_help_panel=_CAMERA)
    ] = None,
    fourcc: Annotated[
        str | None, typer.Option(help="Pixel format to ask for, e.g. MJPG or YUYV.", rich_help_panel=_CAMERA)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the results; must not hold a run already. Default: a new one in the user's data folder.",
            rich_help_panel=_RESULTS,
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(
            metavar="masks,overlays,crops",
            help="Pictures to save beside the tables, one or more, joined by commas.",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    grading: Annotated[
        str,
        typer.Option(metavar="NAME|FILE", help="Grading scheme: icsh-2015, or a JSON file.", rich_help_panel=_RESULTS),
    ] = "icsh-2015",
    no_live: Annotated[
        bool, typer.Option("--no-live", help="Show the result at the end only.", rich_help_panel=_RESULTS)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but errors.", rich_help_panel=_RESULTS)
    ] = False,
    until: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Stop at N counted cells.", rich_help_panel=_STOP)
    ] = None,
    until_ci: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Stop when the 95 % intervals of all significant classes are within ±P points.",
            rich_help_panel=_STOP,
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Networks to use; default: those that come along.", rich_help_panel=_NETWORKS),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="auto, cpu, litert, onnx or tensorrt; see 'rbcedge doctor'.", rich_help_panel=_NETWORKS)
    ] = "auto",
    precision: Annotated[str, typer.Option(help="auto, int8, fp16 or fp32.", rich_help_panel=_NETWORKS)] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default: all cores.", rich_help_panel=_NETWORKS)
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            metavar="auto|F",
            help="Enlargement that brings cells to the size the networks know; auto measures it on the first fields.",
            rich_help_panel=_NETWORKS,
        ),
    ] = "auto",
    um_per_px: Annotated[
        float | None,
        typer.Option(help="Size of a pixel on the slide in µm, instead of --scale.", rich_help_panel=_NETWORKS),
    ] = None,
) -> None:
    """Find, name and count red cells, each once; show the differential and keep it on disk.

    Ctrl-C ends the count cleanly: the result is shown and written. A second Ctrl-C ends at once.
    """
    from rbcedge.bundle import default_folder, load
    from rbcedge.store import check_free

    uris = _uris(source, camera)
    options = _options(size, fps, exposure, fourcc)
    kinds = _kinds(save)
    if until_ci is not None and not 0 < until_ci < 50:
        raise UsageError(f"--until-ci {until_ci:g}: give points between 0 and 50, for example 2.")
    if scale != "auto" and um_per_px is not None:
        raise UsageError("--scale and --um-per-px say the same thing: give one of them.")
    scheme = _scheme(grading)
    folder = _default_folder() if out is None else out
    check_free(folder)
    networks = load(default_folder() if bundle is None else bundle)
    factor = _factor(scale, um_per_px, networks.um_per_px)

    from rbcedge.counting.ledger import Config, Ledger
    from rbcedge.counting.quality import Gate
    from rbcedge.export import export
    from rbcedge.pipeline.choosing import choose
    from rbcedge.record import Setup
    from rbcedge.session import run as run_session
    from rbcedge.sinks.base import Start
    from rbcedge.sinks.terminal import Screen
    from rbcedge.sinks.view import final, opening
    from rbcedge.sources import open_source
    from rbcedge.stopping import stopping
    from rbcedge.store import Store

    console = Screen(highlight=False, quiet=quiet)
    chosen = choose(networks, engine, precision, threads, factor)
    if chosen.note:
        print(f"rbcedge: {chosen.note}", file=sys.stderr)
    opened: Source | None = None
    try:
        opened = open_source(uris, options, chosen.buffers)
        _check_options(opened, options)
        start = Start(
            source=opened.name,
            kind=opened.kind,
            description=opened.description,
            total=len(opened),
            bundle=networks,
            engine=chosen.networks[0].name,
            precision=chosen.precision,
            scale=factor,
            folder=folder.resolve(),
            until=until,
            until_ci=until_ci,
        )
        setup = Setup.of(_version(), start.source, start.kind, networks, start.engine, start.precision, factor, scheme)
        # Where nothing can be shown, counting still goes on.
        with suppress(OSError):
            console.print(opening(start), soft_wrap=True)
        ledger = None if opened.kind == "stills" else Ledger(Config(diameter_px=networks.diameter_px))
        store = Store(folder, setup)
        try:
            with stopping() as stop:
                run_session(
                    opened,
                    chosen.pipeline,
                    Gate(diameter_px=networks.diameter_px),
                    ledger,
                    scheme,
                    store,
                    _sinks(console, folder, kinds, no_live or quiet),
                    start,
                    stop,
                )
        except RbcedgeError as error:
            # What was counted before it failed is as good as ever.
            store.close()
            raise RbcedgeError(f"{error}{_rescue(folder, console)}") from error
        finally:
            store.close()
    finally:
        # The source first: it may decode into memory of the pipeline.
        if opened is not None:
            opened.close()
        chosen.pipeline.close()
    summary = export(folder)
    try:
        console.print(final(summary), soft_wrap=not console.is_terminal)
        console.print(f"results: {start.folder}", soft_wrap=True)
    except BrokenPipeError:
        raise
    except OSError as e:
        raise RbcedgeError(f"The result cannot be shown: {e.strerror}. It is in {start.folder}.") from e
    if not summary.seen and summary.gaps:
        gap = summary.gaps[0]
        raise RbcedgeError(f"{start.source}: nothing could be read. {gap.source}: {gap.reason}")


def _rescue(folder: Path, console: "Console") -> str:
    """Show and write what a failed run has counted; return what is left to do, "" where there is nothing."""
    from rbcedge.export import export
    from rbcedge.record import Record
    from rbcedge.sinks.view import final
    from rbcedge.summary import summarise

    try:
        with Record(folder) as record:
            summary = summarise(record)
        if not summary.seen:
            return ""
        # On a full disk there may be no room for the tables: the screen comes first.
        with suppress(OSError):
            console.print(final(summary), soft_wrap=not console.is_terminal)
        export(folder)
    except RbcedgeError:
        return f"\nMake room, then write the tables with 'rbcedge export {folder}'."
    return ""


def _uris(source: list[str] | None, camera: int | None) -> list[str]:
    if camera is not None:
        if source:
            raise UsageError("Give either a SOURCE or --camera, not both.")
        if camera < 0:
            raise UsageError(f"--camera {camera}: cameras are numbered from 0; 'rbcedge cameras' lists them.")
        return [f"camera:{camera}"]
    if not source:
        raise UsageError(
            "What shall be counted? Give a picture, a folder, a video or --camera 0,\n"
            "or try 'rbcedge run sim:' for the simulated microscope."
        )
    return source


def _options(size: str | None, fps: float | None, exposure: float | None, fourcc: str | None) -> "SourceOptions":
    from rbcedge.sources.options import SourceOptions

    width = height = None
    if size is not None:
        w, x, h = size.lower().partition("x")
        if not (x and w.isdecimal() and h.isdecimal()):
            raise UsageError(f"--size {size}: write width x height in px, for example 1280x720.")
        width, height = int(w), int(h)
    return SourceOptions(width=width, height=height, fps=fps, exposure_ms=exposure, fourcc=fourcc)


def _check_options(source: "Source", options: "SourceOptions") -> None:
    asked = [
        name
        for name, value in (
            ("--size", options.size),
            ("--fps", options.fps),
            ("--exposure", options.exposure_ms),
            ("--fourcc", options.fourcc),
        )
        if value is not None
    ]
    if asked and (source.kind != "live" or source.name.startswith("sim:")):
        raise UsageError(f"{asked[0]} is for cameras; {source.name} is what it is. Leave it out.")


def _kinds(save: str | None) -> tuple[str, ...]:
    from rbcedge.sinks.saver import KINDS

    if save is None:
        return ()
    kinds = tuple(part.strip() for part in save.split(","))
    for kind in kinds:
        if kind not in KINDS:
            known = ", ".join(KINDS)
            raise UsageError(f"--save {save}: '{kind}' is not known. Known: {known}, joined by commas.")
    return kinds


def _scheme(grading: str) -> "Scheme":
    from rbcedge.counting.grading import icsh_2015, load_scheme

    if grading.lower() == "icsh-2015":
        return icsh_2015()
    if not Path(grading).is_file():
        raise UsageError(f"--grading {grading}: no such scheme or file. Known: icsh-2015, or a JSON file.")
    return load_scheme(Path(grading))


def _factor(scale: str, um_per_px: float | None, native_um_per_px: float) -> float | None:
    """Return native px per source px as asked for, None where it is to be measured."""
    if um_per_px is not None:
        factor = um_per_px / native_um_per_px
        if not 0.05 <= factor <= 20:
            raise UsageError(f"--um-per-px {um_per_px:g}: a microscope gives 0.03 to 1 µm for each pixel.")
        return factor
    if scale == "auto":
        return None
    try:
        factor = float(scale)
    except ValueError:
        factor = 0.0
    if not 0.05 <= factor <= 20:
        raise UsageError(f"--scale {scale}: give 'auto' or a number between 0.05 and 20.")
    return factor


def _default_folder() -> Path:
    from datetime import datetime

    import platformdirs

    base = Path(platformdirs.user_data_dir("rbcedge")) / "sessions" / f"{datetime.now():%Y-%m-%dT%H-%M-%S}"
    folder, k = base, 2
    while folder.exists():
        folder, k = base.with_name(f"{base.name}-{k}"), k + 1
    return folder


def _version() -> str:
    from importlib.metadata import version

    return version("rbcedge")


def _sinks(console: "Console", folder: Path, kinds: tuple[str, ...], silent: bool) -> list["Sink"]:
    from rbcedge.sinks.saver import Saver
    from rbcedge.sinks.terminal import Lines, Terminal

    sinks: list[Sink] = []
    if not silent:
        sinks.append(Terminal(console) if console.is_terminal else Lines(console))
    if kinds:
        sinks.append(Saver(folder, kinds))
    return sinks
