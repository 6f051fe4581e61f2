"""The device pipeline against the host pipeline: the same networks, the same fields, counted copies.

The networks run on the host in either case (`CopyingExecutor`, `HostExecutor`); TensorRT is not part of these tests.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import cv2
import numpy as np
import pytest
from gpu_help import DEVICES, CopyingExecutor, open_device
from real_pictures import DATA

from rbcedge import bundle as bundles
from rbcedge.cells import crops
from rbcedge.engines import load_engines
from rbcedge.engines.base import Engine
from rbcedge.errors import RbcedgeError
from rbcedge.field import Field
from rbcedge.frame import Frame
from rbcedge.pipeline import plan
from rbcedge.pipeline.device import DevicePipeline
from rbcedge.pipeline.gpu.base import Device, OutOfMemory
from rbcedge.pipeline.gpu.cpu import CpuDevice, CpuMemory
from rbcedge.pipeline.gpu.standin import HostExecutor
from rbcedge.pipeline.host import HostPipeline
from rbcedge.pipeline.illumination import estimate
from rbcedge.simulator import Composition, Look, render_field

ONE_OF_EACH = [d for d in DEVICES if d not in ("cpu, 3 at a time", "cpu, shuffled")]


class Dark:
    """A segmenter by brightness: cell where green is dark. Takes any size."""

    name, precision, input_shape = "test", "fp32", (1, 64, 64, 3)

    def infer(self, batch: np.ndarray) -> np.ndarray:
        smooth = np.stack([cv2.GaussianBlur(p[..., 1], (5, 5), 0) for p in batch])
        return np.clip((235 - smooth.astype(np.float32)) / 80, 0, 1)[..., None]

    def close(self) -> None:
        pass


class Tint:
    """A classifier whose answer depends on every pixel of a crop, and remembers the crops."""

    name, precision, input_shape = "test", "fp32", (32, 80, 80, 3)

    def __init__(self, classes: int) -> None:
        self._weights = np.random.default_rng(0).random((80, 80, 3, classes)).astype(np.float32)
        self.seen: list[np.ndarray] = []

    def infer(self, batch: np.ndarray) -> np.ndarray:
        self.seen.append(batch.copy())
        side = batch.shape[1]
        scores = np.einsum("nhwc,hwck->nk", batch / 255.0, self._weights[:side, :side])
        p = np.exp(scores / 50 - scores.max(axis=1, keepdims=True) / 50)
        return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def bundle() -> bundles.Bundle:
    return bundles.load(bundles.default_folder())


@contextmanager
def both(
    bundle: bundles.Bundle, device: Device, engines: tuple[Engine, Engine], scale: float | None, dtype: type = np.uint8
) -> Iterator[tuple[HostPipeline, DevicePipeline]]:
    stream = device.stream()
    pipeline = DevicePipeline(
        bundle,
        device,
        CopyingExecutor(device, stream, engines[0], (), dtype),
        CopyingExecutor(device, stream, engines[1], (len(bundle.labels),), dtype),
        scale,
    )
    try:
        yield HostPipeline(bundle, *engines, scale=scale), pipeline
    finally:
        pipeline.close()


def _simulated(seed: int = 5, size: tuple[int, int] = (640, 480), density: float = 45) -> np.ndarray:
    composition = Composition(fractions={"NOR": 8, "OVA": 1, "TWO": 0.5}, density=density)
    return render_field(np.random.default_rng(seed), *size, look=Look(), composition=composition).pixels


def _frame(pixels: np.ndarray, index: int = 0) -> Frame:
    return Frame(index, float(index), np.ascontiguousarray(pixels), "test")


def _everything(pipeline: HostPipeline | DevicePipeline, pixels: np.ndarray) -> Field:
    field = pipeline.find(_frame(pixels))
    return pipeline.classify(field, np.arange(len(field.cells)))


def _same(a: Field, b: Field) -> None:
    assert a.scale == b.scale
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.mask, b.mask)
    for name in ("boxes", "areas", "centroids", "on_border"):
        np.testing.assert_array_equal(getattr(a.cells, name), getattr(b.cells, name))
    assert a.foreign == pytest.approx(b.foreign, abs=1e-4)
    np.testing.assert_allclose(a.cells.probabilities, b.cells.probabilities, atol=1e-5)
    np.testing.assert_array_equal(a.cells.best, b.cells.best)


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("scale", [0.3, 0.5, 1.0, 1.7])
def test_a_simulated_field_is_the_same(bundle: bundles.Bundle, name: str, scale: float, dtype: type) -> None:
    # At 0.3 single cells of this picture are specks, and only clumps are left.
    pixels = _simulated(size=(640, 480) if scale < 0.5 else (320, 240))
    with both(bundle, open_device(name), (Dark(), Tint(8)), scale, dtype) as (host, device):
        expected = _everything(host, pixels)
        assert len(expected.cells) > 8
        _same(_everything(device, pixels), expected)


@pytest.mark.parametrize("scale", [0.5, 0.85, 1.0, 1.7])
def test_crops_are_those_of_the_host(bundle: bundles.Bundle, scale: float) -> None:
    pixels, classifier = _simulated(size=(320, 240)), Tint(8)
    with both(bundle, open_device("cpu"), (Dark(), classifier), scale) as (_, device):
        field = _everything(device, pixels)
        light = np.ascontiguousarray(estimate(pixels).apply(pixels)[..., ::-1])
        rows = np.arange(len(field.cells))
        shown = iter(classifier.seen)
        for side, group in plan.by_side(bundle, field, rows):
            expected = crops(light, field.labels, field.cells, group, field.scale, side, bundle.rim_px)
            batch = next(shown)
            np.testing.assert_array_equal(batch[: len(group)], expected)
            assert not batch[len(group) :].any()


@pytest.mark.parametrize("path", ["chula-rbc-12/Dataset/10.jpg", "chula-rbc-12/Dataset/105.jpg", "diseases"])
def test_real_fields_are_the_same_with_the_shipped_networks(bundle: bundles.Bundle, path: str) -> None:
    if path == "diseases":
        found = sorted((DATA / "chula-rbc-diseases").rglob("*.JPG")) if DATA.exists() else []
        picture, scale = (found[0] if found else DATA / path), 0.5
    else:
        picture, scale = DATA / path, None
    if not picture.is_file():
        pytest.skip(f"{picture.name} is not here")
    pixels = cv2.imread(str(picture))
    with both(bundle, open_device("cpu"), load_engines(bundle), scale) as (host, device):
        expected = host.find(_frame(pixels))
        found_field = device.find(_frame(pixels))
        # Some rows are enough for the classifier, the small and the large ones.
        rows = np.argsort(expected.cells.areas)[:: max(1, len(expected.cells) // 12)]
        _same(device.classify(found_field, rows), host.classify(expected, rows))
        assert device.warnings == host.warnings


def test_the_stand_in_executor_does_what_an_engine_does(bundle: bundles.Bundle) -> None:
    pixels, device = _simulated(size=(200, 150)), open_device("cpu")
    segmenter, classifier = HostExecutor.segmenter(Dark()), HostExecutor.classifier(Tint(8), 8)
    pipeline = DevicePipeline(bundle, device, segmenter, classifier, scale=1.0, by_stage=True)
    _same(_everything(pipeline, pixels), _everything(HostPipeline(bundle, Dark(), Tint(8), scale=1.0), pixels))
    field = _everything(pipeline, pixels)
    stages = {"upload", "illumination", "normalise", "segment", "components", "light", "crop", "classify"}
    assert set(field.timings_ms) == stages
    pipeline.close()
    pipeline.close()


@pytest.fixture
def pipeline(bundle: bundles.Bundle) -> Iterator[DevicePipeline]:
    p = DevicePipeline(
        bundle,
        open_device("cpu"),
        HostExecutor.segmenter(Dark()),
        HostExecutor.classifier(Tint(8), 8),
        scale=1.0,
    )
    yield p
    p.close()


def test_pictures_decoded_into_mapped_memory_are_never_copied(pipeline: DevicePipeline) -> None:
    buffers = pipeline.pictures(320, 240)
    assert [b.shape for b in buffers] == [(240, 320, 3)] * 2
    for turn in range(2):  # everything is allocated with the first frames
        buffers[turn][...] = _simulated(turn, (320, 240))
        pipeline.find(Frame(turn, 0.0, buffers[turn], "camera"))
    before = pipeline.transfers
    for turn in range(6):
        buffers[turn % 2][...] = _simulated(turn, (320, 240))  # stands for the decoder
        field = pipeline.find(Frame(turn, 0.0, buffers[turn % 2], "camera"))
        field = pipeline.classify(field, np.arange(len(field.cells)))
        assert field.mask.any()
        assert field.cells.classified.all()
    after = pipeline.transfers
    assert (after.staged, after.uploads, after.downloads) == (before.staged, before.uploads, before.downloads)


def test_every_copy_is_counted(pipeline: DevicePipeline) -> None:
    pipeline.find(_frame(_simulated(0, (320, 240))))
    before = pipeline.transfers
    field = pipeline.find(_frame(_simulated(1, (320, 240))))
    field.labels.max()
    field.labels.min()
    after = pipeline.transfers
    assert (after.staged - before.staged, after.staged_bytes - before.staged_bytes) == (1, 320 * 240 * 3)
    assert (after.downloads - before.downloads, after.download_bytes - before.download_bytes) == (1, 320 * 240 * 4)
    assert after.uploads == before.uploads


def test_a_field_keeps_its_pictures_while_others_are_searched(bundle: bundles.Bundle, pipeline: DevicePipeline) -> None:
    host = HostPipeline(bundle, Dark(), Tint(8), scale=1.0)
    pixels = [_simulated(k, (160, 120)) for k in range(5)]
    fields = [pipeline.find(_frame(p, k)) for k, p in enumerate(pixels)]
    bigger = pipeline.find(_frame(_simulated(9, (200, 100)), 9))
    for p, field in zip(pixels, fields, strict=True):
        expected = host.find(_frame(p))
        np.testing.assert_array_equal(field.labels, expected.labels)
        np.testing.assert_array_equal(field.mask, expected.mask)
    assert bigger.mask.shape == (100, 200)
    assert replace(bigger, foreign=0.0).labels.shape == (100, 200)


def test_fields_nobody_keeps_cost_no_copies(pipeline: DevicePipeline) -> None:
    for k in range(2):
        pipeline.find(_frame(_simulated(k, (160, 120)), k))
    gc.collect()
    before = pipeline.transfers.downloads
    for k in range(6):
        field = pipeline.find(_frame(_simulated(k, (160, 120)), k))
        field = pipeline.classify(field, np.arange(len(field.cells)))
    assert pipeline.transfers.downloads == before


def test_the_frame_size_may_change_in_mid_stream(bundle: bundles.Bundle) -> None:
    with both(bundle, open_device("cpu"), (Dark(), Tint(8)), None) as (host, device):
        for seed, size in enumerate([(160, 120), (120, 160), (160, 120), (1, 1), (33, 31), (161, 97)]):
            pixels = _simulated(seed, size) if min(size) > 40 else np.full((*size[::-1], 3), 200, np.uint8)
            _same(_everything(device, pixels), _everything(host, pixels))
            assert device.scale == host.scale


def test_more_cells_than_the_largest_batch_are_all_classified(bundle: bundles.Bundle) -> None:
    pixels = np.full((600, 800, 3), 230, np.uint8)
    for y in range(20, 600, 30):
        for x in range(20, 800, 30):
            cv2.circle(pixels, (x, y), 9, (90, 60 + x % 40, 120), -1)
    classifier = Tint(8)
    device = open_device("cpu")
    pipeline = DevicePipeline(
        bundle, device, HostExecutor.segmenter(Dark()), HostExecutor.classifier(classifier, 8), 1.0, buckets=(4, 32)
    )
    field = pipeline.find(_frame(pixels))
    assert len(field.cells) == 20 * 26
    rows = np.random.default_rng(0).permutation(len(field.cells))[:500]
    named = pipeline.classify(field, rows)
    assert set(np.flatnonzero(named.cells.classified)) == set(rows)
    assert {len(b) for b in classifier.seen} <= {4, 32}
    expected = HostPipeline(bundle, Dark(), Tint(8), 1.0)
    wanted = expected.classify(expected.find(_frame(pixels)), rows)
    np.testing.assert_allclose(named.cells.probabilities, wanted.cells.probabilities, atol=1e-5)
    pipeline.close()


def test_only_the_last_field_can_be_classified(pipeline: DevicePipeline) -> None:
    first = pipeline.find(_frame(_simulated(0, (160, 120))))
    pipeline.find(_frame(_simulated(1, (160, 120))))
    assert pipeline.classify(first, np.zeros(0, np.intp)) is first
    with pytest.raises(ValueError, match="returned last"):
        pipeline.classify(first, np.array([0]))


def test_a_picture_too_large_at_its_scale_is_refused_in_words(bundle: bundles.Bundle) -> None:
    pipeline = DevicePipeline(
        bundle, open_device("cpu"), HostExecutor.segmenter(Dark()), HostExecutor.classifier(Tint(8), 8), scale=4.0
    )
    with pytest.raises(RbcedgeError, match="too many to search at once"):
        pipeline.find(_frame(np.zeros((2000, 2000, 3), np.uint8)))
    pipeline.close()


class SmallDevice(CpuDevice):
    """A device with little memory."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self.made: list[CpuMemory] = []

    def allocate(self, nbytes: int) -> CpuMemory:
        if sum(m.nbytes for m in self.made if m.address) + nbytes > self._room:
            raise OutOfMemory("full")
        self.made.append(CpuMemory(nbytes))
        return self.made[-1]

    allocate_mapped = allocate


@pytest.mark.parametrize(("room", "batch"), [(40 << 20, 512), (6 << 20, 128), (3 << 20, 64)])
def test_little_memory_makes_smaller_batches_and_one_warning(bundle: bundles.Bundle, room: int, batch: int) -> None:
    open_device("cpu").close()
    device, classifier = SmallDevice(room), Tint(8)
    pipeline = DevicePipeline(
        bundle, device, HostExecutor.segmenter(Dark()), HostExecutor.classifier(classifier, 8), 1.0
    )
    words = [w for w in pipeline.warnings if "memory" in w]
    assert len(words) == (batch < 512)
    assert all(f"{batch} at a time" in w for w in words)
    pixels = _simulated(0, (160, 120))
    _same(_everything(pipeline, pixels), _everything(HostPipeline(bundle, Dark(), Tint(8), 1.0), pixels))
    pipeline.close()
    assert not [m for m in device.made if m.address]


def test_no_memory_at_all_is_said_in_words(bundle: bundles.Bundle) -> None:
    open_device("cpu").close()
    executors = HostExecutor.segmenter(Dark()), HostExecutor.classifier(Tint(8), 8)
    with pytest.raises(RbcedgeError, match="no memory left to classify"):
        DevicePipeline(bundle, SmallDevice(1000), *executors, 1.0)
    device = SmallDevice(3 << 20)
    pipeline = DevicePipeline(bundle, device, *executors, 1.0)
    with pytest.raises(RbcedgeError, match="no memory left for pictures of 2000x1000"):
        pipeline.find(_frame(np.zeros((1000, 2000, 3), np.uint8)))
    # A smaller picture is searched all the same.
    assert len(pipeline.find(_frame(_simulated(0, (160, 120)))).cells) > 0
    pipeline.close()
    assert not [m for m in device.made if m.address]
