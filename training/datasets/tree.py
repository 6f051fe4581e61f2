"""Writing cells in the layout that `elsafty.read` reads: real fields and simulated ones become one kind of data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import RbcedgeError

#: Class code to folder, named as in the published set.
FOLDERS: Mapping[str, str] = {
    "NOR": "01_rounded_rbcs",
    "OVA": "02_ovalocytes",
    "TEA": "03_teardrops",
    "BUR": "04_burr_cells",
    "FRA": "05_fragmented_rbcs",
    "OTH": "06_other_rbcs",
    "TWO": "07_two_overlapping_cells",
    "THR": "08_three_overlapping_cells",
}
TREES = ("cropped", "masks", "segmented")


@dataclass(frozen=True, slots=True)
class CutCell:
    """One cell cut out of a field.

    Attributes
    ----------
    pixels : (side, side, 3) uint8
        Blue, green, red; zero beyond the field.
    own : (side, side) bool
    box : (x0, y0, x1, y1)
        In the field, px.
    code : str
    """

    pixels: NDArray[np.uint8]
    own: NDArray[np.bool_]
    box: tuple[int, int, int, int]
    code: str


def cut(pixels: NDArray[np.uint8], labels: NDArray[np.int32], codes: Sequence[str], side: int = 80) -> list[CutCell]:
    """Cut squares around the centres of the cells' boxes, as at run time; cells at the field's edge are left out.

    Parameters
    ----------
    pixels : (H, W, 3) uint8
        Blue, green, red.
    labels : (H, W) int32
        0 background, i + 1 for the cell of ``codes[i]``.
    codes : sequence of str
        "" for cells that are left out.
    side : int
        Side of a crop, px. Larger cells are cut at the square.
    """
    half = side // 2
    padded = cv2.copyMakeBorder(pixels, half, half, half, half, cv2.BORDER_CONSTANT)
    ids = np.pad(labels, half)
    height, width = labels.shape
    out = []
    for i, code in enumerate(codes):
        x, y, w, h = cv2.boundingRect((labels == i + 1).astype(np.uint8))
        if not code or not w or x == 0 or y == 0 or x + w == width or y + h == height:
            continue
        cx, cy = x + w // 2, y + h // 2
        at = (slice(cy, cy + side), slice(cx, cx + side))
        out.append(CutCell(padded[at].copy(), ids[at] == i + 1, (x, y, x + w, y + h), code))
    return out


def write(folder: Path, cells: Sequence[CutCell], slide: int, patch: int) -> None:
    """Write the cells of one patch into the three trees.

    Raises
    ------
    RbcedgeError
        Where a file cannot be written.
    """
    for cell in cells:
        name = f"Slide {slide} ({patch},{','.join(str(v) for v in cell.box)}).png"
        pictures = (cell.pixels, cell.own.astype(np.uint8) * 255, cell.pixels * cell.own[..., None])
        for tree, picture in zip(TREES, pictures, strict=True):
            path = folder / tree / FOLDERS[cell.code] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(path), picture):
                raise RbcedgeError(f"{path}: cannot be written.")


def describe(folder: Path, codes: Sequence[str], scanners: Mapping[str, str]) -> None:
    """Write class map and scanners. Written last: a set without them is not complete."""
    used = {FOLDERS[c]: c for c in FOLDERS if c in codes}
    (folder / "class_map.json").write_text(json.dumps({"folders": used}, indent=1) + "\n")
    (folder / "scanners.json").write_text(json.dumps(dict(scanners), indent=1) + "\n")


def fresh(folder: Path) -> None:
    """Make the folder of a new set.

    Raises
    ------
    RbcedgeError
        Where something is in it: pictures of two sets in one folder would be one set.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RbcedgeError(f"{folder} is not empty. Give a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
