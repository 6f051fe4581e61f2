"""`cells.csv`, `fields.csv` and `summary.json`, made from the record of a session alone, at any time."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rbcedge.errors import RbcedgeError
from rbcedge.frame import Gap
from rbcedge.record import CellRow, FieldRow, Record
from rbcedge.summary import Summary, summarise

FILES = ("cells.csv", "fields.csv", "summary.json")


def export(folder: Path) -> Summary:
    """Write the three files beside `session.db`, each complete or not at all.

    Returns
    -------
    Summary
        What `summary.json` says.

    Raises
    ------
    RbcedgeError
        No session there, or a file cannot be written.
    """
    with Record(folder) as record:
        with _replaced(folder / "cells.csv") as file:
            _write_cells(file, record)
        with _replaced(folder / "fields.csv") as file:
            _write_fields(file, record)
        summary = summarise(record)
        with _replaced(folder / "summary.json") as file:
            json.dump(summary.to_dict(), file, indent=2, ensure_ascii=False)
            file.write("\n")
    return summary


def diameter_um(area_px: int, um_per_px: float, scale: float) -> float:
    """Return the diameter in µm of the circle with a cell's area.

    Parameters
    ----------
    area_px : int
        px² of the source picture.
    um_per_px : float
        Size of a native pixel, µm.
    scale : float
        Native px per source px, so that a source pixel measures ``um_per_px * scale``.
    """
    return math.sqrt(area_px * 4 / math.pi) * um_per_px * scale


def _write_cells(file: TextIO, record: Record) -> None:
    setup = record.session.setup
    codes = setup.codes
    out = csv.writer(file, lineterminator="\n")
    out.writerow(
        [
            *("field", "source", "cell", "x", "y", "w", "h", "cx", "cy", "area_px", "diameter_um"),
            *("code", "confidence", "unclassified", "counted"),
            *(f"p_{code}" for code in codes),
            "border",
        ]
    )
    fields = record.fields()
    field: FieldRow | None = None
    for cell in record.cells():
        while field is None or field.number < cell.field:
            field = next(fields)
        out.writerow(
            [
                *(cell.field, field.source, cell.cell, cell.x, cell.y, cell.w, cell.h),
                *(f"{cell.cx:.2f}", f"{cell.cy:.2f}", cell.area_px),
                f"{diameter_um(cell.area_px, setup.um_per_px, field.scale):.3f}",
                *_class_columns(cell, codes, setup.confidence_threshold),
                int(cell.on_border),
            ]
        )


def _class_columns(cell: CellRow, codes: tuple[str, ...], threshold: float) -> list[object]:
    p = cell.probabilities
    if p is None:
        return ["", "", 1, int(cell.counted), *("" for _ in codes)]
    best = int(p.argmax())
    return [
        codes[best],
        f"{p[best]:.6f}",
        int(p[best] < threshold),
        int(cell.counted),
        *(f"{v:.6f}" for v in p),
    ]


def _write_fields(file: TextIO, record: Record) -> None:
    stages = list(dict.fromkeys(stage for field in record.fields() for stage in field.timings_ms))
    out = csv.writer(file, lineterminator="\n")
    out.writerow(
        [
            *("field", "source", "index", "time_s", "verdict", "reason", "sharpness", "density"),
            *("overlap_ratio", "cells", "new_cells"),
            *(f"{stage}_ms" for stage in stages),
            *("frames", "scale"),
        ]
    )
    gaps = list(record.gaps())

    def write_gaps(before: int | None) -> None:
        while gaps and (before is None or gaps[0][0] < before):
            out.writerow(_gap_columns(gaps.pop(0)[1], len(stages)))

    for field in record.fields():
        write_gaps(field.number)
        out.writerow(_field_columns(field, stages))
    write_gaps(None)


def _field_columns(field: FieldRow, stages: list[str]) -> list[object]:
    return [
        *(field.number, field.source, field.frame, f"{field.time_s:.3f}", field.verdict, field.reason),
        *("" if v is None else f"{v:.6g}" for v in (field.sharpness, field.density, field.overlap_ratio)),
        "" if field.cells is None else field.cells,
        field.new_cells,
        *(f"{field.timings_ms[s]:.3f}" if s in field.timings_ms else "" for s in stages),
        field.frames,
        f"{field.scale:.6g}",
    ]


def _gap_columns(gap: Gap, stages: int) -> list[object]:
    return ["", gap.source, "", "", "skipped", gap.reason, "", "", "", "", 0, *[""] * stages, gap.frames, ""]


@contextmanager
def _replaced(path: Path) -> Iterator[TextIO]:
    """Open a file for writing that takes the place of `path` only when it is complete and on disk."""
    half = path.with_name(f".{path.name}.part")
    try:
        with half.open("w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
    except OSError as e:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)
        raise RbcedgeError(
            f"{path} cannot be written: {e.strerror}. The record is safe in session.db: "
            f"make room, then 'rbcedge export {path.parent}'."
        ) from e
    except BaseException:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)
        raise
