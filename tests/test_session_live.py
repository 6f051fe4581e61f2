"""The run loop on a moving stage: a window travels over a large smear of discs."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from session_fakes import LEVELS, DarkPipeline, ListSource
from test_session import go

from rbcedge.counting.ledger import Config, Ledger
from rbcedge.export import export
from rbcedge.frame import Frame, Gap

SIZE = (320, 240)


@pytest.fixture(scope="module")
def smear() -> tuple[np.ndarray, np.ndarray]:
    """A picture of 1400 x 700 px and the centres of its discs; none touch."""
    rng = np.random.default_rng(4)
    picture = np.full((700, 1400, 3), 230, np.uint8)
    centres: list[tuple[int, int]] = []
    for _ in range(20000):
        x, y = int(rng.integers(25, 1375)), int(rng.integers(25, 675))
        if all((x - a) ** 2 + (y - b) ** 2 > 46**2 for a, b in centres):
            centres.append((x, y))
            grey = LEVELS[int(rng.integers(4))]
            cv2.ellipse(picture, (x, y), (int(rng.integers(14, 20)), 17), 0, 0, 360, (grey,) * 3, -1)
    noise = rng.normal(0, 2, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8), np.array(centres)


def film(smear: np.ndarray, corners: Iterable[tuple[int, int]], start: int = 0) -> list[Frame]:
    """Frames of the window at these corners, 30 a second."""
    w, h = SIZE
    return [
        Frame(start + k, (start + k) / 30, np.ascontiguousarray(smear[y : y + h, x : x + w]), "camera 0")
        for k, (x, y) in enumerate(corners)
    ]


def whole_in(centres: np.ndarray, corners: Iterable[tuple[int, int]]) -> int:
    """How many discs lie in one of the windows with room to spare."""
    seen = np.zeros(len(centres), bool)
    for x, y in corners:
        inside = (centres > (x + 22, y + 22)).all(1) & (centres < (x + SIZE[0] - 22, y + SIZE[1] - 22)).all(1)
        seen |= inside
    return int(seen.sum())


def ledger() -> Ledger:
    return Ledger(Config(diameter_px=34))


def test_a_resting_field_is_counted_once_and_then_costs_nothing(tmp_path: Path, smear) -> None:
    picture, centres = smear
    pipeline = DarkPipeline()
    source = ListSource(film(picture, [(300, 200)] * 120), "live", dropped=7)
    outcome, seen, folder = go(tmp_path, source, ledger=ledger(), pipeline=pipeline)
    assert outcome == "finished"
    summary = export(folder)
    assert summary.differential.counted >= whole_in(centres, [(300, 200)])
    assert pipeline.classified == summary.differential.counted
    assert pipeline.searched <= 3
    assert (summary.seen, summary.counted, summary.repeated, summary.dropped) == (120, 1, 119, 7)
    assert len(seen.updates) == 1
    assert len(seen.statuses) == 120
    with (folder / "fields.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert [(r["verdict"], r["frames"]) for r in rows] == [("counted", "1"), ("repeated", "119")]
    with (folder / "cells.csv").open() as file:
        assert len(list(csv.DictReader(file))) == summary.differential.counted


def test_a_walk_with_a_return_counts_every_cell_once(tmp_path: Path, smear) -> None:
    picture, centres = smear
    rest = [(200, 200)] * 6
    there = [(200 + 14 * k, 200) for k in range(1, 31)]
    far = [there[-1]] * 6
    back = there[::-1]
    stops = film(picture, rest + there + far + back + rest)
    pipeline = DarkPipeline()
    _, _, folder = go(tmp_path, ListSource(stops, "video"), ledger=ledger(), pipeline=pipeline)
    summary = export(folder)
    expected = whole_in(centres, [rest[0], far[0]])
    # Discs near the edge of the two fields may be whole or not.
    assert expected <= summary.differential.counted <= 1.25 * expected
    assert summary.rejected.get("moving", 0) >= 40
    assert summary.seen == len(stops)
    # While the stage moves neither network runs.
    assert pipeline.searched <= len(stops) - summary.rejected["moving"]
    with (folder / "fields.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(int(r["frames"]) for r in rows) == len(stops)
    assert len(rows) < 20


def test_a_lost_camera_is_recorded_and_the_count_goes_on(tmp_path: Path, smear) -> None:
    picture, _ = smear
    items = [
        *film(picture, [(300, 200)] * 5),
        Gap("camera 0", "no picture for 5 s", frames=0, seconds=8.5),
        *film(picture, [(300, 200)] * 5, start=300),
    ]
    _, seen, folder = go(tmp_path, ListSource(items, "live"), ledger=ledger())
    summary = export(folder)
    assert summary.seen == 10
    assert [(g.reason, g.seconds) for g in summary.gaps] == [("no picture for 5 s", 8.5)]
    first = seen.updates[0].counted.sum()
    # The same place is recognised after the loss.
    assert summary.differential.counted == first


def test_cells_taken_back_are_listed_but_not_counted(tmp_path: Path, smear) -> None:
    """Two patches of the slide that meet later: what was counted in both is taken back in the second."""
    picture, centres = smear
    a, b = (100, 200), (340, 200)  # they share a strip of 80 px
    between = (220, 200)
    stops = film(picture, [a] * 4, 0) + film(picture, [b] * 4, 1000) + film(picture, [between] * 4, 2000)
    book = ledger()
    _, seen, folder = go(tmp_path, ListSource(stops, "live"), ledger=book)
    summary = export(folder)
    assert summary.differential.counted == len(book)
    assert seen.statuses[-1].differential == summary.differential
    with (folder / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    taken_back = [r for r in rows if r["counted"] == "0"]
    assert len(rows) == len(book) + len(taken_back)
    with (folder / "fields.csv").open() as file:
        assert sum(int(r["new_cells"]) for r in csv.DictReader(file)) == len(book)
    assert len(book) <= whole_in(centres, [(a[0] - 25, a[1] - 25), (b[0] + 25, b[1] + 25), between]) + 20


def test_a_stopped_goal_in_live_mode(tmp_path: Path, smear) -> None:
    picture, _ = smear
    stops = film(picture, [(100 + 3 * k, 200) for k in range(200)])
    outcome, _, folder = go(tmp_path, ListSource(stops, "live"), ledger=ledger(), until=40)
    assert outcome == "goal reached"
    assert 40 <= export(folder).differential.counted < 80
