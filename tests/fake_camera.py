"""A camera at the OpenCV seam that does what a test tells it."""

from __future__ import annotations

import threading
import time
from collections import deque

import cv2
import numpy as np

_PATIENCE_S = 10.0


class FakeCamera:
    """The device. `capture` opens it; several captures of one device may exist, as after a reconnect.

    Pictures come only when `shoot` is called, so that tests decide what happens when.
    """

    def __init__(self, width: int = 64, height: int = 48) -> None:
        self.changed = threading.Condition()
        self.size = (width, height)
        self.waiting: deque[int | np.ndarray | None] = deque()  # grey level, picture, or undecodable
        self.plugged = True
        self.opens_at = 1  # first attempt to open that succeeds, counted from the last unplugging
        self.attempts = 0
        self.on_open = 1  # pictures that come by themselves after opening
        self.captures: list[FakeCapture] = []
        self.settings: dict[int, float] = {cv2.CAP_PROP_FPS: 30.0}
        self.fixed: set[int] = set()  # properties that cannot be set
        self.finished = False
        self.shot = 0

    def capture(self) -> FakeCapture:
        with self.changed:
            self.attempts += 1
            if self.attempts >= self.opens_at:
                self.plugged = True
            made = FakeCapture(self)
            self.captures.append(made)
            if made.opened:
                self._shoot(self.on_open)
            return made

    def shoot(self, count: int = 1, good: bool = True) -> None:
        """Take pictures; the grey level of each is its number."""
        with self.changed:
            self._shoot(count, good)

    def _shoot(self, count: int, good: bool = True) -> None:
        for _ in range(count):
            self.waiting.append(self.shot % 256 if good else None)
            self.shot += 1
        self.changed.notify_all()

    def settle(self) -> None:
        """Wait until every picture was read and the reader waits for the next."""
        with self.changed:
            done = self.changed.wait_for(lambda: not self.waiting and any(c.idle for c in self.captures), _PATIENCE_S)
        assert done, "the pictures were not read"

    def freeze(self) -> None:
        """Let the captures that exist hang for ever in their next grab, as a stuck driver does."""
        with self.changed:
            for c in self.captures:
                c.hangs = True

    def unplug(self, opens_at: int = 1) -> None:
        with self.changed:
            self.plugged = False
            self.attempts = 0
            self.opens_at = opens_at
            self.waiting.clear()
            for c in self.captures:
                c.opened = False
            self.changed.notify_all()

    def finish(self) -> None:
        """Let everything that hangs go, so that its thread can end."""
        with self.changed:
            self.finished = True
            self.plugged = False
            self.changed.notify_all()

    @property
    def open_captures(self) -> int:
        return sum(not c.released for c in self.captures)


class FakeCapture:
    """What ``cv2.VideoCapture`` is to a real camera. Checks that one thread only uses it."""

    def __init__(self, device: FakeCamera) -> None:
        self.device = device
        self.opened = device.plugged
        self.released = False
        self.hangs = False
        self.idle = False
        self.current: np.ndarray | None = None
        self.thread = threading.get_ident()

    def _mine(self) -> None:
        assert threading.get_ident() == self.thread, "a device is used by the thread that opened it"
        assert not self.released, "used after release"

    def isOpened(self) -> bool:
        self._mine()
        return self.opened

    def grab(self) -> bool:
        self._mine()
        d = self.device
        with d.changed:
            self.idle = True
            d.changed.notify_all()
            d.changed.wait_for(lambda: d.finished or not self.opened or (d.waiting and not self.hangs), _PATIENCE_S)
            self.idle = False
            if d.finished or not self.opened or self.hangs or not d.waiting:
                return False
            taken = d.waiting.popleft()
            width, height = d.size
            self.current = np.full((height, width, 3), taken, np.uint8) if isinstance(taken, int) else taken
            return True

    def retrieve(self, image: np.ndarray | None = None):
        """As OpenCV: into `image` where size and type fit."""
        self._mine()
        if image is not None and self.current is not None and self.current.shape == image.shape:
            image[...] = self.current
            return True, image
        return self.current is not None, self.current

    def read(self):
        return self.retrieve() if self.grab() else (False, None)

    def get(self, property_id: int) -> float:
        self._mine()
        return self.device.settings.get(property_id, -1.0)

    def set(self, property_id: int, value: float) -> bool:
        self._mine()
        if property_id in self.device.fixed:
            return False
        self.device.settings[property_id] = value
        size = {cv2.CAP_PROP_FRAME_WIDTH: 0, cv2.CAP_PROP_FRAME_HEIGHT: 1}.get(property_id)
        if size is not None:
            self.device.size = (int(value), self.device.size[1]) if size == 0 else (self.device.size[0], int(value))
        return True

    def release(self) -> None:
        self._mine()
        with self.device.changed:
            self.released = True
            self.device.changed.notify_all()


def soon(condition, within_s: float = 5.0) -> None:
    """Wait until `condition()` holds; fail when it does not."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
