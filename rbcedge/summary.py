"""The result of a session, from its record alone: what `summary.json` holds and the last screen shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rbcedge.counting.differential import Differential, Tally, differential
from rbcedge.counting.flags import flags
from rbcedge.counting.grading import Scheme, Steps
from rbcedge.frame import Gap
from rbcedge.record import CellRow, Record, SessionRow, Setup

SCHEMA = 1
_BATCH = 4096


@dataclass(frozen=True, slots=True)
class Summary:
    """What came out of a session.

    Attributes
    ----------
    session : SessionRow
    scale : float
        Native px per source px of most fields.
    seen : int
        Pictures looked at.
    counted : int
        Fields with cells that were counted, or countable and empty.
    repeated : int
        Pictures that showed nothing that had not been counted before.
    rejected : mapping of str to int
        Pictures not counted, by reason.
    detected : int
        Cells found in all recorded fields together.
    differential : Differential
    flags : tuple of str
    warnings : tuple of str
    gaps : tuple of Gap
    """

    session: SessionRow
    scale: float
    seen: int
    counted: int
    repeated: int
    rejected: Mapping[str, int]
    detected: int
    differential: Differential
    flags: tuple[str, ...]
    warnings: tuple[str, ...]
    gaps: tuple[Gap, ...]

    @property
    def dropped(self) -> int:
        """Pictures of a live source that were never looked at."""
        return int(self.session.progress.get("dropped", 0))

    @property
    def fps(self) -> float:
        """Pictures per second over the whole session."""
        return float(self.session.progress.get("fps", 0.0))

    @property
    def timing_ms(self) -> Mapping[str, Mapping[str, float]]:
        """Stage -> "p50", "p90", "p99", "max" in ms."""
        timing: Mapping[str, Mapping[str, float]] = self.session.progress.get("timing_ms", {})
        return timing

    def to_dict(self) -> dict[str, Any]:
        """Return what `summary.json` holds."""
        setup, d = self.session.setup, self.differential
        return {
            "schema": SCHEMA,
            "source": setup.source,
            "bundle": {"name": setup.bundle_name, "sha256": setup.bundle_sha256},
            "engine": {"name": setup.engine, "precision": setup.precision},
            "scale": round(self.scale, 6),
            "fields": {
                "seen": self.seen,
                "counted": self.counted,
                "rejected": dict(self.rejected),
                "dropped": self.dropped,
                "repeated": self.repeated,
            },
            "cells": {
                "detected": self.detected,
                "counted": d.counted,
                "single": d.single,
                "overlapped": d.overlapped,
                "unclassified": d.unclassified,
                "estimated_red_cells": d.red_cells,
            },
            "differential": {
                c.label.code: {
                    "count": c.count,
                    "percent": round(c.percent, 4),
                    "ci95": [round(c.ci95[0], 4), round(c.ci95[1], 4)],
                    "grade": c.grade,
                }
                for c in d.classes
            },
            "flags": list(self.flags),
            "timing_ms": {stage: dict(figures) for stage, figures in self.timing_ms.items()},
            "fps": self.fps,
            "grading": d.scheme,
            "warnings": list(self.warnings),
            "skipped": [asdict(gap) for gap in self.gaps],
            "kind": setup.kind,
            "started": self.session.started,
            "ended": self.session.ended,
            "outcome": self.session.outcome,
            "version": setup.version,
        }


def summarise(record: Record) -> Summary:
    """Work the summary out from the rows of a session."""
    setup = record.session.setup
    seen = counted = repeated = detected = 0
    rejected: Counter[str] = Counter()
    scales: Counter[float] = Counter()
    for field in record.fields():
        seen += field.frames
        scales[field.scale] += 1
        detected += field.cells or 0
        if field.verdict == "counted":
            counted += field.frames
        elif field.verdict == "repeated":
            repeated += field.frames
        else:
            rejected[field.reason] += field.frames
    result = differential(tally(record), setup.labels, scheme(setup))
    return Summary(
        record.session,
        scales.most_common(1)[0][0] if scales else setup.scale or 1.0,
        seen,
        counted,
        repeated,
        dict(rejected.most_common()),
        detected,
        result,
        flags(result),
        tuple(record.warnings()),
        tuple(gap for _, gap in record.gaps()),
    )


def tally(record: Record) -> Tally:
    """Count the counted cells of a session."""
    setup = record.session.setup
    total = Tally.empty(len(setup.labels))
    batch: list[CellRow] = []

    def of(rows: list[CellRow]) -> Tally:
        known = [c.probabilities for c in rows if c.probabilities is not None]
        if not known:
            return Tally.empty(len(setup.labels))
        return Tally.of(np.stack(known), setup.confidence_threshold)

    for cell in record.cells():
        if cell.counted:
            batch.append(cell)
        if len(batch) == _BATCH:
            total += of(batch)
            batch.clear()
    return total + of(batch)


def scheme(setup: Setup) -> Scheme:
    """Return the grading scheme a session was started with."""
    grading = setup.grading
    return Scheme(grading["name"], {code: Steps(**steps) for code, steps in grading["steps"].items()})
