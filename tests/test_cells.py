"""Components and crops against exact masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from rbcedge.cells import Cells, components, crops, fill

masks = arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.sampled_from([0, 255]))


@settings(max_examples=150, deadline=None)
@given(masks)
def test_components_agree_with_scipy(mask: np.ndarray) -> None:
    labels, cells = components(mask, 8, fill_holes=False)
    expected, n = ndimage.label(mask, structure=np.ones((3, 3)))
    assert len(cells) == n
    np.testing.assert_array_equal(labels, expected)  # scipy, too, numbers in raster order of the first pixel
    h, w = mask.shape
    for i in range(n):
        ys, xs = np.nonzero(expected == i + 1)
        x, y, bw, bh = cells.boxes[i]
        assert (x, y, x + bw - 1, y + bh - 1) == (xs.min(), ys.min(), xs.max(), ys.max())
        assert cells.areas[i] == len(xs)
        np.testing.assert_allclose(cells.centroids[i], (xs.mean(), ys.mean()), atol=1e-3)
        assert cells.on_border[i] == (xs.min() == 0 or ys.min() == 0 or xs.max() == w - 1 or ys.max() == h - 1)


@settings(max_examples=150, deadline=None)
@given(masks)
def test_fill_agrees_with_scipy(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(fill((mask > 0).astype(np.uint8)), ndimage.binary_fill_holes(mask > 0))


@settings(max_examples=60, deadline=None)
@given(masks, st.integers(1, 40))
def test_small_components_are_dropped_and_rows_stay_in_step(mask: np.ndarray, least: int) -> None:
    labels, cells = components(mask, 3, min_area=least)
    assert (cells.areas >= least).all()
    np.testing.assert_array_equal(np.bincount(labels.ravel(), minlength=len(cells) + 1)[1:], cells.areas)


def _two_cells() -> tuple[np.ndarray, np.ndarray, Cells]:
    labels = np.zeros((60, 100), np.int32)
    labels[10:30, 20:41] = 1
    labels[15:35, 44:60] = 2  # inside the first one's window
    labels[50:60, 90:100] = 3  # in the corner
    pixels = np.random.default_rng(0).integers(1, 255, (60, 100, 3), np.uint8)
    found, cells = components((labels > 0).astype(np.uint8), 8)
    np.testing.assert_array_equal(found, labels)
    return pixels, labels, cells


def test_a_crop_holds_its_cell_unchanged_and_nothing_else() -> None:
    pixels, labels, cells = _two_cells()
    out = crops(pixels, labels, cells, np.array([0, 1, 2]), side=80)
    assert out.shape == (3, 80, 80, 3)
    for k in range(3):
        x, y, w, h = cells.boxes[k]
        top, left = 40 - h // 2, 40 - w // 2
        np.testing.assert_array_equal(out[k, top : top + h, left : left + w], pixels[y : y + h, x : x + w])
        assert np.count_nonzero(out[k].any(axis=2)) == cells.areas[k]


def test_a_cell_larger_than_the_window_is_clipped_around_its_centre() -> None:
    labels = np.ones((100, 100), np.int32)
    pixels = np.full((100, 100, 3), 7, np.uint8)
    _, cells = components(labels.astype(np.uint8), 8)
    assert (crops(pixels, labels, cells, np.array([0]), side=80) == 7).all()


@pytest.mark.parametrize("scale", [0.5, 0.8, 2.0])
def test_rescaled_crops_keep_size_and_have_no_dark_rim(scale: float) -> None:
    yy, xx = np.mgrid[:200, :200]
    r = 15 / scale
    mask = ((xx - 100) ** 2 + (yy - 90) ** 2 < r**2).astype(np.uint8)
    pixels = np.full((200, 200, 3), 180, np.uint8)
    labels, cells = components(mask, 8)
    out = crops(pixels, labels, cells, np.array([0]), scale)[0]
    inside = out[..., 0] > 0
    assert inside.sum() == pytest.approx(np.pi * 15**2, rel=0.06)
    assert out[inside].min() >= 178


def test_cells_refuse_arrays_that_do_not_belong_together() -> None:
    good = Cells.empty(8)
    with pytest.raises(ValueError, match="areas"):
        Cells(good.boxes, good.centroids, np.zeros(3, np.int32), good.on_border, good.probabilities)


def test_best_and_confidence_wait_for_classification() -> None:
    _, _, cells = _two_cells()
    assert (cells.best == -1).all()
    assert np.isnan(cells.confidences).all()
    p = np.zeros((1, 8), np.float32)
    p[0, 5] = 0.9
    named = cells.with_probabilities(np.array([1]), p)
    assert named.best.tolist() == [-1, 5, -1]
    assert named.classified.tolist() == [False, True, False]
    assert not cells.classified.any()


def test_a_rim_shows_background_but_neither_neighbours_nor_beyond_the_edge() -> None:
    pixels, labels, cells = _two_cells()
    plain = crops(pixels, labels, cells, np.array([0]), side=80)[0]
    rimmed = crops(pixels, labels, cells, np.array([0]), side=80, rim=5)[0]
    x, y, w, h = cells.boxes[0]
    shown = np.zeros(labels.shape, bool)
    shown[y - 5 : y + h + 5, x - 5 : x + w + 5] = True
    top, left = y + h // 2 - 40, x + w // 2 - 40
    for r in range(80):
        for c in range(80):
            py, px = r + top, c + left
            if not (0 <= py < 60 and 0 <= px < 100):
                assert not rimmed[r, c].any()
            elif labels[py, px] == 1:
                np.testing.assert_array_equal(rimmed[r, c], plain[r, c])
            elif labels[py, px] > 1 or not shown[py, px]:
                assert not rimmed[r, c].any()
    assert rimmed[40, 40 - w // 2 - 5].any()
    assert not rimmed[40, 40 - w // 2 - 6].any()


def test_a_rim_keeps_its_width_at_another_scale() -> None:
    yy, xx = np.mgrid[:200, :200]
    mask = ((xx - 100) ** 2 + (yy - 100) ** 2 < 30**2).astype(np.uint8)
    pixels = np.full((200, 200, 3), 180, np.uint8)
    labels, cells = components(mask, 8)
    out = crops(pixels, labels, cells, np.array([0]), 0.5, rim=3)[0]
    assert (out[..., 0] > 0).sum() == pytest.approx(np.pi * 18**2, rel=0.06)
    assert out[out > 0].min() == 180
