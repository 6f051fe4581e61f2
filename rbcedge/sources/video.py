"""Video files: every frame, in order, with its time in the file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

import cv2
from numpy.typing import NDArray

from rbcedge.errors import RbcedgeError
from rbcedge.frame import Frame, Gap
from rbcedge.sources.ahead import Ahead
from rbcedge.sources.base import Kind
from rbcedge.sources.buffers import Buffers, Picture, no_buffers
from rbcedge.sources.capture import Capture, open_file, retrieve
from rbcedge.sources.pixels import frame_to_bgr8

SUFFIXES = frozenset(
    {
        ".avi",
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".mpg",
        ".mpeg",
        ".ts",
        ".mts",
        ".m2ts",
        ".wmv",
        ".asf",
        ".flv",
        ".ogv",
        ".3gp",
        ".mjpg",
        ".mjpeg",
        ".y4m",
        ".h264",
        ".264",
        ".h265",
        ".265",
        ".hevc",
        ".mxf",
        ".dv",
    }
)
# Containers that write the number of frames down. The others only know a duration, so that their
# number of frames is a guess from an average rate.
_COUNTED = frozenset({".avi", ".mp4", ".m4v", ".mov", ".3gp"})


class Video:
    """A video file (or a file on a web server). Opening decodes the first frame.

    Parameters
    ----------
    target : str
        Path or address.
    name : str
        Name of the source in records.
    capture : Capture, optional
        An opened capture; by default OpenCV opens `target`.
    buffers : Buffers, optional
        Pictures to decode into; decoding waits while none is free.

    Raises
    ------
    RbcedgeError
        It cannot be opened, or no frame of it can be decoded.
    """

    def __init__(
        self,
        target: str,
        name: str,
        capture: Capture | None = None,
        open_timeout_s: float = 10.0,
        buffers: Buffers | None = None,
    ) -> None:
        self._name = name
        self._buffers = buffers or no_buffers()
        self._capture = open_file(target, open_timeout_s) if capture is None else capture
        self._lock = Lock()
        self._closed = False
        self._ahead: Ahead[Frame | Gap] | None = None
        first = self._decode(None) if self._capture.isOpened() and self._grab() else None
        if first is None:
            self._capture.release()
            path = Path(target)
            if path.is_file() and path.stat().st_size == 0:
                raise RbcedgeError(f"{target}: empty file (0 bytes)")
            raise RbcedgeError(f"{target}: cannot be read as a video: damaged, cut short, or of an unknown format")
        self._size = first.shape[1], first.shape[0]
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self._fps = fps if math.isfinite(fps) and 0 < fps < 10_000 else 0.0
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._count = int(count) if math.isfinite(count) and 0 < count < 1e9 else 0
        suffix = PurePosixPath(target).suffix.lower()
        self._exact = suffix in _COUNTED
        # Where an AVI is cut, its last frame is decoded from what is there of it, up to three quarters of it wrong.
        # Other containers leave a frame that is not whole out.
        self._partial = suffix == ".avi"
        self._buffers.want(*self._size)

    @property
    def name(self) -> str:
        return self._name

    @property
    def kind(self) -> Kind:
        return "video"

    @property
    def description(self) -> str:
        width, height = self._size
        rate = f" at {self._fps:.4g} fps" if self._fps else ""
        count = f", {self._count} frames" if self._count else ""
        return f"{self._name}: video, {width}x{height}{rate}{count}"

    @property
    def dropped(self) -> int:
        """Always 0: every frame is processed."""
        return 0

    def __len__(self) -> int:
        return self._count

    def _grab(self) -> bool:
        try:
            return self._capture.grab()
        except cv2.error:
            return False

    def _decode(self, place: Picture | None) -> NDArray[Any] | None:
        """Decode the grabbed frame, into `place` where there is one; it may be done twice."""
        try:
            return retrieve(self._capture, self._buffers, place)
        except cv2.error:
            return None

    def _place(self) -> Picture | None:
        """Wait for a picture to decode into; None where none was lent."""
        while not self._closed:
            free = self._buffers.take(wait_s=0.1)
            if free is not None or self._buffers.idle:
                return free
        return None

    def _time(self, index: int, before: float) -> float:
        """Position of the frame just read, in s; by number and rate where the file does not say."""
        position = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
        if math.isfinite(position) and position > before:
            return position
        return before + 1.0 / self._fps if self._fps and index else max(before, 0.0)

    def _read(self) -> Iterator[Frame | Gap]:
        index, time_s = 0, -1.0
        more = True
        try:
            # The first frame is grabbed already.
            while more and (pixels := self._decode(self._place())) is not None:
                time_s = self._time(index, time_s)
                more = self._grab()
                if not more and self._partial and self._missing(index + 1, time_s):
                    break
                yield Frame(index, time_s, frame_to_bgr8(pixels), self._name, self._buffers.holds(pixels))
                index += 1
            missing = self._missing(index, time_s)
            if missing:
                reason = f"the video ends after {index} of {self._count} frames: it is cut short or damaged"
                yield Gap(self._name, reason, frames=missing)
        finally:
            self._capture.release()

    def _missing(self, read: int, last_s: float) -> int:
        """How many frames are missing from a file that ends after `read` of them, at `last_s`.

        A number of frames that was counted is believed to one frame. One that was guessed, an average rate
        times a duration, is believed only when the time is short too, by more than two frames and 1 %.
        """
        missing = self._count - read
        slack = 1 if self._exact else max(2, self._count // 100)
        if missing <= slack:
            return 0
        if not self._exact and self._fps:
            short_s = self._count / self._fps - (last_s + 1.0 / self._fps)
            if short_s <= slack / self._fps:
                return 0
        return missing

    def frames(self) -> Iterator[Frame | Gap]:
        """Yield every frame; the next ones are decoded in the background."""
        with self._lock:
            if self._closed or self._ahead is not None:
                return
            self._ahead = Ahead(self._read(), name="rbcedge-video")
        try:
            for item in self._ahead:
                yield item
                if isinstance(item, Frame):
                    self._buffers.give_back(item.pixels)
        finally:
            self._let_go(self._ahead)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            ahead = self._ahead
        if ahead is not None:
            self._let_go(ahead)
        else:
            self._capture.release()

    def _let_go(self, ahead: Ahead[Frame | Gap]) -> None:
        """End decoding; pictures come back unless the decoder hangs in one."""
        self._closed = True
        ahead.close()
        if not ahead.running:
            self._buffers.reclaim()
