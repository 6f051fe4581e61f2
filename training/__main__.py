"""`python -m rbcedge.training`: from pictures to a bundle, step by step."""

import json
from pathlib import Path
from typing import Annotated

import typer

from rbcedge.errors import RbcedgeError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train the networks of a bundle.")

Chula = Annotated[Path, typer.Argument(help="Folder of Chula-RBC-12 (Dataset/ and Label/).")]
Lessons = Annotated[Path, typer.Option(help="Where 'prepare' put the lessons.")]
Steps = Annotated[int, typer.Option(help="Training steps.")]


@app.command()
def prepare(
    chula: Chula,
    work: Lessons = Path("runs/lessons"),
    simulated: Annotated[int, typer.Option(help="Number of simulated fields.")] = 700,
    seed: int = 0,
) -> None:
    """Make lessons: real fields through the teacher (split by blocks) and simulated fields."""
    from rbcedge.training.datasets import chula as reader
    from rbcedge.training.lessons import keep_split, prepare_real, prepare_simulated

    training, held_out = reader.split(reader.read(chula), seed=seed)
    keep_split(work, seed, held_out)
    prepare_real(training, work / "training", typer.echo)
    prepare_real(held_out, work / "held-out", typer.echo)
    prepare_simulated(simulated, work / "simulated", seed)


@app.command()
def segmenter(
    work: Lessons = Path("runs/lessons"),
    out: Annotated[Path, typer.Option(help="Checkpoints and weights.")] = Path("runs/segmenter"),
    width: Annotated[int, typer.Option(help="Channels of the first level; the paper: 64.")] = 8,
    steps: Steps = 3000,
    seed: int = 0,
) -> None:
    """Train the U-Net."""
    from rbcedge.training.lessons import load
    from rbcedge.training.segmenter import train

    real = [x for x in load(_lessons(work, "training")) if x["ignore"].mean() < 0.9]
    train(real, load(_lessons(work, "simulated")), out, width, steps=steps, seed=seed)


@app.command()
def classifier(
    work: Lessons = Path("runs/lessons"),
    out: Annotated[Path, typer.Option(help="Checkpoints and weights.")] = Path("runs/classifier"),
    weights: Annotated[str, typer.Option(help="imagenet, none, or a weights file to start from.")] = "imagenet",
    steps: Steps = 3200,
    seed: int = 0,
) -> None:
    """Train EfficientNetB0."""
    from rbcedge.training.classifier import train
    from rbcedge.training.crops import cut
    from rbcedge.training.lessons import load

    real, simulated = cut(load(_lessons(work, "training"))), cut(load(_lessons(work, "simulated")))
    train(real, simulated, out, steps=steps, weights=weights, seed=seed)


@app.command()
def bundle(
    out: Annotated[Path, typer.Argument(help="Folder of the new bundle.")],
    work: Lessons = Path("runs/lessons"),
    segmenter: Annotated[Path, typer.Option(help="Folder of the trained U-Net.")] = Path("runs/segmenter"),
    classifier: Annotated[Path, typer.Option(help="Folder of the trained EfficientNetB0.")] = Path("runs/classifier"),
    about: Annotated[Path | None, typer.Option(help="JSON with name, licence, training, measured ...")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Add float16 ONNX, from which GPU engines are made.")] = False,
    keras: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep both networks there as .keras, for 'rbcedge convert'.")
    ] = None,
) -> None:
    """Convert trained weights to TFLite and write a bundle."""
    from rbcedge.training.export import export

    described = json.loads(about.read_text()) if about else {}
    export(segmenter, classifier, work / "training", out, onnx=onnx, keras=keras, **described)


@app.command()
def score(
    cells: Annotated[Path, typer.Argument(help="cells.csv of a run over the data set's pictures.")],
    chula: Chula,
    everything: Annotated[bool, typer.Option("--all", help="All blocks, not only those held out.")] = False,
    seed: int = 0,
) -> None:
    """Compare a run with the labels of the held-out blocks."""
    from rbcedge.training.datasets import chula as reader
    from rbcedge.training.scoring import score as compare

    fields = reader.read(chula)
    typer.echo(compare(cells, fields if everything else reader.split(fields, seed=seed)[1]).text())


def _lessons(work: Path, part: str) -> list[Path]:
    paths = sorted((work / part).glob("[0-9]*.npz"))
    if not paths:
        raise RbcedgeError(f"{work / part}: no lessons. Run 'python -m rbcedge.training prepare' first.")
    return paths


def main() -> None:
    """Run, with errors as plain lines."""
    try:
        app()
    except RbcedgeError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
