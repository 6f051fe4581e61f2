"""Few fields and cells that stand for many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rbcedge.calibration.descriptors import SUBJECTS, describe, names, standardise
from rbcedge.calibration.selection import balanced, cover, farthest
from session_fakes import DarkPipeline

from rbcedge.bundle import Bundle, Label
from rbcedge.counting.quality import Gate
from rbcedge.frame import Frame


class DarkPipelineWithBundle(DarkPipeline):
    """A pipeline that knows its bundle, as `examine` wants it."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(len(bundle.labels))
        self.bundle = bundle


POINTS = hnp.arrays(np.float64, st.tuples(st.integers(1, 25), st.integers(1, 4)), elements=st.floats(-10, 10, width=32))
LABELS = (Label("NOR", "normal"), Label("OVA", "oval"), Label("TEA", "tear"), Label("TWO", "two", cells=2))


@given(POINTS, st.integers(1, 30))
def test_farthest_chooses_different_points_and_never_more_than_there_are(points: np.ndarray, count: int) -> None:
    chosen = farthest(points, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(points))


@given(POINTS, st.integers(1, 8))
def test_every_point_is_as_near_to_a_chosen_one_as_the_chosen_are_to_each_other(points: np.ndarray, count: int) -> None:
    chosen = points[farthest(points, count)]
    gaps = [np.linalg.norm(a - b) for i, a in enumerate(chosen) for b in chosen[:i]]
    cover_radius = max(np.linalg.norm(chosen - p, axis=1).min() for p in points)
    if gaps and count < len(points):
        assert cover_radius <= min(gaps) + 1e-9


def test_farthest_takes_one_of_each_cluster_before_two_of_any() -> None:
    rng = np.random.default_rng(0)
    middles = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], float)
    points = np.concatenate([m + 0.1 * rng.standard_normal((20, 2)) for m in middles])
    assert {i // 20 for i in farthest(points, 4)} == {0, 1, 2, 3}


def test_farthest_of_nothing_is_nothing() -> None:
    assert farthest(np.zeros((0, 3)), 4) == []


def test_a_field_with_the_only_rare_cells_is_added() -> None:
    counts = np.array([[50, 0], [50, 0], [40, 3], [40, 9]])
    assert cover([0], counts, wanted=8, most=4) == [0, 3]
    assert cover([0], counts, wanted=12, most=4) == [0, 3, 2]
    assert cover([0], counts, wanted=12, most=2) == [0, 3], "no more fields than allowed"


@given(hnp.arrays(np.int64, st.integers(0, 200), elements=st.integers(-1, 5)), st.integers(0, 100))
def test_cells_are_spread_over_the_classes_as_evenly_as_there_are_any(classes: np.ndarray, count: int) -> None:
    rows = balanced(classes, count)
    assert len(rows) == len(set(rows.tolist())) == min(count, int((classes >= 0).sum()))
    taken, there = np.bincount(classes[rows], minlength=6), np.bincount(classes[classes >= 0], minlength=6)
    most = taken.max(initial=0)
    assert all(n == have or n >= most - 1 for n, have in zip(taken, there, strict=True))


def test_the_choice_of_cells_depends_on_the_seed_only() -> None:
    classes = np.arange(300) % 3
    assert (balanced(classes, 30, seed=4) == balanced(classes, 30, seed=4)).all()
    assert (balanced(classes, 30, seed=4) != balanced(classes, 30, seed=5)).any()


def test_subjects_weigh_the_same_and_constant_figures_nothing() -> None:
    table = np.random.default_rng(0).standard_normal((400, len(names(LABELS))))
    table[:, 3] = 7.0
    scaled = standardise(table, LABELS)
    assert (scaled[:, 3] == 0).all()
    stain = scaled[:, : len(SUBJECTS["stain"])]
    shares = scaled[:, -len(LABELS) :]
    assert np.square(stain).sum(1).mean() == pytest.approx(np.square(shares).sum(1).mean(), rel=0.1)


def test_one_odd_field_does_not_make_the_others_alike() -> None:
    table = np.random.default_rng(0).standard_normal((50, len(names(LABELS))))
    before = standardise(table, LABELS)
    table[0] = 1e6
    assert np.allclose(standardise(table, LABELS)[1:].std(0), before[1:].std(0), rtol=0.2)


def test_the_description_tells_stain_and_light_apart() -> None:
    from session_fakes import disc_picture

    def of(level: int, lamp: float = 1.0) -> dict[str, float]:
        discs = [(40 + 60 * i, 60 + 60 * j, level) for i in range(4) for j in range(3)]
        pixels = np.clip(disc_picture(discs) * lamp, 0, 255).astype(np.uint8)
        pipeline = DarkPipeline()
        field = pipeline.find(Frame(0, 0.0, pixels, "x"))
        field = pipeline.classify(field, np.arange(len(field.cells)))
        return dict(zip(names(LABELS), describe(field, Gate().judge(field), LABELS), strict=True))

    pale, dark, dim = of(120), of(60), of(60, 0.85)
    assert dark["od_green"] == pytest.approx(np.log10(230 / 60), abs=0.02), "optical density of the discs"
    assert pale["od_green"] < dark["od_green"]
    assert dim["od_green"] == pytest.approx(dark["od_green"], abs=0.03), "a weaker lamp is no other stain"
    assert dim["brightness"] == pytest.approx(dark["brightness"] + np.log2(0.85), abs=0.03)
    assert dark["diameter"] == pytest.approx(np.log2(36), abs=0.1)
    assert dark["share_NOR"] == 1.0


def test_a_resting_camera_is_one_field_and_a_moved_one_another(tmp_path) -> None:
    from rbcedge.calibration.examine import examine
    from session_fakes import ListSource, disc_picture, make_bundle

    rng = np.random.default_rng(0)
    scene = np.full((240, 3000, 3), 230, np.uint8)
    for x in 40 + np.cumsum(rng.integers(42, 75, 38)):
        y = int(rng.integers(40, 200))
        scene[:, x - 20 : x + 20] = disc_picture([(20, y, 60)], (40, 240))
    at = [0, 0, 0, 0, 60, 120, 180, 240, 300, 300, 300]
    frames = [Frame(k, k / 30, np.ascontiguousarray(scene[:, x : x + 320]), "scope") for k, x in enumerate(at)]
    pipeline = DarkPipelineWithBundle(make_bundle(tmp_path / "bundle"))
    found = examine(ListSource(frames, kind="live"), pipeline, tmp_path / "pictures", most=10)
    assert [c.source for c in found.candidates] == ["scope #0", "scope #9"]
    assert (found.candidates[1].frame().pixels == frames[9].pixels).all(), "pictures are kept without loss"


def test_a_long_folder_is_looked_at_evenly(tmp_path) -> None:
    from rbcedge.calibration.examine import examine
    from session_fakes import ListSource, make_bundle, stills

    pipeline = DarkPipelineWithBundle(make_bundle(tmp_path / "bundle"))
    seen: list[int] = []
    found = examine(ListSource(stills(9)), pipeline, tmp_path / "x", most=3, progress=lambda *a: seen.append(a[1]))
    assert [c.source for c in found.candidates] == ["slide/0.png", "slide/4.png", "slide/8.png"]
    assert seen == [1, 2, 3]
