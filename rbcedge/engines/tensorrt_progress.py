"""Signs of life while an engine is built, on the error stream."""

from __future__ import annotations

import sys

#: Seconds between two lines where the output is a file or a log.
_EVERY = 30.0


class Ticker:
    """One line that ticks on a terminal; a line now and then elsewhere. See `tensorrt_building.Progress`."""

    def __init__(self) -> None:
        self._what = ""
        self._shown = 0.0
        self._ticking = False

    def begin(self, what: str, expected: float | None) -> None:
        """Announce a build."""
        self._what, self._shown = what, 0.0
        known = "it can take minutes" if expected is None else f"last time it took {clock(expected)}"
        self.tell(f"building the TensorRT engine: {what} ({known}; Ctrl-C ends it)")

    def update(self, seconds: float, phase: str) -> None:
        """Show the time that has gone by."""
        if sys.stderr is None:
            return
        text = f"{self._what}: {clock(seconds)}" + (f", {phase}" if phase else "")
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{text[:100]}")
            sys.stderr.flush()
            self._ticking = True
        elif seconds - self._shown >= _EVERY:
            self._shown = seconds
            self.tell(text)

    def end(self) -> None:
        """Clear the ticking line."""
        if self._ticking and sys.stderr is not None:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self._ticking = False

    def tell(self, line: str) -> None:
        """Write one line."""
        self.end()
        if sys.stderr is not None:
            sys.stderr.write(f"rbcedge: {line}\n")
            sys.stderr.flush()


def clock(seconds: float) -> str:
    """Write seconds as minutes and seconds: "2:07"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
