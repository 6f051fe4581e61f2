"""`rbcedge train`: from labelled cells to trained networks, and the data sets to do it with."""

from pathlib import Path
from typing import Annotated

import typer

train_app = typer.Typer(name="train", no_args_is_help=True, help="Train networks by a named protocol; make data sets.")


@train_app.command()
def simulate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the set.")],
    cells: Annotated[int, typer.Option(help="Cells of each slide.")] = 40,
    slides: Annotated[int, typer.Option(min=1, max=25, help="Slides 1 to this number; Table 2 of the paper.")] = 25,
    seed: Annotated[int, typer.Option(min=0, help="Which set.")] = 0,
) -> None:
    """Write a simulated set in the paper's layout: 25 slides, four scanners, exact masks and classes."""
    from rbcedge.training.datasets.simulated import write
    from rich.progress import Progress

    with Progress(transient=True) as bar:
        task = bar.add_task("slides", total=slides)
        write(folder, cells, range(1, slides + 1), seed, progress=lambda slide: bar.advance(task))
    typer.echo(f"written to {folder.resolve()}: {cells * slides} cells of {slides} slides")
