"""The seam to OpenCV's video input: what is used of it, and how each kind of stream is opened."""

from __future__ import annotations

import sys
from typing import Any, Protocol

import cv2
from numpy.typing import NDArray

from rbcedge.errors import RbcedgeError
from rbcedge.sources.buffers import Buffers, Picture


class Capture(Protocol):
    """What is used of ``cv2.VideoCapture``; tests put a device of their own in its place."""

    def isOpened(self) -> bool: ...

    def read(self) -> tuple[bool, NDArray[Any] | None]: ...

    def grab(self) -> bool: ...

    def retrieve(self, image: NDArray[Any] | None = None, /) -> tuple[bool, NDArray[Any] | None]: ...

    def get(self, property_id: int, /) -> float: ...

    def set(self, property_id: int, value: float, /) -> bool: ...

    def release(self) -> None: ...


def retrieve(capture: Capture, buffers: Buffers, picture: Picture | None) -> NDArray[Any] | None:
    """Decode the grabbed picture, into `picture` where it is one of `buffers` and fits; None where that fails.

    OpenCV takes an array of its own where size or type differ; `picture` is then given back.
    """
    ok, pixels = capture.retrieve() if picture is None else capture.retrieve(picture)
    good = ok and pixels is not None and pixels.size > 0
    if picture is not None and not (good and pixels is not None and pixels.ctypes.data == picture.ctypes.data):
        buffers.give_back(picture)
    return pixels if good else None


def open_file(target: str, timeout_s: float = 10.0) -> Capture:
    """Open a video file or address. The result may not be opened; ask it.

    FFmpeg is asked by name where OpenCV has it: the automatic choice takes some names for numbered pictures.
    """
    if cv2.CAP_FFMPEG not in cv2.videoio_registry.getBackends():
        return _plain(cv2.VideoCapture(target))
    parameters = _timeouts(timeout_s) if "://" in target else []
    return _plain(cv2.VideoCapture(target, cv2.CAP_FFMPEG, parameters))


def open_stream(url: str, timeout_s: float = 10.0) -> Capture:
    """Open an ``rtsp://`` or ``http(s)://`` stream; opening and each read end after `timeout_s`."""
    return open_file(url, timeout_s)


def open_device(device: int | str) -> Capture:
    """Open a camera by number or by device path."""
    backend = cv2.CAP_V4L2 if sys.platform.startswith("linux") else cv2.CAP_ANY
    return _plain(cv2.VideoCapture(device, backend))


def open_pipeline(pipeline: str) -> Capture:
    """Open a GStreamer pipeline.

    Raises
    ------
    RbcedgeError
        This OpenCV has no GStreamer.
    """
    if not has_gstreamer():
        raise RbcedgeError(
            "gst: needs an OpenCV that was built with GStreamer, and this one was not.\n"
            "On Jetson use the system's python3-opencv in a venv made with --system-site-packages."
        )
    return _plain(cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER))


def has_gstreamer() -> bool:
    """Whether OpenCV was built with GStreamer (its registry lists the backend even where it was not)."""
    lines = cv2.getBuildInformation().splitlines()
    return any("YES" in line for line in lines if line.strip().startswith("GStreamer:"))


def _timeouts(seconds: float) -> list[int]:
    ms = int(seconds * 1000)
    return [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, ms]


def _plain(capture: Any) -> Capture:
    """Leave errors as return values. The type is checked here, as OpenCV has no usable one."""
    capture.setExceptionMode(False)
    result: Capture = capture
    return result
