"""Chula-RBC-12: 640x480 fields with marked cells (MIT licence; Naruenatthanaset et al.).

``Dataset/N.jpg`` are the pictures, ``Label/N.txt`` holds a line ``x y type`` for each marked cell. In some
fields only part of the cells is marked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import RbcedgeError

TYPES = (
    "normal",
    "macrocyte",
    "microcyte",
    "spherocyte",
    "target cell",
    "stomatocyte",
    "ovalocyte",
    "teardrop",
    "burr cell",
    "schistocyte",
    "uncategorised",
    "hypochromia",
    "elliptocyte",
)

#: Chula's types to the outline classes of the paper. What differs inside the outline only (pallor, size) is NOR.
TO_PAPER: Mapping[int, str] = {
    0: "NOR",
    1: "NOR",
    2: "NOR",
    3: "NOR",
    11: "NOR",
    6: "OVA",
    12: "OVA",
    7: "TEA",
    8: "BUR",
    9: "FRA",
    4: "OTH",
    5: "OTH",
    10: "OTH",
}


@dataclass(frozen=True, slots=True)
class LabelledField:
    """One field of the set.

    Attributes
    ----------
    number : int
        The picture's number; neighbours share a slide.
    picture : Path
    points : (N, 2) int32
        x, y of the marked cells, px.
    types : (N,) int32
        Index into `TYPES`.
    """

    number: int
    picture: Path
    points: NDArray[np.int32]
    types: NDArray[np.int32]


def read(folder: Path) -> list[LabelledField]:
    """Read all fields, by number; a field without a label file has no points.

    Raises
    ------
    RbcedgeError
        Where the folder is not this data set, or a label line cannot be understood.
    """
    found = [p for p in (folder / "Dataset").glob("*.jpg") if p.stem.isdecimal()]
    pictures = sorted(found, key=lambda p: int(p.stem))
    if not pictures:
        raise RbcedgeError(f"{folder}: no Dataset/NUMBER.jpg. Give the folder of Chula-RBC-12 (Dataset/ and Label/).")
    return [_field(p, folder / "Label" / f"{p.stem}.txt") for p in pictures]


def _field(picture: Path, label: Path) -> LabelledField:
    rows: list[tuple[int, int, int]] = []
    if label.exists():
        for number, line in enumerate(label.read_text().splitlines(), 1):
            if not line.strip():
                continue
            try:
                x, y, kind = (int(v) for v in line.split())
            except ValueError as e:
                raise RbcedgeError(f"{label}:{number}: expected 'x y type', got {line!r}.") from e
            if kind not in TO_PAPER:
                raise RbcedgeError(f"{label}:{number}: type {kind}, known are 0 to {len(TYPES) - 1}.")
            rows.append((x, y, kind))
    table = np.array(rows, np.int32).reshape(-1, 3)
    return LabelledField(int(picture.stem), picture, table[:, :2].copy(), table[:, 2].copy())


def blocks(fields: Sequence[LabelledField], gap: int = 5) -> list[list[LabelledField]]:
    """Group fields into runs of neighbouring numbers, which share a slide: a new run where `gap` numbers lack."""
    out: list[list[LabelledField]] = []
    for field in fields:
        if out and field.number - out[-1][-1].number < gap:
            out[-1].append(field)
        else:
            out.append([field])
    return out


def split(
    fields: Sequence[LabelledField], share: float = 0.2, seed: int = 0
) -> tuple[list[LabelledField], list[LabelledField]]:
    """Split by blocks of neighbours, never by cell, so that both parts hold every class about equally.

    Blocks are drawn in random order; of many draws the one whose held-out part is nearest to `share` of every
    paper class is kept. Deterministic for a seed.

    Returns
    -------
    training, held_out : lists of LabelledField
    """
    groups = blocks(fields)
    codes = sorted(set(TO_PAPER.values()))
    counts = np.zeros((len(groups), len(codes) + 1))
    for i, group in enumerate(groups):
        counts[i, -1] = len(group)
        for field in group:
            for kind in field.types:
                counts[i, codes.index(TO_PAPER[int(kind)])] += 1
    totals = np.maximum(counts.sum(0), 1)
    rng = np.random.default_rng(seed)
    best, chosen = np.inf, np.zeros(len(groups), bool)
    for _ in range(4000):
        held = rng.random(len(groups)) < share
        miss = np.abs(counts[held].sum(0) / totals - share).max()
        if miss < best:
            best, chosen = miss, held
    parts: tuple[list[LabelledField], list[LabelledField]] = ([], [])
    for group, held in zip(groups, chosen, strict=True):
        parts[int(held)].extend(group)
    return parts
