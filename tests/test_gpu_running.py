"""Whole runs on the device pipeline, with the CPU build of the kernels and stand-ins for the networks.

The GPU is lost in mid-run, sources decode into the pipeline's memory, and everything that moves is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_camera import FakeCamera, soon
from session_fakes import (
    CODES,
    DarkSegmenter,
    LevelClassifier,
    ListSource,
    disc_picture,
    fake_engines,
    field_of_discs,
    make_bundle,
    stills,
    write_pictures,
)
from test_session import go

from rbcedge.bundle import Bundle
from rbcedge.cli import main
from rbcedge.counting.ledger import Config, Ledger
from rbcedge.errors import DeviceError, RbcedgeError
from rbcedge.export import export
from rbcedge.frame import Frame
from rbcedge.light import measure
from rbcedge.pipeline import choosing
from rbcedge.pipeline.choosing import OnDevice
from rbcedge.pipeline.device import DevicePipeline
from rbcedge.pipeline.gpu.base import Argument, Stream
from rbcedge.pipeline.gpu.cpu import CpuDevice, CpuKernel, CpuModule, compiler
from rbcedge.pipeline.gpu.standin import HostExecutor
from rbcedge.pipeline.host import HostPipeline
from rbcedge.pipeline.scale import Search
from rbcedge.pipeline.spare import WithSpare
from rbcedge.sinks.saver import Saver
from rbcedge.sources.camera import camera
from rbcedge.sources.options import SourceOptions
from rbcedge.sources.video import Video

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler here")
SIZE = (320, 240)


class Dying(CpuDevice):
    """A device that fails for good at the n-th launch of a kernel, as a lost GPU does."""

    name = "Dying"

    def __init__(self, kernel: str, launches: int) -> None:
        super().__init__()
        self.kernel, self.left, self.lost = kernel, launches, False

    def load(self, source: str) -> CpuModule:
        module, device = super().load(source), self

        class Kernel(CpuKernel):
            def __init__(self, name: str, inner: CpuKernel) -> None:
                self._own, self._inner = name, inner

            def launch(self, stream: Stream, threads: int, *arguments: Argument) -> None:
                device.left -= self._own == device.kernel
                device.lost |= device.left < 0
                if device.lost:
                    raise DeviceError("The GPU failed in cuLaunchKernel (CUDA_ERROR_LAUNCH_FAILED).")
                self._inner.launch(stream, threads, *arguments)

        module._kernels = {name: Kernel(name, k) for name, k in module._kernels.items()}
        return module


class Levels(LevelClassifier):
    """Also says something of the empty places of a batch."""

    def infer(self, batch: np.ndarray) -> np.ndarray:
        out = np.full((len(batch), len(CODES)), 1 / len(CODES), np.float32)
        shown = batch.reshape(len(batch), -1).any(axis=1)
        if shown.any():
            out[shown] = super().infer(batch[shown])
        return out


def on_device(bundle: Bundle, device: CpuDevice | None = None) -> DevicePipeline:
    return DevicePipeline(
        bundle,
        device or CpuDevice(),
        HostExecutor.segmenter(DarkSegmenter()),
        HostExecutor.classifier(Levels(), len(bundle.labels)),
        1.0,
    )


def spare(bundle: Bundle):
    return lambda search: (HostPipeline(bundle, *fake_engines(), search), "LiteRT")


def walk(frames: int = 12) -> list[Frame]:
    """A stage that goes on in steps, resting for two pictures at each, over a wide field of discs."""
    rng = np.random.default_rng(3)
    wide = np.full((SIZE[1], 1600, 3), 230, np.uint8)
    for x in range(40, 1580, 60):
        for y in (40, 100, 160, 205):
            at = x + int(rng.integers(-9, 9)), y + int(rng.integers(-5, 5))
            cv2.ellipse(wide, at, (int(rng.integers(15, 20)), 17), 0, 0, 360, (int(rng.choice([60, 80, 100])),) * 3, -1)
    wide = np.clip(wide + rng.normal(0, 2, wide.shape), 0, 255).astype(np.uint8)
    steps = [np.ascontiguousarray(wide[:, 70 * (k // 2) : 70 * (k // 2) + SIZE[0]]) for k in range(frames)]
    # So far apart in time that a step is no movement.
    return [Frame(k, 0.3 * k, p, "camera 0") for k, p in enumerate(steps)]


def counted(folder: Path) -> tuple[object, ...]:
    s = export(folder)
    return s.differential, s.seen, s.counted, s.repeated, dict(s.rejected)


@pytest.mark.parametrize("kernel", ["threshold_mask", "temper", "label_cells"])
def test_the_cpu_goes_on_where_the_gpu_is_lost_and_counts_nothing_twice(tmp_path: Path, kernel: str) -> None:
    bundle = make_bundle(tmp_path / "b")
    ledger = Config(diameter_px=34)
    host = HostPipeline(bundle, *fake_engines(), 1.0)
    _, _, folder = go(tmp_path / "host", ListSource(walk(), "live"), ledger=Ledger(ledger), pipeline=host)
    expected = counted(folder)
    assert expected[2] >= 4
    pipeline = WithSpare(on_device(bundle, Dying(kernel, 2)), spare(bundle))
    outcome, seen, folder = go(
        tmp_path / "device", ListSource(walk(), "live"), ledger=Ledger(ledger), pipeline=pipeline
    )
    assert outcome == "finished"
    assert counted(folder) == expected
    said = [w for w in seen.statuses[-1].warnings if "The GPU failed" in w]
    assert said == [
        "The GPU failed in cuLaunchKernel (CUDA_ERROR_LAUNCH_FAILED). The count goes on with LiteRT on the CPU."
    ]
    pipeline.close()


@pytest.mark.parametrize("kernel", ["threshold_mask", "temper"])
def test_still_pictures_are_all_counted_where_the_gpu_is_lost(tmp_path: Path, kernel: str) -> None:
    bundle = make_bundle(tmp_path / "b")
    pipeline = WithSpare(on_device(bundle, Dying(kernel, 2)), spare(bundle))
    _, seen, folder = go(tmp_path, ListSource(stills(5)), pipeline=pipeline)
    summary = export(folder)
    assert (summary.seen, summary.counted, len(summary.gaps)) == (5, 5, 0)
    assert summary.differential.counted == 5 * 12
    assert [u.field.frame.index for u in seen.updates] == list(range(5))
    pipeline.close()


@pytest.mark.parametrize("kind", ["stills", "live"])
def test_without_a_spare_the_run_ends_with_everything_saved(tmp_path: Path, kind: str) -> None:
    bundle = make_bundle(tmp_path / "b")
    pipeline = on_device(bundle, Dying("threshold_mask", 2))
    source = ListSource(stills(5) if kind == "stills" else walk(), kind)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="CUDA_ERROR_LAUNCH_FAILED"):
        go(tmp_path, source, ledger=None if kind == "stills" else Ledger(Config(diameter_px=34)), pipeline=pipeline)
    summary = export(tmp_path / "out")
    assert summary.counted == 2
    assert not summary.gaps
    assert summary.session.outcome.startswith("failed: The GPU failed")
    pipeline.close()
    pipeline.close()


def test_where_the_cpu_cannot_go_on_either_both_reasons_are_given(tmp_path: Path) -> None:
    def none(search: Search):
        raise RbcedgeError("Bundle 'x' has no tflite segmenter.")

    pipeline = WithSpare(on_device(make_bundle(tmp_path / "b"), Dying("threshold_mask", 0)), none)
    with pytest.raises(RbcedgeError, match=r"LAUNCH_FAILED\)\. The CPU cannot go on either: Bundle 'x' has no"):
        pipeline.find(stills(1)[0])
    pipeline.close()


@pytest.mark.parametrize("engine", ["auto", "tensorrt"])
def test_the_command_line_where_the_gpu_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    write_pictures(tmp_path / "slide", 4)
    monkeypatch.setattr("rbcedge.engines.loading.load_engines", fake_engines)
    monkeypatch.setattr(choosing, "has_gpu", lambda: True)
    made = on_device(bundle, Dying("temper", 2)), (OnDevice("fp16"), OnDevice("fp16"))
    monkeypatch.setattr(choosing, "_on_device", lambda *_: made)
    arguments = ["run", "--bundle", tmp_path / "bundle", "--scale", 1, tmp_path / "slide", "--engine", engine]
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments), "--out", str(tmp_path / "out"), "--save", "masks,overlays,crops"])
    shown = capsys.readouterr()
    if engine == "auto":
        assert (end.value.code or 0) == 0
        assert "The count goes on with LiteRT on the CPU." in " ".join(shown.out.split())
        assert export(tmp_path / "out").differential.counted == 48
        assert len(list((tmp_path / "out" / "masks").iterdir())) == 4
    else:
        assert end.value.code == 1
        assert "The GPU failed in cuLaunchKernel" in shown.err
        assert "Traceback" not in shown.err
        assert 0 < export(tmp_path / "out").counted < 4


# Decoding into the pipeline's memory.


class Film:
    """A video at the OpenCV seam that decodes into the array it is given."""

    def __init__(self, pictures: Sequence[np.ndarray]) -> None:
        self.pictures, self.n, self.given = pictures, 0, 0

    def isOpened(self) -> bool:
        return True

    def grab(self) -> bool:
        self.n += 1
        return self.n <= len(self.pictures)

    def retrieve(self, image: np.ndarray | None = None):
        picture = self.pictures[self.n - 1]
        if image is None or image.shape != picture.shape:
            return True, picture.copy()
        self.given += 1
        image[...] = picture
        return True, image

    def get(self, property_id: int) -> float:
        known = {cv2.CAP_PROP_FPS: 2.0, cv2.CAP_PROP_FRAME_COUNT: len(self.pictures)}
        return known.get(property_id, 500.0 * (self.n - 1))

    def release(self) -> None:
        pass


def test_no_picture_of_a_whole_video_is_copied(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    frames = walk()
    host = HostPipeline(bundle, *fake_engines(), 1.0)
    film = Film([f.pixels for f in frames])
    ledger = Config(diameter_px=34)
    _, _, folder = go(tmp_path / "h", Video("a.mkv", "a", film), ledger=Ledger(ledger), pipeline=host)
    expected = counted(folder)
    pipeline = on_device(bundle)
    film = Film([f.pixels for f in frames])
    source = Video("a.mkv", "a", film, buffers=pipeline.buffers)
    saver = Saver(tmp_path / "saved", ["overlays"])
    _, _, folder = go(tmp_path / "d", source, saver, ledger=Ledger(ledger), pipeline=pipeline)
    assert counted(folder) == expected
    assert film.given == len(frames)
    assert (pipeline.transfers.staged, pipeline.transfers.staged_bytes) == (0, 0)
    assert len(list((tmp_path / "saved" / "overlays").iterdir())) == expected[2]
    assert pipeline.buffers.idle
    pipeline.close()


def test_1080p_with_400_cells_comes_back_in_less_than_64_kb(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    discs = [(45 + 72 * i, 45 + 66 * j, 60 + 20 * (i % 3)) for i in range(26) for j in range(16)]
    pictures = [disc_picture([(x + dx, y, v) for x, y, v in discs], (1920, 1080)) for dx in (0, 24)]
    pipeline = on_device(bundle)
    before = pipeline.transfers
    source = Video("a.mkv", "a", Film(pictures), buffers=pipeline.buffers)
    _, seen, folder = go(tmp_path, source, ledger=Ledger(Config(diameter_px=36)), pipeline=pipeline)
    summary = export(folder)
    assert summary.counted >= 1
    assert len(seen.updates[0].field.cells) == len(discs) > 400
    after, searched = pipeline.transfers, 2
    assert after.staged == 0
    # Nothing is downloaded: lists, light, background and probabilities are all that the CPU reads.
    assert after.downloads == before.downloads
    assert 0 < after.back_bytes - before.back_bytes < searched * 64_000
    seen.updates.clear()
    pipeline.close()


def test_a_camera_decodes_into_the_memory_and_overwrites_nothing_in_use(tmp_path: Path) -> None:
    pipeline = on_device(make_bundle(tmp_path / "b"))
    device = FakeCamera(64, 48)
    source = camera("0", SourceOptions(), device.capture, pipeline.buffers)
    frames = source.frames()
    lent = {p.ctypes.data for p in pipeline.pictures(64, 48)}
    device.shoot()
    held = next(frames)
    assert isinstance(held, Frame)
    assert held.borrowed
    assert held.pixels.ctypes.data in lent
    before = held.pixels.copy()
    for _ in range(5):
        device.shoot()
        device.settle()
    np.testing.assert_array_equal(held.pixels, before)
    kept = held.kept()
    newest = next(frames)
    assert isinstance(newest, Frame)
    assert newest.pixels.ctypes.data in lent - {held.pixels.ctypes.data}
    assert newest.pixels[0, 0, 0] == device.shot - 1
    assert source.dropped == 4
    device.shoot()
    device.settle()
    assert next(frames).pixels.ctypes.data == held.pixels.ctypes.data
    np.testing.assert_array_equal(kept.pixels, before)
    # Pictures of another size are the source's own, until memory of that size is lent.
    device.size = (80, 60)
    device.shoot()
    other = next(frames)
    assert isinstance(other, Frame)
    assert (other.size, other.borrowed) == ((80, 60), False)
    pipeline.find(other)
    device.shoot()
    assert next(frames).borrowed
    assert pipeline.transfers.staged == 1
    device.finish()
    source.close()
    soon(lambda: pipeline.buffers.idle)
    pipeline.close()


def test_memory_that_is_still_decoded_into_is_not_freed(tmp_path: Path) -> None:
    pipeline = on_device(make_bundle(tmp_path / "b"))
    pipeline.buffers.want(64, 48)
    taken = pipeline.buffers.take()
    assert taken is not None
    pipeline.close()
    taken[...] = 7
    assert pipeline.pictures(64, 48)[0].ctypes.data == taken.ctypes.data
    assert pipeline.buffers.take() is None


@pytest.mark.parametrize("order", [1, -1, 12345, 54321])
def test_the_order_of_threads_does_not_matter(tmp_path: Path, order: int) -> None:
    bundle = make_bundle(tmp_path / "b")
    expected = HostPipeline(bundle, *fake_engines(), 1.0)
    pipeline = on_device(bundle, CpuDevice(order=order))
    for k, pixels in enumerate([field_of_discs(1), walk(1)[0].pixels]):
        frame = Frame(k, 0.0, pixels, "x")
        a, b = pipeline.find(frame), expected.find(frame)
        rows = np.arange(len(b.cells))
        a, b = pipeline.classify(a, rows), expected.classify(b, rows)
        np.testing.assert_array_equal(a.labels, b.labels)
        np.testing.assert_array_equal(a.cells.boxes, b.cells.boxes)
        np.testing.assert_allclose(a.cells.probabilities, b.cells.probabilities, atol=1e-5)
        assert a.light == measure(frame.pixels, b.mask, 1.0)
    pipeline.close()
