"""A live source: the newest picture wins, a loss is recorded and mended."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterator
from threading import Event, Lock
from typing import Any

from numpy.typing import NDArray

from rbcedge.errors import RbcedgeError
from rbcedge.frame import Frame, Gap
from rbcedge.sources.base import Kind
from rbcedge.sources.buffers import Buffers, no_buffers
from rbcedge.sources.capture import Capture
from rbcedge.sources.connection import Connection, Shot
from rbcedge.sources.options import SourceOptions
from rbcedge.sources.pixels import frame_to_bgr8

# Threads that hang in a driver cannot be ended; so many are left behind before no new one is started.
_MOST_HANGING = 3


class Live:
    """A camera or a stream. Opening waits for the first picture.

    A loss (no pictures, an error, or silence for `SourceOptions.silence_s`) gives one `Gap` at once, with the
    silence so far, and after the return, or the end, a second one with the rest: their seconds add up to the
    time without pictures. In between it is opened again and again, with growing pauses.

    Parameters
    ----------
    name : str
        Name of the source in records.
    opener : callable
        Opens the device with everything that was asked of it. Called in the capture thread.
    inspect : callable
        Given the capture and its first picture, says in words what was really got.
    options : SourceOptions
    hint : str
        What the user may do where it does not open.
    buffers : Buffers, optional
        Pictures to decode into.

    Raises
    ------
    RbcedgeError
        It does not open, or gives no picture.
    """

    def __init__(
        self,
        name: str,
        opener: Callable[[], Capture],
        inspect: Callable[[Capture, NDArray[Any]], str],
        options: SourceOptions,
        hint: str = "",
        buffers: Buffers | None = None,
    ) -> None:
        self._name = name
        self._opener = opener
        self._inspect = inspect
        self._options = options
        self._stop = Event()
        self._lock = Lock()
        self._started = False
        self._hanging: list[Connection] = []
        self._dropped = 0
        self._buffers = buffers or no_buffers()
        self._first_size = (0, 0)
        self._connection = Connection(opener, self._look, buffers=self._buffers)
        try:
            granted = self._connection.granted(options.open_timeout_s)
        except BaseException:
            self._connection.retire()
            raise
        if granted is None:
            reason = self._connection.lost or f"it gave no picture within {options.open_timeout_s:g} s"
            self._connection.retire(wait_s=1.0)
            if self._connection.refused is not None:
                raise self._connection.refused
            raise RbcedgeError(f"{name}: {reason}. {hint}".rstrip())
        self._granted = granted
        self._buffers.want(*self._first_size)
        # A thread inside a driver while the interpreter ends would abort the process.
        atexit.register(self.close)

    def _look(self, capture: Capture, pixels: NDArray[Any]) -> str:
        """In the capture thread, before anybody is told of the first picture."""
        self._first_size = (pixels.shape[1], pixels.shape[0])
        return self._inspect(capture, pixels)

    @property
    def name(self) -> str:
        return self._name

    @property
    def kind(self) -> Kind:
        return "live"

    @property
    def description(self) -> str:
        """What was really got, and where that differs from the request. Changes when a camera comes back."""
        return f"{self._name}: {self._granted}"

    @property
    def dropped(self) -> int:
        """Pictures that were captured and never handed out, because newer ones came."""
        with self._lock:
            return self._dropped + self._connection.slot.dropped

    def __len__(self) -> int:
        return 0

    def frames(self) -> Iterator[Frame | Gap]:
        """Yield the newest picture whenever one is wanted, and gaps.

        Raises
        ------
        RbcedgeError
            `SourceOptions.retries` attempts to reconnect failed.
        """
        with self._lock:
            if self._started or self._stop.is_set():
                return iter(())
            self._started = True
        # Counting begins with the call, not with the first picture that is asked for.
        self._connection.begin()
        return self._frames(time.monotonic())

    def _frames(self, begun_s: float) -> Iterator[Frame | Gap]:
        try:
            while not self._stop.is_set():
                connection = self._connection
                silent_s = time.monotonic() - max(connection.alive_s, begun_s)
                shot = connection.slot.take(max(0.0, self._options.silence_s - silent_s))
                undecodable = connection.take_undecodable()
                if undecodable:
                    yield Gap(self._name, "pictures that could not be decoded", frames=undecodable)
                if shot is not None:
                    yield self._framed(shot)
                    self._buffers.give_back(shot.pixels)
                elif self._stop.is_set():
                    return
                else:
                    last_s = max(connection.alive_s, begun_s)
                    if connection.slot.ended:
                        yield from self._reconnect(last_s, connection.lost or "it ended")
                    elif time.monotonic() - last_s >= self._options.silence_s:
                        yield from self._reconnect(last_s, f"no picture for {self._options.silence_s:g} s")
        finally:
            self.close()

    def _framed(self, shot: Shot) -> Frame | Gap:
        try:
            pixels = frame_to_bgr8(shot.pixels)
        except ValueError as error:
            return Gap(self._name, str(error))
        return Frame(shot.number, shot.time_s, pixels, self._name, self._buffers.holds(pixels))

    def _reconnect(self, last_s: float, reason: str) -> Iterator[Frame | Gap]:
        """Record the loss, open the device again, record the rest of the time lost."""
        # Mostly the thread has ended already, and the device is free.
        self._connection.retire(wait_s=0.2)
        number = self._connection.number
        told_s = time.monotonic()
        yield Gap(self._name, f"{reason}; trying again", frames=0, seconds=told_s - last_s)
        pause_s = self._options.retry_first_s
        attempts = 0
        while not self._stop.wait(pause_s):
            pause_s = min(2 * pause_s, self._options.retry_longest_s)
            attempts += 1
            granted = self._open_again(number)
            if self._stop.is_set():
                break
            if granted is not None:
                self._granted = granted
                back_s = self._connection.alive_s
                yield Gap(self._name, f"back: {granted}", frames=0, seconds=max(0.0, back_s - told_s))
                return
            reason = self._connection.lost or "it gives no picture"
            self._connection.retire(wait_s=0.2)
            if self._options.retries is not None and attempts >= self._options.retries:
                yield Gap(self._name, f"given up: {reason}", frames=0, seconds=time.monotonic() - told_s)
                raise RbcedgeError(f"{self._name}: lost, and {attempts} attempts to reconnect failed: {reason}")
        yield Gap(self._name, "still lost at the end", frames=0, seconds=time.monotonic() - told_s)

    def _open_again(self, number: int) -> str | None:
        """Try once. None when it does not open, or while too many earlier attempts hang in the driver."""
        with self._lock:
            self._hanging = [c for c in (*self._hanging, self._connection) if c.running]
            if self._stop.is_set() or len(self._hanging) >= _MOST_HANGING:
                return None
            self._dropped += self._connection.slot.dropped
            self._connection = Connection(self._opener, self._look, number, self._buffers)
        return self._connection.granted(self._options.open_timeout_s)

    def close(self) -> None:
        """Release the device; a `frames` that waits ends. Safe to call twice and from another thread."""
        with self._lock:
            first = not self._stop.is_set()
            self._stop.set()
            connection = self._connection
        connection.retire(wait_s=2.0 if first else 0.0)
        if first and not any(c.running for c in (connection, *self._hanging)):
            self._buffers.reclaim()
        atexit.unregister(self.close)
