"""`rbcedge evaluate`: how good trained networks and finished runs are, beside the paper's figures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rbcedge.training.evaluation.report import Item

evaluate_app = typer.Typer(
    name="evaluate", no_args_is_help=True, help="Tables and figures from trained networks and finished runs."
)
Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders that hold some.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for report.md with its tables and figures.")]
Tables = Annotated[bool, typer.Option("--tables", help="Tables only (with --figures: both, as without either).")]
Figures = Annotated[bool, typer.Option("--figures", help="Figures only.")]
Everything = Annotated[
    bool, typer.Option("--all", help="All labelled pictures, not only the blocks held out from training.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the split into training and held-out blocks.")]


@evaluate_app.command()
def classifier(
    runs: Runs,
    out: Out,
    tables: Tables = False,
    figures: Figures = False,
    network: Annotated[
        str | None,
        typer.Option(help="What Tables 4 and 6 to 8 are about. Default: efficientnetb0, or the only one there is."),
    ] = None,
    readers: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="What people called the cells: a column cell, then one for each reader."),
    ] = None,
) -> None:
    """Tables 4 to 8 and Figures 6 to 8 from the runs of 'rbcedge train classifier', and what the paper lacks."""
    from rbcedge.training.evaluation.classifier_report import classifier_items
    from rbcedge.training.evaluation.reading import read_classifiers
    from rbcedge.training.evaluation.report import check_folder

    check_folder(out)
    intro, items = classifier_items(read_classifiers(runs), network, readers, *_wanted(tables, figures))
    _write(out, "Classifiers", intro, items)


@evaluate_app.command()
def segmenter(runs: Runs, out: Out, tables: Tables = False, figures: Figures = False) -> None:
    """Table 3 from the runs of 'rbcedge train segmenter', by slide, scanner and class, cell by cell."""
    from rbcedge.training.evaluation.classifier_report import segmenter_items
    from rbcedge.training.evaluation.reading import read_segmenters
    from rbcedge.training.evaluation.report import check_folder

    check_folder(out)
    intro, items = segmenter_items(read_segmenters(runs), *_wanted(tables, figures))
    _write(out, "Segmenters", intro, items)


@evaluate_app.command()
def fields(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="--out folders of 'rbcedge run'.")],
    labels: Annotated[Path, typer.Option(metavar="DIR", help="Chula-RBC-12: Dataset/ and Label/.")],
    out: Out,
    tables: Tables = False,
    figures: Figures = False,
    everything: Everything = False,
    seed: Seed = 0,
) -> None:
    """Cells found, missed and misnamed by 'rbcedge run' over labelled pictures."""
    from rbcedge.training.evaluation.fields import field_items, score_runs
    from rbcedge.training.evaluation.report import check_folder

    check_folder(out)
    intro, items = field_items(score_runs(runs, labels, everything, seed), *_wanted(tables, figures))
    _write(out, "Fields", intro, items)


@evaluate_app.command()
def shifts(
    labels: Annotated[Path, typer.Argument(metavar="CHULA", help="Chula-RBC-12: Dataset/ and Label/.")],
    out: Out,
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: the bundle that comes along.", show_default=False)
    ] = None,
    real: Annotated[int, typer.Option(min=0, help="Held-out pictures, as far as there are any.")] = 36,
    simulated: Annotated[int, typer.Option(min=0, help="Simulated pictures with exact masks.")] = 24,
    precision: Annotated[str, typer.Option(help="auto, fp32 or int8.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: all.", show_default=False)] = None,
    everything: Everything = False,
    seed: Seed = 0,
) -> None:
    """What stain, light, blur, noise and magnification do to a bundle: IoU, instance F1 and label accuracy."""
    from rbcedge.training.evaluation.changes import SHIFTS
    from rbcedge.training.evaluation.report import check_folder
    from rbcedge.training.evaluation.shifts import shift_items
    from rich.console import Console

    from rbcedge.bundle import default_folder, load

    check_folder(out)
    console = Console(stderr=True)
    with console.status("") as status:
        done: list[str] = []

        def progress(line: str) -> None:
            done.append(line)
            status.update(f"{len(done)} of {len(SHIFTS) * ((real > 0) + (simulated > 0))} shifts, last: {line}")

        intro, items = shift_items(
            load(bundle or default_folder()), labels, real, simulated, everything, seed, precision, threads, progress
        )
    _write(out, "Shifts", intro, items)


@evaluate_app.command()
def card(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="--out folder of 'rbcedge run' over labelled pictures.")],
    labels: Annotated[Path, typer.Argument(metavar="CHULA", help="Chula-RBC-12: Dataset/ and Label/.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for model-measured.md and model-*.png.")],
    everything: Everything = False,
    seed: Seed = 0,
) -> None:
    """The measured parts of a model card: confusion matrix, tables, reliability, galleries of what goes wrong."""
    from rbcedge.training.evaluation.card import write_card
    from rbcedge.training.evaluation.fields import score_runs

    path = write_card(score_runs([run], labels, everything, seed)[0], out)
    typer.echo(f"written: {path.resolve()}")


def _wanted(tables: bool, figures: bool) -> tuple[bool, bool]:
    return (tables, figures) if tables or figures else (True, True)


def _write(out: Path, title: str, intro: "list[str]", items: "list[Item]") -> None:
    from rbcedge.training.evaluation.report import write_report

    path, missing = write_report(out, title, intro, items)
    for item in missing:
        typer.echo(f"not made: {item.title}: {item.why}")
    typer.echo(f"written: {path.resolve()} ({len(items) - len(missing)} tables and figures)")
