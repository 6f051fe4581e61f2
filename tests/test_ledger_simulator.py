"""The ledger at the simulated microscope, against its exact truth: pans, pauses, jumps, returns, drift, refocus."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from counting_scenes import classified, field_of

from rbcedge.counting.ledger import Ledger
from rbcedge.counting.quality import Gate
from rbcedge.frame import Frame
from rbcedge.simulator.smear import Smear
from rbcedge.simulator.stage import program

W, H, FPS = 640, 480, 10.0


@pytest.mark.parametrize(("name", "seed", "frames"), [("raster", 1, 100), ("wander", 2, 200)])
def test_counts_what_was_whole_in_a_countable_field_once(name: str, seed: int, frames: int) -> None:
    smear, ledger, gate = Smear(seed=seed), Ledger(), Gate()
    due: set[int] = set()
    counts: Counter[int] = Counter()
    numbers: dict[int, int] = {}
    for index, pose in enumerate(islice(program(name, W, H, seed).poses(FPS), frames)):
        view = smear.view(pose.x, pose.y, W, H, focus=pose.focus, motion=pose.motion)
        frame = Frame(index, pose.time_s, view.pixels, "simulated")
        motion = ledger.observe(frame)
        if motion.moving:
            continue
        field, truth = field_of(frame, view.labels)
        if not gate.judge(field, motion).countable:
            continue
        due.update(truth[~field.cells.on_border].tolist())
        placement = ledger.place(field)
        ledger.commit(placement, classified(field))
        new = placement.new
        numbers.update(zip(placement.ids[new].tolist(), truth[new].tolist(), strict=True))
        counts.update(truth[new].tolist())
        counts.subtract(numbers[i] for i in placement.retracted.tolist())
    assert len(due) > 250
    assert sum(counts[n] == 0 for n in due) <= 0.01 * len(due)
    assert sum(c > 1 for c in counts.values()) <= 0.005 * len(due)
    assert len(ledger) == sum(counts.values())
