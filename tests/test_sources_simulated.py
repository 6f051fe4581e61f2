"""The simulated microscope as a source."""

from __future__ import annotations

import time

import numpy as np
import pytest
from thread_check import no_thread_left

from rbcedge.errors import UsageError
from rbcedge.frame import Frame
from rbcedge.simulator.composition import CODES
from rbcedge.sources import open_source
from rbcedge.sources.simulated import Simulated, parse

SMALL = "size=160x120&diameter=20"


@pytest.fixture(autouse=True)
def _threads_end():
    with no_thread_left():
        yield


def test_full_speed_gives_every_frame_the_same_in_every_run():
    uri = f"sim:?seed=3&frames=12&fps=10&speed=max&pan=wander&{SMALL}"
    first, second = open_source(uri), open_source(uri)
    assert first.kind == "video"
    assert len(first) == 12
    a, b = list(first.frames()), list(second.frames())
    assert [f.index for f in a] == list(range(12))
    assert np.allclose([f.time_s for f in a], np.arange(12) / 10)
    assert all(np.array_equal(x.pixels, y.pixels) for x, y in zip(a, b, strict=True))
    assert a[0].size == (160, 120)
    assert first.dropped == 0
    assert "160x120 at 10 fps, 12 frames, wander, seed 3" in first.description


def test_truth_belongs_to_the_frame_in_hand():
    for speed in ("max", "realtime"):
        source = open_source(f"sim:?frames=5&fps=50&speed={speed}&{SMALL}")
        assert isinstance(source, Simulated)
        assert source.last_view is None
        for frame in source.frames():
            assert frame.pixels is source.last_view.pixels
            assert source.last_view.labels.shape == (120, 160)


def test_real_time_paces_counts_and_drops():
    source = open_source(f"sim:?seed=1&frames=30&fps=100&{SMALL}")
    assert source.kind == "live"
    assert len(source) == 0
    frames = []
    for frame in source.frames():
        frames.append(frame)
        if len(frames) == 2:
            time.sleep(0.1)
    indices = [f.index for f in frames]
    assert indices == sorted(set(indices))
    assert indices[-1] == 29  # the last picture is not lost
    assert len(frames) + source.dropped == 30
    assert source.dropped > 0
    times = np.array([f.time_s for f in frames])
    assert np.allclose(times - times[0], (np.array(indices) - indices[0]) / 100, atol=1e-6)


def test_endless_ends_when_closed():
    for speed in ("max", "realtime"):
        source = open_source(f"sim:?speed={speed}&{SMALL}")
        seen = 0
        for item in source.frames():
            assert isinstance(item, Frame)
            seen += 1
            if seen == 3:
                source.close()
                source.close()
        assert seen == 3
        assert list(source.frames()) == []


def test_shares_are_those_asked_for():
    script = parse("sim:?burr=0.5&tea=0.1")
    mix = script.composition().fractions
    assert mix["BUR"] == 0.5
    assert mix["TEA"] == 0.1
    assert sum(mix.values()) == pytest.approx(1)
    usual = parse("sim:").composition().fractions
    assert mix["NOR"] / mix["OVA"] == pytest.approx(usual["NOR"] / usual["OVA"])

    view = open_source("sim:?bur=1&size=400x300&diameter=20&frames=1&speed=max")
    next(iter(view.frames()))
    assert {CODES[c] for c in view.last_view.objects.codes} == {"BUR"}


def test_diameter_is_a_magnification():
    source = open_source("sim:?seed=2&nor=1&size=640x480&diameter=60&frames=1&speed=max&density=40")
    next(iter(source.frames()))
    objects = source.last_view.objects
    diameters = np.sqrt(4 / np.pi * objects.areas[objects.whole])
    assert np.median(diameters) == pytest.approx(60, rel=0.08)


def test_a_look_of_its_own():
    plain, other, again = (
        next(iter(open_source(f"sim:?frames=1&speed=max&{SMALL}{look}").frames())).pixels
        for look in ("", "&look=5", "&look=5")
    )
    assert np.array_equal(other, again)
    assert not np.array_equal(plain, other)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?sead=1", "no parameter 'sead'. It has: seed, pan"),
        ("?seed=one", "seed must be a whole number"),
        ("?seed=-1", "seed must be"),
        ("?bur=1.5", "bur must be a number from 0"),
        ("?bur=nan", "bur must be"),
        ("?bur=0.6&tea=0.6", "add up to 1.2"),
        ("?bur=0.2&burr=0.1", "given twice"),
        ("?seed=1&seed=2", "given twice"),
        ("?pan=zigzag", "pan must be one of raster, rest, wander"),
        ("?size=640", "width x height"),
        ("?size=0x480", "size must be"),
        ("?fps=0", "fps must be"),
        ("?speed=fast", "realtime, max"),
        ("?seed", "name=value"),
        ("seed=1", "after a question mark"),
    ],
)
def test_bad_parameters_are_named(query, words):
    with pytest.raises(UsageError) as caught:
        open_source("sim:" + query)
    assert words in str(caught.value)


@pytest.mark.parametrize("speed", ["max", "realtime"])
def test_a_slide_that_cannot_be_drawn_is_told_to_the_reader(speed, monkeypatch):
    """Not only to the thread that draws: the run would look finished."""
    source = open_source(f"sim:?fps=100&speed={speed}&{SMALL}")
    draw = source._draw

    def fail_later(index, pose):
        if index >= 3:
            raise ValueError("beyond the edge of the slide")
        return draw(index, pose)

    monkeypatch.setattr(source, "_draw", fail_later)
    with pytest.raises(ValueError, match="beyond the edge"):
        list(source.frames())
