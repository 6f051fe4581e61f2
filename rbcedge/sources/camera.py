"""Cameras, network streams and GStreamer pipelines: how each is opened, asked and described."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import cv2
from numpy.typing import NDArray

from rbcedge.errors import UsageError
from rbcedge.sources.buffers import Buffers
from rbcedge.sources.capture import Capture, open_device, open_pipeline, open_stream
from rbcedge.sources.devices import Camera, check_device, list_cameras
from rbcedge.sources.live import Live
from rbcedge.sources.options import SourceOptions

# V4L2_CID_EXPOSURE_AUTO and the unit of V4L2_CID_EXPOSURE_ABSOLUTE (linux/v4l2-controls.h).
_MANUAL, _AUTO = 1.0, (3.0, 0.0)
_EXPOSURE_UNITS_PER_MS = 10.0


def camera(
    uri: str,
    options: SourceOptions,
    opener: Callable[[], Capture] | None = None,
    buffers: Buffers | None = None,
) -> Live:
    """Open a camera: ``0``, ``camera:0``, ``/dev/video0`` or ``v4l2:///dev/video0``.

    Parameters
    ----------
    uri : str
    options : SourceOptions
    opener : callable, optional
        Opens the device; by default OpenCV does, after looking whether it is there.
    buffers : Buffers, optional
        Pictures to decode into.

    Raises
    ------
    UsageError
        `uri` names no device.
    RbcedgeError
        No such camera, no permission, or no picture.
    """
    device = device_of(uri)
    known = list_cameras() if opener is None else ()
    label = next((f" ({c.name})" for c in known if c.path == device), "")
    name = f"camera {device.removeprefix('/dev/video')}" if device.startswith("/dev/video") else device

    def open_it() -> Capture:
        capture = _open_node(device, known) if opener is None else opener()
        if capture.isOpened():
            request(capture, options)
        return capture

    hint = "Another program may be using it; if none does, unplug it and plug it in again."
    return Live(f"{name}{label}", open_it, lambda c, p: granted(c, p, options), options, hint, buffers)


def network(
    url: str,
    options: SourceOptions,
    opener: Callable[[], Capture] | None = None,
    buffers: Buffers | None = None,
) -> Live:
    """Open an ``rtsp://`` or ``http(s)://`` stream.

    Raises
    ------
    RbcedgeError
        It does not answer, or gives no picture.
    """
    open_it = opener or (lambda: open_stream(url, max(options.open_timeout_s, options.silence_s)))
    hint = "Check the address, the network, and the user and password if it needs them."
    return Live(without_password(url), open_it, lambda c, p: granted(c, p, SourceOptions()), options, hint, buffers)


def pipeline(
    uri: str,
    options: SourceOptions,
    opener: Callable[[], Capture] | None = None,
    buffers: Buffers | None = None,
) -> Live:
    """Open a GStreamer pipeline, ``gst:…``; one without a sink gets an appsink that keeps the newest picture.

    Raises
    ------
    RbcedgeError
        OpenCV has no GStreamer, or the pipeline does not run.
    """
    text = uri.partition(":")[2].strip()
    if not text:
        raise UsageError("gst: needs a pipeline, for example gst:nvarguscamerasrc ! nvvidconv ! videoconvert")
    if "appsink" not in text:
        text += " ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
    open_it = opener or (lambda: open_pipeline(text))
    hint = "Try the pipeline with gst-launch-1.0."
    return Live("gst", open_it, lambda c, p: granted(c, p, SourceOptions()), options, hint, buffers)


def device_of(uri: str) -> str:
    """Path of the device that `uri` names (a number where the system has no device paths).

    Raises
    ------
    UsageError
        It names none.
    """
    scheme, colon, rest = uri.partition(":")
    if not colon:
        rest = uri
    elif scheme.lower() == "v4l2":
        rest = rest.removeprefix("//")
    if rest.isascii() and rest.isdecimal():
        return f"/dev/video{int(rest)}"
    if rest.startswith("/dev/") and len(rest) > len("/dev/"):
        return rest
    raise UsageError(f"{uri}: a camera is given as 0, camera:0, /dev/video0 or v4l2:///dev/video0")


def without_password(url: str) -> str:
    """`url` as it may be shown and recorded: a password in it is hidden."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at or ":" not in user:
        return url
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:***@{host}"))


def _open_node(device: str, known: tuple[Camera, ...]) -> Capture:
    """Open a device path; a camera that came back under another number is found by its name."""
    if not sys.platform.startswith("linux"):
        return open_device(int(device.removeprefix("/dev/video")))
    if not Path(device).exists():
        was = next((c.name for c in known if c.path == device), None)
        same = [c for c in list_cameras() if c.name == was]
        if was is not None and len(same) == 1 and sum(c.name == was for c in known) == 1:
            device = same[0].path
    check_device(device)
    return open_device(device)


def request(capture: Capture, options: SourceOptions) -> None:
    """Ask a camera for what was wanted. It may refuse any of it: `granted` tells.

    The pixel format goes first, as it decides which sizes there are; the size decides the rates.
    """
    if options.fourcc is not None:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*options.fourcc))
    if options.width is not None and options.height is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, options.width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, options.height)
    if options.fps is not None:
        capture.set(cv2.CAP_PROP_FPS, options.fps)
    automatic = options.auto_exposure
    if automatic is None and options.exposure_ms is not None:
        automatic = False
    if automatic is True:
        any(capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, mode) for mode in _AUTO)
    elif automatic is False:
        capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, _MANUAL)
    if options.exposure_ms is not None and not automatic:
        capture.set(cv2.CAP_PROP_EXPOSURE, options.exposure_ms * _EXPOSURE_UNITS_PER_MS)
    if options.gain is not None:
        capture.set(cv2.CAP_PROP_GAIN, options.gain)


def granted(capture: Capture, pixels: NDArray[Any], options: SourceOptions) -> str:
    """Say what a camera really gives, and after "asked for" what it does not give as requested.

    The size is that of the first picture; the rest is what the driver reports.
    """
    height, width = pixels.shape[:2]
    missed: list[str] = []
    if options.size is not None and options.size != (width, height):
        missed.append(f"{options.width}x{options.height}")
    text = f"{width}x{height}"
    fps = _reported(capture, cv2.CAP_PROP_FPS)
    if fps is not None and 0 < fps < 10_000:
        text += f" at {fps:.4g} fps"
    if options.fps is not None and (fps is None or abs(fps - options.fps) > 0.01 * options.fps):
        missed.append(f"{options.fps:g} fps")
    fourcc = _fourcc(capture)
    text += f", {fourcc}" if fourcc else ""
    if options.fourcc is not None and fourcc != options.fourcc:
        missed.append(options.fourcc)
    if options.exposure_ms is not None:
        units = _reported(capture, cv2.CAP_PROP_EXPOSURE)
        got = None if units is None else units / _EXPOSURE_UNITS_PER_MS
        text += "" if got is None else f", exposure {got:g} ms"
        if got is None or abs(got - options.exposure_ms) > 0.05 * options.exposure_ms:
            missed.append(f"exposure {options.exposure_ms:g} ms")
    if options.auto_exposure is not None:
        mode = _reported(capture, cv2.CAP_PROP_AUTO_EXPOSURE)
        if mode is None or (mode != _MANUAL) != options.auto_exposure:
            missed.append(f"{'automatic' if options.auto_exposure else 'manual'} exposure")
    if options.gain is not None:
        gain = _reported(capture, cv2.CAP_PROP_GAIN)
        text += "" if gain is None else f", gain {gain:g}"
        if gain is None or abs(gain - options.gain) > 0.01 * max(1.0, abs(options.gain)):
            missed.append(f"gain {options.gain:g}")
    return text + (f" (asked for {', '.join(missed)}, which it does not give)" if missed else "")


def _reported(capture: Capture, property_id: int) -> float | None:
    """A property; None where the driver does not know it (OpenCV returns -1, or 0 for unsupported ones)."""
    value = capture.get(property_id)
    return value if math.isfinite(value) and value >= 0 else None


def _fourcc(capture: Capture) -> str:
    value = _reported(capture, cv2.CAP_PROP_FOURCC)
    if not value or value >= 2**32:
        return ""
    text = struct.pack("<I", int(value)).decode("ascii", "replace").strip("\0 ")
    return text if text.isprintable() and text.isascii() else ""
