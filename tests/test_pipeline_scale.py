"""What is believed of a measured magnification."""

from __future__ import annotations

import pytest

from rbcedge.pipeline.scale import LIMITS, believed, plausible, settle


@pytest.mark.parametrize("size", [2.0, 5000.0])
def test_specks_are_not_enlarged_to_cells(size: float) -> None:
    tried: list[float] = []

    def measure(scale: float) -> tuple[float, int]:
        tried.append(scale)
        return size, 500

    scale, cells = settle(size, 38.0, measure)
    assert LIMITS[0] <= scale <= LIMITS[1]
    assert all(LIMITS[0] <= s <= LIMITS[1] for s in tried)
    # At the limit it is not tried again and again.
    assert (len(tried), cells) == (1, 500)


def test_the_scale_is_found_from_a_bad_guess() -> None:
    scale, cells = settle(60.0, 38.0, lambda at: (20.0, 90))
    assert (scale, cells) == (pytest.approx(1.9), 90)
    assert settle(0.0, 38.0, lambda at: (0.0, 0)) == (1.0, 0)


def test_one_field_of_noise_does_not_decide_the_scale_of_a_run() -> None:
    noise, fields = (4.0, 5000), [(1.5, 60), (1.52, 70)]
    assert not plausible(0.19 * noise[0])
    assert believed([noise], 0.19) == noise
    assert believed([noise, *fields], 0.19) == (1.52, 130)
    assert believed([], 0.19) == (1.0, 0)
