"""The run on the screen: a live table, or plain lines where nobody can see one."""

from __future__ import annotations

from time import monotonic

from rich.console import Console
from rich.live import Live

from rbcedge.frame import Frame, Gap
from rbcedge.sinks.base import Start, Status, Update
from rbcedge.sinks.view import line, live

_REFRESH_S = 0.2
_LINE_S = 5.0


class Screen(Console):
    """A console that says so when nobody reads it any more; rich would end the program instead, and the count."""

    def on_broken_pipe(self) -> None:
        """Let the sink fail, and only the sink."""
        raise BrokenPipeError(32, "nobody reads the output any more")


class Terminal:
    """A table that is redrawn in place, at most five times a second. It disappears when the run ends.

    Parameters
    ----------
    console : rich.console.Console
    """

    name = "screen"

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._start: Start | None = None
        self._shown_s = float("-inf")

    def setup(self, start: Start) -> None:
        """Show what runs."""
        self._start = start
        self._live = Live(
            live(start, None),
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start(refresh=True)

    def append(self, update: Update, status: Status) -> None:
        """Show the count."""
        self._show(status)

    def tick(self, frame: Frame, status: Status) -> None:
        """Show what the picture was."""
        self._show(status)

    def skip(self, gap: Gap, status: Status) -> None:
        """Show the loss, above the table."""
        if self._live is not None:
            self._console.print(f"skipped {gap.source}: {gap.reason}", style="red", markup=False, highlight=False)
        self._show(status)

    def close(self) -> None:
        """Take the table away."""
        if self._live is not None:
            shown, self._live = self._live, None
            shown.stop()

    def _show(self, status: Status) -> None:
        now = monotonic()
        if self._live is None or self._start is None or now - self._shown_s < _REFRESH_S:
            return
        self._shown_s = now
        self._live.update(live(self._start, status, *self._console.size), refresh=True)


class Lines:
    """One plain line every few seconds, for logs and pipes, and one for each loss.

    Parameters
    ----------
    console : rich.console.Console
    every_s : float
        Least time between two lines.
    """

    name = "screen"

    def __init__(self, console: Console, every_s: float = _LINE_S) -> None:
        self._console, self._every_s = console, every_s
        self._start: Start | None = None
        self._shown_s = monotonic()

    def setup(self, start: Start) -> None:
        """Remember what runs."""
        self._start = start

    def append(self, update: Update, status: Status) -> None:
        """Show the count."""
        self._show(status)

    def tick(self, frame: Frame, status: Status) -> None:
        """Show the count."""
        self._show(status)

    def skip(self, gap: Gap, status: Status) -> None:
        """Name the loss."""
        self._print(f"skipped {gap.source}: {gap.reason}")

    def close(self) -> None:
        """Nothing is open."""

    def _show(self, status: Status) -> None:
        now = monotonic()
        if self._start is not None and now - self._shown_s >= self._every_s:
            self._shown_s = now
            self._print(line(self._start, status))

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
