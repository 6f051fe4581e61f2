"""Help for tests of things that run threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_thread_left(within_s: float = 5.0) -> Iterator[None]:
    """Fail when a thread that was started inside is still running `within_s` after the end."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + within_s
    left: set[threading.Thread] = set()
    while time.monotonic() < deadline:
        left = {t for t in threading.enumerate() if t not in before and t.is_alive()}
        if not left:
            return
        time.sleep(0.01)
    raise AssertionError(f"threads still running: {sorted(t.name for t in left)}")
