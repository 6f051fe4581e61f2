"""`rbcedge bundle`: what a bundle holds, whether it is whole, as one file and back; new ones of one's own networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rbcedge.errors import RbcedgeError, UsageError

if TYPE_CHECKING:
    from rbcedge.bundle import Bundle, Label

bundle_app = typer.Typer(name="bundle", help="Look at a bundle of networks, pack it, make one.", no_args_is_help=True)
Folder = Annotated[
    Path | None,
    typer.Argument(metavar="DIR", help="Default: the bundle that comes along.", show_default=False),
]


def _load(folder: Path | None) -> "Bundle":
    from rbcedge.bundle import default_folder, load

    return load(default_folder() if folder is None else folder, check_files=False)


@bundle_app.command()
def show(folder: Folder = None) -> None:
    """Show classes, scale, networks and where they come from."""
    import json

    from rich.console import Console
    from rich.table import Table

    bundle = _load(folder)
    console = Console(highlight=False)
    console.print(f"{bundle.name}   {bundle.created}   {bundle.licence}", style="bold", markup=False)
    console.print(f"{bundle.folder}\nmanifest sha256 {bundle.sha256}", style="dim", soft_wrap=True, markup=False)
    console.print(
        f"cells of {bundle.diameter_px:g} px at {bundle.um_per_px:g} µm/px, crops of {bundle.crop_px} px, "
        f"mask threshold {bundle.mask_threshold:g}, unclassified below {bundle.confidence_threshold:g}"
    )
    labels = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("class", "name", "significant", "red cells"):
        labels.add_column(title)
    for label in bundle.labels:
        labels.add_row(label.code, label.name, "yes" if label.significant else "", str(label.cells))
    console.print(labels)
    files = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("network", "format", "precision", "file", "bytes"):
        files.add_column(title, justify="right" if title == "bytes" else "left")
    for a in bundle.artefacts:
        files.add_row(a.role, a.format, a.precision, a.file, f"{a.bytes:,}")
    console.print(files)
    for a in bundle.artefacts:
        if a.accepted_loss is not None:
            console.print(f"{a.file}: a loss was accepted: {json.dumps(a.accepted_loss)}", markup=False, soft_wrap=True)
    shown = ("schema", "name", "created", "licence", "labels", "scale", "segmenter", "classifier", "artefacts")
    rest = {key: value for key, value in bundle.manifest.items() if key not in shown}
    if rest:
        console.print(json.dumps(rest, indent=2, ensure_ascii=False), markup=False, soft_wrap=True)


@bundle_app.command()
def verify(folder: Folder = None) -> None:
    """Check size and sha256 of every file; exit with 1 where one is wrong."""
    from rbcedge.bundle import check

    bundle = _load(folder)
    wrong = 0
    for artefact in bundle.artefacts:
        problem = check(bundle, artefact)
        wrong += problem is not None
        typer.echo(f"{artefact.file}: {problem or 'ok'}")
    if wrong:
        raise RbcedgeError(
            f"{bundle.folder}: {wrong} of {len(bundle.artefacts)} files are wrong. Reinstall the bundle."
        )
    typer.echo(f"{bundle.name}: {len(bundle.artefacts)} files, all as in the manifest")


@bundle_app.command()
def pack(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Bundle to pack.")],
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Default: DIR.zip in the current folder.", show_default=False)
    ] = None,
) -> None:
    """Write a bundle as one .zip file, for another machine. The same bundle always gives the same file."""
    from rbcedge.packing import pack as write

    target = Path(f"{folder.resolve().name}.zip") if file is None else file
    bundle = write(folder, target)
    typer.echo(
        f"{bundle.name}: {len(bundle.artefacts)} networks packed into {target} ({target.stat().st_size:,} bytes)"
    )


@bundle_app.command()
def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What 'rbcedge bundle pack' wrote.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder.")],
) -> None:
    """Unfold a packed bundle into a new folder, and check every file."""
    from rbcedge.packing import unpack as unfold

    bundle = unfold(file, folder)
    typer.echo(f"{bundle.name}: {len(bundle.artefacts)} networks, all as in the manifest, in {folder.resolve()}")


@bundle_app.command()
def create(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder.")],
    segmenter: Annotated[Path, typer.Option(metavar="FILE", help="(N, H, W, 3) to (N, H, W, 1): .keras or .onnx.")],
    classifier: Annotated[Path, typer.Option(metavar="FILE", help="(N, S, S, 3) to (N, classes): .keras or .onnx.")],
    labels: Annotated[
        Path, typer.Option(metavar="FILE", help="JSON: codes, or objects with code, name, significant and cells.")
    ],
    name: Annotated[str | None, typer.Option(help="Default: the folder's name.", show_default=False)] = None,
    licence: Annotated[str, typer.Option(help="Under which others may use the networks.")] = "not stated",
    diameter_px: Annotated[float, typer.Option(help="Median diameter of a red cell in training, px.")] = 38.0,
    um_per_px: Annotated[float, typer.Option(help="Size of a pixel in training, µm.")] = 0.19,
    segmenter_scale: Annotated[
        float, typer.Option(help="Pixels the segmenter sees for each pixel the classifier sees, at most 1.")
    ] = 1.0,
    crop_px: Annotated[int, typer.Option(help="Side of the classifier's crops, px.")] = 80,
    small_crop_px: Annotated[
        int | None,
        typer.Option(help="Smaller side for cells that fit it; for classifiers that take any.", show_default=False),
    ] = None,
    rim_px: Annotated[int, typer.Option(help="Background shown around a cell, px; the paper: 0.")] = 0,
    threshold: Annotated[float, typer.Option(help="A pixel is cell from this probability on.")] = 0.5,
    confidence: Annotated[float, typer.Option(help="Cells below this probability are unclassified.")] = 0.5,
    temperature: Annotated[float, typer.Option(help="Divides the logarithm of the probabilities.")] = 1.0,
) -> None:
    """Make a bundle of your own networks. Both take float pixels 0 to 1, red, green, blue, and give probabilities."""
    from rbcedge.cli.convert import needed, show
    from rbcedge.cli.progress import Steps

    listed = _labels(labels)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already. Give a new folder.")
    needed("convert")
    from rbcedge.convert.bundle import build
    from rbcedge.convert.networks import open_network

    with Steps() as steps:
        networks = {}
        for role, path in (("segmenter", segmenter), ("classifier", classifier)):
            steps.begin(f"{role}: reading {path}")
            networks[role] = (open_network(path, role), ())
        bundle, made = build(
            folder,
            networks,
            {
                "name": folder.resolve().name if name is None else name,
                "licence": licence,
                "scale": {"diameter_px": diameter_px, "um_per_px": um_per_px},
                "segmenter": {"network": segmenter.name, "scale": segmenter_scale, "threshold": threshold},
                "classifier": {
                    "network": classifier.name,
                    "crop_px": crop_px,
                    "small_crop_px": crop_px if small_crop_px is None else small_crop_px,
                    "rim_px": rim_px,
                    "confidence_threshold": confidence,
                    "temperature": temperature,
                },
            },
            listed,
            [("tflite", "fp32"), ("onnx", "fp32")],
            steps.begin,
        )
    show(bundle, made)


def _labels(path: Path) -> "list[Label]":
    """Read a list of codes, or of objects as a manifest has them."""
    import json

    from rbcedge.bundle import read_labels

    try:
        values = json.loads(path.read_bytes())
        if isinstance(values, list):
            values = [{"code": v, "name": v} if isinstance(v, str) else v for v in values]
        return read_labels({"labels": values})
    except OSError as e:
        raise UsageError(f"--labels {path}: cannot be read ({e.strerror}).") from e
    except ValueError as e:
        raise UsageError(f'--labels {path}: {e}. Example: ["NOR", "OVA"].') from e
