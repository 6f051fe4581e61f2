"""The layouts of the paper's data (PathOlogics; "Elsafty_RBCs_for_AI", Sci. Data 2024, s41597-024-03570-z).

Up to three parallel trees of pictures, told apart by a word in a folder's name: crops, masks ("mask") and segmented
crops ("segment"). Below or above it a folder for each class (``01_rounded_rbcs``). A name holds slide, patch and four
box numbers: ``Slide 1 (1,93,472,116,497).png``. The trees may differ in .jpg and .png.
"""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rbcedge.training.datasets.boxes import detect
from rbcedge.training.datasets.cellset import SUFFIXES, CellSet, LabelledCell, empty_folders, pictures_below
from rbcedge.training.datasets.classmap import ClassMap, choose
from rbcedge.training.datasets.scanners import SCANNER_OF, scanners

from rbcedge.errors import RbcedgeError

_NAME = re.compile(r"slide[ _-]*(\d+)\s*\(([^()]*)\)", re.IGNORECASE)
_TAIL = re.compile(r"[ _-]*(masks?|segmented|cropped|crop)$", re.IGNORECASE)
#: Words that name a tree; "image" does where nothing plainer is there.
_TREES = ((("masks", "mask"), ("segmented", "segment"), ("crops", "crop")), (("crops", "image"),))
_IGNORED = frozenset({"thumbs.db", ".ds_store", "desktop.ini", "class_map.json", "scanners.json"})
#: Masks looked at to learn what the box numbers mean.
_LOOKED_AT = 200


def read(folder: Path, class_map: Path | None = None) -> CellSet:
    """Read a set in this layout.

    Parameters
    ----------
    folder : Path
    class_map : Path, optional
        See `rbcedge.training.datasets.classmap`.

    Raises
    ------
    RbcedgeError
        Where the folder is not in this layout, or the class map names a folder that is not there.
    """
    chosen = choose(folder, "elsafty", class_map)
    trees: dict[str, dict[str, Path]] = {"crops": {}, "masks": {}, "segmented": {}}
    problems: list[str] = []
    for path in pictures_below(folder):
        tree, key = _place(path.relative_to(folder))
        if key in trees[tree]:
            problems.append(f"{path}: the same name as {trees[tree][key].name}; not used")
        else:
            trees[tree][key] = path
    problems += [
        f"{p}: not a picture; not used"
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.suffix.lower() not in SUFFIXES and p.name.lower() not in _IGNORED
    ]
    # A set without plain crops still trains with segmentation.
    base = trees["crops"] or trees["segmented"]
    if not base:
        raise RbcedgeError(f"{folder}: only masks there. Give the folder that holds crops, masks and segmented crops.")
    problems += _lonely(trees, base)
    rows = _named(base, chosen, problems)
    chosen.check({part for key in base for part in Path(key).parts[:-1]} | empty_folders(folder))
    if not rows:
        raise RbcedgeError(
            f"{folder}: none of {len(base)} pictures is named like 'Slide 1 (1,93,472,116,497).png' in a class folder; "
            f"the first: {problems[0] if problems else next(iter(base))}."
        )
    rows = _once(rows, problems)
    notes = _boxes(rows, base, trees["masks"], problems)
    where = scanners(folder)
    if where is SCANNER_OF and any(where.get(slide) for _, slide, _ in rows.values()):
        notes = (*notes, "scanners: as in Table 2 of the paper; a scanners.json in the folder would decide")
    cells = tuple(
        LabelledCell(
            id=key,
            picture=base[key],
            code=code,
            mask=trees["masks"].get(key),
            segmented=trees["segmented"].get(key),
            slide=slide,
            scanner=where.get(slide),
        )
        for key, (code, slide, _) in sorted(rows.items())
    )
    return CellSet(folder, "elsafty", chosen.codes, cells, chosen.as_dict(), notes, tuple(problems))


def _place(path: Path) -> tuple[str, str]:
    """Tree of a picture, and its place in it, which is the same in all three.

    The innermost folder decides: above all three there may be one called "RBC images" or "crops and masks".
    """
    for words in _TREES:
        for i, part in reversed(list(enumerate(path.parts[:-1]))):
            tree = next((tree for tree, word in words if word in part.lower()), None)
            if tree is not None:
                rest = (*path.parts[:i], *path.parts[i + 1 : -1])
                return tree, Path(*rest, _TAIL.sub("", path.stem)).as_posix()
    return "crops", path.with_suffix("").as_posix()


def _lonely(trees: dict[str, dict[str, Path]], base: dict[str, Path]) -> list[str]:
    """Name what has no partner in the other trees, where these trees are there at all."""
    out = []
    for tree in ("masks", "segmented"):
        out += [f"{trees[tree][k]}: no crop of this name; not used" for k in sorted(set(trees[tree]) - set(base))]
        if trees[tree] and trees[tree] is not base:
            kind = "mask" if tree == "masks" else "segmented picture"
            out += [f"{base[k]}: no {kind} of this name; used without" for k in sorted(set(base) - set(trees[tree]))]
    return out


Row = tuple[str, str, tuple[int, ...]]


def _named(base: dict[str, Path], chosen: ClassMap, problems: list[str]) -> dict[str, Row]:
    """Class, slide and numbers of every picture that says them."""
    rows: dict[str, Row] = {}
    for key, path in base.items():
        codes = [c for c in (chosen.code(part) for part in Path(key).parts[:-1]) if c is not None]
        name = _NAME.search(path.stem)
        numbers = re.findall(r"-?\d+", name.group(2)) if name else []
        if not codes:
            problems.append(f"{path}: its folder is not in the class map; not used")
        elif not codes[-1]:
            continue
        elif name is None or len(numbers) != 5:
            problems.append(f"{path}: not named like 'Slide 1 (1,93,472,116,497)'; not used")
        else:
            rows[key] = (codes[-1], str(int(name.group(1))), tuple(int(n) for n in numbers))
    return rows


def _once(rows: dict[str, Row], problems: list[str]) -> dict[str, Row]:
    """Leave out cells that stand in two classes."""
    owners: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for key, (_, slide, numbers) in rows.items():
        owners.setdefault((slide, numbers), []).append(key)
    out = dict(rows)
    for keys in owners.values():
        if len({rows[k][0] for k in keys}) > 1:
            problems.append(f"{' and '.join(sorted(keys))}: one cell in two classes; not used")
            for k in keys:
                del out[k]
    return out


def _boxes(rows: dict[str, Row], base: dict[str, Path], masks: dict[str, Path], problems: list[str]) -> tuple[str, ...]:
    """Find out what the box numbers mean and name those that do not fit."""
    keys = sorted(rows)
    if not keys:
        raise RbcedgeError("Every cell of the set stands in two classes.")
    numbers = np.array([rows[k][2][1:] for k in keys], np.int64)
    sizes = np.zeros((len(keys), 2), np.int64)
    for i in np.unique(np.linspace(0, len(keys) - 1, _LOOKED_AT).astype(int)):
        if keys[i] in masks:
            sizes[i] = _size(masks[keys[i]])
    first = next((p for p in (cv2.imread(str(base[k])) for k in keys[:50]) if p is not None), None)
    found = detect(numbers, max(first.shape[:2]) if first is not None else 80, sizes)
    problems += [
        f"{base[keys[i]]}: its box numbers do not fit ({found.meaning}); used" for i in np.flatnonzero(~found.fits)
    ]
    return (found.text(),)


def _size(path: Path) -> NDArray[np.int64]:
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        return np.zeros(2, np.int64)
    return np.array(cv2.boundingRect((mask >= 128).astype(np.uint8))[2:], np.int64)
