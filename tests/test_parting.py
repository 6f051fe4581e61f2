"""Touching cells come apart at narrow necks; overlapped ones, tails and spicules stay."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbcedge.cells import components
from rbcedge.parting import part

DIAMETER = 38.0
LEAST = 57


def _discs(*discs: tuple[int, int, int], bridges: list[tuple[tuple[int, int], tuple[int, int], int]] | None = None):
    mask = np.zeros((160, 200), np.uint8)
    for x, y, r in discs:
        cv2.circle(mask, (x, y), r, 1, -1)
    for a, b, width in bridges or []:
        cv2.line(mask, a, b, 1, width)
    return mask


def _parted(mask: np.ndarray):
    return part(*components(mask, 8, LEAST), DIAMETER, LEAST)


def test_two_cells_on_a_bridge_come_apart_and_keep_their_shape() -> None:
    mask = _discs((60, 80, 19), (104, 80, 18), bridges=[((60, 80), (104, 80), 5)])
    labels, cells = _parted(mask)
    assert len(cells) == 2
    assert np.abs(cells.centroids - [[60, 80], [104, 80]]).max() < 1.5
    # Nothing but a line across the bridge is lost.
    assert 0 < int(mask.sum()) - int((labels > 0).sum()) <= 12


def test_three_touching_cells_come_apart() -> None:
    mask = _discs((50, 60, 19), (88, 60, 19), (126, 62, 19))
    assert len(components(mask, 8, LEAST)[1]) == 1
    labels, cells = _parted(mask)
    assert len(cells) == 3
    assert labels[60, 50] == 1
    assert labels[60, 88] == 2
    assert labels[62, 126] == 3


def test_a_small_cell_comes_off_a_large_one() -> None:
    assert len(_parted(_discs((60, 80, 22), (92, 80, 11)))[1]) == 2


@pytest.mark.parametrize("distance", [8, 16, 24, 30])
def test_truly_overlapped_cells_stay_together(distance: int) -> None:
    assert len(_parted(_discs((60, 80, 19), (60 + distance, 80, 19)))[1]) == 1


def test_tails_and_spicules_stay_on_their_cell() -> None:
    tail = _discs((60, 80, 20), bridges=[((60, 80), (100, 80), 7)])
    assert len(_parted(tail)[1]) == 1
    burr = _discs((60, 80, 19), *[
        (round(60 + 20 * np.cos(a)), round(80 + 20 * np.sin(a)), 3) for a in np.linspace(0, 2 * np.pi, 12, False)
    ])  # fmt: skip
    assert len(_parted(burr)[1]) == 1


def test_where_nothing_is_to_be_parted_the_same_objects_come_back() -> None:
    labels, cells = components(_discs((40, 40, 19), (120, 40, 24)), 8, LEAST)
    again, same = part(labels, cells, DIAMETER, LEAST)
    assert again is labels
    assert same is cells


def test_cells_at_the_edge_and_at_another_scale() -> None:
    mask = _discs((0, 20, 19), (0, 58, 19))
    assert len(_parted(mask)[1]) == 2
    large = cv2.resize(_discs((60, 80, 19), (98, 80, 19)), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    assert len(part(*components(large, 8, LEAST), 2 * DIAMETER, 4 * LEAST)[1]) == 2


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 199), st.integers(0, 159), st.integers(6, 26)), min_size=1, max_size=14, unique=True
    )
)
def test_parting_only_removes_pixels_and_loses_no_cell(discs: list[tuple[int, int, int]]) -> None:
    mask = _discs(*discs)
    before, cells = components(mask, 8, LEAST)
    labels, parted = part(before, cells, DIAMETER, LEAST)
    assert not ((labels > 0) & (before == 0)).any()
    assert len(parted) >= len(cells)
    for row in range(len(cells)):
        assert ((labels > 0) & (before == row + 1)).any()
    # Every part is one piece, and no two parts touch.
    assert len(components((labels > 0).astype(np.uint8), 8, 1, fill_holes=False)[1]) == len(parted)
