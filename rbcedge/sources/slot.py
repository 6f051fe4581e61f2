"""A slot of one: the newest wins."""

from __future__ import annotations

import time
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class Slot(Generic[T]):
    """Hands items from a fast producer to a slower consumer; an item that was not taken in time is dropped.

    One thread puts, another takes.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._item: T | None = None
        self._ended = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """How many items were replaced before anybody took them."""
        with self._changed:
            return self._dropped

    @property
    def ended(self) -> bool:
        """Whether no item waits and none will come."""
        with self._changed:
            return self._ended and self._item is None

    def put(self, item: T) -> T | None:
        """Leave `item` for the consumer; return what it takes the place of, after the end `item` itself."""
        with self._changed:
            if self._ended:
                return item
            self._dropped += self._item is not None
            replaced, self._item = self._item, item
            self._changed.notify_all()
            return replaced

    def recall(self) -> T | None:
        """Take the item that waits away from the consumer, as dropped; None where none does."""
        with self._changed:
            self._dropped += self._item is not None
            item, self._item = self._item, None
            return item

    def take(self, timeout_s: float | None = None) -> T | None:
        """Wait for an item. None when none came within `timeout_s`, or none will come any more."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while self._item is None and not self._ended:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)
            item, self._item = self._item, None
            return item

    def end(self, discard: bool = False) -> T | None:
        """Say that nothing more will come. What waits can still be taken, unless it is to be dropped and returned."""
        with self._changed:
            self._ended = True
            dropped = None
            if discard:
                self._dropped += self._item is not None
                dropped, self._item = self._item, None
            self._changed.notify_all()
            return dropped
