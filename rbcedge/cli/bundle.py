"""`rbcedge bundle`: what a bundle holds, and whether it is whole."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rbcedge.errors import RbcedgeError

if TYPE_CHECKING:
    from rbcedge.bundle import Bundle

bundle_app = typer.Typer(name="bundle", help="Look at a bundle of networks.", no_args_is_help=True)
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
