"""What a long command is doing, and for how long it has been."""

from time import perf_counter
from types import TracebackType

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Steps:
    """Shows one step after another with its time: a moving line on a terminal, plain lines elsewhere.

    Use it as a context manager, and call `begin` for every step.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._what, self._since = "", 0.0

    def __enter__(self) -> "Steps":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self._end()
        self._progress.stop()

    def begin(self, what: str) -> None:
        """End the step before and begin another."""
        self._end()
        self._what, self._since = what, perf_counter()
        if self._console.is_terminal:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(what)
        else:
            self._console.print(f"{what} ...", soft_wrap=True, markup=False)

    def _end(self) -> None:
        if self._what and self._console.is_terminal:
            self._console.print(f"{self._what}: {perf_counter() - self._since:.0f} s", soft_wrap=True, markup=False)
        self._what = ""
