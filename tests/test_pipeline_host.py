"""The host pipeline with the shipped networks, on pictures whose truth is exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from rbcedge import bundle
from rbcedge.engines import load_engines
from rbcedge.engines.litert import LiteRTEngine
from rbcedge.errors import RbcedgeError, UsageError
from rbcedge.frame import Frame
from rbcedge.pipeline.host import HostPipeline
from rbcedge.simulator import Composition, Look, View, render_field


@pytest.fixture(scope="module")
def default() -> bundle.Bundle:
    return bundle.load(bundle.default_folder())


@pytest.fixture
def pipeline(default: bundle.Bundle) -> Iterator[HostPipeline]:
    p = HostPipeline(default, *load_engines(default))
    yield p
    p.close()


def _view(seed: int = 5, **look: float) -> View:
    composition = Composition(fractions={"NOR": 8, "OVA": 1, "TWO": 0.5}, density=45)
    return render_field(np.random.default_rng(seed), 640, 480, look=Look(**look), composition=composition)


def _frame(pixels: np.ndarray, index: int = 0) -> Frame:
    return Frame(index, float(index), np.ascontiguousarray(pixels), "test")


def test_finds_the_cells_of_a_simulated_field(pipeline: HostPipeline) -> None:
    view = _view()
    field = pipeline.find(_frame(view.pixels))
    truth = view.mask
    found = field.mask > 0
    assert (truth & found).sum() / (truth | found).sum() > 0.9
    hits = 0
    for object_id in view.objects.ids[view.objects.whole]:
        own = view.labels == object_id
        ids = field.labels[own]
        best = np.bincount(ids[ids > 0]).argmax() if (ids > 0).any() else 0
        other = field.labels == best
        hits += bool(best) and (own & other).sum() / (own | other).sum() > 0.5
    assert hits / view.objects.whole.sum() > 0.95


def test_a_field_is_consistent(pipeline: HostPipeline) -> None:
    field = pipeline.find(_frame(_view().pixels))
    assert field.mask.shape == field.labels.shape == (480, 640)
    assert set(np.unique(field.mask)) <= {0, 255}
    np.testing.assert_array_equal(field.mask > 0, field.labels > 0)
    np.testing.assert_array_equal(np.bincount(field.labels.ravel())[1:], field.cells.areas)
    assert not field.cells.classified.any()


def test_classifies_only_the_rows_asked_for(pipeline: HostPipeline) -> None:
    field = pipeline.find(_frame(_view().pixels))
    rows = np.array([0, 3, 11])
    named = pipeline.classify(field, rows)
    np.testing.assert_array_equal(np.flatnonzero(named.cells.classified), rows)
    np.testing.assert_allclose(named.cells.probabilities[rows].sum(axis=1), 1, atol=1e-5)
    everything = pipeline.classify(field, np.arange(len(field.cells)))
    # In a batch of others a cell gets the same answer.
    np.testing.assert_allclose(everything.cells.probabilities[rows], named.cells.probabilities[rows], atol=1e-6)


def test_rounded_cells_are_called_rounded(pipeline: HostPipeline, default: bundle.Bundle) -> None:
    composition = Composition(fractions={"NOR": 1}, density=40)
    view = render_field(np.random.default_rng(8), 640, 480, look=Look(), composition=composition)
    field = pipeline.find(_frame(view.pixels))
    inner = np.flatnonzero(~field.cells.on_border)
    best = pipeline.classify(field, inner).cells.best[inner]
    share = np.mean([default.codes[i] == "NOR" for i in best])
    assert share > 0.85


@pytest.mark.parametrize("zoom", [0.5, 1.6, 2.0])
def test_magnification_is_found(default: bundle.Bundle, zoom: float) -> None:
    view = _view()
    size = (round(640 * zoom), round(480 * zoom))
    pixels = cv2.resize(view.pixels, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)
    pipeline = HostPipeline(default, *load_engines(default))
    field = pipeline.find(_frame(pixels))
    assert pipeline.scale == pytest.approx(1 / zoom, rel=0.15)
    assert field.mask.shape == (size[1], size[0])
    assert len(field.cells) == pytest.approx(len(view.objects), rel=0.15)


def test_a_fixed_scale_is_not_measured(default: bundle.Bundle) -> None:
    pipeline = HostPipeline(default, *load_engines(default), scale=0.9)
    pipeline.find(_frame(_view().pixels))
    assert pipeline.scale == 0.9


def test_the_scale_holds_once_enough_cells_were_measured(pipeline: HostPipeline) -> None:
    pipeline.find(_frame(_view().pixels))
    before = pipeline.scale
    field = pipeline.find(_frame(np.full((480, 640, 3), 200, np.uint8), 1))
    assert pipeline.scale == before
    assert len(field.cells) == 0
    assert "scale" not in field.timings_ms


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (33, 31), (97, 641)])
def test_pictures_of_any_size_pass(pipeline: HostPipeline, shape: tuple[int, int]) -> None:
    field = pipeline.find(_frame(np.full((*shape, 3), 190, np.uint8)))
    assert field.mask.shape == shape
    field = pipeline.classify(field, np.arange(len(field.cells)))
    assert field.cells.classified.all()


def test_light_does_not_change_the_result(pipeline: HostPipeline) -> None:
    view = _view()
    first = pipeline.find(_frame(view.pixels))
    ramp = np.linspace(0.75, 0.95, 640)[None, :, None] * np.array([0.85, 0.95, 1.0])
    second = pipeline.find(_frame((view.pixels * ramp).astype(np.uint8), 1))
    a, b = first.mask > 0, second.mask > 0
    assert (a & b).sum() / (a | b).sum() > 0.97


def test_int8_and_float_agree(default: bundle.Bundle) -> None:
    if default.find("segmenter", "tflite", ("fp32",)) is None:
        pytest.skip("this bundle ships no float networks")
    small = HostPipeline(default, *load_engines(default, precision="int8"), scale=1.0)
    whole = HostPipeline(default, *load_engines(default, precision="fp32"), scale=1.0)
    frame = _frame(_view().pixels)
    a, b = small.find(frame), whole.find(frame)
    iou = ((a.mask & b.mask) > 0).sum() / ((a.mask | b.mask) > 0).sum()
    assert iou > 0.98
    rows = np.flatnonzero(~b.cells.on_border)
    # The classifier is compared on the same field and mask.
    again = small.find(frame)
    first = small.classify(again, rows).cells.best if len(again.cells) == len(b.cells) else None
    if first is not None:
        assert (first[rows] == whole.classify(b, rows).cells.best[rows]).mean() > 0.9


def test_unknown_engines_and_precisions_are_usage_errors(default: bundle.Bundle) -> None:
    with pytest.raises(UsageError, match="Unknown engine 'warp'"):
        load_engines(default, "warp")
    with pytest.raises(UsageError, match="Unknown precision 'int3'"):
        load_engines(default, precision="int3")
    with pytest.raises(UsageError, match="0 threads"):
        load_engines(default, threads=0)


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    path.write_bytes(b"nothing" * 100)
    with pytest.raises(RbcedgeError, match=r"x\.tflite: not a model LiteRT can run"):
        LiteRTEngine(path, "int8")
