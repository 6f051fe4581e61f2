"""Video files: every frame, times, files that end too early."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from thread_check import no_thread_left

from rbcedge.errors import RbcedgeError
from rbcedge.frame import Frame, Gap
from rbcedge.sources import open_source
from rbcedge.sources.quiet import hush
from rbcedge.sources.video import Video


@pytest.fixture(autouse=True)
def _threads_end():
    hush()  # before FFmpeg is used first, here for writing
    with no_thread_left():
        yield


def film(path: Path, frames: int = 40, fps: float = 20.0, fourcc: str = "MJPG") -> Path:
    """Write a video in which frame n has grey level 6 n."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*fourcc), fps, (96, 64))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV cannot write {fourcc}")
    rng = np.random.default_rng(0)
    for n in range(frames):
        writer.write(rng.integers(0, 3, (64, 96, 3), np.uint8) + np.uint8(6 * n))
    writer.release()
    return path


FORMATS = [("MJPG", ".avi"), ("mp4v", ".mp4"), ("XVID", ".avi"), ("FFV1", ".mkv")]


@pytest.mark.parametrize(("fourcc", "suffix"), FORMATS)
def test_every_frame_in_order_with_its_time(tmp_path, fourcc, suffix):
    source = open_source(str(film(tmp_path / f"a{suffix}", fourcc=fourcc)))
    assert source.kind == "video"
    assert source.name == f"a{suffix}"
    assert "96x64 at 20 fps" in source.description
    items = list(source.frames())
    assert len(items) == len(source) == 40
    assert [f.index for f in items] == list(range(40))
    assert np.allclose([f.time_s for f in items], np.arange(40) / 20, atol=1e-3)
    assert np.allclose([f.pixels.mean() for f in items], 6 * np.arange(40) + 1, atol=4)
    assert source.dropped == 0


@pytest.mark.parametrize(("fourcc", "suffix"), [("MJPG", ".avi"), ("XVID", ".avi"), ("FFV1", ".mkv")])
def test_cut_video_gives_what_it_has_and_says_what_is_missing(tmp_path, fourcc, suffix, capfd):
    whole = film(tmp_path / f"a{suffix}", fourcc=fourcc)
    data = whole.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(data[: len(data) // 2])
    *frames, gap = open_source(str(cut)).frames()
    assert 1 <= len(frames) < 39
    assert all(isinstance(f, Frame) for f in frames)
    assert [f.index for f in frames] == list(range(len(frames)))
    assert isinstance(gap, Gap)
    assert gap.frames == 40 - len(frames)
    assert f"ends after {len(frames)} of 40 frames" in gap.reason
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("fourcc", ["MJPG", "XVID"])
def test_the_half_frame_at_the_cut_is_left_out(tmp_path, fourcc):
    whole = film(tmp_path / "a.avi", fourcc=fourcc)
    frames = list(open_source(str(whole)).frames())
    data = whole.read_bytes()
    for share in (0.6, 0.7, 0.8, 0.85):
        (tmp_path / "cut.avi").write_bytes(data[: int(len(data) * share)])
        *given, gap = open_source(str(tmp_path / "cut.avi")).frames()
        assert isinstance(gap, Gap)
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(given, frames, strict=False))


def test_videos_that_cannot_be_read(tmp_path, capfd):
    whole = film(tmp_path / "a.mp4", fourcc="mp4v").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # its index stands at the end
    (tmp_path / "empty.avi").touch()
    (tmp_path / "text.avi").write_text("no video at all\n" * 100)
    for name, words in (("cut.mp4", "cannot be read"), ("empty.avi", "empty file"), ("text.avi", "cannot be read")):
        with pytest.raises(RbcedgeError, match=rf"{name}.*{words}"):
            open_source(str(tmp_path / name))
    assert capfd.readouterr().err == ""


def test_glob_of_one_video(tmp_path):
    film(tmp_path / "a.avi", frames=3)
    assert len(list(open_source(str(tmp_path / "*.avi")).frames())) == 3


class Reel:
    """A capture at the OpenCV seam: `pictures` frames, with whatever the container claims."""

    def __init__(self, pictures: int, says: float, fps: float, times: list[float] | None = None) -> None:
        self.pictures, self.says, self.fps = pictures, says, fps
        self.times = times or [n / fps for n in range(pictures)]
        self.n = 0
        self.released = 0

    def isOpened(self) -> bool:
        return True

    def read(self):
        raise NotImplementedError

    def grab(self) -> bool:
        if self.n == self.pictures:
            return False
        self.n += 1
        return True

    def retrieve(self, image=None):
        return True, np.full((4, 6, 3), self.n, np.uint8)

    def get(self, property_id: int) -> float:
        return {
            cv2.CAP_PROP_FPS: self.fps,
            cv2.CAP_PROP_FRAME_COUNT: self.says,
            cv2.CAP_PROP_POS_MSEC: 1000 * self.times[max(self.n - 1, 0)],
        }[property_id]

    def set(self, property_id: int, value: float) -> bool:
        return False

    def release(self) -> None:
        self.released += 1


def test_wrong_counts_of_containers_that_guess():
    # A variable rate: the guess of 100 frames is wrong, the last frame stands at the end of the 10 s.
    varying = Reel(61, 100, 10.0, times=[n / 6.0 for n in range(61)])
    assert len([i for i in Video("a.mkv", "a", varying).frames() if isinstance(i, Gap)]) == 0
    # The same number of frames at a steady rate: 4 s are missing.
    short = Reel(61, 100, 10.0)
    gaps = [i for i in Video("a.mkv", "a", short).frames() if isinstance(i, Gap)]
    assert [g.frames for g in gaps] == [39]
    # No count at all.
    for nothing in (0, -1, float("nan"), -9.2e18):
        source = Video("a.ts", "a", Reel(5, nothing, 0.0, times=[0.0] * 5))
        assert len(source) == 0
        items = list(source.frames())
        assert len(items) == 5
        assert [i.time_s for i in items] == [0.0] * 5


def test_counted_frames_are_believed():
    gaps = [i for i in Video("a.mp4", "a", Reel(97, 100, 10.0)).frames() if isinstance(i, Gap)]
    assert [g.frames for g in gaps] == [3]
    assert not [i for i in Video("a.mp4", "a", Reel(99, 100, 10.0)).frames() if isinstance(i, Gap)]


def test_times_never_go_back():
    source = Video("a.ts", "a", Reel(4, 4, 10.0, times=[0.0, 0.1, 0.05, 0.3]))
    assert np.allclose([f.time_s for f in source.frames()], [0, 0.1, 0.2, 0.3])


def test_closing_releases_once_and_ends(tmp_path):
    reel = Reel(100, 100, 10.0)
    source = Video("a.avi", "a", reel)
    frames = source.frames()
    next(frames)
    source.close()
    source.close()
    assert list(frames) == []
    assert reel.released == 1
    unread = Reel(100, 100, 10.0)
    Video("a.avi", "a", unread).close()
    assert unread.released == 1
