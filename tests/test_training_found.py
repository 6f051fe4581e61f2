"""Lessons as the segmenter finds them: which class a component has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rbcedge.training.found import classes_of, found
from rbcedge.training.lessons import CODES

from rbcedge.cells import Cells
from rbcedge.field import Field
from rbcedge.frame import Frame

NOR, BUR, TWO, THR = (CODES.index(c) for c in ("NOR", "BUR", "TWO", "THR"))


def _discs(*discs: tuple[int, int, int], shape: tuple[int, int] = (80, 200)) -> np.ndarray:
    """(H, W) int32 with disc k as k: x, y, radius."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    out = np.zeros(shape, np.int32)
    for k, (cx, cy, r) in enumerate(discs, 1):
        out[np.hypot(x - cx, y - cy) < r] = k
    return out


def _lesson(labels: np.ndarray, *classes: int) -> dict[str, Any]:
    return {"labels": labels.astype(np.int16), "classes": np.array(classes, np.int8)}


def test_a_component_has_the_class_of_the_instance_it_shows() -> None:
    truth = _discs((30, 40, 20), (90, 40, 20), (160, 40, 20))
    smoother = _discs((160, 40, 19), (30, 41, 18))
    np.testing.assert_array_equal(classes_of(smoother, _lesson(truth, NOR, TWO, BUR)), [BUR, NOR])


@pytest.mark.parametrize(
    ("classes", "expected"),
    [((NOR, NOR), TWO), ((NOR, TWO), THR), ((TWO, TWO), -1), ((NOR, -1), -1)],
)
def test_instances_found_as_one_are_an_overlap_of_their_number(classes: tuple[int, int], expected: int) -> None:
    truth = _discs((40, 40, 20), (78, 40, 20))
    assert classes_of((truth > 0).astype(np.int32), _lesson(truth, *classes)).tolist() == [expected]


def test_parts_and_blobs_are_unknown() -> None:
    truth = _discs((40, 40, 20), (120, 40, 20))
    half = truth.copy()
    half[:, :40] = 0
    blob = np.where(_discs((40, 40, 36)) > 0, 1, 0) + 2 * (half == 2)
    assert classes_of(half.astype(np.int32), _lesson(truth, NOR, NOR))[0] == -1
    assert classes_of(blob.astype(np.int32), _lesson(truth, NOR, BUR)).tolist() == [-1, BUR]
    assert classes_of(np.zeros_like(truth), _lesson(truth, NOR, NOR)).tolist() == []


def test_a_lesson_is_found_anew_and_keeps_its_picture() -> None:
    truth = _discs((40, 40, 20))
    pixels = np.random.default_rng(0).integers(0, 255, (*truth.shape, 3), np.uint8)

    class Pipeline:
        def find(self, frame: Frame) -> Field:
            np.testing.assert_array_equal(frame.pixels, pixels[..., ::-1])
            labels = _discs((41, 40, 20))
            return Field(frame, 1.0, (labels > 0).astype(np.uint8) * 255, labels, Cells.empty(8), 0.0, {})

    lesson = {**_lesson(truth, NOR), "pixels": pixels, "ignore": truth > 5}
    new = found(lesson, Pipeline())  # type: ignore[arg-type]
    assert new["classes"].tolist() == [NOR]
    assert new["labels"].dtype == np.int16
    assert new["pixels"] is pixels
    assert new["ignore"] is lesson["ignore"]
