"""One connection to a camera: a thread that opens it, reads without a pause, and keeps the newest picture."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Any

import cv2
from numpy.typing import NDArray

from rbcedge.errors import RbcedgeError
from rbcedge.sources.buffers import Buffers, Picture, no_buffers
from rbcedge.sources.capture import Capture, retrieve
from rbcedge.sources.slot import Slot

# Single grabs fail now and then on a poor cable; so many in a row are a loss.
_FAILED_GRABS = 5
_UNDECODABLE = 50
_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture as captured: how many were captured before it, when (monotonic, s), and its pixels."""

    number: int
    time_s: float
    pixels: NDArray[Any]


class Connection:
    """Reads a capture in a thread of its own from opening to release: no other thread touches the device.

    Until `begin` is called the device is kept drained, so that no stale pictures wait in its queue, and
    nothing is counted.

    Attributes
    ----------
    slot : Slot of Shot
        The newest picture; ends with the connection.
    refused : RbcedgeError or None
        What the opener raised.

    Parameters
    ----------
    opener : callable
        Returns a capture; may block, and may raise RbcedgeError.
    inspect : callable
        Given the capture and its first picture, says in words what was really got.
    first : int, optional
        Begin at once, with this number.
    buffers : Buffers, optional
        Pictures that count are decoded into these. With two of them, one may wait in the slot while the other is
        worked on; when the next picture comes then, the waiting one is dropped for it.
    """

    def __init__(
        self,
        opener: Callable[[], Capture],
        inspect: Callable[[Capture, NDArray[Any]], str],
        first: int | None = None,
        buffers: Buffers | None = None,
    ) -> None:
        self.slot: Slot[Shot] = Slot()
        self.refused: RbcedgeError | None = None
        self._opener = opener
        self._inspect = inspect
        self._buffers = buffers or no_buffers()
        self._granted: Slot[str] = Slot()
        self._retired = Event()
        self._lock = Lock()
        self._counting = first is not None
        self._number = first or 0
        self._undecodable = 0
        self._alive_s = time.monotonic()
        self._lost: str | None = None
        self._thread = Thread(target=self._run, name="rbcedge-capture", daemon=True)
        self._thread.start()

    @property
    def number(self) -> int:
        """How many pictures were captured, counted on from `first`."""
        with self._lock:
            return self._number

    @property
    def alive_s(self) -> float:
        """When the last picture came (monotonic, s); at first, when opening began."""
        with self._lock:
            return self._alive_s

    @property
    def lost(self) -> str | None:
        """Why the connection ended; None while it holds."""
        with self._lock:
            return self._lost

    @property
    def running(self) -> bool:
        """Whether the thread still runs; after `retire` that means it hangs in the driver."""
        return self._thread.is_alive()

    def granted(self, timeout_s: float) -> str | None:
        """Wait for the first picture and say what was got; to be asked once.

        None when the connection was lost before, or after `timeout_s`.
        """
        return self._granted.take(timeout_s)

    def begin(self, number: int = 0) -> None:
        """Count and keep pictures from now on, beginning with `number`."""
        with self._lock:
            self._number = number
            self._counting = True

    def take_undecodable(self) -> int:
        """How many captured pictures could not be decoded since the last call."""
        with self._lock:
            count, self._undecodable = self._undecodable, 0
            return count

    def retire(self, wait_s: float = 0.0) -> None:
        """Tell the thread to release the device and end, and wait so long for it."""
        self._retired.set()
        self._done_with(self.slot.end(discard=True))
        self._granted.end(discard=True)
        if wait_s > 0:
            self._thread.join(wait_s)

    def _run(self) -> None:
        capture: Capture | None = None
        reason = "reading it failed"
        try:
            capture = self._opener()
            reason = self._read(capture) if capture.isOpened() else "it does not open"
        except RbcedgeError as error:
            self.refused = error
            reason = " ".join(str(error).split())
        except (cv2.error, OSError) as error:
            reason = f"the driver failed ({' '.join(str(error).split())})"
        finally:
            if capture is not None:
                capture.release()
            with self._lock:
                self._lost = reason
            self.slot.end()
            self._granted.end()

    def _read(self, capture: Capture) -> str:
        """Read until the connection is retired or lost; return why."""
        failed = undecodable = 0
        proven = False
        while not self._retired.is_set():
            if not capture.grab():
                failed += 1
                if failed >= _FAILED_GRABS:
                    return "no more pictures come from it"
                self._retired.wait(_PAUSE_S)
                continue
            now = time.monotonic()
            failed = 0
            with self._lock:
                counting, number = self._counting, self._number
                self._number += counting
            if not counting and proven:
                with self._lock:
                    self._alive_s = now
                continue
            pixels = retrieve(capture, self._buffers, self._place() if counting else None)
            if pixels is None:
                undecodable += 1
                with self._lock:
                    self._undecodable += counting
                if undecodable >= _UNDECODABLE:
                    return f"none of its last {_UNDECODABLE} pictures could be decoded"
                continue
            undecodable = 0
            with self._lock:
                self._alive_s = now
            if not proven:
                proven = True
                self._granted.put(self._inspect(capture, pixels))
            if counting:
                self._done_with(self.slot.put(Shot(number, now, pixels)))
        return "closed"

    def _place(self) -> Picture | None:
        """Where the next picture is decoded to; None for an array of its own."""
        free = self._buffers.take()
        if free is None and not self._buffers.idle:
            self._done_with(self.slot.recall())
            free = self._buffers.take()
        return free

    def _done_with(self, shot: Shot | None) -> None:
        if shot is not None:
            self._buffers.give_back(shot.pixels)
