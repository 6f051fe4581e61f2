"""The command line. One file for each command: parse, call, show."""

import os
import sys
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from rbcedge.cli.bench import bench
from rbcedge.cli.bundle import bundle_app
from rbcedge.cli.calibrate import calibrate
from rbcedge.cli.cameras import cameras
from rbcedge.cli.convert import convert_app
from rbcedge.cli.doctor import doctor
from rbcedge.cli.evaluate import evaluate_app
from rbcedge.cli.export import export
from rbcedge.cli.run import run
from rbcedge.cli.train import train_app
from rbcedge.errors import RbcedgeError, UsageError
from rbcedge.native import native_silence

# What the parser raises for wrong arguments; where its module lies differs between versions of typer.
_ARGUMENTS: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="rbcedge",
    help="Live red-cell morphology differentials at the microscope. Not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(run)
app.command()(export)
app.command()(bench)
app.command()(calibrate)
app.add_typer(bundle_app)
app.add_typer(convert_app)
app.add_typer(train_app)
app.add_typer(evaluate_app)
app.command()(cameras)
app.command()(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"rbcedge {version('rbcedge')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Live red-cell morphology differentials at the microscope. Not a medical device."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 something failed, 2 wrong usage, 130 ended by Ctrl-C.

    Errors are one or two plain lines on stderr. What nobody foresaw goes with all details into a log file.
    """
    try:
        with native_silence():
            given = None if arguments is None else list(arguments)
            code = app(args=given, prog_name="rbcedge", standalone_mode=False)
        if code == 130:
            raise KeyboardInterrupt
        _let_go_of_output()
        sys.exit(code or 0)
    except UsageError as error:
        _fail(str(error), 2)
    except RbcedgeError as error:
        _fail(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted.", 130)
    except _ARGUMENTS as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            sys.exit(2)
        command = error.ctx.command_path if error.ctx else "rbcedge"
        _fail(f"{error.format_message()}\nTry '{command} -h'.", 2)
    except BrokenPipeError:
        # Whoever read the output is gone.
        _let_go_of_output()
        sys.exit(1)
    except Exception as error:
        text = " ".join(str(error).split())
        _fail(f"unexpected {type(error).__name__}: {text}\n{_log(error)}", 1)


def _let_go_of_output() -> None:
    """Drop what cannot be written to stdout: Python would complain once more when it flushes at exit."""
    output: TextIO | None = sys.stdout
    try:
        if output is not None:
            output.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(text: str, code: int) -> None:
    _let_go_of_output()
    errors: TextIO | None = sys.stderr
    # Either is None where the shell closed it.
    if errors is not None:
        errors.write(f"rbcedge: {text}\n")
    sys.exit(code)


def _log(error: Exception) -> str:
    """Write the details of an error nobody foresaw to a file and say where it is."""
    import platformdirs

    folder = Path(platformdirs.user_log_dir("rbcedge"))
    path = folder / f"error-{datetime.now():%Y-%m-%dT%H-%M-%S}-{os.getpid()}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        details = "".join(traceback.format_exception(error))
        path.write_text(f"{' '.join(sys.argv)}\n\n{details}", encoding="utf-8")
    except OSError as e:
        return f"The details could not be written to {path} ({e.strerror})."
    return f"This is a fault in rbcedge. Details: {path}"
