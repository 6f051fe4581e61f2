"""Count once: placing fields on the slide by their cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import cv2
import numpy as np
import pytest
from counting_scenes import CLASSES, DiscSlide, classified, field_of, plain_field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from real_pictures import DATA

from rbcedge.counting.ledger import Ledger, Placement
from rbcedge.field import Field
from rbcedge.frame import Frame

W, H = 640, 480


class Count:
    """A ledger at work, and the truth beside it."""

    def __init__(self, slide: DiscSlide, seed: int = 0) -> None:
        self.slide, self.ledger, self.rng = slide, Ledger(), np.random.default_rng(seed)
        self.index = 0
        self.counts: Counter[int] = Counter()
        self.due: set[int] = set()
        self.number: dict[int, int] = {}
        self.fields: list[Placement] = []

    def look(self, x: int, y: int, flicker: bool = False, focus: float = 0.0, light: float = 1.0) -> Placement | None:
        """See a window; None if the slide was moving or out of focus."""
        frame = self.slide.frame(self.index, x, y)
        self.index += 1
        pixels = frame.pixels
        if focus:
            pixels = cv2.GaussianBlur(pixels, (0, 0), focus)
        if light != 1:
            pixels = (pixels * light).astype(np.uint8)
        frame = Frame(frame.index, frame.time_s, pixels, frame.source)
        if self.ledger.observe(frame).moving or focus:
            return None
        truth = self.slide.truth(x, y)
        field, numbers = field_of(frame, flickered(truth, self.rng) if flicker else truth)
        whole = set(field_of(frame, truth)[1][~field_of(frame, truth)[0].cells.on_border].tolist())
        self.due |= whole & set(numbers[~field.cells.on_border].tolist())
        placement = self.ledger.place(field)
        self.ledger.commit(placement, classified(field))
        new = placement.new
        self.number.update(zip(placement.ids[new].tolist(), numbers[new].tolist(), strict=True))
        # Parts of one cell, cut in two at first sight, are the segmentation's doing, not the ledger's.
        self.counts.update(set(numbers[new].tolist()))
        for id_ in placement.retracted.tolist():
            self.counts[self.number[id_]] -= 1
        self.fields.append(placement)
        return placement

    def go(self, path: Iterable[tuple[int, int]], **how: object) -> None:
        for x, y in path:
            self.look(x, y, **how)

    @property
    def missed(self) -> int:
        return sum(self.counts[n] == 0 for n in self.due)

    @property
    def doubled(self) -> int:
        return sum(c > 1 for c in self.counts.values())


def way(start: tuple[int, int], end: tuple[int, int], step: int) -> list[tuple[int, int]]:
    """Positions from start to end, so many px apart, and three at rest."""
    n = max(1, int(np.ceil(np.hypot(end[0] - start[0], end[1] - start[1]) / step)))
    line = [
        (int(start[0] + (end[0] - start[0]) * k / n), int(start[1] + (end[1] - start[1]) * k / n)) for k in range(n)
    ]
    return [*line, end, end, end]


def flickered(truth: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int32]:
    """The same objects as an unsteady segmentation gives them: swollen, lost, cut in two, joined."""
    labels = truth.copy()
    if rng.random() < 0.5:
        labels[cv2.erode((labels > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) == 0] = 0
    for number in np.unique(labels)[1:]:
        fate = rng.random()
        if fate < 0.02:
            labels[labels == number] = 0
        elif fate < 0.05:
            ys, xs = np.nonzero(labels == number)
            cut = np.abs(xs - xs.mean()) < 1.5
            labels[ys[cut], xs[cut]] = 0
    if rng.random() < 0.5:
        grown = cv2.dilate(labels.astype(np.float32), np.ones((5, 5), np.uint8)).astype(np.int32)
        bridge = rng.random(labels.max() + 1) < 0.05
        labels = np.where((labels == 0) & bridge[grown], grown, labels)
    return labels


@pytest.fixture(scope="module")
def slide() -> DiscSlide:
    return DiscSlide(7)


def test_a_pan_with_pauses_counts_each_cell_once(slide: DiscSlide) -> None:
    count = Count(slide)
    corners = [(0, 0), (500, 0), (1000, 0), (1500, 0), (1500, 350), (1000, 350), (500, 350), (0, 350)]
    for a, b in pairwise(corners):
        count.go(way(a, b, 40))
    assert len(count.due) > 300
    assert (count.missed, count.doubled) == (0, 0)
    assert count.ledger.patches == 1
    assert len(count.ledger) == len(count.due)


def test_slow_creep_counts_cells_as_they_come_into_view(slide: DiscSlide) -> None:
    count = Count(slide)
    count.go(way((100, 100), (420, 260), 2))
    assert (count.missed, count.doubled) == (0, 0)
    assert len(count.fields) > 170
    assert len(count.due) > len(count.fields[0].ids) + 10


def test_a_long_rest_keeps_ids_and_memory(slide: DiscSlide) -> None:
    count = Count(slide)
    first = count.look(300, 300)
    stored = len(count.ledger)
    frame, truth = slide.frame(0, 300, 300), slide.truth(300, 300)
    for index in range(1, 200):
        again = Frame(index, index / 30, frame.pixels, frame.source)
        count.ledger.observe(again)
        field, _ = field_of(again, truth)
        placement = count.ledger.place(field)
        assert not placement.new.any()
        assert np.array_equal(placement.ids, first.ids)
        count.ledger.commit(placement, field)
    assert len(count.ledger) == stored == first.new.sum()


def test_return_after_a_jump_is_recognised(slide: DiscSlide) -> None:
    count = Count(slide)
    for place in ((0, 0), (1500, 1200), (20, 30), (1480, 1210), (700, 100), (0, 0)):
        count.go([place] * 3)
    assert (count.missed, count.doubled) == (0, 0)
    assert count.fields[-1].recognised > 20


def test_two_patches_that_meet_become_one(slide: DiscSlide) -> None:
    count = Count(slide)
    count.go([(0, 600)] * 3)
    # So little in common that nobody could know.
    count.go([(575, 600)] * 3)
    before = count.ledger.patches
    count.go(way((575, 600), (250, 600), 30))
    assert before == 2
    assert count.ledger.patches == 1
    assert (count.missed, count.doubled) == (0, 0)
    assert len(count.ledger) == len(count.due)


def test_lost_focus_light_and_emptiness_between(slide: DiscSlide) -> None:
    count = Count(slide)
    count.go([(400, 400)] * 3)
    seen = len(count.ledger)
    count.go([(400, 400)] * 4, focus=12.0)
    count.go([(400, 400)] * 3, light=0.6)
    blank = Frame(count.index, count.index / 30, np.full((H, W, 3), 220, np.uint8), "slide")
    count.ledger.observe(blank)
    empty, _ = field_of(blank, np.zeros((H, W), np.int32))
    count.ledger.commit(count.ledger.place(empty), empty)
    count.index += 1
    count.go([(410, 395)] * 3)
    assert count.doubled == count.missed == 0
    assert len(count.ledger) - seen == len(count.due) - seen <= 12


def test_a_segmentation_that_fails_on_the_way_loses_nothing(slide: DiscSlide) -> None:
    count = Count(slide)
    count.go([(0, 0)] * 2)
    for x, y in way((0, 0), (300, 200), 40):
        frame = slide.frame(count.index, x, y)
        count.index += 1
        count.ledger.observe(frame)
        few = np.where(slide.truth(x, y) == slide.truth(x, y)[240, 320], slide.truth(x, y), 0)
        field, _ = field_of(frame, few)
        count.ledger.commit(count.ledger.place(field), classified(field))
    before = len(count.ledger)
    count.look(300, 200)
    assert count.ledger.patches == 1
    assert count.fields[-1].offset == pytest.approx((300, 200), abs=1)
    assert len(count.ledger) > before


@pytest.mark.parametrize("seed", range(3))
def test_unsteady_segmentation_does_not_count_twice(slide: DiscSlide, seed: int) -> None:
    count = Count(slide, seed)
    spots = [(0, 0), (450, 50), (900, 0), (900, 400), (450, 420), (0, 400), (450, 50)]
    for a, b in pairwise(spots):
        count.go(way(a, b, 50), flicker=True)
    assert count.missed <= 0.01 * len(count.due)
    assert count.doubled <= 0.005 * len(count.due)


def test_very_sparse_fields() -> None:
    slide = DiscSlide(3, (2000, 1200), 14)
    count = Count(slide)
    for a, b in (((0, 0), (500, 0)), ((500, 0), (500, 400)), ((500, 400), (0, 0))):
        count.go(way(a, b, 25))
    assert (count.missed, count.doubled) == (0, 0)


def test_a_lattice_of_cells_does_not_confuse_a_pan() -> None:
    count = Count(DiscSlide(5, (1500, 700), 2000, lattice=True))
    count.go(way((0, 0), (600, 100), 20))
    count.go(way((600, 100), (10, 40), 20))
    assert count.missed <= 0.01 * len(count.due)
    assert count.doubled <= 0.005 * len(count.due)


def test_other_slides_are_not_taken_for_seen_ones(slide: DiscSlide) -> None:
    count = Count(slide)
    for a, b in (((0, 0), (1700, 0)), ((1700, 0), (1700, 1200)), ((1700, 1200), (0, 1200))):
        count.go(way(a, b, 60))
    patches = count.ledger.patches
    for k in range(8):
        other = DiscSlide(100 + k, (W, H), 70)
        frame = Frame(10_000 + k, 10_000.0 + k, other.pixels, "other")
        count.ledger.observe(frame)
        placement = count.ledger.place(field_of(frame, other.labels)[0])
        assert placement.patch == count.ledger.patches or placement.recognised == 0
        assert placement.new.sum() > 0.9 * (placement.ids >= 0).sum()
    assert count.ledger.patches == patches


walk = st.lists(
    st.tuples(st.sampled_from(["pan", "jump", "rest", "creep"]), st.floats(0, 1), st.floats(0, 1)), max_size=5
)


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(walk)
def test_any_walk_counts_all_and_none_twice(slide: DiscSlide, moves: list[tuple[str, float, float]]) -> None:
    count = Count(slide)
    x, y = 800, 600
    count.go([(x, y)] * 2)
    for kind, u, v in moves:
        if kind == "jump":
            # Far enough that what is shared is recognised or nothing is shared.
            x, y = int(u > 0.5) * 1600 + int(u * 40), int(v > 0.5) * 1200 + int(v * 40)
            count.go([(x, y)] * 3)
        elif kind == "rest":
            count.go([(x, y)] * 3)
        else:
            far = 500 if kind == "pan" else 25
            end = (int(np.clip(x + far * (2 * u - 1), 0, 1760)), int(np.clip(y + far * (2 * v - 1), 0, 1320)))
            count.go(way((x, y), end, 50 if kind == "pan" else 4))
            x, y = end
    assert count.missed == 0
    # Patches that never met cannot be told to overlap; within one nothing is counted twice.
    assert count.doubled == 0 or count.ledger.patches > 1
    ids = [i for p in count.fields for i in p.ids[p.new].tolist()]
    assert len(ids) == len(set(ids))


def test_known_gives_back_what_was_committed(slide: DiscSlide) -> None:
    ledger = Ledger()
    field = classified(field_of(slide.frame(0, 0, 0), slide.truth(0, 0))[0])
    placement = ledger.place(field)
    ledger.commit(placement, field)
    known = ledger.known(placement.ids)
    assert np.array_equal(known[placement.new], field.cells.probabilities[placement.new])
    assert np.isnan(known[placement.ids < 0]).all()
    assert np.array_equal(placement.ids >= 0, ~field.cells.on_border)


def test_nothing_is_stored_before_commit(slide: DiscSlide) -> None:
    ledger = Ledger()
    field = classified(field_of(slide.frame(0, 0, 0), slide.truth(0, 0))[0])
    first, second = ledger.place(field), ledger.place(field)
    assert len(ledger) == 0
    assert np.array_equal(first.ids, second.ids)
    ledger.commit(first, field)
    with pytest.raises(ValueError, match="another field"):
        ledger.commit(second, field)
    assert not ledger.place(field).new.any()


def test_a_placement_does_not_outlive_another_commit(slide: DiscSlide) -> None:
    """Not even of a field without new cells: it may have joined patches."""
    ledger = Ledger()
    field = classified(field_of(slide.frame(0, 0, 0), slide.truth(0, 0))[0])
    ledger.commit(ledger.place(field), field)
    first, second = ledger.place(field), ledger.place(field)
    assert not first.new.any()
    ledger.commit(first, field)
    with pytest.raises(ValueError, match="another field"):
        ledger.commit(second, field)


@pytest.mark.parametrize("later", [0.87, 0.98, 1.03, 1.15])
def test_a_magnification_corrected_after_the_first_field_counts_nothing_twice(slide: DiscSlide, later: float) -> None:
    ledger, counted = Ledger(), Counter[int]()
    for index, (x, scale) in enumerate(((0, 1.0), (0, later), (90, later), (300, later))):
        frame = slide.frame(index, x, 0)
        ledger.observe(frame, scale)
        field, numbers = field_of(frame, slide.truth(x, 0), scale)
        placement = ledger.place(field)
        ledger.commit(placement, classified(field))
        counted.update(numbers[placement.new].tolist())
    assert len(counted) > 80
    assert max(counted.values()) == 1
    assert (len(ledger), ledger.patches) == (len(counted), 1)


def test_motion_is_told_from_rest_and_from_jumps(slide: DiscSlide) -> None:
    ledger = Ledger()
    assert ledger.observe(slide.frame(0, 200, 200)).jump
    rest = ledger.observe(slide.frame(1, 200, 200))
    assert (rest.moving, rest.jump) == (False, False)
    assert rest.pixels < 0.2
    pan = ledger.observe(slide.frame(2, 240, 170))
    assert (pan.moving, pan.jump) == (True, False)
    assert pan.shift == pytest.approx((-40, 30), abs=1)
    assert ledger.observe(slide.frame(3, 1600, 1200)).jump
    # The same way in a second: the stage may have come to rest long since.
    ledger.observe(Frame(4, 10.0, slide.frame(0, 200, 200).pixels, "slide"))
    slow = ledger.observe(Frame(5, 11.0, slide.frame(0, 240, 200).pixels, "slide"))
    assert not slow.moving
    assert slow.pixels == pytest.approx(40, abs=1)


def test_real_pixels_as_often_as_on_the_whole_field() -> None:
    """A window moved over large real fields counts what is there, with a plain unsteady segmentation."""
    paths = sorted((DATA / "chula-rbc-diseases").glob("HE/*.JPG"))[:3]
    if not paths:
        pytest.skip("the real fields are not here")
    for path in paths:
        pixels = cv2.imread(str(path))
        reference = plain_field(Frame(0, 0.0, pixels, "whole"), 75.0)
        ledger, index = Ledger(), 0
        stops = [
            (0, 0),
            (320, 0),
            (640, 0),
            (640, 240),
            (320, 240),
            (0, 240),
            (0, 480),
            (320, 480),
            (640, 480),
        ]
        for a, b in pairwise(stops):
            for x, y in way(a, b, 40):
                frame = Frame(index, index / 30, np.ascontiguousarray(pixels[y : y + H, x : x + W]), "window")
                index += 1
                if ledger.observe(frame, 38 / 75).moving:
                    continue
                field: Field = plain_field(frame, 75.0)
                ledger.commit(ledger.place(field), classified(field))
        inside = ~reference.cells.on_border
        assert len(ledger) == pytest.approx(inside.sum(), rel=0.08)
        assert ledger.patches == 1
        assert ledger.known(np.array([0, -1])).shape == (2, CLASSES)
