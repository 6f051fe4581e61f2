"""`rbcedge convert`: the networks of a bundle in other formats and precisions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rbcedge.cli.convert_tensorrt import tensorrt
from rbcedge.errors import RbcedgeError, UsageError

if TYPE_CHECKING:
    from rbcedge.convert.making import Made
    from rbcedge.convert.networks import Network

    from rbcedge.bundle import Bundle

convert_app = typer.Typer(name="convert", help="Convert networks and add them to a bundle.", no_args_is_help=True)
convert_app.command()(tensorrt)

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Bundle to add to. Where it is new, it becomes a copy of --bundle first.")
]
Base = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Bundle with labels, scale and networks; default: DIR itself, or the one that comes along.",
        show_default=False,
    ),
]
File = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Network to convert (.keras, .onnx); default: the float32 one in the bundle.",
        show_default=False,
    ),
]
Precisions = Annotated[str | None, typer.Option(help="One or more, joined by commas.", show_default=False)]
Calibration = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Calibration set of 'rbcedge calibrate', for INT8.", show_default=False),
]


@convert_app.command()
def tflite(
    folder: Folder,
    bundle: Base = None,
    segmenter: File = None,
    classifier: File = None,
    precision: Precisions = None,
    calibration: Calibration = None,
) -> None:
    """Make .tflite networks for the CPU: fp32, fp16, int8, or int8-float (float in and out). From Keras only."""
    _convert("tflite", folder, bundle, (segmenter, classifier), precision, calibration, "min-max")


@convert_app.command()
def onnx(
    folder: Folder,
    bundle: Base = None,
    segmenter: File = None,
    classifier: File = None,
    precision: Precisions = None,
    calibration: Calibration = None,
    ranges: Annotated[str, typer.Option(help="INT8 ranges: min-max, entropy or percentile.")] = "min-max",
) -> None:
    """Make .onnx networks for ONNX Runtime and TensorRT: fp32, fp16, int8."""
    _convert("onnx", folder, bundle, (segmenter, classifier), precision, calibration, ranges)


def _convert(
    format: str,
    folder: Path,
    base: Path | None,
    files: tuple[Path | None, Path | None],
    precision: str | None,
    calibration: Path | None,
    ranges: str,
) -> None:
    from rbcedge.bundle import ROLES, default_folder, load

    target = folder if (folder / "manifest.json").exists() else None
    networks = load(base or target or default_folder())
    if base is not None and target is not None and base.resolve() != folder.resolve():
        raise UsageError(f"{folder} is a bundle already, so --bundle has no say. Leave it out, or give a new folder.")
    needed("convert")
    from rbcedge.convert.bundle import add, check_results, check_target
    from rbcedge.convert.making import MAKES, make
    from rbcedge.convert.onnx_int8 import METHODS

    from rbcedge.cli.progress import Steps

    check_target(folder)
    chosen = _precisions(format, precision, MAKES[format], calibration is not None)
    method = next((m for m in METHODS if m == ranges), None)
    if method is None:
        raise UsageError(f"--ranges {ranges}: known are {', '.join(METHODS)}.")
    pictures = _pictures(calibration, networks)
    made: list[Made] = []
    with Steps() as steps:
        for role, file, batches in zip(ROLES, files, pictures, strict=True):
            steps.begin(f"{role}: reading")
            network = _source(networks, role, file, format)
            steps.begin(f"{role}: checking {network.origin}")
            check_results(network, networks)
            made += make(network, networks, [(format, p) for p in chosen], batches, method, steps.begin)
        steps.begin(f"writing {folder}")
        result = add(networks, folder, made)
    show(result, made)


def show(bundle: "Bundle", made: "list[Made]") -> None:
    """Show what was made and how to use it."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title, side in (("file", "left"), ("bytes", "right"), ("from float32", "right")):
        table.add_column(title, justify="right" if side == "right" else "left", no_wrap=True)
    for m in made:
        table.add_row(m.file, f"{len(m.data):,}", f"{m.deviation:.2g}")
    console.print(table)
    console.print(
        "from float32: largest difference in probability on a simulated field. "
        "'rbcedge calibrate' measures what it does to counts.",
        style="dim",
        soft_wrap=True,
    )
    engine = "onnx" if any(m.format == "onnx" for m in made) else "litert"
    console.print(f"{bundle.folder.resolve()}", soft_wrap=True, markup=False)
    console.print(f"use: rbcedge run SOURCE --bundle {bundle.folder} --engine {engine}", soft_wrap=True, markup=False)


def needed(extra: str) -> None:
    """Raise where a package for conversion is not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("tensorflow", "keras", "onnx", "onnxruntime", "tf2onnx") if find_spec(name) is None]
    if missing:
        raise RbcedgeError(
            f"Conversion needs {', '.join(missing)}, not installed here. Install: pip install 'rbcedge[{extra}]'."
        )


def _precisions(format: str, given: str | None, known: tuple[str, ...], calibrated: bool) -> list[str]:
    if given is None:
        return [p for p in known if p != "int8-float" and (calibrated or p != "int8")]
    chosen = list(dict.fromkeys(part.strip() for part in given.split(",")))
    for p in chosen:
        if p not in known:
            raise UsageError(f"--precision {given}: '{p}' is not known for {format}. Known: {', '.join(known)}.")
    if {"int8", "int8-float"} <= set(chosen):
        raise UsageError("int8 and int8-float have the same place in a bundle: choose one of them.")
    if any("int8" in p for p in chosen) and not calibrated:
        raise UsageError("INT8 is calibrated on real pictures: give --calibration a set of 'rbcedge calibrate'.")
    return chosen


def _pictures(calibration: Path | None, bundle: "Bundle") -> tuple[list, list]:  # type: ignore[type-arg]
    if calibration is None:
        return [], []
    from rbcedge.calibration.folder import load
    from rbcedge.convert.making import BATCH

    chosen = load(calibration)
    chosen.suits(bundle)
    return chosen.segmenter_batches(), chosen.classifier_batches(BATCH)


def _source(bundle: "Bundle", role: str, file: Path | None, format: str) -> "Network":
    from rbcedge.convert.networks import of_bundle, open_network

    if file is not None:
        return open_network(file, role)
    formats = ("keras",) if format == "tflite" else ("keras", "onnx")
    network = of_bundle(bundle, role, formats)
    if network is None:
        kinds = " or ".join(formats)
        raise UsageError(
            f"Bundle '{bundle.name}' holds no float32 {role} as {kinds} to start from. "
            f"Give --{role} {'a .keras file' if format == 'tflite' else 'a .keras or .onnx file'}."
        )
    return network
