"""How a finished run on labelled pictures compares with the labels: reads `cells.csv`, as any user could."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rbcedge.training.datasets.chula import TO_PAPER, LabelledField

from rbcedge.errors import RbcedgeError

#: A field counts as fully marked where this share of the cells off its border hold a mark.
FULLY_MARKED = 0.85

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A listed cell off the border whose class is known from its marks.

    Attributes
    ----------
    picture : Path
    number : int
        Of the field.
    box : tuple of float
        x, y, w, h in px.
    truth : str
        One mark: its class; two or three: TWO or THR.
    row : mapping
        Its line of cells.csv.
    """

    picture: Path
    number: int
    box: Box
    truth: str
    row: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Marks and listed cells of a run, laid over each other.

    Attributes
    ----------
    fields : int
    points : int
        Marked cells.
    missed : tuple of (Path, x, y)
        Marks that lie in the box of no listed cell.
    cells : tuple of Labelled
    full_fields, full_cells : int
        Fields in which nearly all cells are marked, and the listed cells off their borders.
    unmarked : tuple of (Path, Box)
        Listed cells off the border without a mark, in those fields.
    extra : float
        Mean over those fields of the share without a mark, NaN without such a field.
    """

    fields: int
    points: int
    missed: tuple[tuple[Path, int, int], ...]
    cells: tuple[Labelled, ...]
    full_fields: int
    full_cells: int
    unmarked: tuple[tuple[Path, Box], ...]
    extra: float


def lay_over(cells_csv: Path, fields: Sequence[LabelledField]) -> Comparison:
    """Lay the marks of `fields` over the cells of a run over still pictures.

    Raises
    ------
    RbcedgeError
        Where a table is missing or lacks columns, or no picture of `fields` is in it.
    """
    # A picture in which nothing was found has no row among the cells.
    pictures = {Path(row["source"]).name for row in _read(cells_csv.with_name("fields.csv"), {"source"})}
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in _read(cells_csv, {"source", "x", "y", "w", "h", "cx", "cy", "code", "counted"}):
        rows[Path(row["source"]).name].append(row)
    points = seen = full = 0
    extra: list[float] = []
    missed: list[tuple[Path, int, int]] = []
    unmarked: list[tuple[Path, Box]] = []
    cells: list[Labelled] = []
    for field in fields:
        if not len(field.points) or field.picture.name not in pictures:
            continue
        seen += 1
        listed = rows[field.picture.name]
        boxes = np.array([[float(r[k]) for k in ("x", "y", "w", "h")] for r in listed]).reshape(-1, 4)
        centres = np.array([[float(r["cx"]), float(r["cy"])] for r in listed]).reshape(-1, 2)
        held = _assign(field.points, boxes, centres)
        points += len(held)
        missed += [(field.picture, int(x), int(y)) for x, y in field.points[held < 0]]
        h, w = _size(boxes)
        inner = (
            (boxes[:, 0] > 0) & (boxes[:, 1] > 0) & (boxes[:, 0] + boxes[:, 2] < w) & (boxes[:, 1] + boxes[:, 3] < h)
        )
        marked = np.isin(np.arange(len(listed)), held)
        share = marked[inner].mean() if inner.any() else 0.0
        if share > FULLY_MARKED:
            extra.append(1 - share)
            full += int(inner.sum())
            unmarked += [(field.picture, _box(boxes[i])) for i in np.flatnonzero(inner & ~marked)]
        for i in np.unique(held[held >= 0]):
            kinds = field.types[held == i]
            code = TO_PAPER[int(kinds[0])] if len(kinds) == 1 else {2: "TWO", 3: "THR"}.get(len(kinds))
            if code and inner[i]:
                cells.append(Labelled(field.picture, field.number, _box(boxes[i]), code, listed[i]))
    if not seen:
        raise RbcedgeError(f"{cells_csv}: none of the labelled pictures is in it.")
    return Comparison(
        seen, points, tuple(missed), tuple(cells), len(extra), full, tuple(unmarked),
        float(np.mean(extra)) if extra else float("nan"),
    )  # fmt: skip


def _read(path: Path, needed: set[str]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as f:
            reader = csv.DictReader(f)
            missing = needed - set(reader.fieldnames or ())
            if missing:
                raise RbcedgeError(f"{path}: columns {', '.join(sorted(missing))} are missing.")
            return list(reader)
    except OSError as e:
        raise RbcedgeError(
            f"{path}: cannot be read ({e.strerror}). Give the cells.csv that 'rbcedge run' wrote, in its own folder."
        ) from e


def _box(row: NDArray[np.float64]) -> Box:
    x, y, w, h = (float(v) for v in row)
    return x, y, w, h


def _size(boxes: NDArray[np.float64]) -> tuple[float, float]:
    # The pictures of this set are 640x480.
    far = (boxes[:, :2] + boxes[:, 2:]).max(axis=0, initial=0)
    return max(480.0, float(far[1])), max(640.0, float(far[0]))


def _assign(points: NDArray[np.int32], boxes: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each point the cell whose box holds it (2 px of grace), the nearest centre first; -1 for none."""
    out = np.full(len(points), -1)
    if not len(boxes):
        return out
    for k, (x, y) in enumerate(points):
        inside = np.flatnonzero(
            (x >= boxes[:, 0] - 2) & (x < boxes[:, 0] + boxes[:, 2] + 2)
            & (y >= boxes[:, 1] - 2) & (y < boxes[:, 1] + boxes[:, 3] + 2)
        )  # fmt: skip
        if len(inside):
            out[k] = inside[np.argmin(((centres[inside] - (x, y)) ** 2).sum(1))]
    return out
