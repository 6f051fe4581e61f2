"""Work ahead: an iterator that runs in a thread of its own, a bounded number of items before its reader."""

from __future__ import annotations

import atexit
from collections import deque
from collections.abc import Iterator
from threading import Condition, Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Iterate over `items` while a thread prepares the next ones. Order is kept; errors reach the reader.

    Parameters
    ----------
    items : iterator
        Consumed in the background thread, and closed there if it is a generator.
    waiting : int
        How many finished items may wait; the thread pauses when they do.
    name : str
        Of the thread.
    """

    def __init__(self, items: Iterator[T], waiting: int = 2, name: str = "rbcedge-ahead") -> None:
        self._items = items
        self._waiting = waiting
        self._ready: deque[T] = deque()
        self._changed = Condition()
        self._closed = False
        self._finished = False
        self._error: BaseException | None = None
        self._thread = Thread(target=self._work, name=name, daemon=True)
        # A thread inside a decoder while the interpreter ends would abort the process.
        atexit.register(self.close)
        self._thread.start()

    def _work(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or len(self._ready) < self._waiting)
                    if self._closed:
                        return
                    self._ready.append(item)
                    self._changed.notify_all()
        except BaseException as error:
            self._error = error
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
            with self._changed:
                self._finished = True
                self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._finished or bool(self._ready))
            if self._closed:
                raise StopIteration
            if self._ready:
                item = self._ready.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            raise StopIteration

    @property
    def running(self) -> bool:
        """Whether the thread still runs; after `close` that means it hangs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop the thread and wait for the item in hand. Safe to call twice and from another thread."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join(timeout=5.0)
        atexit.unregister(self.close)
