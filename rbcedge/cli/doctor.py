"""`rbcedge doctor`: is everything here that counting needs?"""

from pathlib import Path
from typing import Annotated

import typer

from rbcedge.errors import RbcedgeError


def doctor(
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Bundle to try; default: the one that comes along.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Output folder to try; default: the user's data folder.")
    ] = None,
) -> None:
    """Check packages, cameras, GPU, bundle and output folder, and count one simulated picture.

    Exit code 1 where something needed is broken.
    """
    import platformdirs
    from rich.console import Console

    from rbcedge.bundle import default_folder
    from rbcedge.checks import examine

    console = Console(highlight=False)
    styles = {"ok": "green", "note": "yellow", "broken": "bold red"}
    folder = Path(platformdirs.user_data_dir("rbcedge")) if out is None else out
    broken = []
    for finding in examine(default_folder() if bundle is None else bundle, folder):
        console.print(f"[{styles[finding.level]}]{finding.level:<6}[/]", end=" ")
        console.print(f"{finding.subject}: {finding.text}", markup=False, soft_wrap=True)
        if finding.level == "broken":
            broken.append(finding.subject)
    if broken:
        raise RbcedgeError(f"not in order: {', '.join(broken)}. See the lines above.")
