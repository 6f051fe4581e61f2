"""Rare shapes made of round cells: what is drawn is what its name says."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from rbcedge.training.crops import WINDOW, Cut
from rbcedge.training.lessons import CODES
from rbcedge.training.reshape import SHAPES, reshape

DRAWS = 60


def _round(radius: float = 19.0) -> Cut:
    y, x = np.mgrid[:WINDOW, :WINDOW] - WINDOW / 2
    own = (np.hypot(x, y) < radius).astype(np.uint8)
    pixels = np.where(own[..., None] > 0, np.array([200, 120, 150]), 235).astype(np.uint8)
    return Cut(pixels, own, np.zeros_like(own), CODES.index("NOR"), 7)


def _made(name: str) -> list[Cut]:
    rng = np.random.default_rng(3)
    return [reshape(rng, _round(), name, CODES.index(name)) for _ in range(DRAWS)]


def _profile(own: np.ndarray) -> np.ndarray:
    """Reach of the mask from its middle, by degree, px."""
    ys, xs = np.nonzero(own)
    cy, cx = ys.mean(), xs.mean()
    degree = (np.degrees(np.arctan2(ys - cy, xs - cx)) % 360).astype(int) // 2
    reach = np.zeros(180)
    np.maximum.at(reach, degree, np.hypot(ys - cy, xs - cx))
    return reach


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_made_cell_is_one_piece_of_the_right_class_with_its_pixels_under_its_mask(name: str) -> None:
    for cell in _made(name):
        assert CODES[cell.code] == name
        assert cell.field == 7
        assert cell.own.shape == (WINDOW, WINDOW)
        assert cv2.connectedComponents(cell.own, connectivity=8)[0] == 2
        # The middle of the new cell has the old cell's colour, far away there is glass.
        core = cv2.erode(cell.own, np.ones((5, 5), np.uint8)) > 0
        assert np.abs(cell.pixels[core].astype(int) - [200, 120, 150]).max() < 60
        far = cv2.dilate(cell.own, np.ones((9, 9), np.uint8)) == 0
        assert cell.pixels[far].min() > 150


def test_burr_cells_have_many_spicules_and_about_the_cells_size() -> None:
    for cell in _made("BUR"):
        assert float(cell.own.sum()) == pytest.approx(float(_round().own.sum()), rel=0.15)
        spectrum = np.abs(np.fft.rfft(_profile(cell.own)))
        assert spectrum[7:32].max() > spectrum[2:4].max() * 0.5


def test_teardrops_have_one_tail() -> None:
    for cell in _made("TEA"):
        reach = _profile(cell.own)
        assert reach.max() > 1.15 * np.median(reach)
        tail = int(reach.argmax())
        away = np.abs((np.arange(180) - tail + 90) % 180 - 90)
        assert reach[away > 45].max() < reach.max() * 0.95


def test_fragments_are_smaller_and_not_round() -> None:
    whole = _round().own.sum()
    for cell in _made("FRA"):
        assert cell.own.sum() < 0.95 * whole
        contour = max(cv2.findContours(cell.own, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=cv2.contourArea)
        perimeter = cv2.arcLength(contour, True)
        assert 4 * np.pi * cv2.contourArea(contour) / perimeter**2 < 0.85


def test_the_same_seed_makes_the_same_cell() -> None:
    for a, b in zip(_made("TEA"), _made("TEA"), strict=True):
        np.testing.assert_array_equal(a.pixels, b.pixels)
        np.testing.assert_array_equal(a.own, b.own)
