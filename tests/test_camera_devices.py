"""Listing the cameras of a machine, against a kernel that is made up."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from rbcedge.errors import RbcedgeError
from rbcedge.sources import devices as d
from rbcedge.sources import open_source

CAPTURE, META, DEVICE_CAPS, STREAMING = 0x1, 0x00800000, 0x80000000, 0x04000000
MJPG, YUYV = (struct.unpack("=I", f)[0] for f in (b"MJPG", b"YUYV"))


def test_structs_have_the_sizes_of_the_kernel():
    """Sizes and codes of linux/videodev2.h; the layout has no padding on 32 or 64 bits."""
    assert (d.CAPABILITY.size, d.FORMAT.size, d.FRAME_SIZE.size, d.FRAME_INTERVAL.size) == (104, 64, 44, 52)
    assert d.QUERYCAP == 0x80685600
    assert d.ENUM_FMT == 0xC0405602
    assert d.ENUM_FRAMESIZES == 0xC02C564A
    assert d.ENUM_FRAMEINTERVALS == 0xC034564B


class Kernel:
    """Answers ioctls as a driver does."""

    def __init__(self, of_driver: int, of_node: int = 0) -> None:
        self.caps = (of_driver, of_node)
        self.sizes = {MJPG: [(640, 480), (1280, 720)], YUYV: [(640, 480)]}
        self.rates = {(MJPG, 640, 480): [(1, 30), (1001, 15000)]}

    def __call__(self, fd: int, request: int, argument: bytes) -> bytes:
        os.fstat(fd)  # the node is open
        index, *keys = struct.unpack("=4I", argument[:16])
        try:
            if request == d.QUERYCAP:
                return d.CAPABILITY.pack(b"uvcvideo", b"Cam", b"usb", 0x60100, *self.caps)
            if request == d.ENUM_FMT:
                assert keys[0] == CAPTURE
                return d.FORMAT.pack(index, CAPTURE, 0, b"text", list(self.sizes)[index], 0)
            if request == d.ENUM_FRAMESIZES:
                width, height = self.sizes[keys[0]][index]
                return d.FRAME_SIZE.pack(index, keys[0], 1, width, height, 0, 0, 0, 0)
            assert request == d.ENUM_FRAMEINTERVALS
            over, under = self.rates[tuple(keys)][index]
            return d.FRAME_INTERVAL.pack(index, *keys, 1, over, under, 0, 0, 0, 0)
        except (IndexError, KeyError):
            raise OSError(errno.EINVAL, "Invalid argument") from None


@pytest.fixture
def machine(tmp_path):
    """A machine with nodes 0, 1, 10, and a 2 that is registered without a node."""
    system, devices = tmp_path / "sys", tmp_path / "dev"
    devices.mkdir()
    for number in (0, 1, 2, 10):
        (system / f"video{number}").mkdir(parents=True)
        (system / f"video{number}" / "name").write_text(f"Camera {number}\n")
        if number != 2:
            (devices / f"video{number}").touch()
    return system, devices


def test_cameras_are_listed_with_their_modes(machine):
    system, devices = machine
    cameras = d.list_cameras(system, devices, Kernel(CAPTURE | STREAMING | DEVICE_CAPS, CAPTURE | STREAMING))
    assert [c.number for c in cameras] == [0, 1, 10]
    first = cameras[0]
    assert (first.path, first.name, first.problem) == (str(devices / "video0"), "Camera 0", "")
    assert first.modes == (
        d.Mode("MJPG", 640, 480, (30.0, 14.985)),
        d.Mode("MJPG", 1280, 720, ()),
        d.Mode("YUYV", 640, 480, ()),
    )


def test_nodes_without_pictures_are_left_out(machine):
    # A camera's second node carries metadata only, though the driver as a whole captures.
    assert d.list_cameras(*machine, Kernel(CAPTURE | META | DEVICE_CAPS, META)) == ()
    assert len(d.list_cameras(*machine, Kernel(CAPTURE))) == 3  # old drivers tell of the driver only


def test_stepwise_sizes_are_the_smallest_and_the_largest(machine):
    kernel = Kernel(CAPTURE)

    def ask(fd: int, request: int, argument: bytes) -> bytes:
        if request == d.ENUM_FRAMESIZES:
            return d.FRAME_SIZE.pack(0, MJPG, 3, 32, 1920, 8, 16, 1080, 4)
        return kernel(fd, request, argument)

    modes = d.list_cameras(*machine, ask)[0].modes
    assert [(m.fourcc, m.width, m.height) for m in modes[:2]] == [("MJPG", 32, 16), ("MJPG", 1920, 1080)]


def test_a_driver_that_never_ends_its_list(machine):
    def ask(fd: int, request: int, argument: bytes) -> bytes:
        if request == d.ENUM_FMT:
            return d.FORMAT.pack(0, CAPTURE, 0, b"", MJPG, 0)
        if request == d.QUERYCAP:
            return d.CAPABILITY.pack(b"", b"", b"", 0, CAPTURE, 0)
        raise OSError(errno.ENOTTY, "not supported")

    assert [c.modes for c in d.list_cameras(*machine, ask)] == [()] * 3


def test_no_permission_is_said(machine, monkeypatch):
    def refuse(path, flags):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    cameras = d.list_cameras(*machine)
    assert [c.name for c in cameras] == ["Camera 0", "Camera 1", "Camera 10"]
    assert all("usermod -aG video" in c.problem for c in cameras)


def test_plain_files_are_no_cameras(machine):
    """The real ioctl on something that is no device: an error, not an exception."""
    assert d.list_cameras(*machine) == ()


def test_no_such_camera_lists_those_there_are(tmp_path):
    known = (d.Camera(0, "/dev/video0", "Microscope"), d.Camera(2, "/dev/video2", "Webcam"))
    with pytest.raises(RbcedgeError) as caught:
        d.check_device(str(tmp_path / "video9"), known)
    text = str(caught.value)
    assert "no such camera" in text
    assert "0  /dev/video0  Microscope" in text
    assert "2  /dev/video2  Webcam" in text
    with pytest.raises(RbcedgeError, match="No camera was found on this machine"):
        d.check_device(str(tmp_path / "video9"), ())


def test_no_permission_for_the_camera_asked_for(tmp_path, monkeypatch):
    (tmp_path / "video0").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(RbcedgeError, match="group video"):
        d.check_device(str(tmp_path / "video0"), ())


@pytest.mark.parametrize("uri", ["77", "camera:77", "v4l2:///dev/video77", "/dev/video77"])
def test_opening_a_camera_that_is_not_there(uri, capfd):
    if Path("/dev/video77").exists():
        pytest.skip("this machine has 78 cameras")
    with pytest.raises(RbcedgeError, match="/dev/video77: no such camera"):
        open_source(uri)
    assert capfd.readouterr().err == ""


def test_opening_something_that_is_no_camera(capfd):
    """OpenCV's own V4L2 code on a device that is not a camera."""
    with pytest.raises(RbcedgeError, match=r"/dev/null: it does not open\. Another program"):
        open_source("/dev/null")
    assert capfd.readouterr().err == ""
