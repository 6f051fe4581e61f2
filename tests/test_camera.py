"""Live capture against a fake device: newest wins, losses, returns, hanging drivers."""

from __future__ import annotations

import threading
import time
from itertools import islice

import cv2
import numpy as np
import pytest
from fake_camera import FakeCamera, soon
from thread_check import no_thread_left

from rbcedge.errors import RbcedgeError, UsageError
from rbcedge.frame import Frame, Gap
from rbcedge.sources import SourceOptions
from rbcedge.sources.camera import camera, device_of, pipeline, without_password
from rbcedge.sources.live import Live

QUICK = SourceOptions(open_timeout_s=5, silence_s=5, retry_first_s=0.01, retry_longest_s=0.04)
WATCHFUL = SourceOptions(open_timeout_s=5, silence_s=0.1, retry_first_s=0.01, retry_longest_s=0.04)


@pytest.fixture
def device():
    """A camera; at the end everything is released and no thread is left."""
    fake = FakeCamera()
    with no_thread_left():
        yield fake
        fake.finish()
    assert fake.open_captures == 0


def opened(device: FakeCamera, options: SourceOptions = QUICK) -> Live:
    return camera("camera:7", options, opener=device.capture)


def close(source: Live, device: FakeCamera) -> None:
    """Close `source`; its thread waits for a picture that will not come, so it is let go first."""
    device.finish()
    source.close()


def level(frame: Frame) -> int:
    return int(frame.pixels[0, 0, 0])


def test_pictures_arrive_with_number_time_and_name(device):
    source = opened(device)
    assert source.kind == "live"
    assert source.name == "camera 7"
    assert len(source) == 0
    frames = source.frames()
    before = time.monotonic()
    got = []
    for _ in range(3):
        device.shoot()
        got.append(next(frames))
    close(source, device)
    assert [f.index for f in got] == [0, 1, 2]
    assert [level(f) for f in got] == [1, 2, 3]  # the first was the proof that the camera works
    times = [f.time_s for f in got]
    assert before <= times[0] <= times[1] <= times[2] <= time.monotonic()
    assert source.dropped == 0
    assert list(frames) == []


def test_pictures_before_the_start_are_not_counted(device):
    source = opened(device)
    device.shoot(5)
    device.settle()
    frames = source.frames()
    device.shoot()
    first = next(frames)
    assert (first.index, level(first)) == (0, 6)
    assert source.dropped == 0
    close(source, device)


def test_slow_consumer_gets_the_newest_and_the_rest_is_counted(device):
    source = opened(device)
    frames = source.frames()
    device.shoot()
    assert next(frames).index == 0
    device.shoot(9)
    device.settle()
    newest = next(frames)
    assert (newest.index, level(newest)) == (9, 10)
    assert source.dropped == 8
    device.shoot()
    assert next(frames).index == 10
    close(source, device)


def test_undecodable_pictures_are_gaps(device):
    source = opened(device)
    frames = source.frames()
    device.shoot(2, good=False)
    device.shoot()
    gap, frame = islice(frames, 2)
    assert isinstance(gap, Gap)
    assert gap.frames == 2
    assert frame.index == 2
    close(source, device)


def test_a_change_of_size_passes_through(device):
    source = opened(device)
    frames = source.frames()
    device.shoot()
    assert next(frames).size == (64, 48)
    device.size = (32, 24)
    device.shoot()
    assert next(frames).size == (32, 24)
    close(source, device)


def test_unplugged_and_returned(device):
    source = opened(device)
    frames = source.frames()
    device.shoot(3)
    device.settle()
    assert next(frames).index == 2
    lost_after = time.monotonic()
    device.unplug(opens_at=4)
    lost, back, frame = islice(frames, 3)
    assert isinstance(lost, Gap)
    assert "trying again" in lost.reason
    assert isinstance(back, Gap)
    assert "back: 64x48" in back.reason
    assert (lost.frames, back.frames) == (0, 0)
    # The two gaps together are the time without pictures, no more and no less.
    assert isinstance(frame, Frame)
    assert 0.03 < lost.seconds + back.seconds <= frame.time_s - lost_after + 0.5
    assert frame.time_s - (lost.seconds + back.seconds) <= lost_after
    assert frame.index == 3
    assert device.attempts == 4
    device.shoot()
    assert next(frames).index == 4
    close(source, device)


def test_hanging_driver_counts_as_lost(device):
    source = opened(device, WATCHFUL)
    frames = source.frames()
    device.shoot()
    assert isinstance(next(frames), Frame)
    device.freeze()
    lost, back, frame = islice(frames, 3)
    assert "no picture for 0.1 s" in lost.reason
    assert lost.seconds >= 0.1
    assert isinstance(back, Gap)
    assert isinstance(frame, Frame)
    close(source, device)


def test_hanging_threads_do_not_pile_up(device):
    source = opened(device, SourceOptions(open_timeout_s=0.03, silence_s=0.03, retry_first_s=0.01))
    frames = source.frames()
    device.shoot()
    next(frames)
    device.freeze()
    device.on_open = 0  # every later capture opens and then gives nothing
    assert isinstance(next(frames), Gap)
    closer = threading.Timer(1.0, source.close)
    closer.start()
    (last,) = list(frames)
    assert "still lost at the end" in last.reason
    assert len(device.captures) <= 4
    device.finish()
    closer.join()


def test_gives_up_where_asked_to(device):
    options = SourceOptions(open_timeout_s=5, retry_first_s=0.01, retry_longest_s=0.01, retries=3)
    source = opened(device, options)
    frames = source.frames()
    device.shoot()
    next(frames)
    device.unplug(opens_at=100)
    assert "trying again" in next(frames).reason
    assert "given up" in next(frames).reason
    with pytest.raises(RbcedgeError, match="camera 7: lost, and 3 attempts"):
        next(frames)
    assert device.attempts == 3


def test_close_from_another_thread_ends_a_waiting_reader(device):
    source = opened(device)
    items: list[Frame | Gap] = []
    reader = threading.Thread(target=lambda: items.extend(source.frames()))
    reader.start()
    soon(lambda: source._started)
    source.close()
    source.close()
    device.finish()
    reader.join(5)
    assert not reader.is_alive()
    assert items == []
    assert list(source.frames()) == []


def test_close_while_lost_records_the_time(device):
    source = opened(device)
    frames = source.frames()
    device.shoot()
    next(frames)
    device.unplug(opens_at=10**9)
    first = next(frames)
    closer = threading.Timer(0.1, source.close)
    closer.start()
    rest = list(frames)
    closer.join()
    assert [type(r) for r in rest] == [Gap]
    assert rest[0].seconds > 0.05
    assert first.seconds >= 0


def test_does_not_open(device):
    device.plugged = False
    device.opens_at = 10**9
    with pytest.raises(RbcedgeError, match=r"camera 7: it does not open. Another program"):
        opened(device)


def test_opens_but_gives_no_picture(device):
    device.on_open = 0
    with pytest.raises(RbcedgeError, match=r"camera 7: it gave no picture within 0\.05 s"):
        opened(device, SourceOptions(open_timeout_s=0.05))
    device.finish()


def test_driver_errors_are_told(device):
    def broken():
        raise cv2.error("the driver\nsays no")

    with pytest.raises(RbcedgeError, match=r"the driver failed \(the driver says no"):
        camera("0", QUICK, opener=broken)


def test_requests_are_made_and_what_is_refused_is_said(device):
    device.fixed = {
        cv2.CAP_PROP_EXPOSURE,
        cv2.CAP_PROP_FPS,
        cv2.CAP_PROP_FRAME_WIDTH,
        cv2.CAP_PROP_FRAME_HEIGHT,
    }
    source = opened(device, SourceOptions(width=1280, height=720, fps=60, fourcc="MJPG", exposure_ms=4.0, gain=2.0))
    text = source.description
    close(source, device)
    assert text.startswith("camera 7: 64x48 at 30 fps, MJPG, gain 2 (asked for ")
    for refused in ("1280x720", "60 fps", "exposure 4 ms"):
        assert refused in text
    assert device.settings[cv2.CAP_PROP_AUTO_EXPOSURE] == 1  # manual
    assert "MJPG," not in text.partition("asked for")[2]


def test_requests_that_are_granted(device):
    source = opened(device, SourceOptions(width=80, height=60, fps=15, exposure_ms=12.5))
    frames = source.frames()
    assert source.description == "camera 7: 80x60 at 15 fps, exposure 12.5 ms"
    assert device.settings[cv2.CAP_PROP_EXPOSURE] == 125  # V4L2 counts in 100 us
    device.shoot()
    assert next(frames).size == (80, 60)
    close(source, device)


def test_automatic_exposure(device):
    source = opened(device, SourceOptions(auto_exposure=True))
    assert device.settings[cv2.CAP_PROP_AUTO_EXPOSURE] == 3
    assert "asked for" not in source.description
    close(source, device)


def test_nothing_is_asked_for_by_default(device):
    before = dict(device.settings)
    close(opened(device), device)
    assert device.settings == before


def test_grey_cameras_become_colour_frames(device):
    source = opened(device)
    frames = source.frames()
    with device.changed:
        device.waiting.append(np.full((5, 6), 9, np.uint8))
        device.changed.notify_all()
    frame = next(frames)
    assert frame.pixels.shape == (5, 6, 3)
    assert (frame.pixels == 9).all()
    with device.changed:
        device.waiting.append(np.full((5, 6), 9 << 8, np.uint16))
        device.changed.notify_all()
    assert (next(frames).pixels == 9).all()
    close(source, device)


def test_leaving_the_loop_releases_the_device(device):
    source = opened(device)
    frames = source.frames()
    device.shoot()
    next(frames)
    device.finish()
    frames.close()
    soon(lambda: device.open_captures == 0)


def test_device_names():
    for uri, path in (
        ("0", "/dev/video0"),
        ("camera:2", "/dev/video2"),
        ("v4l2:///dev/video1", "/dev/video1"),
        ("/dev/v4l/by-id/usb-cam", "/dev/v4l/by-id/usb-cam"),
    ):
        assert device_of(uri) == path
    for uri in ("camera:", "camera:front", "v4l2://", "camera:-1", "v4l2:video0"):
        with pytest.raises(UsageError, match="a camera is given as"):
            device_of(uri)


def test_passwords_are_not_shown():
    assert without_password("rtsp://user:secret@10.0.0.2:554/a?b=c") == "rtsp://user:***@10.0.0.2:554/a?b=c"
    assert without_password("http://10.0.0.2/a") == "http://10.0.0.2/a"


def test_gstreamer_is_said_to_be_missing():
    with pytest.raises(UsageError, match="needs a pipeline"):
        pipeline("gst:", QUICK)
    from rbcedge.sources.capture import has_gstreamer

    if has_gstreamer():
        pytest.skip("this OpenCV has GStreamer")
    with no_thread_left(), pytest.raises(RbcedgeError, match="built with GStreamer"):
        pipeline("gst:videotestsrc", QUICK)


def test_bad_requests_are_refused():
    for bad in (
        {"width": 640},
        {"fps": 0.0},
        {"exposure_ms": -1.0},
        {"fourcc": "MJPEG"},
        {"width": 0, "height": 0},
    ):
        with pytest.raises(UsageError):
            SourceOptions(**bad)
