"""The cameras of this machine, and what they can do (Linux, V4L2)."""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rbcedge.errors import RbcedgeError

# linux/videodev2.h: request codes carry the size of their struct in bits 16 to 29.
CAPABILITY = struct.Struct("=16s32s32sIII12x")
FORMAT = struct.Struct("=III32sII12x")
FRAME_SIZE = struct.Struct("=III6I8x")
FRAME_INTERVAL = struct.Struct("=IIIII6I8x")


def _code(direction: int, number: int, body: struct.Struct) -> int:
    return direction << 30 | body.size << 16 | ord("V") << 8 | number


QUERYCAP = _code(2, 0, CAPABILITY)
ENUM_FMT = _code(3, 2, FORMAT)
ENUM_FRAMESIZES = _code(3, 74, FRAME_SIZE)
ENUM_FRAMEINTERVALS = _code(3, 75, FRAME_INTERVAL)

_CAPTURE, _DEVICE_CAPS = 0x00000001, 0x80000000
_DISCRETE = 1
_MOST = 256  # no camera lists more; a broken driver may never stop

Ask = Callable[[int, int, bytes], bytes]


@dataclass(frozen=True, slots=True)
class Mode:
    """One pixel format and size: `fourcc`, `width` and `height` in px, `rates` in pictures per second."""

    fourcc: str
    width: int
    height: int
    rates: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera.

    Attributes
    ----------
    number : int
        As in ``--camera N``.
    path : str
    name : str
    modes : tuple of Mode
        Empty where the camera does not tell.
    problem : str
        Why it cannot be used, for example a missing permission; otherwise empty.
    """

    number: int
    path: str
    name: str
    modes: tuple[Mode, ...] = ()
    problem: str = ""


def list_cameras(
    system: Path = Path("/sys/class/video4linux"), devices: Path = Path("/dev"), ask: Ask | None = None
) -> tuple[Camera, ...]:
    """Return the cameras of this machine in the order of their numbers; empty on other systems than Linux.

    Nodes that deliver no pictures (a camera's metadata, encoders) are left out.

    Parameters
    ----------
    system, devices : Path
        Where the kernel lists video devices, and where their nodes are.
    ask : callable, optional
        ``ioctl(fd, request, argument)``, returning the answer's bytes or raising OSError.
    """
    if not sys.platform.startswith("linux"):
        return ()
    ask = _ioctl if ask is None else ask
    numbers = sorted(
        int(p.name[5:]) for p in system.glob("video*") if p.name[5:].isdecimal() and (devices / p.name).exists()
    )
    cameras = (_camera(n, system / f"video{n}", devices / f"video{n}", ask) for n in numbers)
    return tuple(c for c in cameras if c is not None)


def check_device(path: str, cameras: tuple[Camera, ...] | None = None) -> None:
    """Raise RbcedgeError in plain words when there can be no camera at `path`."""
    node = Path(path)
    if not node.exists():
        known = list_cameras() if cameras is None else cameras
        listed = "".join(f"\n  {c.number}  {c.path}  {c.name}" for c in known)
        raise RbcedgeError(
            f"{path}: no such camera. "
            + (f"There are:{listed}" if listed else "No camera was found on this machine: is it plugged in?")
        )
    if not os.access(node, os.R_OK | os.W_OK):
        raise RbcedgeError(f"{path}: {PERMISSION}")


PERMISSION = "permission denied. Add yourself to the group video (sudo usermod -aG video $USER) and log in again."


def _ioctl(fd: int, request: int, argument: bytes) -> bytes:
    import fcntl

    return fcntl.ioctl(fd, request, argument)


def _camera(number: int, system: Path, node: Path, ask: Ask) -> Camera | None:
    try:
        name = (system / "name").read_text(errors="replace").strip()
    except OSError:
        name = ""
    name = name or node.name
    try:
        fd = os.open(node, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        denied = error.errno in (errno.EACCES, errno.EPERM)
        return Camera(number, str(node), name, (), PERMISSION if denied else error.strerror or str(error))
    try:
        if not _delivers_pictures(fd, ask):
            return None
        return Camera(number, str(node), name, tuple(_modes(fd, ask)))
    finally:
        os.close(fd)


def _delivers_pictures(fd: int, ask: Ask) -> bool:
    try:
        answer = CAPABILITY.unpack(ask(fd, QUERYCAP, bytes(CAPABILITY.size)))
    except OSError:
        return False
    of_driver, of_node = answer[4], answer[5]
    return bool((of_node if of_driver & _DEVICE_CAPS else of_driver) & _CAPTURE)


def _answers(fd: int, ask: Ask, request: int, body: struct.Struct, *keys: int) -> Iterator[tuple[int, ...]]:
    """Every entry of one of the driver's lists, until it says that there are no more."""
    for index in range(_MOST):
        try:
            question = struct.pack(f"={1 + len(keys)}I", index, *keys).ljust(body.size, b"\0")
            yield body.unpack(ask(fd, request, question))
        except OSError:
            return


def _modes(fd: int, ask: Ask) -> Iterator[Mode]:
    for kind in _answers(fd, ask, ENUM_FMT, FORMAT, _CAPTURE):
        fourcc = kind[4]
        text = struct.pack("=I", fourcc & 0x7FFFFFFF).decode("ascii", "replace").strip()
        for size in _answers(fd, ask, ENUM_FRAMESIZES, FRAME_SIZE, fourcc):
            # Stepwise: smallest, largest and step of the width, then of the height.
            shown = [(size[3], size[4])] if size[2] == _DISCRETE else [(size[3], size[6]), (size[4], size[7])]
            for width, height in shown:
                rates = _answers(fd, ask, ENUM_FRAMEINTERVALS, FRAME_INTERVAL, fourcc, width, height)
                yield Mode(text, width, height, tuple(_rates(rates)))
            if size[2] != _DISCRETE:
                break


def _rates(intervals: Iterator[tuple[int, ...]]) -> Iterator[float]:
    for interval in intervals:
        numerator, denominator = interval[5], interval[6]
        if numerator:
            yield round(denominator / numerator, 3)
        if interval[4] != _DISCRETE:
            return
