"""The quality gate on real fields, and on what goes wrong at a microscope."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from counting_scenes import CLASSES, DiscSlide, field_of, plain_field
from numpy.typing import NDArray
from real_pictures import DATA

from rbcedge.bundle import Label
from rbcedge.cells import Cells
from rbcedge.counting.motion import Motion
from rbcedge.counting.quality import REASONS, Gate, Verdict, overlap_ratio
from rbcedge.field import Field
from rbcedge.frame import Frame

CHULA = sorted((DATA / "chula-rbc-12" / "Dataset").glob("*.jpg"))
DISEASES = sorted((DATA / "chula-rbc-diseases").glob("*/*.JPG"))
real = pytest.mark.skipif(not CHULA or not DISEASES, reason="the real fields are not here")
Picture = NDArray[np.uint8]


def read(path: Path) -> Picture:
    return cv2.imread(str(path))


def judge(pixels: Picture, diameter: float = 38.0) -> Verdict:
    return Gate().judge(plain_field(Frame(0, 0.0, pixels, "picture"), diameter))


@real
def test_real_fields_are_countable() -> None:
    verdicts = [judge(read(path)) for path in CHULA[::12]]
    assert np.mean([v.countable for v in verdicts]) >= 0.95
    assert all(v.reason == "" for v in verdicts if v.countable)


@real
def test_another_magnification_is_measured_alike() -> None:
    verdicts = [judge(read(path), 75.0) for path in DISEASES[::4]]
    assert all(v.countable for v in verdicts)
    same = [judge(cv2.resize(read(p), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), 76.0) for p in CHULA[:40:8]]
    own = [judge(read(path)) for path in CHULA[:40:8]]
    assert [v.sharpness for v in same] == pytest.approx([v.sharpness for v in own], rel=0.2)
    assert [v.density for v in same] == pytest.approx([v.density for v in own], rel=0.1)


def streak(px: int, turn: str) -> Picture:
    kernel = np.zeros((px, px), np.float32)
    if turn == "across":
        kernel[px // 2] = 1
    elif turn == "down":
        kernel[:, px // 2] = 1
    else:
        np.fill_diagonal(kernel, 1)
    return kernel / px


def dim(pixels: Picture, factor: float) -> Picture:
    return np.clip(pixels * np.float32(factor), 0, 255).astype(np.uint8)


@real
@pytest.mark.parametrize(
    ("damage", "reasons"),
    [
        pytest.param(lambda p: cv2.GaussianBlur(p, (0, 0), 3), {"blurred", "too dense"}, id="defocus"),
        pytest.param(lambda p: cv2.filter2D(p, -1, streak(11, "across")), {"blurred"}, id="streak across"),
        pytest.param(lambda p: cv2.filter2D(p, -1, streak(11, "down")), {"blurred"}, id="streak down"),
        pytest.param(lambda p: cv2.filter2D(p, -1, streak(9, "slant")), {"blurred"}, id="streak aslant"),
        pytest.param(lambda p: dim(p, 0.2), {"too dark"}, id="dark"),
        pytest.param(lambda p: dim(p, 4), {"too bright"}, id="bright"),
        pytest.param(lambda p: dim(255 - dim(255 - p, 0.12), 1), {"too pale", "too bright"}, id="stray light"),
    ],
)
def test_damaged_fields_are_rejected(damage: Callable[[Picture], Picture], reasons: set[str]) -> None:
    found = [judge(damage(read(path))).reason for path in CHULA[::45]]
    assert set(found) <= reasons


@real
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda p: dim(p, 0.6), id="less light"),
        pytest.param(lambda p: p[:, :, [1, 1, 1]], id="grey"),
        pytest.param(lambda p: dim(p + np.random.default_rng(0).normal(0, 6, p.shape), 1), id="noise of the camera"),
        pytest.param(lambda p: np.ascontiguousarray(p[:, ::-1]), id="mirrored"),
        pytest.param(lambda p: cv2.imdecode(cv2.imencode(".jpg", p, [1, 50])[1], 1), id="strong JPEG"),
    ],
)
def test_harmless_changes_are_accepted(change: Callable[[Picture], Picture]) -> None:
    assert np.mean([judge(change(read(path))).countable for path in CHULA[::45]]) >= 0.95


def discs(cells: int, seed: int = 0) -> Field:
    slide = DiscSlide(seed, (640, 480), cells)
    return field_of(slide.frame(0, 0, 0), slide.labels)[0]


def test_a_clean_field_of_discs() -> None:
    verdict = Gate().judge(discs(60))
    assert verdict.countable
    assert verdict.exposure == pytest.approx(225 / 255, abs=0.02)
    assert 0.3 < verdict.contrast < 0.6
    assert verdict.density == pytest.approx(np.mean(discs(60).mask > 0))


def test_motion_decides_first() -> None:
    field = discs(60)
    verdict = Gate().judge(field, Motion(moving=True, shift=(30.0, 40.0)))
    assert (verdict.reason, verdict.motion_px) == ("moving", 50.0)
    assert Gate().judge(field, Motion(shift=(0.3, 0.4))).countable


def test_empty_sparse_dense_and_dirty_fields() -> None:
    assert Gate().judge(discs(1)).reason == "too sparse"
    blank = Frame(0, 0.0, np.full((480, 640, 3), 230, np.uint8), "blank")
    empty = Field(blank, 1.0, np.zeros((480, 640), np.uint8), np.zeros((480, 640), np.int32), Cells.empty(8))
    assert Gate().judge(empty).reason == "too sparse"
    assert Gate().judge(replace(discs(60), foreign=0.5)).reason == "leucocytes or dirt"
    full = np.ones((480, 640), np.int32)
    assert Gate().judge(field_of(blank, full)[0]).reason == "too dense"
    black = Frame(0, 0.0, np.zeros((480, 640, 3), np.uint8), "black")
    assert Gate().judge(replace(empty, frame=black)).reason == "too dark"


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_a_picture_of_one_pixel(scale: float) -> None:
    tiny = Frame(0, 0.0, np.full((1, 1, 3), 200, np.uint8), "tiny")
    field = Field(tiny, scale, np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.int32), Cells.empty(CLASSES))
    assert Gate().judge(field).reason == "too sparse"


def test_overlap_ratio_from_areas_then_from_classes() -> None:
    labels = np.zeros((480, 640), np.int32)
    for k in range(30):
        x, y = 50 + k % 10 * 58, 60 + k // 10 * 120
        cv2.circle(labels, (x, y), 18, k + 1, -1)
        if k < 6:
            cv2.circle(labels, (x, y + 25), 18, k + 1, -1)
    field, _ = field_of(
        Frame(0, 0.0, np.repeat(np.where(labels > 0, 120, 200).astype(np.uint8)[..., None], 3, 2), "x"),
        labels,
    )
    assert overlap_ratio(field) == pytest.approx(6 / 24)
    names = (Label("NOR", "normal"), Label("TWO", "two", cells=2))
    assert overlap_ratio(field, names) == pytest.approx(6 / 24)
    p = np.tile(np.array([[0.8, 0.2]], np.float32), (30, 1))
    p[:10] = (0.1, 0.9)
    named = replace(field, cells=replace(field.cells, probabilities=p))
    assert overlap_ratio(named, names) == pytest.approx(10 / 20)
    assert Gate(sharpness=0).judge(named, labels=names).countable
    p = p.copy()
    p[:25] = (0.1, 0.9)
    crowded = replace(field, cells=replace(field.cells, probabilities=p))
    assert Gate(sharpness=0).judge(crowded, labels=names).reason == "too many overlaps"
    p = p.copy()
    p[:] = (0.1, 0.9)
    joined = replace(field, cells=replace(field.cells, probabilities=p))
    assert overlap_ratio(joined, names) == float("inf")
    assert Gate(sharpness=0).judge(joined, labels=names).reason == "too many overlaps"


def test_a_few_large_cells_are_no_proof_of_overlaps() -> None:
    labels = np.zeros((480, 640), np.int32)
    for k in range(9):
        cv2.circle(labels, (80 + k % 5 * 120, 120 + k // 5 * 200), 18 if k < 5 else 25, k + 1, -1)
    field, _ = field_of(Frame(0, 0.0, np.full((480, 640, 3), 200, np.uint8), "x"), labels)
    assert overlap_ratio(field) == pytest.approx(4 / 5)
    assert Gate(sharpness=0, contrast=-1).judge(field).reason != "too many overlaps"


def test_cells_of_another_size_than_the_networks_know() -> None:
    field = discs(60)
    native = float(np.median(field.cells.diameters[~field.cells.on_border]))
    assert Gate(diameter_px=native).judge(field).countable
    assert Gate(diameter_px=0.75 * native).judge(field).countable
    for factor in (0.4, 2.6):
        assert Gate(diameter_px=factor * native).judge(field).reason == "wrong magnification"
        assert Gate(diameter_px=factor * native).judge(replace(field, scale=factor)).reason != "wrong magnification"


def test_every_reason_is_known() -> None:
    assert len(set(REASONS)) == len(REASONS)
    assert {"moving", "blurred", "too dark", "too bright", "too dense", "too sparse"} < set(REASONS)
