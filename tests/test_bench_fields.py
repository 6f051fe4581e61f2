"""Simulated fields of exactly so many cells, and which cases a command means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_fakes import make_bundle, write_pictures

from rbcedge.bench.cases import cells_of, engines_of, pictures, sizes_of
from rbcedge.bench.fields import exact_field, exact_fields, usual_cells
from rbcedge.cells import components
from rbcedge.errors import UsageError


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 20))
def test_a_field_shows_exactly_so_many_whole_cells(seed: int, cells: int) -> None:
    view = exact_field(seed, 320, 240, cells)
    assert len(view.objects) == cells
    assert view.objects.whole.all()
    _, found = components((view.labels > 0).astype(np.uint8), 1, fill_holes=False)
    assert len(found) == cells
    assert not found.on_border.any()
    assert view.pixels.shape == (240, 320, 3)


def test_a_crowded_field_is_possible_and_too_many_are_refused() -> None:
    assert len(exact_field(0, 640, 480, 150).objects) == 150
    with pytest.raises(UsageError, match=r"400 cells do not fit into 320x240 px .* about \d+ do"):
        exact_field(0, 320, 240, 400)


def test_fields_differ_from_each_other() -> None:
    drawn = exact_fields(160, 120, 4, 3)
    frames = list(drawn.frames())
    assert len(drawn) == len(frames) == 3
    assert not np.array_equal(frames[0].pixels, frames[1].pixels)
    assert np.array_equal(frames[0].pixels, next(iter(exact_fields(160, 120, 4, 3).frames())).pixels)


def test_usual_number_of_cells_follows_the_area() -> None:
    assert usual_cells(640, 480) == 75
    assert usual_cells(1280, 960) == 300
    assert usual_cells(8, 8) == 1


@pytest.mark.parametrize("text", ["640", "640x", "x480", "640x480,", "10x10", "640x480x3", "axb", "", "-640x480"])
def test_bad_sizes_are_named(text: str) -> None:
    with pytest.raises(UsageError, match="--sizes"):
        sizes_of(text)


@pytest.mark.parametrize("text", ["", "0", "a", "25,", "-3", "1.5", "99999999"])
def test_bad_numbers_of_cells_are_named(text: str) -> None:
    with pytest.raises(UsageError, match="--cells"):
        cells_of(text)


def test_sizes_and_cells_are_read_once_each() -> None:
    assert sizes_of("640x480, 1280X960,640x480") == ((640, 480), (1280, 960))
    assert cells_of("25, 75,25") == (25, 75)


def test_cases_are_sizes_by_cells_and_what_does_not_fit_is_left_out(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    shown, left_out = pictures([], [(160, 120), (320, 240)], [2, 30], 4, bundle)
    assert [p.cells for p in shown] == [2, 2, 30]
    assert len(left_out) == 1
    assert "30 cells do not fit into 160x120" in left_out[0]
    assert [p.opener().description.split(" of ")[1].split(",")[0] for p in shown] == ["160x120", "320x240", "320x240"]
    assert all(p.scale == pytest.approx(1.0) for p in shown)
    with pytest.raises(UsageError, match="do not fit"):
        pictures([], [(160, 120)], [500], 4, bundle)


def test_a_simulated_source_keeps_its_look(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (shown,), _ = pictures(["sim:?size=320x240&diameter=76&seed=5"], [], [], 2, bundle)
    assert shown.scale == pytest.approx(0.5)
    assert shown.cells == round(usual_cells(320, 240) / 4)


def test_other_sources_take_no_sizes(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    folder = str(write_pictures(tmp_path / "slides", 2))
    for sizes, cells, name in (([(640, 480)], [], "--sizes"), ([], [5], "--cells")):
        with pytest.raises(UsageError, match=f"{name} is for simulated fields"):
            pictures([folder], sizes, cells, 2, bundle)
    (shown,), left_out = pictures([folder], [], [], 2, bundle)
    assert not left_out
    assert shown.cells is None
    assert shown.scale is None
    assert len(shown.opener()) == 2


def test_all_engines_are_those_the_bundle_has(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    chosen, left_out = engines_of(bundle, "all", "auto")
    assert not chosen
    assert left_out
    assert all("the bundle has no" in line for line in left_out)
    assert engines_of(bundle, "litert", "int8") == ((("litert", "int8"),), ())
