"""The simulated stage moves as a stage can, and its truth is what a perfect observer counts."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbcedge.simulator import PROGRAMS, Composition, Pose, Smear, Stage, program, whole_ids
from rbcedge.simulator.stage import Drift, Goto, Jump, Pan, Raster, Refocus, Rest, Wander

W, H = 320, 240


def test_poses_come_at_the_frame_rate() -> None:
    poses = list(Stage([Rest(1.0), Pan(100, 0, 1.0)]).poses(fps=30))
    assert len(poses) == 60
    assert [p.time_s for p in poses] == pytest.approx([k / 30 for k in range(60)])


def test_a_pan_starts_and_ends_gently() -> None:
    poses = list(Stage([Pan(300, -90, 1.0), Rest(0.1)]).poses(fps=100))
    x = np.array([p.x for p in poses])
    steps = np.diff(x)
    assert (steps >= 0).all()
    assert steps[0] < 0.1 * steps.max()
    assert (poses[-1].x, poses[-1].y) == pytest.approx((300, -90))
    speed = np.array([p.motion[0] for p in poses]) / 0.008
    assert speed[50] == pytest.approx(300 * 1.875, rel=0.02)  # the peak of a minimum-jerk motion
    assert np.interp(0.5, [p.time_s for p in poses], x) == pytest.approx(150)


@settings(max_examples=30, deadline=None)
@given(
    dx=st.floats(-800, 800),
    dy=st.floats(-800, 800),
    seconds=st.floats(0.3, 3.0),
    jitter=st.floats(0.0, 0.5),
)
def test_motion_is_the_way_during_the_exposure(dx: float, dy: float, seconds: float, jitter: float) -> None:
    stage = Stage([Rest(0.2), Pan(dx, dy, seconds), Drift(3, -2, 0.5)], jitter=jitter, exposure_s=0.01)
    poses = list(stage.poses(fps=100))
    for before, here, after in zip(poses, poses[1:], poses[2:], strict=False):
        moved = np.array([after.x - before.x, after.y - before.y]) / 2
        assert np.hypot(*(moved - here.motion)) < 0.5 + 0.02 * np.hypot(dx, dy) / seconds**2


def test_jumps_are_instant_and_returns_exact() -> None:
    stage = Stage([Rest(0.1), Jump(500, 40), Rest(0.1), Goto(0, 0), Rest(0.1)], x=0, y=0)
    poses = list(stage.poses(fps=20))
    assert [(p.x, p.y) for p in poses] == [(0, 0)] * 2 + [(500, 40)] * 2 + [(0, 0)] * 2
    assert all(p.motion == (0.0, 0.0) for p in poses)
    slow = list(Stage([Jump(90, 0), Goto(10, 10, 1.0), Rest(0.1)]).poses(fps=20))
    assert (slow[-1].x, slow[-1].y) == pytest.approx((10, 10))


def test_refocusing_goes_out_and_comes_back() -> None:
    focus = [p.focus for p in Stage([Refocus(4.0, 1.0), Rest(0.2)]).poses(fps=20)]
    assert max(focus) == pytest.approx(4.0)
    assert focus[0] == pytest.approx(0.0)
    assert focus[-1] == pytest.approx(0.0)


def test_still_means_at_rest_and_in_focus() -> None:
    assert Pose(0, 0, 0).still()
    assert not Pose(0, 0, 0, focus=2.0).still()
    assert not Pose(0, 0, 0, motion=(3.0, 0.0)).still()


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_repeat_and_do_not_end(name: str) -> None:
    first, second = (list(islice(program(name, W, H, seed=4).poses(30), 2000)) for _ in range(2))
    assert first == second
    assert len(first) == 2000
    assert sum(p.still() for p in first) > 500
    if name != "rest":
        assert len({(round(p.x), round(p.y)) for p in first}) > 100


def test_unknown_programs_are_refused() -> None:
    with pytest.raises(ValueError, match="raster"):
        program("zigzag", W, H)
    with pytest.raises(ValueError, match="fps"):
        next(Stage([Rest(1)]).poses(0))


def test_a_raster_covers_the_slide_without_gaps() -> None:
    seen = np.zeros((6 * H, 8 * W), bool)
    moves = Raster(W, H, columns=6)
    for pose in islice(Stage(moves).poses(5), 300):
        if pose.still():
            x, y = round(pose.x), round(pose.y)
            seen[y : y + H, x : x + W] = True
    assert seen[: 3 * H, : 5 * W].all()


def test_a_raster_goes_on_beside_what_it_has_seen() -> None:
    moves = Raster(W, H, columns=2, extent=3 * H, overlap=0.0, rest_s=1.0, move_s=1.0)
    rests = [(round(p.x), round(p.y)) for p in islice(Stage(moves).poses(1.0), 120) if p.still(max_motion=1e-6)]
    places = set(rests)
    assert {(c * W, r * H) for c in range(4) for r in range(3)} <= places


@pytest.mark.parametrize("size", [(640, 480), (1920, 1080), (8192, 8192)])
def test_a_raster_never_leaves_the_slide(size: tuple[int, int]) -> None:
    """A day of it: every field ends before the edge, and after the last block it begins again."""
    reach, (w, h) = 57_120, size
    x, y, starts = 0.0, 0.0, 0
    for move in islice(program("raster", w, h, reach=reach).moves, 30_000):
        x, y, _ = move.at((x, y, 0.0), move.seconds)
        assert -1 < x <= reach - w - 10
        assert -1 < y <= reach - h - 10
        starts += isinstance(move, Pan) and max(abs(x), abs(y)) < 1
    assert starts >= 1


def test_wandering_stays_on_the_slide() -> None:
    poses = list(islice(Stage(Wander(W, H, seed=2, extent=3000)).poses(4), 4000))
    assert max(max(abs(p.x), abs(p.y)) for p in poses) < 3000 + 6 * W + 200


def test_truth_counts_each_whole_object_once() -> None:
    smear = Smear(4, Composition(density=40))
    poses = list(Stage([Rest(0.2), Pan(120, 0, 0.5), Rest(0.2), Goto(0, 0), Rest(0.2)]).poses(20))
    truth = whole_ids(smear, poses, W, H)
    expected: dict[int, int] = {}
    for x in (0, 120):
        objects = smear.view(x, 0, W, H).objects
        expected |= dict(zip(objects.ids[objects.whole].tolist(), objects.codes[objects.whole].tolist(), strict=True))
    assert truth == expected


def test_truth_ignores_moving_and_blurred_views() -> None:
    smear = Smear(4, Composition(density=40))
    blurred = [Pose(0, 0, 0, focus=3.0), Pose(1, 0, 0, motion=(9, 0))]
    assert whole_ids(smear, blurred, W, H) == {}
    brief = [Pose(0, 0, 0), Pose(1, 0, 0, motion=(9, 0)), Pose(2, 50, 0), Pose(3, 50, 0)]
    only_second = whole_ids(smear, brief[2:], W, H)
    assert whole_ids(smear, brief, W, H, frames=2) == only_second
