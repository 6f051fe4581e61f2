"""Live capture from real streams: motion JPEG over HTTP, and RTSP."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest
from mjpeg_server import MjpegServer
from real_pictures import DATA
from rtsp_server import RtspServer
from thread_check import no_thread_left

from rbcedge.errors import RbcedgeError
from rbcedge.frame import Frame, Gap
from rbcedge.sources import SourceOptions, open_source

FIELDS = DATA / "chula-rbc-12" / "Dataset"
OPTIONS = SourceOptions(open_timeout_s=8, silence_s=2, retry_first_s=0.05, retry_longest_s=0.2)


def pictures(count: int = 6) -> list[bytes]:
    """Real fields where they are present, otherwise drawn ones."""
    if FIELDS.is_dir():
        return [p.read_bytes() for p in sorted(FIELDS.glob("*.jpg"))[:count]]
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 9, (128, 160, 3), np.uint8)
    return [cv2.imencode(".jpg", noise + np.uint8(40 * n))[1].tobytes() for n in range(count)]


def take(frames, count: int, within_s: float = 20.0) -> list[Frame | Gap]:
    got = []
    deadline = time.monotonic() + within_s
    for item in frames:
        got.append(item)
        if len(got) == count:
            return got
        assert time.monotonic() < deadline, f"only {len(got)} of {count} came"
    return got


def test_http_stream_stops_and_comes_back(capfd):
    served = pictures()
    truth = [cv2.imdecode(np.frombuffer(p, np.uint8), cv2.IMREAD_COLOR) for p in served]
    with no_thread_left(), MjpegServer(served) as server:
        source = open_source(server.url, OPTIONS)
        assert source.kind == "live"
        height, width = truth[0].shape[:2]
        assert f"{width}x{height}" in source.description
        frames = source.frames()
        first = take(frames, 5)
        assert all(isinstance(f, Frame) for f in first)
        for frame in first:  # what comes out is what was served, to the accuracy of another JPEG decoder
            assert min(np.abs(frame.pixels.astype(int) - t).mean() for t in truth) < 3

        server.stop()
        later: list[Frame | Gap] = []
        while not later or not isinstance(later[-1], Gap):
            later += take(frames, 1)
        down = time.monotonic()
        again = threading.Timer(0.5, server.start)
        again.start()
        rest = take(frames, 4)
        again.join()
        assert isinstance(rest[0], Gap)
        assert "back" in rest[0].reason
        assert rest[0].seconds >= 0.4
        assert all(isinstance(f, Frame) for f in rest[1:])
        assert rest[1].time_s >= down + 0.4
        numbers = [f.index for f in first + later + rest if isinstance(f, Frame)]
        assert numbers == sorted(set(numbers))
        source.close()
    assert capfd.readouterr().err == ""


def test_http_stream_that_falls_silent():
    options = SourceOptions(open_timeout_s=8, silence_s=0.4, retry_first_s=0.05, retry_longest_s=0.2)
    with no_thread_left(15), MjpegServer(pictures(2)) as server:
        source = open_source(server.url, options)
        frames = source.frames()
        take(frames, 2)
        server.silent.set()
        gap = next(f for f in frames if isinstance(f, Gap))
        assert gap.seconds >= 0.4
        server.silent.clear()
        assert any(isinstance(f, Frame) for f in take(frames, 2))
        source.close()


def test_slow_reader_of_a_stream_stays_up_to_date():
    """A reader of 5 fps of a camera of 50: pictures are dropped and counted, none is old."""
    with no_thread_left(), MjpegServer(pictures(2)) as server:
        source = open_source(server.url, OPTIONS)
        frames = source.frames()
        ages = []
        for frame in take(frames, 2):
            last = frame.index
        for _ in range(5):
            time.sleep(0.2)
            frame = next(frames)
            ages.append(time.monotonic() - frame.time_s)
            assert frame.index > last + 1
            last = frame.index
        assert source.dropped == last + 1 - 7
        assert np.median(ages) < 0.2
        source.close()


@pytest.mark.parametrize("kind", ["stream", "stills", "sim"])
def test_a_program_that_ends_without_closing_ends_well(kind, tmp_path):
    """A thread inside a decoder at the interpreter's end would abort the process."""
    for n, data in enumerate(pictures(6)):
        (tmp_path / f"{n}.jpg").write_bytes(data)
    with MjpegServer(pictures(2)) as server:
        uri = {"stream": server.url, "stills": str(tmp_path), "sim": "sim:?size=64x64"}[kind]
        code = f"from rbcedge.sources import open_source\nf = open_source({uri!r}).frames()\nprint(next(f).index)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_nobody_answers():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with no_thread_left(), pytest.raises(RbcedgeError, match=r"does not open. Check the address"):
        open_source(f"http://127.0.0.1:{port}/stream", OPTIONS)


def test_not_a_stream(capfd):
    refused = pytest.raises(RbcedgeError, match="Check the address")
    with no_thread_left(), MjpegServer(pictures(1)) as server, refused:
        open_source(server.url.replace("stream", "nothing"), OPTIONS)
    assert capfd.readouterr().err == ""


def test_video_on_a_web_server_is_a_video(tmp_path):
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for n in range(12):
        writer.write(np.full((48, 64, 3), 20 * n, np.uint8))
    writer.release()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            source = open_source(f"http://127.0.0.1:{server.server_address[1]}/a.avi")
            assert source.kind == "video"
            assert [f.index for f in source.frames()] == list(range(12))
        finally:
            server.shutdown()
            thread.join(5)


def test_rtsp_stream_stops_and_comes_back(capfd):
    truth = [cv2.imdecode(np.frombuffer(p, np.uint8), cv2.IMREAD_COLOR) for p in pictures(3)]
    with no_thread_left(15), RtspServer(truth) as server:
        source = open_source(server.url, OPTIONS)
        assert source.kind == "live"
        frames = source.frames()
        got = take(frames, 5)
        assert all(isinstance(f, Frame) for f in got)
        for frame in got:
            assert min(np.abs(frame.pixels.astype(int) - t).mean() for t in truth) < 3
        server.stop()
        gap = next(f for f in frames if isinstance(f, Gap))
        assert "trying again" in gap.reason
        server.start()
        assert "back" in next(f for f in frames if isinstance(f, Gap)).reason
        assert isinstance(next(frames), Frame)
        source.close()
    assert capfd.readouterr().err == ""
