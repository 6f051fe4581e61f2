"""Keep libraries written in C from scribbling over the screen."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def native_silence() -> Iterator[None]:
    """Send what native libraries write to the error stream nowhere; Python's own `sys.stderr` still reaches it.

    LiteRT announces each network it prepares, JPEG and video decoders complain of each flaw. Whatever matters of
    that comes back as a return value and is told in our own words; their lines would tear up a live view.
    """
    try:
        number = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        # Nothing to separate: errors are written into memory (tests) or nowhere.
        yield
        return
    sys.stderr.flush()
    kept = os.dup(number)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    before = sys.stderr
    os.dup2(nowhere, number)
    os.close(nowhere)
    sys.stderr = os.fdopen(kept, "w", buffering=1, encoding=before.encoding, errors=before.errors, closefd=False)
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = before
        os.dup2(kept, number)
        os.close(kept)
