"""The record of a session: what goes in comes out, and nothing is lost or mixed."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_fakes import DarkPipeline, field_of_discs, make_bundle

from rbcedge.cells import Cells
from rbcedge.counting.grading import icsh_2015
from rbcedge.errors import RbcedgeError, UsageError
from rbcedge.export import export
from rbcedge.frame import Frame, Gap
from rbcedge.record import Record, Setup
from rbcedge.store import Store, check_free
from rbcedge.summary import scheme, summarise

PICTURE = np.zeros((4, 6, 3), np.uint8)


def setup(tmp_path: Path) -> Setup:
    bundle = make_bundle(tmp_path / "bundle")
    return Setup.of("1.2", "pictures", "stills", bundle, "litert", "int8", None, icsh_2015())


def add(store: Store, cells: Cells | None = None, **more) -> int:
    rows = None if cells is None else np.arange(len(cells))
    counted = None if cells is None else ~cells.on_border
    values = {"scale": 1.0, "cells": cells, "rows": rows, "counted": counted, "timings_ms": {}, "progress": {}} | more
    return store.add(Frame(0, 0.0, PICTURE, "a.png"), "counted", **values)


def some_cells(n: int, seed: int = 0) -> Cells:
    rng = np.random.default_rng(seed)
    return Cells(
        rng.integers(0, 2**31 - 1, (n, 4)).astype(np.int32),
        rng.normal(0, 1e3, (n, 2)).astype(np.float32),
        rng.integers(1, 2**31 - 1, n).astype(np.int32),
        rng.random(n) < 0.3,
        rng.dirichlet([1] * 4, n).astype(np.float32),
    )


@settings(max_examples=15, deadline=None)
@given(n=st.integers(0, 30), seed=st.integers(0, 1000))
def test_cells_come_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, n: int, seed: int) -> None:
    tmp_path = tmp_path_factory.mktemp("store")
    cells = some_cells(n, seed)
    store = Store(tmp_path / "out", setup(tmp_path))
    add(store, cells)
    store.close()
    with Record(tmp_path / "out") as record:
        back = list(record.cells())
    assert [c.cell for c in back] == list(range(1, n + 1))
    for i, c in enumerate(back):
        assert [c.x, c.y, c.w, c.h] == cells.boxes[i].tolist()
        assert np.float32([c.cx, c.cy]).tobytes() == cells.centroids[i].tobytes()
        assert c.area_px == cells.areas[i]
        assert c.on_border == cells.on_border[i] == (not c.counted)
        assert c.probabilities is not None
        assert c.probabilities.tobytes() == cells.probabilities[i].tobytes()


def test_fields_gaps_and_warnings_come_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "out", setup(tmp_path))
    store.skip(Gap("first.png", "gone"))
    number = store.add(
        Frame(3, 12.125, PICTURE, "sub/a.png"),
        "rejected",
        "blurred",
        scale=0.5,
        cells=some_cells(3),
        sharpness=0.03125,
        density=float("nan"),
        overlap_ratio=0.25,
        timings_ms={"segment": 12.34567, "classify": 1.0},
        progress={"dropped": 2, "fps": 3.5},
    )
    store.lengthen(7, {"dropped": 4, "fps": 3.0})
    store.warn("too dark")
    store.warn("too dark")
    store.skip(Gap("camera", "unplugged", 0, 4.5))
    store.finish("finished", {"dropped": 5})
    store.close()
    assert number == 1
    with Record(tmp_path / "out") as record:
        (field,) = record.fields()
        assert (field.number, field.source, field.frame, field.time_s) == (1, "sub/a.png", 3, 12.125)
        assert (field.width, field.height, field.scale) == (6, 4, 0.5)
        assert (field.verdict, field.reason, field.cells, field.new_cells) == ("rejected", "blurred", 3, 0)
        assert (field.sharpness, field.density, field.overlap_ratio) == (0.03125, None, 0.25)
        assert field.timings_ms == {"segment": 12.346, "classify": 1.0}
        assert field.frames == 7
        assert list(record.cells()) == []
        assert list(record.gaps()) == [
            (0, Gap("first.png", "gone")),
            (1, Gap("camera", "unplugged", 0, 4.5)),
        ]
        assert record.warnings() == ["too dark"]
        assert record.session.outcome == "finished"
        assert record.session.setup == setup(tmp_path)
        assert scheme(record.session.setup) == icsh_2015()
        summary = summarise(record)
    assert (summary.seen, summary.rejected, summary.dropped, summary.detected) == (7, {"blurred": 7}, 5, 3)


def test_schema_and_safety(tmp_path: Path) -> None:
    store = Store(tmp_path / "out", setup(tmp_path))
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._db.execute("PRAGMA user_version").fetchone() == (1,)
    tables = {name for (name,) in store._db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    assert {"sessions", "fields", "cells", "gaps", "warnings", "reviews"} <= tables
    store.close()
    store.close()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["session.db"]


def test_an_occupied_folder_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "out", setup(tmp_path))
    add(store, some_cells(2))
    store.close()
    (tmp_path / "out-2").mkdir()
    with pytest.raises(UsageError, match=r"already holds the results of a run.*\n.*--out .*out-3"):
        Store(tmp_path / "out", setup(tmp_path))


def test_a_folder_without_a_field_can_be_used_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    waiting = Store(out, setup(tmp_path))
    waiting.warn("still waiting for a picture")
    # Whoever has it open may be about to write.
    with pytest.raises(UsageError):
        check_free(out)
    waiting.close()
    check_free(out)
    store = Store(out, setup(tmp_path))
    add(store, some_cells(2))
    store.close()
    with Record(out) as record:
        assert len(list(record.fields())) == 1
        assert record.warnings() == []
    with pytest.raises(UsageError):
        check_free(out)


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0 but damaged", b"somebody's notes"])
def test_what_is_not_a_record_is_never_removed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "session.db").write_bytes(content)
    if content:
        with pytest.raises(UsageError):
            Store(tmp_path, setup(tmp_path))
        assert (tmp_path / "session.db").read_bytes() == content
    else:
        # All that is left where the disk was full at the start.
        Store(tmp_path, setup(tmp_path)).close()


def test_a_database_of_something_else_is_never_removed(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "session.db")
    db.execute("CREATE TABLE fields (a)")
    db.close()
    with pytest.raises(UsageError):
        check_free(tmp_path)


def test_a_field_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store(tmp_path / "out", setup(tmp_path))
    add(store, some_cells(2))
    # The second field fails half-way: its third cell has a number that is taken.
    cells = some_cells(3)
    ids = np.array([5, 6, 5])
    with pytest.raises(RbcedgeError, match=r"session\.db cannot be written.*The 1 fields before are kept"):
        add(store, cells, ids=ids, rows=np.arange(3))
    assert add(store, some_cells(4)) == 2
    store.close()
    with Record(tmp_path / "out") as record:
        assert [f.cells for f in record.fields()] == [2, 4]
        assert len(list(record.cells())) == 6


def test_cells_taken_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "out", setup(tmp_path))
    pipeline = DarkPipeline()
    field = pipeline.find(Frame(0, 0.0, field_of_discs(border=False), "camera"))
    field = pipeline.classify(field, np.arange(12))
    add(store, field.cells, ids=np.arange(12))
    add(store, field.cells, ids=np.arange(12, 24), retracted=np.array([0, 3, 0]))
    store.close()
    with Record(tmp_path / "out") as record:
        assert [f.new_cells for f in record.fields()] == [10, 12]
        assert [c.cell for c in record.cells() if not c.counted] == [1, 4]
        assert summarise(record).differential.counted == 22


def test_a_running_session_is_seen_as_it_was_at_one_moment(tmp_path: Path) -> None:
    store = Store(tmp_path / "out", setup(tmp_path))
    add(store, some_cells(2))
    with Record(tmp_path / "out") as record:
        assert len(list(record.fields())) == 1
        add(store, some_cells(2))
        assert len(list(record.fields())) == 1
        assert len(list(record.cells())) == 2
    summary = export(tmp_path / "out")
    assert summary.seen == 2
    assert summary.session.outcome is None
    store.close()


def test_export_replaces_files_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "out", setup(tmp_path))
    add(store, some_cells(2))
    export(tmp_path / "out")
    before = (tmp_path / "out" / "cells.csv").read_bytes()
    add(store, some_cells(2))
    store.close()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rbcedge.export.os.fsync", full)
    with pytest.raises(RbcedgeError, match=r"cells\.csv cannot be written: No space left.*rbcedge export"):
        export(tmp_path / "out")
    assert (tmp_path / "out" / "cells.csv").read_bytes() == before
    assert not list((tmp_path / "out").glob(".*"))


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path / "out", setup(tmp_path))
    for seed in range(40):
        add(store, some_cells(60, seed))
    store.close()
    path = tmp_path / "out" / "session.db"
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 2] = b"\xff" * (len(data) // 2 - len(data) // 3)
    path.write_bytes(bytes(data))
    with pytest.raises(RbcedgeError, match=r"session\.db"):
        export(tmp_path / "out")


def test_a_really_full_disk(tmp_path: Path) -> None:
    """A file system of 512 KiB; needs the right to mount one."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        store = Store(small / "out", setup(tmp_path))
        written = 0

        def fill() -> None:
            nonlocal written
            for seed in range(400):
                add(store, some_cells(60, seed))
                written += 1

        with pytest.raises(RbcedgeError, match="the disk is full"):
            fill()
        store.close()
        assert written > 5
        db = sqlite3.connect(small / "out" / "session.db")
        assert db.execute("SELECT count(*) FROM fields").fetchone()[0] == written
        assert db.execute("SELECT count(*) FROM cells").fetchone()[0] == 60 * written
        db.close()
        with pytest.raises(RbcedgeError, match="No space left"):
            export(small / "out")
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
