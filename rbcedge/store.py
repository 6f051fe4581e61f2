"""Writing the record of a session: one SQLite file, `session.db`, in the output folder.

Each field is one transaction, so a process killed at any moment loses at most the field in hand. The journal
is a write-ahead log with ``synchronous=FULL``: a commit has reached the disk when it returns, which also
survives a power cut at the microscope. (``NORMAL`` would survive a killed process only.) Fields are few a
second and a commit takes about a millisecond on a solid-state disk, so the safer setting costs nothing that
anyone would notice.

A folder holds one session. A second run into the same folder is refused: counts are never overwritten or
mixed. Where a run ended before its first field there is nothing to lose, and its folder can be used again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbcedge.cells import Cells
from rbcedge.errors import RbcedgeError, UsageError
from rbcedge.frame import Frame, Gap
from rbcedge.record import FILE, SCHEMA, FieldVerdict, Setup, plain

_TABLES = """
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, ended TEXT, outcome TEXT,
    setup TEXT NOT NULL,                    -- JSON of Setup: all that an export needs beside the rows
    progress TEXT NOT NULL DEFAULT '{}'     -- JSON: dropped frames, fps, times by stage
);
CREATE TABLE fields (
    session INTEGER NOT NULL REFERENCES sessions(id), number INTEGER NOT NULL,
    source TEXT NOT NULL, frame INTEGER NOT NULL, time_s REAL NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL,
    scale REAL NOT NULL,                    -- native px per source px
    verdict TEXT NOT NULL, reason TEXT NOT NULL, sharpness REAL, density REAL, overlap_ratio REAL,
    cells INTEGER, new_cells INTEGER NOT NULL,
    timings TEXT NOT NULL,                  -- JSON: stage -> ms
    frames INTEGER NOT NULL DEFAULT 1,      -- pictures in a row this entry stands for
    PRIMARY KEY (session, number)
) WITHOUT ROWID;
CREATE TABLE cells (
    session INTEGER NOT NULL, field INTEGER NOT NULL, cell INTEGER NOT NULL,
    x INTEGER NOT NULL, y INTEGER NOT NULL, w INTEGER NOT NULL, h INTEGER NOT NULL,
    cx REAL NOT NULL, cy REAL NOT NULL, area_px INTEGER NOT NULL,
    on_border INTEGER NOT NULL, counted INTEGER NOT NULL,
    ledger INTEGER,                         -- the ledger's number of the cell; NULL for still pictures
    probabilities BLOB,                     -- float32, little-endian, by label; NULL: not classified
    PRIMARY KEY (session, field, cell),
    FOREIGN KEY (session, field) REFERENCES fields(session, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX cells_by_ledger ON cells (session, ledger) WHERE ledger IS NOT NULL;
CREATE TABLE gaps (
    id INTEGER PRIMARY KEY, session INTEGER NOT NULL REFERENCES sessions(id),
    after_field INTEGER NOT NULL,           -- number of the last field before, 0 at the start
    source TEXT NOT NULL, reason TEXT NOT NULL, frames INTEGER NOT NULL, seconds REAL NOT NULL
);
CREATE TABLE warnings (
    session INTEGER NOT NULL REFERENCES sessions(id), text TEXT NOT NULL, after_field INTEGER NOT NULL,
    PRIMARY KEY (session, text)
) WITHOUT ROWID;
CREATE TABLE reviews (
    id INTEGER PRIMARY KEY, session INTEGER NOT NULL, field INTEGER NOT NULL, cell INTEGER NOT NULL,
    code TEXT NOT NULL, reviewer TEXT NOT NULL, time TEXT NOT NULL,
    FOREIGN KEY (session, field, cell) REFERENCES cells(session, field, cell)
);
"""


class Store:
    """Writes one session. Belongs to the thread that made it.

    Raises
    ------
    UsageError
        The folder already holds a session.
    RbcedgeError
        The folder cannot be written. Any later write may raise it too (disk full): what was written before is
        kept.
    """

    def __init__(self, folder: Path, setup: Setup) -> None:
        self.folder = folder
        self._path = folder / FILE
        check_free(folder)
        try:
            _discard(self._path)
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise RbcedgeError(
                f"The output folder {folder} cannot be used: {e.strerror}. Choose another with --out."
            ) from e
        self._number = 0
        try:
            self._db = sqlite3.connect(self._path, isolation_level=None, timeout=10)
        except sqlite3.Error as e:
            raise RbcedgeError(f"{self._path} cannot be written: {plain(e)}. Choose another folder with --out.") from e
        with self._guarded():
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
        with self._transaction():
            for statement in _TABLES.split(";\n"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version={SCHEMA}")
            cursor = self._db.execute("INSERT INTO sessions (started, setup) VALUES (?, ?)", (_now(), setup.to_json()))
            self._session = cursor.lastrowid

    @property
    def fields(self) -> int:
        """Number of the last field written, 0 before the first."""
        return self._number

    def add(
        self,
        frame: Frame,
        verdict: FieldVerdict,
        reason: str = "",
        *,
        scale: float,
        cells: Cells | None = None,
        rows: NDArray[np.intp] | None = None,
        counted: NDArray[np.bool_] | None = None,
        ids: NDArray[np.int64] | None = None,
        retracted: NDArray[np.int64] | None = None,
        sharpness: float | None = None,
        density: float | None = None,
        overlap_ratio: float | None = None,
        timings_ms: Mapping[str, float],
        progress: Mapping[str, Any],
    ) -> int:
        """Write a field and its cells in one transaction; when this returns they are on disk.

        Parameters
        ----------
        frame : Frame
        verdict, reason : str
            See `rbcedge.record.FieldRow`.
        scale : float
            Native px per source px.
        cells : Cells, optional
            What was found; None where nobody looked.
        rows : (M,) int, optional
            Which cells to write; None writes none.
        counted : (N,) bool, optional
            Cells that were counted now.
        ids : (N,) int64, optional
            The ledger's numbers of the cells.
        retracted : (M,) int64, optional
            Numbers of cells that turned out to have been counted before: they stay listed, as not counted.
        sharpness, density, overlap_ratio : float, optional
            The quality gate's measures; NaN is recorded as unknown.
        timings_ms : mapping of str to float
        progress : mapping
            Running state of the session: "dropped", "fps", "timing_ms".

        Returns
        -------
        int
            The field's number, from 1.
        """
        number = self._number + 1
        width, height = frame.size
        values = (
            *(self._session, number, frame.source, frame.index, frame.time_s, width, height, scale),
            *(verdict, reason, _real(sharpness), _real(density), _real(overlap_ratio)),
            None if cells is None else len(cells),
            0 if counted is None else int(np.count_nonzero(counted)),
            json.dumps({k: round(float(v), 3) for k, v in timings_ms.items()}),
        )
        with self._transaction():
            self._db.execute("INSERT INTO fields VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,1)", values)
            if cells is not None and rows is not None and len(rows):
                self._db.executemany(
                    "INSERT INTO cells VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                    ((self._session, number, *v) for v in _cell_values(cells, rows, counted, ids)),
                )
            for cell in () if retracted is None else retracted.tolist():
                self._retract(cell)
            self._set_progress(progress)
        self._number = number
        return number

    def lengthen(self, frames: int, progress: Mapping[str, Any]) -> None:
        """Say how many pictures in a row the last field stands for."""
        with self._transaction():
            self._db.execute(
                "UPDATE fields SET frames=? WHERE session=? AND number=?",
                (frames, self._session, self._number),
            )
            self._set_progress(progress)

    def skip(self, gap: Gap) -> None:
        """Record lost pictures."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO gaps (session, after_field, source, reason, frames, seconds) VALUES (?,?,?,?,?,?)",
                (self._session, self._number, gap.source, gap.reason, gap.frames, gap.seconds),
            )

    def warn(self, text: str) -> None:
        """Record a warning, once however often it comes."""
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO warnings VALUES (?,?,?)", (self._session, text, self._number))

    def finish(self, outcome: str, progress: Mapping[str, Any]) -> None:
        """Record how the session ended: "finished", "interrupted", or what failed."""
        with self._transaction():
            self._set_progress(progress)
            self._db.execute("UPDATE sessions SET ended=?, outcome=? WHERE id=?", (_now(), outcome, self._session))

    def close(self) -> None:
        """Close the file. Safe to call twice. After a clean end it needs no companion files to be read."""
        # Where it is closed already, somebody is reading, or the disk is full, the log stays beside the file.
        with suppress(sqlite3.Error):
            self._db.execute("PRAGMA journal_mode=DELETE")
        self._db.close()

    def _retract(self, ledger: int) -> None:
        where = (self._session, ledger)
        self._db.execute(
            "UPDATE fields SET new_cells=new_cells-1 WHERE (session, number) IN"
            " (SELECT session, field FROM cells WHERE session=? AND ledger=? AND counted=1)",
            where,
        )
        self._db.execute("UPDATE cells SET counted=0 WHERE session=? AND ledger=?", where)

    def _set_progress(self, progress: Mapping[str, Any]) -> None:
        self._db.execute("UPDATE sessions SET progress=? WHERE id=?", (json.dumps(progress), self._session))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._guarded():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as e:
            fields = f"The {self._number} fields before are kept" if self._number else "Nothing was counted yet"
            raise RbcedgeError(f"{self._path} cannot be written: {plain(e)}. {fields}.") from e


def already_there(folder: Path) -> str:
    """Say why a second run into `folder` is refused, and where it could go instead."""
    k = 2
    while (other := folder.with_name(f"{folder.name}-{k}")).exists():
        k += 1
    return (
        f"{folder} already holds the results of a run, which are never overwritten or mixed.\n"
        f"Choose another folder, for example --out {other}, or remove it first."
    )


def check_free(folder: Path) -> None:
    """Raise `UsageError` where `folder` holds fields of a session, or one is just being written there."""
    path = folder / FILE
    if path.exists() and not _without_fields(path):
        raise UsageError(already_there(folder))


def _without_fields(path: Path) -> bool:
    """Whether the record of a run that is over holds no field. False where that cannot be told for sure."""
    try:
        db = sqlite3.connect(path, isolation_level=None, timeout=0)
    except sqlite3.Error:
        return False
    try:
        # Only possible where nobody else has the file open: a run may be waiting for its first picture.
        db.execute("PRAGMA journal_mode=DELETE")
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        if not tables:
            return True
        return "sessions" in tables and db.execute("SELECT 1 FROM fields LIMIT 1").fetchone() is None
    except sqlite3.Error:
        return False
    finally:
        db.close()


def _discard(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _cell_values(
    cells: Cells,
    rows: NDArray[np.intp],
    counted: NDArray[np.bool_] | None,
    ids: NDArray[np.int64] | None,
) -> Iterator[tuple[object, ...]]:
    """Yield the columns of each of `rows` from the cell's number (from 1) on."""
    n = len(rows)
    known = cells.classified[rows].tolist()
    probabilities = cells.probabilities[rows].astype("<f4")
    # Whole columns at once: a number taken out of an array by itself costs more than writing it.
    columns = zip(
        (rows + 1).tolist(),
        cells.boxes[rows].tolist(),
        cells.centroids[rows].tolist(),
        cells.areas[rows].tolist(),
        cells.on_border[rows].tolist(),
        [0] * n if counted is None else counted[rows].tolist(),
        [-1] * n if ids is None else ids[rows].tolist(),
        strict=True,
    )
    for k, (number, box, centroid, area, border, is_counted, ledger) in enumerate(columns):
        yield (
            number,
            *box,
            *centroid,
            area,
            int(border),
            int(is_counted),
            None if ledger < 0 else ledger,
            probabilities[k].tobytes() if known[k] else None,
        )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _real(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
