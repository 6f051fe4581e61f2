"""Still pictures: names, order, odd and broken files."""

from __future__ import annotations

import shutil
import struct
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_pictures import DATA
from thread_check import no_thread_left

from rbcedge.errors import RbcedgeError, UsageError
from rbcedge.frame import Frame, Gap
from rbcedge.sources import open_source
from rbcedge.sources.images import natural
from rbcedge.sources.pixels import to_bgr8


@pytest.fixture(autouse=True)
def _threads_end():
    with no_thread_left():
        yield


def picture(height: int = 12, width: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8, endpoint=True)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def read_all(*given: str | Path) -> list[Frame | Gap]:
    source = open_source([str(g) for g in given])
    assert source.kind == "stills"
    items = list(source.frames())
    source.close()
    assert len(items) == len(source)
    return items


def names(items: list[Frame | Gap]) -> list[str]:
    return [item.source for item in items]


def test_folder_is_read_recursively_in_natural_order(tmp_path):
    for name in ("10.png", "2.png", "1.PNG", "b/3.png", "a/20.png", "a/9.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        ok, data = cv2.imencode(".png", picture(seed=len(name)))
        assert ok
        (tmp_path / name).write_bytes(data.tobytes())
    (tmp_path / "notes.txt").write_text("not a picture, and not counted")
    (tmp_path / "._2.png").write_bytes(b"resource fork")
    items = read_all(tmp_path)
    assert names(items) == ["1.PNG", "2.png", "10.png", "a/9.png", "a/20.png", "b/3.png"]
    assert [f.index for f in items] == list(range(6))
    assert np.array_equal(items[1].pixels, picture(seed=len("2.png")))


def test_results_of_a_run_inside_the_folder_are_no_pictures(tmp_path):
    save(tmp_path / "1.png", picture())
    save(tmp_path / "out" / "overlays" / "1.png", picture())
    (tmp_path / "out" / "session.db").touch()
    assert names(read_all(tmp_path)) == ["1.png"]


def test_a_folder_that_received_its_own_results_still_has_its_pictures(tmp_path):
    for name in ("1.png", "sub/2.png", "masks/1.png", "crops/NOR/1_1.png"):
        save(tmp_path / name, picture())
    (tmp_path / "session.db").touch()
    assert names(read_all(tmp_path)) == ["1.png", "sub/2.png"]


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=20))
def test_natural_order_is_numeric_order(numbers):
    files = sorted((f"field{n}.jpg" for n in numbers), key=natural)
    assert files == [f"field{n}.jpg" for n in sorted(numbers)]


@given(st.text(), st.text())
def test_natural_key_compares_for_any_names(a, b):
    assert (natural(a) < natural(b)) or natural(a) >= natural(b)


def test_broken_pictures_are_named_and_skipped(tmp_path):
    good = save(tmp_path / "1.jpg", picture(64, 64))
    whole = good.read_bytes()
    (tmp_path / "2_empty.png").touch()
    (tmp_path / "3_cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "4_text.png").write_text("this is no picture at all")
    png = save(tmp_path / "x.png", picture(64, 64)).read_bytes()
    (tmp_path / "x.png").unlink()
    (tmp_path / "5_cut.png").write_bytes(png[: len(png) // 2])
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    (tmp_path / "6_flipped.png").write_bytes(bytes(flipped))
    tiff = save(tmp_path / "x.tif", picture(64, 64)).read_bytes()
    (tmp_path / "x.tif").unlink()
    (tmp_path / "7_cut.tif").write_bytes(tiff[: len(tiff) // 2])
    (tmp_path / "8_head.jpg").write_bytes(whole[:30])
    (tmp_path / "9_gone.png").symlink_to(tmp_path / "nowhere.png")
    save(tmp_path / "10.png", picture(8, 8))

    items = read_all(tmp_path)
    assert names(items) == sorted((p.name for p in tmp_path.iterdir()), key=natural)
    frames = [i for i in items if isinstance(i, Frame)]
    gaps = {i.source: i for i in items if isinstance(i, Gap)}
    assert [f.source for f in frames] == ["1.jpg", "10.png"]
    assert [f.index for f in frames] == [0, 1]
    assert all(g.frames == 1 and g.seconds == 0 and "\n" not in g.reason for g in gaps.values())
    assert "0 bytes" in gaps["2_empty.png"].reason
    assert "cut short" in gaps["3_cut.jpg"].reason
    assert "not a picture" in gaps["4_text.png"].reason
    assert "cut short" in gaps["5_cut.png"].reason
    assert "checksum" in gaps["6_flipped.png"].reason
    assert "decoded" in gaps["7_cut.tif"].reason
    assert "cut short" in gaps["8_head.jpg"].reason
    assert "No such file" in gaps["9_gone.png"].reason


def test_broken_pictures_leave_the_terminal_clean(tmp_path, capfd):
    test_broken_pictures_are_named_and_skipped(tmp_path)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_cut_jpeg_with_a_thumbnail_inside_is_still_cut(tmp_path):
    data = save(tmp_path / "a.jpg", picture(64, 64)).read_bytes()
    thumbnail = b"Exif\0\0" + data
    app1 = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = data[:2] + app1 + data[2:]
    (tmp_path / "a.jpg").write_bytes(whole)
    (tmp_path / "b.jpg").write_bytes(whole[:-40])
    first, second = read_all(tmp_path)
    assert isinstance(first, Frame)
    assert isinstance(second, Gap)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_pictures_keep_their_brightness(tmp_path, bits):
    white = 2**bits - 1
    grey = np.linspace(0, white, 256).astype(np.uint16).reshape(16, 16)
    save(tmp_path / "deep.png", grey)
    save(tmp_path / "colour.tif", np.dstack([grey] * 3))
    for frame in read_all(tmp_path):
        expected = np.arange(256).reshape(16, 16)
        assert frame.pixels.shape == (16, 16, 3)
        assert np.abs(frame.pixels.astype(int) - expected[:, :, None]).max() <= 1


def test_full_16_bit_is_a_shift_by_8():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.abs(to_bgr8(values)[:, :, 0].astype(int) - (values >> 8)).max() <= 1


def test_float_pictures(tmp_path):
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    save(tmp_path / "0unit.tif", ramp)
    save(tmp_path / "1bytes.tif", ramp * 255)
    save(tmp_path / "2nan.tif", np.full((4, 4), np.nan, np.float32))
    unit, byte, bad = read_all(tmp_path)
    assert np.array_equal(unit.pixels, byte.pixels)
    assert unit.pixels.max() == 255
    assert "not numbers" in bad.reason


def test_grey_palette_and_single_pixel(tmp_path):
    grey = picture()[:, :, 0]
    save(tmp_path / "1grey.png", grey)
    save(tmp_path / "2grey.jpg", np.full((9, 9), 77, np.uint8))
    save(tmp_path / "3pixel.png", np.array([[[1, 2, 3]]], np.uint8))
    save(tmp_path / "4any.pgm", grey)
    one, two, three, four = read_all(tmp_path)
    assert np.array_equal(one.pixels, np.dstack([grey] * 3))
    assert (two.pixels == 77).all()
    assert three.pixels.tolist() == [[[1, 2, 3]]]
    assert np.array_equal(four.pixels, one.pixels)


def test_palette_png(tmp_path):
    """A palette of blue and yellow, one byte per pixel, written by hand."""
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", bytes([0, 0, 255, 255, 255, 0]))
        + chunk(b"IDAT", zlib.compress(b"\0\0\1"))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "palette.png").write_bytes(data)
    (frame,) = read_all(tmp_path)
    assert frame.pixels.tolist() == [[[255, 0, 0], [0, 255, 255]]]


def test_transparent_is_laid_over_white(tmp_path):
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 3] = 0, 128, 255
    save(tmp_path / "rgba.png", pixels)
    (frame,) = read_all(tmp_path)
    assert frame.pixels[0, :, 0].tolist() == [255, 127, 0]
    deep = to_bgr8(np.array([[[0, 0, 0, 65535], [0, 0, 4095, 0]]], np.uint16))
    assert deep.tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_further_pages_of_a_tiff_are_told(tmp_path):
    assert cv2.imwritemulti(str(tmp_path / "stack.tif"), [picture(seed=n) for n in range(3)])
    save(tmp_path / "z.png", picture())
    frame, gap, last = open_source(str(tmp_path)).frames()
    assert np.array_equal(frame.pixels, picture())
    assert (gap.source, gap.frames) == ("stack.tif", 2)
    assert "first of its 3 pages" in gap.reason
    assert (last.source, last.index) == ("z.png", 1)


def test_files_under_dev_are_files():
    folder = Path("/dev/shm")
    if not folder.is_dir():
        pytest.skip("this machine has no /dev/shm")
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        save(Path(inside) / "1.png", picture())
        assert names(read_all(inside)) == ["1.png"]
        assert names(read_all(f"{inside}/*.png")) == ["1.png"]


def test_exif_orientation_is_applied(tmp_path):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255  # bright at the top left
    data = save(tmp_path / "a.jpg", upright).read_bytes()
    # One TIFF entry: tag 0x0112 (orientation), SHORT, value 6: turn by 90 degrees clockwise to view.
    tiff = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    body = b"Exif\0\0" + tiff
    (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:])
    (frame,) = read_all(tmp_path)
    assert frame.size == (16, 32)
    assert frame.pixels[:14, 10:].mean() > 200  # now at the top right
    assert frame.pixels[:, :6].mean() < 50


def test_several_inputs_have_unique_names_and_no_repeats(tmp_path):
    for folder in ("a/slide", "b/slide", "c"):
        save(tmp_path / folder / "1.png", picture())
    save(tmp_path / "c" / "2.png", picture())
    items = read_all(tmp_path / "a/slide", tmp_path / "b/slide", tmp_path / "c", tmp_path / "c/2.png")
    assert len(set(names(items))) == len(items) == 4
    assert names(items)[3] == "2.png"
    assert names(items)[2] == "c/1.png"


def test_names_stay_unique_when_a_longer_name_meets_a_short_one(tmp_path):
    for p in ("x/c/1.png", "y/c/1.png", "z/c/c/1.png"):
        save(tmp_path / p, picture())
    items = read_all(tmp_path / "x/c", tmp_path / "y/c", tmp_path / "z/c", tmp_path / "z/c/c")
    assert len(set(names(items))) == len(items) == 3


def test_globs(tmp_path):
    for p in ("s/1.png", "s/2.jpg", "s/deep/10.png", "s/deep/9.png"):
        save(tmp_path / p, picture())
    (tmp_path / "s/notes.txt").write_text("x")
    assert names(read_all(tmp_path / "s" / "*.png")) == ["1.png"]
    assert names(read_all(tmp_path / "s" / "*")) == ["1.png", "2.jpg", "deep/9.png", "deep/10.png"]
    assert names(read_all(tmp_path / "s" / "**" / "*.png")) == ["1.png", "deep/9.png", "deep/10.png"]
    assert names(read_all(tmp_path / "?" / "[12].*")) == ["s/1.png", "s/2.jpg"]
    with pytest.raises(RbcedgeError, match="no picture or video matches"):
        open_source(str(tmp_path / "*.bmp"))


def test_file_whose_name_looks_like_a_glob_is_a_file(tmp_path):
    save(tmp_path / "field[1].png", picture())
    assert names(read_all(tmp_path / "field[1].png")) == ["field[1].png"]


def test_links_that_lead_in_a_circle_are_skipped_and_named(tmp_path):
    save(tmp_path / "a.png", picture())
    (tmp_path / "b.png").symlink_to("b.png")
    (tmp_path / "sub").symlink_to(tmp_path, target_is_directory=True)
    items = list(open_source(str(tmp_path)).frames())
    assert [item.source for item in items] == ["a.png", "b.png"]
    assert isinstance(items[1], Gap)
    assert "symbolic links" in items[1].reason


def test_what_is_refused(tmp_path, monkeypatch):
    save(tmp_path / "a.png", picture())
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("x")
    (tmp_path / "film.avi").write_bytes(b"x")
    (tmp_path / "film2.avi").write_bytes(b"x")
    a = str(tmp_path / "a.png")
    with pytest.raises(RbcedgeError, match="no pictures in this folder"):
        open_source(str(tmp_path / "empty"))
    with pytest.raises(RbcedgeError, match="no such file or folder"):
        open_source(str(tmp_path / "missing.png"))
    for bad, words in (
        ([str(tmp_path / "text.txt")], "neither a picture nor a video"),
        (["ftp://host/a.png"], "Accepted are"),
        ([a, "0"], "on its own"),
        ([a, "sim:"], "on its own"),
        ([a, str(tmp_path / "film.avi")], "on its own"),
        ([str(tmp_path / "film.avi"), str(tmp_path / "film2.avi")], "on its own"),
        ([], "no source"),
        (["camera:front"], "camera"),
        (["rtsp:///stream"], "no host"),
    ):
        with pytest.raises(UsageError, match=words):
            open_source(bad)


def test_a_number_is_a_camera_and_a_path_is_a_folder(tmp_path, monkeypatch):
    save(tmp_path / "0" / "1.png", picture())
    monkeypatch.chdir(tmp_path)
    assert names(read_all("./0")) == ["1.png"]


def test_closing_early_ends_frames_and_the_thread(tmp_path):
    for i in range(20):
        save(tmp_path / f"{i}.png", picture())
    source = open_source(str(tmp_path))
    frames = source.frames()
    assert next(frames).source == "0.png"
    source.close()
    source.close()
    assert list(frames) == []
    assert list(source.frames()) == []


def test_leaving_the_loop_ends_the_thread(tmp_path):
    for i in range(20):
        save(tmp_path / f"{i}.png", picture())
    frames = open_source(str(tmp_path)).frames()
    next(frames)
    frames.close()


def test_real_fields():
    folder = DATA / "chula-rbc-diseases"
    if not folder.is_dir():
        pytest.skip("the real fields are not on this machine")
    items = read_all(folder)
    assert len(items) == 21
    assert {i.size for i in items if isinstance(i, Frame)} == {(1280, 960), (640, 480)}
    assert len(set(names(items))) == 21


def test_many_pictures_wait_for_a_slow_reader(tmp_path):
    """At most two decoded pictures wait: the rest stays on disk until it is wanted."""
    for i in range(12):
        save(tmp_path / f"{i}.png", picture(seed=i))
    source = open_source(str(tmp_path))
    frames = source.frames()
    next(frames)
    # Files that have not been reached yet may still go away: then they are gaps, not errors.
    for i in range(6, 12):
        shutil.os.unlink(tmp_path / f"{i}.png")
    rest = list(frames)
    assert [type(r) for r in rest] == [Frame] * 5 + [Gap] * 6
