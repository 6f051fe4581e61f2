"""`rbcedge cameras`: what cameras there are."""

import typer


def cameras() -> None:
    """List the cameras of this computer with their picture sizes and rates."""
    from rbcedge.sources.devices import list_cameras

    found = list_cameras()
    if not found:
        typer.echo("No camera was found. Is it plugged in? Network cameras are given by their address.")
        return
    for camera in found:
        typer.echo(f"{camera.number}  {camera.path}  {camera.name}")
        if camera.problem:
            typer.echo(f"     {camera.problem}")
        for mode in camera.modes:
            rates = ", ".join(f"{rate:g}" for rate in mode.rates)
            typer.echo(f"     {mode.fourcc} {mode.width}x{mode.height}" + (f" at {rates} fps" if rates else ""))
