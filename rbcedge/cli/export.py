"""`rbcedge export`: write the tables of a run again, from its record."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out folder of a run, also of a killed one.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Write cells.csv, fields.csv and summary.json from session.db, at any time, also while a run goes on."""
    from rich.console import Console

    from rbcedge.export import FILES
    from rbcedge.export import export as write
    from rbcedge.sinks.view import final

    summary = write(folder)
    console = Console(highlight=False, quiet=quiet)
    console.print(final(summary), soft_wrap=not console.is_terminal)
    console.print(f"written to {folder.resolve()}: {', '.join(FILES)}", soft_wrap=True)
