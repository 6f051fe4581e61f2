"""The simulated smear tells the exact truth about what it draws."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbcedge.simulator import CODES, Composition, Look, Smear, View, render_field
from rbcedge.simulator.overlays import with_random_overlays

PLAIN = Look(noise=0.0, mottle=0.0, grain=0.0, vignette=0.0, gradient=0.0, shadows=0, chromatic=0.0)
CLEAN = {"platelets": 0.0, "leucocytes": 0.0, "dirt": 0.0, "ghosts": 0.0}


def only(code: str, **values: float) -> Composition:
    return Composition(fractions={code: 1.0}, **{**CLEAN, "clumps": 0.0, **values})


@pytest.fixture(scope="module")
def smear() -> Smear:
    return Smear(5, Composition.sample(np.random.default_rng(2)))


@pytest.fixture(scope="module")
def view(smear: Smear) -> View:
    return smear.view(-300, 140, 500, 400)


def test_same_arguments_give_the_same_picture() -> None:
    a, b = (Smear(9).view(10.3, -7.8, 200, 150, focus=0.4, motion=(2, 1)) for _ in range(2))
    assert np.array_equal(a.pixels, b.pixels)
    assert np.array_equal(a.labels, b.labels)
    other = Smear(10).view(10.3, -7.8, 200, 150)
    assert not np.array_equal(a.labels, other.labels)


def test_order_of_visits_does_not_matter() -> None:
    near = Smear(3, cached_tiles=6)
    near.view(0, 0, 120, 120)
    for far in (5000, -3000):
        near.view(far, far, 60, 60)
    back, fresh = near.view(0, 0, 120, 120), Smear(3).view(0, 0, 120, 120)
    assert np.array_equal(back.pixels, fresh.pixels)
    assert np.array_equal(back.labels, fresh.labels)
    assert np.array_equal(back.objects.ids, fresh.objects.ids)


@settings(max_examples=12, deadline=None)
@given(x=st.floats(-600, 600), y=st.floats(-600, 600))
def test_overlapping_views_agree(smear: Smear, x: float, y: float) -> None:
    a, b = smear.view(0, 0, 160, 120), smear.view(x, y, 160, 120)
    dx, dy = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
    left, right = max(0, dx), min(160, 160 + dx)
    top, bottom = max(0, dy), min(120, 120 + dy)
    if left < right and top < bottom:
        shared = b.labels[top - dy : bottom - dy, left - dx : right - dx]
        assert np.array_equal(a.labels[top:bottom, left:right], shared)
    both = np.intersect1d(a.objects.ids, b.objects.ids)
    rows_a, rows_b = (np.searchsorted(v.objects.ids, both) for v in (a, b))
    assert np.array_equal(a.objects.centres[rows_a], b.objects.centres[rows_b])
    assert np.array_equal(a.objects.codes[rows_a], b.objects.codes[rows_b])


@pytest.mark.parametrize("cell_px", [20.0, 38.0, 75.0])
def test_labels_of_different_objects_never_touch(cell_px: float) -> None:
    rng = np.random.default_rng(8)
    crowded = replace(Composition.sample(rng), density=120.0, touching=0.8)
    look = Look(cell_px=cell_px, um_per_px=7.22 / cell_px)
    side = int(7 * cell_px)
    labels = Smear(4, crowded, look).view(-side / 2, -side / 2, side, side).labels
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        a = labels[: side - dy, max(0, -dx) : side - max(0, dx)]
        b = labels[dy:, max(0, dx) : side - max(0, -dx)]
        assert not ((a > 0) & (b > 0) & (a != b)).any()


def test_objects_describe_their_labels(view: View) -> None:
    objects, labels = view.objects, view.labels
    assert np.array_equal(objects.ids, np.unique(labels[labels > 0]))
    height, width = labels.shape
    for row in range(len(objects)):
        part = (labels == objects.ids[row]).astype(np.uint8)
        assert tuple(objects.boxes[row]) == cv2.boundingRect(part)
        assert objects.areas[row] == part.sum()
        edge = part[0].any() or part[-1].any() or part[:, 0].any() or part[:, -1].any()
        assert objects.whole[row] == (not edge)
        if objects.whole[row]:
            assert cv2.connectedComponents(part, connectivity=8)[0] == 2
            ys, xs = np.nonzero(part)
            assert objects.centres[row] == pytest.approx((xs.mean() + view.x, ys.mean() + view.y))
    assert objects.whole.any()
    assert not objects.whole.all()
    assert view.mask.shape == (height, width)


def test_dense_labels_follow_the_objects(view: View) -> None:
    assert np.array_equal(np.unique(view.dense), np.arange(len(view.objects) + 1))
    inside = view.dense > 0
    assert np.array_equal(view.objects.ids[view.dense[inside] - 1], view.labels[inside])


def test_whole_agrees_with_the_view(smear: Smear) -> None:
    for x, y in ((0.0, 0.0), (-77.6, 31.5), (412.49, -90.0)):
        objects = smear.view(x, y, 300, 200).objects
        pairs = zip(objects.ids[objects.whole], objects.codes[objects.whole], strict=True)
        assert smear.whole(x, y, 300, 200) == [(int(i), int(c)) for i, c in pairs]


def test_requested_composition_is_reached() -> None:
    wanted = {
        "NOR": 0.4,
        "OVA": 0.1,
        "TEA": 0.1,
        "FRA": 0.1,
        "BUR": 0.1,
        "TWO": 0.1,
        "THR": 0.05,
        "OTH": 0.05,
    }
    slide = Smear(1, Composition(fractions=wanted, density=45.0))
    things = [t for c in range(8) for r in range(8) for t in slide.contents(c, r).things]
    shares = np.bincount([t.specimen.code for t in things], minlength=8) / len(things)
    expected = np.array([wanted[code] for code in CODES])
    assert np.abs(shares - expected).max() < 4.5 * np.sqrt(0.25 / len(things))
    square_mm = (8 * slide.slide.tile * slide.look.um_per_px / 100) ** 2
    assert len(things) / square_mm == pytest.approx(45.0, rel=0.12)
    assert len({t.id for t in things}) == len(things)


def test_diameter_follows_the_scale() -> None:
    for cell_px in (24.0, 38.0, 70.0):
        look = Look(cell_px=cell_px, um_per_px=7.22 / cell_px)
        plain = only("NOR", density=30, macrocytes=0, microcytes=0, spherocytes=0)
        slide = Smear(2, plain, look)
        areas = [t.area for c in range(3) for r in range(3) for t in slide.contents(c, r).things]
        assert np.median(2 * np.sqrt(np.array(areas) / np.pi)) == pytest.approx(cell_px, rel=0.04)


def test_cells_absorb_and_overlaps_absorb_more() -> None:
    look = replace(PLAIN, pallor_depth=0.0, texture=0.0, relief=0.0, edge=0.0, halo=0.0)
    picture = Smear(6, only("TWO", density=30), look).view(0, 0, 400, 400)
    green = picture.pixels[..., 1].astype(float)
    empty = cv2.dilate(picture.mask.astype(np.uint8), np.ones((15, 15))) == 0
    assert green[empty].mean() == pytest.approx(look.background[1], abs=2)
    deep = cv2.erode(picture.mask.astype(np.uint8), np.ones((7, 7))) > 0
    assert green[deep].max() < look.background[1] - 20
    single, double = np.percentile(green[deep], (70, 4))
    assert double < single - 20


def test_focus_and_motion_soften_the_picture(smear: Smear) -> None:
    def sharpness(**values: object) -> float:
        pixels = smear.view(0, 0, 300, 300, **values).pixels  # type: ignore[arg-type]
        return float(cv2.Laplacian(cv2.GaussianBlur(pixels[..., 1], (0, 0), 1.2), cv2.CV_32F).std())

    best = sharpness()
    assert sharpness(focus=3.0) < 0.7 * best
    assert sharpness(motion=(8.0, 0.0)) < 0.9 * best
    assert smear.view(0, 0, 90, 90, exposure=0.5).pixels.mean() < 0.6 * smear.view(0, 0, 90, 90).pixels.mean()


def test_fractions_of_a_pixel_move_the_picture_smoothly() -> None:
    slide = Smear(2, look=PLAIN)
    first, second, half = (slide.view(x, 0, 300, 200).pixels.astype(float) for x in (10.0, 11.0, 10.49))
    between = (first + second) / 2
    assert np.abs(half - between).mean() < 0.25 * np.abs(first - second).mean()


def test_debris_is_never_labelled() -> None:
    bare = Composition(density=0.0, platelets=40.0, leucocytes=8.0, dirt=20.0, ghosts=30.0)
    picture = Smear(3, bare).view(0, 0, 400, 300)
    assert len(picture.objects) == 0
    assert not picture.mask.any()
    assert {"platelet", "leucocyte", "dirt", "ghost"} <= set(picture.debris.kinds)
    assert picture.debris.boxes.shape == (len(picture.debris), 4)
    a, b = picture.debris.boxes[:, :2], picture.debris.boxes[:, :2] + picture.debris.boxes[:, 2:]
    assert (a >= 0).all()
    assert (b <= (400, 300)).all()


@pytest.mark.parametrize("seed", range(4))
def test_random_fields_for_training(seed: int) -> None:
    one, two = (render_field(np.random.default_rng(seed), 130, 97, overlays=True) for _ in range(2))
    assert one.pixels.shape == (97, 130, 3)
    assert one.pixels.dtype == np.uint8
    assert one.labels.dtype == np.int32
    assert np.array_equal(one.pixels, two.pixels)
    assert np.array_equal(one.labels, two.labels)


def test_overlays_change_pixels_not_truth() -> None:
    rng = np.random.default_rng(0)
    kinds = set()
    plain = render_field(np.random.default_rng(1), 64, 48, Look(), Composition())
    for _ in range(60):
        marked = with_random_overlays(plain, rng)
        assert np.array_equal(marked.labels, plain.labels)
        kinds |= set(marked.debris.kinds)
        if kinds >= {"scale_bar", "arrow", "pointer"}:
            return
    pytest.fail(f"overlays seen: {sorted(kinds)}")


def test_preparing_ahead_changes_nothing() -> None:
    ahead = Smear(8)
    while ahead.prepare(190, 0, 100, 100, jobs=3):
        pass
    assert np.array_equal(ahead.view(190, 0, 100, 100).pixels, Smear(8).view(190, 0, 100, 100).pixels)


def test_memory_is_bounded() -> None:
    slide = Smear(1, only("NOR", density=3), cached_tiles=8)
    for step in range(12):
        slide.view(step * 400, 0, 60, 60)
    assert len(slide._tiles) <= 8
    assert len(slide._contents) <= 24


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown class codes"):
        Composition(fractions={"XYZ": 1.0})
    with pytest.raises(ValueError, match="not all zero"):
        Composition(fractions={"NOR": 0.0})
    with pytest.raises(ValueError, match="share"):
        Composition(touching=1.5)
    with pytest.raises(ValueError, match="cell_px"):
        Look(cell_px=3)
    with pytest.raises(ValueError, match="at least one pixel"):
        Smear(0).view(0, 0, 0, 10)
    with pytest.raises(ValueError, match="edge of the slide"):
        Smear(0).view(1e7, 0, 10, 10)


def test_labels_lie_where_the_cells_are() -> None:
    look = replace(PLAIN, relief=0.0, pallor_depth=0.0, texture=0.0)
    picture = Smear(3, only("NOR", touching=0, density=25), look).view(0, 0, 400, 300)
    absorbed = look.background[1] - picture.pixels[..., 1].astype(float)
    ys, xs = np.mgrid[:300, :400]
    shifts = []
    for number in picture.objects.ids[picture.objects.whole]:
        label = picture.labels == number
        around = cv2.dilate(label.astype(np.uint8), np.ones((7, 7))) > 0
        if (picture.mask & around & ~label).any():
            continue
        weight = absorbed * around
        seen = np.array([(weight * xs).sum(), (weight * ys).sum()]) / weight.sum()
        shifts.append(seen - (xs[label].mean(), ys[label].mean()))
    assert len(shifts) > 5
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.1
    assert np.abs(shifts).max() < 0.4


def test_cells_reach_over_the_border_of_a_single_field() -> None:
    cut = [np.count_nonzero(~render_field(np.random.default_rng(s), 120, 120, Look()).objects.whole) for s in range(5)]
    assert sum(cut) > 10
