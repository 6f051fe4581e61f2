"""Ctrl-C and the stop of a service: the first ends a run cleanly, the second at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

_SHOW_CURSOR = "\x1b[?25h"


@contextmanager
def stopping() -> Iterator[Event]:
    """Yield an event that SIGINT or SIGTERM sets. The same signal once more ends the process with 128 + its
    number.

    Nothing is lost by that: every field was on disk before it was shown.
    """
    stop, asked = Event(), Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            if sys.stdout.isatty():
                os.write(sys.stdout.fileno(), _SHOW_CURSOR.encode())
            os._exit(128 + number)
        asked.set()
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
