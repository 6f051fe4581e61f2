"""The record of a session: one SQLite file, `session.db`, in the output folder.

Each field is one transaction, so a process killed at any moment loses at most the field in hand. The journal
is a write-ahead log with ``synchronous=FULL``: a commit has reached the disk when it returns, which also
survives a power cut at the microscope. (``NORMAL`` would survive a killed process only.) Fields are few a
second and a commit takes about a millisecond on a solid-state disk, so the safer setting costs nothing that
anyone would notice.

A folder holds one session. A second run into the same folder is refused: counts are never overwritten or
mixed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rbcedge.bundle import Bundle, Label
from rbcedge.cells import Cells
from rbcedge.counting.grading import Scheme
from rbcedge.errors import RbcedgeError, UsageError
from rbcedge.frame import Frame, Gap

SCHEMA = 1
FILE = "session.db"
FieldVerdict = Literal["counted", "rejected", "repeated"]

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


@dataclass(frozen=True, slots=True)
class Setup:
    """What a session was started with: everything an export needs beside the rows.

    Attributes
    ----------
    version : str
        Of rbcedge.
    source, kind : str
        Name and kind ("live", "video", "stills") of the source.
    bundle_name, bundle_sha256 : str
    labels : tuple of Label
        In the order of the probabilities.
    confidence_threshold : float
        Cells whose best probability is below are unclassified.
    um_per_px : float
        Size of a native pixel, µm.
    engine, precision : str
    scale : float or None
        Native px per source px as the user gave it; None where it was measured.
    grading : mapping
        The whole grading scheme, so that a later export grades as the run did.
    """

    version: str
    source: str
    kind: str
    bundle_name: str
    bundle_sha256: str
    labels: tuple[Label, ...]
    confidence_threshold: float
    um_per_px: float
    engine: str
    precision: str
    scale: float | None
    grading: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        version: str,
        source: str,
        kind: str,
        bundle: Bundle,
        engine: str,
        precision: str,
        scale: float | None,
        scheme: Scheme,
    ) -> Setup:
        """Take from bundle and scheme what an export needs."""
        return cls(
            version=version,
            source=source,
            kind=kind,
            bundle_name=bundle.name,
            bundle_sha256=bundle.sha256,
            labels=bundle.labels,
            confidence_threshold=bundle.confidence_threshold,
            um_per_px=bundle.um_per_px,
            engine=engine,
            precision=precision,
            scale=scale,
            grading={
                "name": scheme.name,
                "steps": {code: asdict(steps) for code, steps in scheme.steps.items()},
            },
        )

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes in the order of the probabilities."""
        return tuple(label.code for label in self.labels)

    def to_json(self) -> str:
        """Write all attributes as a JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Setup:
        """Read what `to_json` wrote."""
        values = json.loads(text)
        values["labels"] = tuple(Label(**label) for label in values["labels"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class FieldRow:
    """A field as it is recorded.

    Attributes
    ----------
    number : int
        From 1, within the session.
    source : str
        The picture's name.
    frame : int
        Its number within the source, from 0.
    time_s : float
    width, height : int
        px
    scale : float
        Native px per source px.
    verdict : str
        "counted"; "rejected"; "repeated": nothing in it that had not been counted before.
    reason : str
        Why it was rejected, otherwise empty.
    sharpness, density, overlap_ratio : float or None
        As the quality gate measured them; None where they were not.
    cells : int or None
        Cells found, None where nobody looked (the stage was moving).
    new_cells : int
        Cells counted in it.
    timings_ms : mapping of str to float
    frames : int
        Neighbouring pictures of a live source or video this row stands for.
    """

    number: int
    source: str
    frame: int
    time_s: float
    width: int
    height: int
    scale: float
    verdict: FieldVerdict
    reason: str
    sharpness: float | None
    density: float | None
    overlap_ratio: float | None
    cells: int | None
    new_cells: int
    timings_ms: Mapping[str, float]
    frames: int = 1


@dataclass(frozen=True, slots=True)
class CellRow:
    """A cell as it is recorded, in px of the source picture. `probabilities` is (K,) float32 or None."""

    field: int
    cell: int
    x: int
    y: int
    w: int
    h: int
    cx: float
    cy: float
    area_px: int
    on_border: bool
    counted: bool
    probabilities: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session as it is recorded. `ended` and `outcome` are None while it runs, and if it was killed."""

    id: int
    started: str
    ended: str | None
    outcome: str | None
    setup: Setup
    progress: Mapping[str, Any]


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
        if self._path.exists():
            raise UsageError(already_there(folder))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise RbcedgeError(
                f"The output folder {folder} cannot be made: {e.strerror}. Choose another with --out."
            ) from e
        self._number = 0
        try:
            self._db = sqlite3.connect(self._path, isolation_level=None, timeout=10)
        except sqlite3.Error as e:
            raise RbcedgeError(f"{self._path} cannot be written: {_plain(e)}. Choose another folder with --out.") from e
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
            See `FieldRow`.
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
            raise RbcedgeError(f"{self._path} cannot be written: {_plain(e)}. {fields}.") from e


class Record:
    """Reads a session, finished, running or killed.

    Raises
    ------
    RbcedgeError
        There is no session in the folder, or its file is damaged or of another version.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / FILE
        if not path.is_file():
            raise RbcedgeError(f"{folder} holds no session: there is no {FILE}. Give the --out folder of a run.")
        self._path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
        except sqlite3.Error as e:
            raise RbcedgeError(f"{path} cannot be opened: {_plain(e)}.") from e
        try:
            version = int(self._one("PRAGMA user_version")[0])
            if version != SCHEMA:
                raise RbcedgeError(f"{path} has schema {version}, this version of rbcedge reads {SCHEMA}.")
            row = self._one(
                "SELECT id, started, ended, outcome, setup, progress FROM sessions ORDER BY id DESC LIMIT 1"
            )
        except BaseException:
            self._db.close()
            raise
        number, started, ended, outcome, setup, progress = row
        self.session = SessionRow(number, started, ended, outcome, Setup.from_json(setup), json.loads(progress))

    def __enter__(self) -> Record:
        # One read transaction: a session that is still running is seen as it was at this moment.
        self._all("BEGIN")
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self._db.close()

    def fields(self) -> Iterator[FieldRow]:
        """Yield the fields in order."""
        for r in self._all(
            "SELECT number, source, frame, time_s, width, height, scale, verdict, reason, sharpness, density,"
            " overlap_ratio, cells, new_cells, timings, frames FROM fields WHERE session=? ORDER BY number",
            self.session.id,
        ):
            yield FieldRow(*(*r[:14], json.loads(r[14]), r[15]))

    def cells(self) -> Iterator[CellRow]:
        """Yield the cells, field by field."""
        for r in self._all(
            "SELECT field, cell, x, y, w, h, cx, cy, area_px, on_border, counted, probabilities"
            " FROM cells WHERE session=? ORDER BY field, cell",
            self.session.id,
        ):
            p = None if r[11] is None else np.frombuffer(r[11], "<f4").astype(np.float32)
            yield CellRow(*(*r[:9], bool(r[9]), bool(r[10]), p))

    def gaps(self) -> Iterator[tuple[int, Gap]]:
        """Yield the number of the field before, and the gap."""
        for r in self._all(
            "SELECT after_field, source, reason, frames, seconds FROM gaps WHERE session=? ORDER BY id",
            self.session.id,
        ):
            yield r[0], Gap(*r[1:])

    def warnings(self) -> list[str]:
        """Return the warnings in the order in which they first came."""
        rows = self._all("SELECT text FROM warnings WHERE session=? ORDER BY after_field, text", self.session.id)
        return [r[0] for r in rows]

    def _one(self, sql: str) -> tuple[Any, ...]:
        for row in self._all(sql):
            return row
        raise RbcedgeError(f"{self._path} holds no session.")

    def _all(self, sql: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Run at once, so that errors come here, and hand out the rows one by one."""
        try:
            cursor = self._db.execute(sql, values)
        except sqlite3.Error as e:
            raise RbcedgeError(f"{self._path} cannot be read: {_plain(e)}.") from e
        return self._rows(cursor)

    def _rows(self, cursor: sqlite3.Cursor) -> Iterator[tuple[Any, ...]]:
        try:
            # Not `yield from`: that would close the cursor of a reader that stops half-way after the file is closed.
            for row in cursor:  # noqa: UP028
                yield row
        except sqlite3.Error as e:
            raise RbcedgeError(f"{self._path} cannot be read: {_plain(e)}.") from e


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
    """Raise `UsageError` where `folder` already holds a session."""
    if (folder / FILE).exists():
        raise UsageError(already_there(folder))


def _cell_values(
    cells: Cells,
    rows: NDArray[np.intp],
    counted: NDArray[np.bool_] | None,
    ids: NDArray[np.int64] | None,
) -> Iterator[tuple[object, ...]]:
    """Yield the columns of each of `rows` from the cell's number (from 1) on."""
    known = cells.classified
    probabilities = cells.probabilities.astype("<f4")
    for i in rows.tolist():
        yield (
            i + 1,
            *cells.boxes[i].tolist(),
            *cells.centroids[i].tolist(),
            int(cells.areas[i]),
            int(cells.on_border[i]),
            0 if counted is None else int(counted[i]),
            None if ids is None or ids[i] < 0 else int(ids[i]),
            probabilities[i].tobytes() if known[i] else None,
        )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _real(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def _plain(e: sqlite3.Error) -> str:
    """Say an SQLite error in words."""
    text = str(e)
    if "full" in text:
        return "the disk is full"
    if "not a database" in text or "malformed" in text or "no such table" in text:
        return f"it is damaged or not a session ({text})"
    return text
