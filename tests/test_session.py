"""The run loop, with made-up networks on real pictures of discs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from session_fakes import CODES, DarkPipeline, ListSource, disc_picture, field_of_discs, make_bundle, stills

from rbcedge.counting.grading import icsh_2015
from rbcedge.counting.quality import Gate
from rbcedge.errors import RbcedgeError
from rbcedge.export import export
from rbcedge.field import Field
from rbcedge.frame import Frame, Gap
from rbcedge.record import Record, Setup
from rbcedge.session import run
from rbcedge.sinks.base import Start, Status, Update
from rbcedge.store import Store


class Seen:
    """A sink that remembers, and checks that what it is shown is on disk already."""

    name = "memory"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.updates: list[Update] = []
        self.statuses: list[Status] = []
        self.gaps: list[Gap] = []
        self.closed = 0

    def setup(self, start: Start) -> None:
        self.start = start

    def append(self, update: Update, status: Status) -> None:
        with Record(self.folder) as record:
            assert [f.number for f in record.fields()][-1] == update.number
        self.updates.append(update)
        self.statuses.append(status)

    def tick(self, frame: Frame, status: Status) -> None:
        self.statuses.append(status)

    def skip(self, gap: Gap, status: Status) -> None:
        self.gaps.append(gap)
        self.statuses.append(status)

    def close(self) -> None:
        self.closed += 1


class Failing(Seen):
    """A sink whose disk is full from the second field on."""

    name = "saved pictures"

    def append(self, update: Update, status: Status) -> None:
        if update.number == 2:
            raise OSError(28, "No space left on device")
        self.updates.append(update)


def begin(tmp_path: Path, source: ListSource, **goals: float):
    bundle = make_bundle(tmp_path / "bundle")
    folder = tmp_path / "out"
    scheme = icsh_2015()
    setup = Setup.of("0", source.name, source.kind, bundle, "fake", "fp32", 1.0, scheme)
    start = Start(
        *(source.name, source.kind, source.description, len(source), bundle),
        *("fake", "fp32", 1.0, folder, goals.get("until"), goals.get("until_ci")),
    )
    return folder, scheme, Store(folder, setup), start


def go(tmp_path: Path, source: ListSource, *sinks, ledger=None, stop=None, pipeline=None, **goals: float):
    folder, scheme, store, start = begin(tmp_path, source, **goals)
    seen = Seen(folder)
    try:
        outcome = run(
            source,
            pipeline or DarkPipeline(),
            Gate(),
            ledger,
            scheme,
            store,
            [seen, *sinks],
            start,
            stop or Event(),
        )
    finally:
        store.close()
    return outcome, seen, folder


def test_stills_are_counted_each_by_itself(tmp_path: Path) -> None:
    source = ListSource(stills(3))
    outcome, seen, folder = go(tmp_path, source)
    assert outcome == "finished"
    assert source.closed >= 1
    assert seen.closed == 1
    summary = export(folder)
    counts = {c.label.code: c.count for c in summary.differential.classes}
    assert counts == {"NOR": 21, "OVA": 6, "TEA": 3, "TWO": 3}
    assert summary.differential.unclassified == 3
    # The doubtful one is most like TWO, so it stands for two cells as the sure one does.
    assert summary.differential.red_cells == 3 * (10 + 2 + 2)
    assert (summary.seen, summary.counted, summary.detected) == (3, 3, 39)
    assert summary.rejected == {}
    assert seen.statuses[-1].differential == summary.differential
    assert summary.session.outcome == "finished"
    assert {"segment", "classify", "gate", "store", "total"} <= set(summary.timing_ms)
    assert summary.timing_ms["segment"]["p50"] == pytest.approx(1.5, rel=0.02)


def test_a_rejected_picture_is_listed_and_not_counted(tmp_path: Path) -> None:
    dark = Frame(1, 0.0, (field_of_discs() // 8).astype(np.uint8), "dark.png")
    good, other = stills(2)
    _, seen, folder = go(tmp_path, ListSource([good, dark, other]))
    summary = export(folder)
    assert summary.rejected == {"too dark": 1}
    assert summary.counted == 2
    assert summary.differential.counted == 24
    with Record(folder) as record:
        verdicts = [(f.verdict, f.reason) for f in record.fields()]
    assert verdicts == [("counted", ""), ("rejected", "too dark"), ("counted", "")]
    assert not seen.updates[1].counted.any()


def test_a_picture_without_cells_is_no_error(tmp_path: Path) -> None:
    _, _, folder = go(tmp_path, ListSource([Frame(0, 0.0, disc_picture([]), "empty.png")]))
    summary = export(folder)
    assert summary.seen == 1
    assert summary.rejected == {"too sparse": 1}
    assert summary.differential.counted == 0


def test_gaps_are_recorded_in_their_place(tmp_path: Path) -> None:
    one, two = stills(2)
    _, seen, folder = go(tmp_path, ListSource([one, Gap("bad.png", "cannot be decoded"), two]))
    assert [g.source for g in seen.gaps] == ["bad.png"]
    assert seen.statuses[-1].skipped == 1
    export(folder)
    rows = (folder / "fields.csv").read_text().splitlines()
    assert [r.split(",")[4] for r in rows[1:]] == ["counted", "skipped", "counted"]
    skipped = json.loads((folder / "summary.json").read_text())["skipped"]
    assert skipped == [{"source": "bad.png", "reason": "cannot be decoded", "frames": 1, "seconds": 0.0}]


def test_a_picture_the_pipeline_refuses_is_skipped_and_named(tmp_path: Path) -> None:
    class Choosy(DarkPipeline):
        def find(self, frame: Frame) -> Field:
            if frame.index == 1:
                raise RbcedgeError("too large")
            return super().find(frame)

    outcome, seen, folder = go(tmp_path, ListSource(stills(3)), pipeline=Choosy())
    assert outcome == "finished"
    assert [u.field.frame.index for u in seen.updates] == [0, 2]
    assert [(gap.source, gap.reason) for gap in seen.gaps] == [("slide/1.png", "too large")]
    assert export(folder).counted == 2


def test_until_stops_at_the_first_field_that_reaches_it(tmp_path: Path) -> None:
    outcome, seen, folder = go(tmp_path, ListSource(stills(10)), until=30)
    assert outcome == "goal reached"
    assert len(seen.updates) == 3
    assert export(folder).differential.counted == 36


def test_until_ci(tmp_path: Path) -> None:
    outcome, seen, folder = go(tmp_path, ListSource(stills(60)), until_ci=8)
    assert outcome == "goal reached"
    widest = export(folder).differential.widest
    assert widest is not None
    assert widest.half_width <= 8
    before = seen.statuses[-2].differential.widest
    assert before is not None
    assert before.half_width > 8


def test_stop_ends_with_everything_recorded(tmp_path: Path) -> None:
    stop = Event()
    outcome, seen, folder = go(tmp_path, ListSource(stills(10), stop_after=(4, stop)), stop=stop)
    assert outcome == "interrupted"
    assert len(seen.updates) == 4
    summary = export(folder)
    assert summary.counted == 4
    assert summary.session.outcome == "interrupted"


def test_stop_ends_a_source_that_waits_for_ever(tmp_path: Path) -> None:
    class Waiting(ListSource):
        def __init__(self) -> None:
            super().__init__(stills(1))
            self.over = Event()

        def frames(self):
            yield self.items[0]
            self.over.wait(20)

        def close(self) -> None:
            self.over.set()

    stop = Event()
    Thread(target=lambda: (time.sleep(0.2), stop.set()), daemon=True).start()
    outcome, seen, _ = go(tmp_path, Waiting(), stop=stop)
    assert outcome == "interrupted"
    assert len(seen.updates) == 1


def test_a_sink_that_fails_is_left_out_and_named(tmp_path: Path) -> None:
    failing = Failing(tmp_path)
    _, seen, folder = go(tmp_path, ListSource(stills(5)), failing)
    assert len(failing.updates) == 1
    assert failing.closed == 1
    assert len(seen.updates) == 5
    summary = export(folder)
    assert summary.differential.counted == 60
    assert summary.warnings == ("saved pictures: stopped, the count went on (no space left on device).",)


def test_a_source_that_fails_loses_nothing(tmp_path: Path) -> None:
    source = ListSource([*stills(2), RbcedgeError("camera 0: gone for good.")])
    with pytest.raises(RbcedgeError, match="gone for good"):
        go(tmp_path, source)
    summary = export(tmp_path / "out")
    assert summary.counted == 2
    assert summary.session.outcome == "failed: camera 0: gone for good."


def test_a_full_disk_ends_the_run_and_keeps_what_was_before(tmp_path: Path) -> None:
    source = ListSource(stills(400))
    folder, scheme, store, start = begin(tmp_path, source)
    # The file may grow by a few pages only, as on a disk with no room left.
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages + 6}")
    seen = Seen(folder)
    with pytest.raises(RbcedgeError, match=r"the disk is full\. The \d+ fields before are kept"):
        run(source, DarkPipeline(), Gate(), None, scheme, store, [seen], start, Event())
    store.close()
    summary = export(folder)
    assert 1 <= summary.counted == len(seen.updates) < 400
    assert summary.differential.counted == 12 * summary.counted


KILLED = """
import sys
from pathlib import Path
from threading import Event
sys.path.insert(0, sys.argv[2])
import time
from session_fakes import DarkPipeline, ListSource, stills
from test_session import begin, Seen
from rbcedge.counting.quality import Gate
from rbcedge.session import run

class Shown:
    name = "printed"
    def setup(self, start): pass
    def append(self, update, status):
        print(update.number, status.differential.counted, flush=True)
        time.sleep(0.01)
    def tick(self, frame, status): pass
    def skip(self, gap, status): pass
    def close(self): pass

source = ListSource(stills(1) * 10000)
folder, scheme, store, start = begin(Path(sys.argv[1]), source)
run(source, DarkPipeline(), Gate(), None, scheme, store, [Shown()], start, Event())
"""


def test_kill_9_loses_at_most_the_field_in_hand(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(20)]
    child.send_signal(signal.SIGKILL)
    lines += child.stdout.read().splitlines()
    child.wait()
    child.stdout.close()
    shown, cells = (int(v) for v in lines[-1].split())
    summary = export(tmp_path / "out")
    assert shown <= summary.counted <= shown + 1
    assert summary.differential.counted == 12 * summary.counted
    assert cells == 12 * shown
    assert summary.session.ended is None
    assert summary.session.setup.codes == CODES
