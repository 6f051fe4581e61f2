"""Progress of a training on the screen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class View:
    """Shows reading, folds and epochs; see `rbcedge.training.protocol.Watcher`.

    The time left is that of the longest possible way: training may end early.
    """

    def __init__(self, name: str, console: Console, progress: Progress) -> None:
        self._name, self._console, self._progress = name, console, progress
        self._task = progress.add_task(f"{name}: reading", total=None)
        self._fold = ""
        self._number, self._folds = 1, 1

    def reading(self, done: int, cells: int) -> None:
        """So many of the cells' pictures are read."""
        self._progress.update(self._task, completed=done, total=cells)

    def note(self, text: str) -> None:
        """Something worth a line."""
        self._console.print(f"{self._name}: {text}", soft_wrap=True)

    def fold(self, name: str, number: int, folds: int) -> None:
        """A fold begins."""
        self._fold, self._number, self._folds = name, number, folds
        self._progress.reset(self._task, total=None, description=f"{self._name} {name}: building the network")

    def told(self, told: Any) -> None:
        """A batch is done."""
        before = (self._number - 1) * told.epochs * told.batches
        done = before + (told.epoch - 1) * told.batches + told.batch
        self._progress.update(
            self._task,
            completed=done,
            total=self._folds * told.epochs * told.batches,
            description=f"{self._name} {self._fold} epoch {told.epoch}, loss {told.loss:.4f}",
        )
        if told.row is not None:
            row = told.row
            self._console.print(
                f"{self._name} {self._fold} epoch {told.epoch}: loss {row['loss']:.4f}, validation loss "
                f"{row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}, rate {row['rate']:.1e}, "
                f"{row['seconds']:.0f} s",
                soft_wrap=True,
            )


@contextmanager
def view(name: str, quiet: bool) -> Iterator[View]:
    """Show a training while it runs."""
    console = Console(highlight=False, quiet=quiet)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("at most"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
    with progress:
        yield View(name, console, progress)
