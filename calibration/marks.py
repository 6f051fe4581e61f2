"""Cells that people have named: a table of `source,x,y,code`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rbcedge.cells import Cells
from rbcedge.errors import RbcedgeError

COLUMNS = ("source", "x", "y", "code")


@dataclass(frozen=True, slots=True)
class Mark:
    """A cell at x, y (px of the source picture) and its class."""

    x: float
    y: float
    code: str


Marks = Mapping[str, Sequence[Mark]]


def read(path: Path, codes: Sequence[str]) -> dict[str, list[Mark]]:
    """Read a CSV file with the columns source, x, y, code; others are ignored.

    `source` is the picture's name as `rbcedge run` writes it into `cells.csv`.

    Raises
    ------
    RbcedgeError
        Naming the line that cannot be understood.
    """
    out: dict[str, list[Mark]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
            if missing:
                raise RbcedgeError(f"{path}: no column {', '.join(missing)}. Needed are {', '.join(COLUMNS)}.")
            for row in reader:
                where = f"{path}:{reader.line_num}"
                try:
                    mark = Mark(float(row["x"]), float(row["y"]), str(row["code"]).strip())
                except (TypeError, ValueError) as error:
                    raise RbcedgeError(f"{where}: x and y must be numbers.") from error
                if mark.code not in codes:
                    raise RbcedgeError(f"{where}: class '{mark.code}' is none of the bundle's ({', '.join(codes)}).")
                out.setdefault(row["source"], []).append(mark)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RbcedgeError(f"{path}: cannot be read ({error}).") from error
    return out


def write(path: Path, marks: Marks) -> None:
    """Write marks as `read` reads them."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        table.writerows((source, m.x, m.y, m.code) for source, group in marks.items() for m in group)


def truth(cells: Cells, labels: NDArray[np.int32], marks: Iterable[Mark], codes: Sequence[str]) -> NDArray[np.intp]:
    """Give each cell the class of the mark that lies on it.

    A cell with two or three marks is TWO or THR where the bundle has such a class (its marks name single cells);
    cells with more, or none, are unknown.

    Returns
    -------
    (N,) int
        Index into `codes`, -1 unknown.
    """
    on: dict[int, list[str]] = {}
    h, w = labels.shape
    for mark in marks:
        x, y = round(mark.x), round(mark.y)
        if 0 <= x < w and 0 <= y < h and labels[y, x] > 0:
            on.setdefault(int(labels[y, x]) - 1, []).append(mark.code)
    out = np.full(len(cells), -1, np.intp)
    for row, found in on.items():
        code = found[0] if len(found) == 1 else {2: "TWO", 3: "THR"}.get(len(found), "")
        if code in codes:
            out[row] = codes.index(code)
    return out
