"""The flat field takes lamp, camera and gradient out of the picture and leaves the cells."""

from __future__ import annotations

import numpy as np
import pytest

from rbcedge.pipeline.illumination import BACKGROUND, estimate


def _field(tint: tuple[float, float, float], slope: float) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a tinted, sloping light and discs that let 60 % through; and the discs."""
    rng = np.random.default_rng(3)
    yy, xx = np.mgrid[:480, :640]
    discs = np.zeros((480, 640), bool)
    for x, y in rng.uniform((20, 20), (620, 460), (75, 2)):
        discs |= (xx - x) ** 2 + (yy - y) ** 2 < 19**2
    light = np.array(tint)[None, None] * (1 + slope * (xx / 640 - 0.5))[..., None]
    picture = light * np.where(discs, 0.6, 1.0)[..., None] + rng.normal(0, 1.5, (480, 640, 3))
    return np.clip(picture, 0, 255).astype(np.uint8), discs


@pytest.mark.parametrize("tint", [(200, 200, 200), (120, 190, 230), (90, 80, 100)])
@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_background_becomes_white_and_cells_keep_their_transmission(tint: tuple[int, int, int], slope: float) -> None:
    picture, discs = _field(tint, slope)
    flat = estimate(picture).apply(picture).astype(float)
    for channel in range(3):
        assert np.median(flat[..., channel][~discs]) == pytest.approx(BACKGROUND, rel=0.03)
        assert np.median(flat[..., channel][discs]) == pytest.approx(0.6 * BACKGROUND, rel=0.05)
    left, right = flat[:, :160][~discs[:, :160]].mean(), flat[:, -160:][~discs[:, -160:]].mean()
    assert left == pytest.approx(right, rel=0.03)


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (5, 3), (17, 1000)])
def test_odd_sizes_work(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 100, np.uint8)
    assert (estimate(picture).apply(picture) == round(BACKGROUND)).all()


def test_black_picture_gives_no_infinite_gain() -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    assert (estimate(picture).apply(picture) == 0).all()
    assert "dark" in estimate(picture).warning


def test_light_that_is_wrong_is_said_in_words() -> None:
    assert estimate(np.full((48, 64, 3), 255, np.uint8)).warning.startswith("The background is overexposed")
    assert "white balance" in estimate(np.full((48, 64, 3), (60, 180, 200), np.uint8)).warning
    assert estimate(np.full((48, 64, 3), (190, 200, 205), np.uint8)).warning == ""
