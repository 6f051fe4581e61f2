"""All sinks of a run as one: none of them can stop the count."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress

from rbcedge.sinks.base import Sink


class Sinks:
    """The sinks that still work, and the warnings of the run.

    Parameters
    ----------
    sinks : sequence of Sink
    record : callable
        Called with the text of each new warning.
    """

    def __init__(self, sinks: Sequence[Sink], record: Callable[[str], None]) -> None:
        self._sinks, self._record = list(sinks), record
        self.warnings: tuple[str, ...] = ()
        self._kinds: set[str] = set()

    def warn(self, texts: Sequence[str]) -> None:
        """Record warnings, each once however often it comes and whatever figures stand in it."""
        for text in texts:
            kind = re.sub(r"[0-9.]+", "0", text)
            if kind not in self._kinds:
                self._kinds.add(kind)
                self.warnings = (*self.warnings, text)
                self._record(text)

    def each(self, call: Callable[[Sink], None]) -> None:
        """Call every sink; one that fails is named in a warning and left out from then on."""
        for sink in list(self._sinks):
            try:
                call(sink)
            except Exception as error:
                self._sinks.remove(sink)
                self._close(sink)
                self.warn([f"{sink.name}: stopped, the count went on ({_reason(error)})."])

    def close(self) -> None:
        """Close every sink, whatever the others do. A second call finds none."""
        while self._sinks:
            sink = self._sinks.pop()
            try:
                sink.close()
            except Exception as error:
                self.warn([f"{sink.name}: not finished ({_reason(error)})."])

    @staticmethod
    def _close(sink: Sink) -> None:
        # What failed is known already.
        with suppress(Exception):
            sink.close()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__
