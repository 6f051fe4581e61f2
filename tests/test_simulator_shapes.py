"""Each class of the simulated smear has the form its name promises."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbcedge.simulator import CODES, Composition, Look
from rbcedge.simulator import outlines as shapes
from rbcedge.simulator.paint import mask_of, paint_specimen
from rbcedge.simulator.specimens import Specimen, draw_specimen

CELL = 60.0
DISC = np.pi * CELL**2 / 4


def draw(code: str, seed: int, **values: float) -> Specimen:
    composition = Composition(**{"clumps": 0.0, "roughness": 0.0, **values})
    return draw_specimen(np.random.default_rng(seed), CODES.index(code), composition, CELL, 0.7)


def aspect(outline: np.ndarray) -> float:
    moments = cv2.moments(np.rint(outline * 16).astype(np.int32))
    spread = np.array([[moments["mu20"], moments["mu11"]], [moments["mu11"], moments["mu02"]]])
    low, high = np.linalg.eigvalsh(spread)
    return float(np.sqrt(high / low))


def circularity(outline: np.ndarray) -> float:
    length = np.hypot(*np.diff(np.vstack([outline, outline[:1]]), axis=0).T).sum()
    return float(4 * np.pi * shapes.area(outline) / length**2)


def radii(outline: np.ndarray) -> np.ndarray:
    return np.hypot(*shapes.centred(outline).T)


seeds = st.integers(0, 2**31)


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_rounded_cells_are_round(seed: int) -> None:
    outline = draw("NOR", seed).members[0].outline
    assert aspect(outline) < 1.25
    assert circularity(outline) > 0.93


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_ovalocytes_are_long_and_smooth(seed: int) -> None:
    outline = draw("OVA", seed).members[0].outline
    assert 1.22 < aspect(outline) < 2.6
    hull = shapes.area(cv2.convexHull(outline.astype(np.float32))[:, 0].astype(float))
    assert shapes.area(outline) / hull > 0.93


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_teardrops_have_one_tail(seed: int) -> None:
    outline = draw("TEA", seed).members[0].outline
    far = radii(outline)
    body = np.median(far)
    assert far.max() > 1.3 * body
    out = far > 0.5 * (far.max() + body)
    assert np.count_nonzero(out & ~np.roll(out, 1)) == 1


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_burr_cells_have_their_spicules(seed: int) -> None:
    outline, spicules = shapes.burr(np.random.default_rng(seed), 1.0)
    assert 8 <= spicules <= 24
    far = radii(outline)
    turned = np.fft.rfft(far)
    turned[:5] = 0  # without the form of the body
    far = np.fft.irfft(turned, len(far))
    peaks = (far > np.roll(far, 1)) & (far >= np.roll(far, -1)) & (far > 0)
    assert abs(int(peaks.sum()) - spicules) <= 2


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_fragments_are_less_than_a_cell(seed: int) -> None:
    outline = draw("FRA", seed, size_spread=0.0).members[0].outline
    assert 0.02 * DISC < shapes.area(outline) < 1.05 * DISC
    assert circularity(outline) < 0.97


@pytest.mark.parametrize(("code", "count"), [("TWO", 2), ("THR", 3)])
def test_overlapping_cells_overlap(code: str, count: int) -> None:
    for seed in range(25):
        specimen = draw(code, seed)
        assert len(specimen.members) == count
        singles = [shapes.area(m.outline) for m in specimen.members]
        union = float(mask_of(specimen)[0].sum())
        assert max(singles) < union < sum(singles)
        side = int(8 * CELL)
        masks = []
        for member in specimen.members:
            canvas = np.zeros((side, side), np.uint8)
            cv2.fillPoly(canvas, [np.rint(member.outline + side / 2).astype(np.int32)], 1)
            masks.append(canvas)
        for k, mask in enumerate(masks):
            shares = [(mask & other).sum() / min(mask.sum(), other.sum()) for j, other in enumerate(masks) if j != k]
            assert 0.04 < max(shares) < 0.62


def test_areas_rise_with_the_number_of_cells() -> None:
    area = {
        code: np.mean([mask_of(draw(code, seed))[0].sum() for seed in range(30)])
        for code in ("FRA", "NOR", "TWO", "THR")
    }
    assert area["FRA"] < 0.75 * area["NOR"]
    assert 1.4 < area["TWO"] / area["NOR"] < 1.95
    assert 1.9 < area["THR"] / area["NOR"] < 2.8


def test_false_teardrops_point_the_same_way() -> None:
    rng = np.random.default_rng(0)
    tips = []
    for _ in range(30):
        outline = shapes.false_teardrop(rng, 1.0, direction=0.7)
        tip = outline[np.argmax(radii(outline))]
        tips.append(np.arctan2(tip[1], tip[0]))
    assert np.abs(np.angle(np.exp(1j * (np.array(tips) - 0.7)))).max() < 0.75


def test_clumps_hold_four_cells_or_more() -> None:
    counts = {len(draw("OTH", seed, clumps=1.0).members) for seed in range(10)}
    assert counts <= {4, 5}


@pytest.mark.parametrize("code", CODES)
def test_masks_are_one_tight_piece(code: str) -> None:
    for seed in range(8):
        mask, _, _ = mask_of(draw(code, seed))
        assert cv2.connectedComponents(mask, connectivity=8)[0] == 2
        assert mask[0].any()
        assert mask[-1].any()
        assert mask[:, 0].any()
        assert mask[:, -1].any()


@pytest.mark.parametrize("code", CODES)
def test_haemoglobin_lies_inside_the_outline(code: str) -> None:
    specimen = draw(code, 3)
    mask, x, y = mask_of(specimen)
    layers, left, top = paint_specimen(specimen, Look(cell_px=CELL, halo=0.0, relief=0.0))
    outside = np.ones(layers.shape[1:], bool)
    grown = cv2.dilate(cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT), np.ones((3, 3)))
    outside[y - 1 - top : y - 1 - top + grown.shape[0], x - 1 - left : x - 1 - left + grown.shape[1]] &= grown == 0
    assert np.abs(layers[0][outside]).max() < 0.02
    inside = layers[0][y - top : y - top + mask.shape[0], x - left : x - left + mask.shape[1]][mask > 0]
    assert np.median(inside) > 0.2
