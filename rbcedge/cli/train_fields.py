"""`rbcedge train fields`: the networks of a bundle from whole fields, step by step; how the shipped ones were made."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rbcedge.errors import RbcedgeError

fields_app = typer.Typer(
    name="fields",
    no_args_is_help=True,
    help="Train on whole fields, as the shipped networks were: prepare, segmenter, find, classifier, mean, bundle. "
    "Score the result with 'rbcedge evaluate fields'.",
)

Lessons = Annotated[Path, typer.Option(help="Where 'prepare' put the lessons.")]
Steps = Annotated[int, typer.Option(min=1, help="Training steps.")]
Rate = Annotated[float, typer.Option(min=0, help="Largest learning rate.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")]


@fields_app.command()
def prepare(
    chula: Annotated[Path, typer.Argument(metavar="CHULA", help="Folder of Chula-RBC-12 (Dataset/ and Label/).")],
    work: Lessons = Path("runs/lessons"),
    simulated: Annotated[int, typer.Option(min=0, help="Number of simulated fields.")] = 700,
    seed: Seed = 0,
) -> None:
    """Make lessons: real fields through the teacher (split by blocks) and simulated fields."""
    from rbcedge.training.datasets import chula as reader
    from rbcedge.training.lessons import keep_split, prepare_real, prepare_simulated

    training, held_out = reader.split(reader.read(chula), seed=seed)
    keep_split(work, seed, held_out)
    prepare_real(training, work / "training", typer.echo)
    prepare_real(held_out, work / "held-out", typer.echo)
    prepare_simulated(simulated, work / "simulated", seed)


@fields_app.command()
def find(
    folder: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle with the trained segmenter.")],
    work: Lessons = Path("runs/lessons"),
    out: Annotated[Path, typer.Option(help="Folder for the new lessons.")] = Path("runs/found"),
) -> None:
    """Make the lessons anew with the outlines that a trained segmenter finds: those the classifier will be given."""
    from rbcedge.training.found import found
    from rbcedge.training.lessons import load, write
    from rich.progress import track

    from rbcedge.bundle import load as load_bundle
    from rbcedge.engines.loading import load_engines
    from rbcedge.pipeline.host import HostPipeline

    networks = load_bundle(folder)
    pipeline = HostPipeline(networks, *load_engines(networks, "litert", "auto", None), 1.0)
    parts = [(part, path) for part in ("training", "held-out", "simulated") for path in _lessons(work, part)]
    for part, path in track(parts, "lessons", transient=True):
        (out / part).mkdir(parents=True, exist_ok=True)
        write(out / part / path.name, found(load([path])[0], pipeline))
    pipeline.close()
    typer.echo(f"written to {out.resolve()}: {len(parts)} lessons")


@fields_app.command()
def segmenter(
    work: Lessons = Path("runs/lessons"),
    out: Annotated[Path, typer.Option(help="Checkpoints and weights.")] = Path("runs/segmenter"),
    width: Annotated[int, typer.Option(min=1, help="Channels of the first level; the paper: 64.")] = 8,
    weights: Annotated[Path | None, typer.Option(help="A weights file to start from; default: random ones.")] = None,
    steps: Steps = 3000,
    rate: Rate = 2e-3,
    seed: Seed = 0,
) -> None:
    """Train the U-Net to find every cell of a field and to keep touching ones apart."""
    from rbcedge.training.lessons import load
    from rbcedge.training.needs import keras_or_error
    from rbcedge.training.segmenter import train

    real, simulated = _lessons(work, "training"), _lessons(work, "simulated")
    keras_or_error()
    usable = [x for x in load(real) if x["ignore"].mean() < 0.9]
    train(usable, load(simulated), out, width, steps=steps, weights=weights, rate=rate, seed=seed)


@fields_app.command()
def classifier(
    work: Lessons = Path("runs/lessons"),
    out: Annotated[Path, typer.Option(help="Checkpoints and weights.")] = Path("runs/classifier"),
    weights: Annotated[str, typer.Option(help="lite0, imagenet, none, or a weights file to start from.")] = "lite0",
    opinion: Annotated[
        Path | None, typer.Option(help="Folder of a classifier trained before: its second opinion on every cell.")
    ] = None,
    steps: Steps = 4000,
    rate: Rate = 1.5e-3,
    seed: Seed = 0,
) -> None:
    """Train EfficientNetB0 on the cells of the lessons; with --opinion also on those that nobody marked."""
    from rbcedge.training.classifier import Draw, train
    from rbcedge.training.crops import cut, plain
    from rbcedge.training.lessons import CODES, load
    from rbcedge.training.needs import keras_or_error

    real, simulated = _lessons(work, "training"), _lessons(work, "simulated")
    keras_or_error()
    lessons, drawn = load(real), plain(cut(load(simulated)), len(CODES))
    if opinion is None:
        draw = Draw(plain(cut(lessons), len(CODES)), drawn)
    else:
        from rbcedge.training.second_opinion import second_opinion

        marked, unmarked = second_opinion(opinion, cut(lessons), cut(lessons, labelled=False), typer.echo)
        draw = Draw(marked, drawn, unmarked)
    train(draw, out, steps=steps, weights=weights, rate=rate, seed=seed)


@fields_app.command()
def mean(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders of one and the same network.")],
    out: Annotated[Path, typer.Option(help="New folder for the mean of their weights.")],
) -> None:
    """Average the weights of trainings that went on from each other: steadier than either."""
    from rbcedge.training.weights import mean as average

    for folder in folders:
        _trained(folder, "classifier")
    average(folders, out)
    typer.echo(f"written to {out.resolve()}")


@fields_app.command()
def bundle(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the new bundle.")],
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
    from rbcedge.training.needs import keras_or_error

    described = _described(about)
    _lessons(work, "training")
    for folder, command in ((segmenter, "segmenter"), (classifier, "classifier")):
        _trained(folder, command)
    keras_or_error(("tensorflow",))
    export(segmenter, classifier, work / "training", out, onnx=onnx, keras=keras, **described)


def _lessons(work: Path, part: str) -> list[Path]:
    paths = sorted((work / part).glob("[0-9]*.npz"))
    if not paths:
        raise RbcedgeError(f"{work / part}: no lessons. Run 'rbcedge train fields prepare' first.")
    return paths


def _trained(folder: Path, command: str) -> None:
    if not (folder / "weights.npz").is_file():
        raise RbcedgeError(f"{folder}: no trained weights. Run 'rbcedge train fields {command}' first.")


def _described(about: Path | None) -> dict[str, Any]:
    if about is None:
        return {}
    try:
        found = json.loads(about.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise RbcedgeError(f"{about}: cannot be read as JSON ({e}).") from e
    if not isinstance(found, dict):
        raise RbcedgeError(f'{about}: expected {{"name": ..., "licence": ...}}.')
    return found
