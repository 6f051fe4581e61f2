"""`python -m rbcedge.training`: from pictures to a bundle, step by step."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train the networks of a bundle.")


@app.command()
def prepare(
    chula: Annotated[Path, typer.Argument(help="Folder of Chula-RBC-12.")],
    work: Annotated[Path, typer.Option(help="Where lessons are kept.")] = Path("runs/lessons"),
    simulated: Annotated[int, typer.Option(help="Number of simulated fields.")] = 600,
    seed: int = 0,
) -> None:
    """Make lessons: real fields through the teacher (split by blocks) and simulated fields."""
    from rbcedge.training.datasets import chula as reader
    from rbcedge.training.lessons import prepare_real, prepare_simulated

    training, held_out = reader.split(reader.read(chula), seed=seed)
    prepare_real(training, work / "training", typer.echo)
    prepare_real(held_out, work / "held-out", typer.echo)
    prepare_simulated(simulated, work / "simulated", seed)


if __name__ == "__main__":
    app()
