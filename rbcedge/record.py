"""Reading the record of a session: `session.db` in the output folder, finished, running or killed.

`rbcedge.store` writes it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rbcedge.bundle import Bundle, Label
from rbcedge.counting.grading import Scheme
from rbcedge.errors import RbcedgeError
from rbcedge.frame import Gap

SCHEMA = 1
FILE = "session.db"
FieldVerdict = Literal["counted", "rejected", "repeated"]


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
            raise RbcedgeError(f"{path} cannot be opened: {plain(e)}.") from e
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
            raise RbcedgeError(f"{self._path} cannot be read: {plain(e)}.") from e
        return self._rows(cursor)

    def _rows(self, cursor: sqlite3.Cursor) -> Iterator[tuple[Any, ...]]:
        try:
            # Not `yield from`: that would close the cursor of a reader that stops half-way after the file is closed.
            for row in cursor:  # noqa: UP028
                yield row
        except sqlite3.Error as e:
            raise RbcedgeError(f"{self._path} cannot be read: {plain(e)}.") from e


def plain(e: sqlite3.Error) -> str:
    """Say an SQLite error in words."""
    text = str(e)
    if "full" in text:
        return "the disk is full"
    if "unable to open" in text or "readonly" in text:
        return "the folder is read-only or not yours"
    if "not a database" in text or "malformed" in text or "no such table" in text:
        return f"it is damaged or not a session ({text})"
    return text
