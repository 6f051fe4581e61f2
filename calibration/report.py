"""The report on a calibration: one HTML file with everything in it, and the same figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbcedge.calibration import page
from rbcedge.calibration.agreement import Agreement, Check
from rbcedge.calibration.chosen import CalibrationSet
from rbcedge.calibration.examine import Examined
from rbcedge.calibration.sensitivity import Quantised
from rbcedge.calibration.tolerances import Tolerances

from rbcedge.bundle import Bundle
from rbcedge.errors import RbcedgeError
from rbcedge.frame import Frame

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Speed:
    """Time of a call on this machine, ms: float, all layers in INT8, and the INT8 network that was made."""

    float_ms: float
    all_int8_ms: float
    int8_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    """All that is known after a calibration.

    Attributes
    ----------
    bundle : Bundle
        With the float networks.
    source, judged_on, created : str
    examined : Examined
    chosen : CalibrationSet
    held_out : bool
        Whether the fields compared are others than those calibrated on.
    quantised : mapping of format to role to Quantised
    speeds : mapping of format to role to Speed
    agreements : mapping of format to Agreement
    tolerances : Tolerances
    versions : mapping of package to version
    """

    bundle: Bundle
    source: str
    judged_on: str
    created: str
    examined: Examined
    chosen: CalibrationSet
    held_out: bool
    quantised: Mapping[str, Mapping[str, Quantised]]
    speeds: Mapping[str, Mapping[str, Speed]]
    agreements: Mapping[str, Agreement]
    tolerances: Tolerances
    versions: Mapping[str, str]

    @property
    def beyond_by_format(self) -> dict[str, list[str]]:
        """What is beyond the tolerances, in words."""
        return {
            format: [f"{c.name} {c.measured:.2f} points ({c.tolerance:g})" for c in _beyond(a, self.tolerances)]
            for format, a in self.agreements.items()
        }

    @property
    def beyond(self) -> list[str]:
        """The same, of all formats."""
        several = len(self.agreements) > 1
        return [f"{f}: {x}" if several else x for f, found in self.beyond_by_format.items() for x in found]


def _beyond(agreement: Agreement, tolerances: Tolerances) -> list[Check]:
    return [c for c in agreement.checks(tolerances) if c.verdict == "beyond"]


def figures(report: Report) -> dict[str, Any]:
    """Return what `agreement.json` holds."""
    return {
        "schema": SCHEMA,
        "created": report.created,
        "source": report.source,
        "judged_on": report.judged_on,
        "bundle": {"name": report.bundle.name, "sha256": report.bundle.sha256},
        "fields": {
            "countable": len(report.examined.candidates),
            "left_out": len(report.examined.left_out),
            "calibrated_on": len(report.chosen.fields),
            "compared_on_others": report.held_out,
        },
        "cells_calibrated_on": dict(sorted(report.chosen.classes.items())),
        "versions": dict(report.versions),
        "networks": {
            format: {role: _network(q, report.speeds[format][role]) for role, q in made.items()}
            for format, made in report.quantised.items()
        },
        "agreement": {f: agreement_figures(a, report.tolerances) for f, a in report.agreements.items()},
    }


def summary(report: Report) -> dict[str, Any]:
    """Return what the manifest holds: the same without the sensitivity of every part and the figures of every class."""
    whole = figures(report)
    for networks in whole["networks"].values():
        for network in networks.values():
            del network["int8_in_one_part_alone"]
    for agreement in whole["agreement"].values():
        del agreement["classes"]
    return whole


def _network(q: Quantised, speed: Speed) -> dict[str, Any]:
    return {
        "ranges": q.method,
        "sqnr_db": {m: round(e.sqnr_db, 2) for m, e in q.methods},
        "final_sqnr_db": round(q.effect.sqnr_db, 2),
        "final_disagreement": round(q.effect.disagreement, 5),
        "goal": q.goal,
        "kept_in_float": [g.title for g in q.kept],
        "float_share_of_arithmetic": round(q.float_share, 4),
        "bytes": len(q.model),
        "call_ms": {
            "float": round(speed.float_ms, 2),
            "all_int8": round(speed.all_int8_ms, 2),
            "int8": round(speed.int8_ms, 2),
        },
        "int8_in_one_part_alone": [
            {
                "part": f.group.title,
                "sqnr_db": round(f.effect.sqnr_db, 2),
                "disagreement": round(f.effect.disagreement, 5),
            }
            for f in q.findings
        ],
    }


def agreement_figures(a: Agreement, tolerances: Tolerances) -> dict[str, Any]:
    """Return one agreement as plain values."""
    return {
        "reference": a.reference,
        "candidate": a.candidate,
        "fields": len(a.fields),
        "mask_iou": round(a.mask_iou, 5),
        "boundary_px": {"mean": _round(a.boundary_mean, 4), "p95": _round(a.boundary_p95, 3)},
        "cells": {"before": a.cells[0], "after": a.cells[1], "both": a.cells[2]},
        "labels_agree": _round(a.labels_agree, 5),
        "unclassified_percent": [round(v, 3) for v in a.unclassified],
        "accuracy_percent": None if a.accuracy is None else [round(v, 3) for v in a.accuracy],
        "classes": {
            c.label.code: {
                "percent": [round(c.before, 3), round(c.after, 3)],
                "change": round(c.change.points, 3),
                "ci95": [round(v, 3) for v in c.change.ci95],
                "gained": c.change.gained,
                "lost": c.change.lost,
                "n": c.change.n,
                "bland_altman": {"bias": round(c.bias, 3), "limits": [_round(v, 3) for v in c.limits]},
            }
            for c in a.classes
        },
        "checks": [
            {"what": c.name, "measured": round(c.measured, 3), "tolerance": c.tolerance, "verdict": c.verdict}
            for c in a.checks(tolerances)
        ],
    }


def _round(value: float, digits: int) -> float | None:
    """Round, or None for what is not a number: JSON has no NaN."""
    return round(value, digits) if value == value else None


def write_report(report: Report, folder: Path, frame: Callable[[str], Frame]) -> None:
    """Write `report.html` and `agreement.json` into `folder`.

    Parameters
    ----------
    report : Report
    folder : Path
    frame : callable
        Gives the picture of a source.

    Raises
    ------
    RbcedgeError
        They cannot be written, or matplotlib is missing.
    """
    try:
        _write(folder / "agreement.json", json.dumps(figures(report), indent=1, ensure_ascii=False) + "\n")
        _write(folder / "report.html", page.html(report, frame))
    except OSError as error:
        raise RbcedgeError(f"{folder}: the report cannot be written ({error.strerror}).") from error


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
