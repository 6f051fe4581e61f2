"""`rbcedge convert tensorrt`: build a bundle's engines for this machine's GPU."""

from pathlib import Path
from typing import Annotated

import typer

from rbcedge.errors import UsageError


def tensorrt(
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Bundle with ONNX networks; default: the one that comes along."),
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="auto|fp32|fp16|int8", help="Which of the bundle's ONNX networks to build from.")
    ] = "auto",
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WxH",
            help="Give pictures of this size a segmenter of their own, beside the one for any size. "
            "Once for each size; in px at the scale the networks know.",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where engines are kept; default: the user's cache, where 'run' looks."),
    ] = None,
) -> None:
    """Build TensorRT engines now, so that the first 'rbcedge run --engine tensorrt' need not.

    Engines fit one GPU, one TensorRT and one ONNX file, and are built on the machine they run on. What is in the
    cache and fits is not built again. Ctrl-C ends a build; nothing half-built is kept.
    """
    from rbcedge.convert.tensorrt_bundle import make
    from rich.console import Console

    from rbcedge.bundle import default_folder, load
    from rbcedge.engines.loading import PRECISIONS, RUNTIMES
    from rbcedge.engines.tensorrt_progress import Ticker, clock

    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: known are {', '.join(PRECISIONS)}.")
    order = next(r.precisions for r in RUNTIMES if r.name == "tensorrt")
    wanted = order if precision == "auto" else (precision,)
    networks = load(default_folder() if bundle is None else bundle)
    console = Console(highlight=False)
    for made in make(networks, wanted, [_size(text) for text in size or []], Ticker(), cache):
        state = f"built in {clock(made.seconds)} min" if made.built else "in the cache"
        console.print(
            f"{made.name} {made.precision}: {state}, {made.nbytes / 1e6:.1f} MB, {', '.join(made.shapes)}",
            markup=False,
            soft_wrap=True,
        )
        if made.path is not None:
            console.print(f"  {made.path}", markup=False, soft_wrap=True)


def _size(text: str) -> tuple[int, int]:
    w, x, h = text.lower().partition("x")
    if not (x and w.isdecimal() and h.isdecimal()):
        raise UsageError(f"--size {text}: write width x height in px, for example 1920x1080.")
    return int(w), int(h)
