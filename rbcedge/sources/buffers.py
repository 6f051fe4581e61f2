"""Pictures that are lent to a source to decode into, so that nobody need copy them afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Condition

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


class Buffers:
    """Pictures in turn: while one is worked on, the next is decoded into another.

    A picture is free, or taken: from `take` until `give_back` it belongs to one picture of the source, and nothing
    else is written there. Where none is free or of the right size, `take` gives None, and the source uses an array of
    its own. Used from two threads: the source's, which takes, and the one that works on frames.

    Parameters
    ----------
    make : callable (width, height) -> pictures
        Makes the (height, width, 3) uint8 pictures of a size; called in the thread of `want` and `lend`. The same
        ones for the same size, valid for as long as one of them may be taken.
    """

    def __init__(self, make: Callable[[int, int], Sequence[Picture]]) -> None:
        self._make = make
        self._changed = Condition()
        self._wanted = self._closed = False
        self._size = (0, 0)
        self._free: list[Picture] = []
        self._taken: dict[int, tuple[Picture, tuple[int, int]]] = {}

    @property
    def wanted(self) -> bool:
        """Whether a source decodes into them."""
        return self._wanted

    @property
    def idle(self) -> bool:
        """Whether none is taken, so that nobody writes into one any more."""
        with self._changed:
            return not self._taken

    def want(self, width: int, height: int) -> None:
        """Say that a source will decode into pictures of this size; makes them."""
        self._wanted = True
        self.lend(width, height)

    def lend(self, width: int, height: int) -> None:
        """Give pictures of this size from now on. Those of other sizes that are taken stay as they are."""
        if self._closed or not self._wanted or self._size == (width, height):
            return
        made = self._make(width, height)
        with self._changed:
            self._size = (width, height)
            self._free = [p for p in made if p.ctypes.data not in self._taken]
            self._changed.notify_all()

    def take(self, wait_s: float = 0.0) -> Picture | None:
        """Return a free picture to decode into; None where there is none, or after `wait_s`."""
        deadline = time.monotonic() + wait_s
        with self._changed:
            while not self._free:
                left = deadline - time.monotonic()
                if self._closed or not self._taken or left <= 0:
                    return None
                self._changed.wait(left)
            if self._closed:
                return None
            picture = self._free.pop(0)
            self._taken[picture.ctypes.data] = (picture, self._size)
            return picture

    def give_back(self, pixels: Picture) -> None:
        """Say that a picture is done with. An array that is not one of these is none of our business."""
        with self._changed:
            picture, size = self._taken.pop(pixels.ctypes.data, (None, (0, 0)))
            if picture is not None and size == self._size and not self._closed:
                self._free.append(picture)
            self._changed.notify_all()

    def reclaim(self) -> None:
        """Say that a source is closed and its thread has ended: whatever it took is free again."""
        with self._changed:
            self._free += [p for p, size in self._taken.values() if size == self._size and not self._closed]
            self._taken.clear()
            self._changed.notify_all()

    def holds(self, pixels: Picture) -> bool:
        """Whether an array is one of those that are taken."""
        with self._changed:
            return pixels.ctypes.data in self._taken

    def close(self) -> None:
        """Give no more pictures; whoever waits for one goes on without."""
        with self._changed:
            self._closed = True
            self._free.clear()
            self._changed.notify_all()


def no_buffers() -> Buffers:
    """Return buffers that hold no picture: every array is the source's own."""
    return Buffers(lambda width, height: ())
