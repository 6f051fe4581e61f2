"""`rbcedge train`: from labelled cells to trained networks, and the data sets to do it with."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rbcedge.cli.train_fields import fields_app

train_app = typer.Typer(
    name="train",
    no_args_is_help=True,
    help="Train networks by a named protocol, or on whole fields; make data sets. "
    "Needs the 'train' extra: pip install rbcedge\\[train].",
)
train_app.add_typer(fields_app)

Data = Annotated[Path, typer.Option(help="Folder of labelled cells.")]
Out = Annotated[Path, typer.Option(help="Run folder; an interrupted run there goes on.")]
Layout = Annotated[str, typer.Option(help="elsafty, folders, bccd or erythrocytesidb.")]
ClassMap = Annotated[Path | None, typer.Option(help="JSON: folder patterns to class codes.")]
SlidePattern = Annotated[str | None, typer.Option(help="Regular expression with a group 'slide' (and 'scanner').")]
EachFile = Annotated[bool, typer.Option("--each-file-a-slide", help="Every picture is of a patient of its own.")]
TestSlides = Annotated[str | None, typer.Option(help="Test slides, comma-separated. Default: the paper's, or a fifth.")]
RecipeName = Annotated[str, typer.Option(help="paper or rbcedge.")]
Epochs = Annotated[int | None, typer.Option(help="Epochs at the most, instead of the recipe's.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Batches of an epoch at the most.")]
NormMomentum = Annotated[float | None, typer.Option(help="Momentum of batch norm; for short runs 0.9.")]
Seed = Annotated[int, typer.Option(min=0, help="Equal seeds give equal weights on one machine.")]
Board = Annotated[bool, typer.Option("--tensorboard", help="Logs for TensorBoard beside the CSV ones.")]
Quietly = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors and the result.")]


@train_app.command()
def classifier(
    data: Data,
    out: Out,
    layout: Layout = "elsafty",
    network: Annotated[str, typer.Option(help="A network of Table 5, or 'all'.")] = "efficientnetb0",
    recipe: RecipeName = "paper",
    weighted: Annotated[bool, typer.Option("--weighted", help="Weight the loss by class (Eq. 1).")] = False,
    segmented: Annotated[bool, typer.Option("--segmented/--no-segmentation", help="Zero all but the cell.")] = True,
    folds: Annotated[str, typer.Option(metavar="RxF", help="Repetitions x folds.")] = "5x2",
    weights: Annotated[str, typer.Option(help="imagenet, lite0, none, or a weights file to start from.")] = "imagenet",
    class_map: ClassMap = None,
    slide_pattern: SlidePattern = None,
    each_file_a_slide: EachFile = False,
    test_slides: TestSlides = None,
    side: Annotated[int, typer.Option(min=16, help="Side of the crops, px.")] = 80,
    epochs: Epochs = None,
    steps: Steps = None,
    norm_momentum: NormMomentum = None,
    seed: Seed = 0,
    tensorboard: Board = False,
    quiet: Quietly = False,
) -> None:
    """Train classifiers by slide-wise cross-validation and test each fold on slides of its own."""
    from rbcedge.training.needs import keras_or_error
    from rbcedge.training.networks import chosen
    from rbcedge.training.protocol import Settings, train_classifier
    from rbcedge.training.protocol_options import parse_folds, parse_slides
    from rbcedge.training.recipes import classifier_recipe, limited

    from rbcedge.cli.train_view import view

    named = chosen(network)
    settings = Settings(
        limited(classifier_recipe(recipe, weighted), epochs, norm_momentum),
        weights,
        seed,
        parse_slides(test_slides),
        steps,
        side,
        tensorboard,
    )
    repetitions, parts = parse_folds(folds)
    keras_or_error()
    cells = _read(data, layout, class_map, slide_pattern, each_file_a_slide)
    for name in named:
        folder = out / name if network.lower() == "all" else out
        with view(name, quiet) as watch:
            done = train_classifier(cells, folder, name, settings, segmented, weighted, repetitions, parts, watch)
        typer.echo(f"{name}: {done.table}")


@train_app.command()
def segmenter(
    data: Data,
    out: Out,
    layout: Layout = "elsafty",
    recipe: RecipeName = "paper",
    width: Annotated[int | None, typer.Option(help="Channels of the first level; paper: 64, rbcedge: 8.")] = None,
    weights: Annotated[str, typer.Option(help="none, or a weights file to start from.")] = "none",
    class_map: ClassMap = None,
    slide_pattern: SlidePattern = None,
    each_file_a_slide: EachFile = False,
    test_slides: TestSlides = None,
    side: Annotated[int, typer.Option(min=16, help="Side of the crops, px.")] = 80,
    epochs: Epochs = None,
    steps: Steps = None,
    norm_momentum: NormMomentum = None,
    seed: Seed = 0,
    tensorboard: Board = False,
    quiet: Quietly = False,
) -> None:
    """Train a U-Net on crops with masks, split by slide, and test it on slides of its own."""
    from rbcedge.training.needs import keras_or_error
    from rbcedge.training.protocol import Settings, train_segmenter
    from rbcedge.training.protocol_options import parse_slides
    from rbcedge.training.recipes import limited, segmenter_recipe

    from rbcedge.cli.train_view import view

    named, unet = segmenter_recipe(recipe, width)
    settings = Settings(
        limited(named, epochs, norm_momentum), weights, seed, parse_slides(test_slides), steps, side, tensorboard
    )
    keras_or_error()
    cells = _read(data, layout, class_map, slide_pattern, each_file_a_slide)
    with view(f"U-Net of width {unet.width}", quiet) as watch:
        done = train_segmenter(cells, out, unet, settings, watch)
    typer.echo(f"{done.about['network']}: {done.table}")


@train_app.command()
def bundle(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Finished run folder of 'train classifier'.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder of the bundle.")],
    base: Annotated[Path | None, typer.Option(help="Bundle that the segmenter is taken from; default: ours.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the bundle; default: network and recipe.")] = None,
) -> None:
    """Convert the best fold of a run to TFLite and put it into a bundle that `rbcedge run --bundle` takes."""
    from rbcedge.training.needs import keras_or_error
    from rbcedge.training.protocol_bundle import bundle as make

    keras_or_error(("tensorflow",))
    make(run, folder, base, name)
    typer.echo(f"written to {folder.resolve()}; try: rbcedge run SOURCE --bundle {folder}")


@train_app.command()
def cut(
    chula: Annotated[Path, typer.Argument(metavar="CHULA", help="Folder of Chula-RBC-12 (Dataset/ and Label/).")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the set.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Take this many fields only.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which fields, where there is a limit.")] = 0,
) -> None:
    """Cut Chula-RBC-12 into cells with masks by the teacher, in the layout 'elsafty'; blocks stand for slides."""
    from rbcedge.training.datasets.chula_cells import write

    counts = write(chula, folder, seed, limit, typer.echo)
    typer.echo(f"written to {folder.resolve()}: {', '.join(f'{code} {n}' for code, n in counts.items())}")


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


def _read(data: Path, layout: str, class_map: Path | None, pattern: str | None, each_file: bool) -> Any:
    from rbcedge.training.datasets.reading import read

    return read(data, layout, class_map, pattern, each_file)
