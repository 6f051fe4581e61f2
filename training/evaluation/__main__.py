"""`python -m rbcedge.training.evaluation`: the measured parts of the model card."""

from pathlib import Path
from typing import Annotated

import typer

from rbcedge.errors import RbcedgeError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The measured parts of the model card.")


@app.callback()
def _common() -> None:
    """The measured parts of the model card."""


@app.command()
def card(
    run: Annotated[Path, typer.Argument(help="--out folder of 'rbcedge run' over the labelled pictures.")],
    chula: Annotated[Path, typer.Argument(help="Chula-RBC-12: Dataset/ and Label/.")],
    out: Annotated[Path, typer.Option(help="Folder for model-measured.md and model-*.png.")] = Path("docs"),
    everything: Annotated[bool, typer.Option("--all", help="All blocks, not only those held out.")] = False,
    seed: int = 0,
) -> None:
    """Confusion matrix, tables, reliability, and galleries of what goes wrong, from a scored run."""
    from rbcedge.training.evaluation.card import write_card
    from rbcedge.training.evaluation.fields import score_runs

    typer.echo(write_card(score_runs([run], chula, everything, seed)[0], out))


def main() -> None:
    """Run, with errors as plain lines."""
    try:
        app()
    except RbcedgeError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
