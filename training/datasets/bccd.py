"""BCCD: fields of 640x480 with VOC boxes (``JPEGImages/*.jpg``, ``Annotations/*.xml``) around RBC, WBC and Platelets.

Boxes only: no masks, no shapes of red cells, no slides.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from rbcedge.training.datasets.cellset import SUFFIXES, Box, CellSet, LabelledCell
from rbcedge.training.datasets.classmap import ClassMap
from rbcedge.training.datasets.classmap import read as read_map
from rbcedge.training.datasets.folders import compile_pattern

from rbcedge.errors import RbcedgeError

NAMES = (("RBC", "RBC"), ("WBC", "WBC"), ("Platelets", "PLT"))


def read(folder: Path, class_map: Path | None = None, slide_pattern: str | None = None) -> CellSet:
    """Read VOC boxes.

    Parameters
    ----------
    folder : Path
        Holds Annotations/ and JPEGImages/, or one level below.
    class_map : Path, optional
        Object names to codes; by default RBC, WBC and PLT.
    slide_pattern : str, optional
        As for `folders.read`; searched in the picture's file name.

    Raises
    ------
    RbcedgeError
        Where this is no such set.
    """
    chosen = read_map(class_map) if class_map else ClassMap(NAMES, ("RBC", "WBC", "PLT"), "BCCD", strict=False)
    pattern = compile_pattern(slide_pattern)
    notes = sorted(folder.rglob("Annotations/*.xml"))
    if not notes:
        raise RbcedgeError(f"{folder}: no Annotations/*.xml. Give the folder of BCCD (Annotations/ and JPEGImages/).")
    cells: list[LabelledCell] = []
    problems: list[str] = []
    names: set[str] = set()
    for path in notes:
        try:
            rows = _objects(path)
        except (ElementTree.ParseError, ValueError, AttributeError, TypeError) as e:
            problems.append(f"{path}: not a VOC annotation ({e}); not used")
            continue
        picture = _picture(path)
        if picture is None:
            problems.append(f"{path}: no picture {path.stem} in JPEGImages; not used")
            continue
        found = pattern.search(picture.name) if pattern else None
        groups = found.groupdict() if found else {}
        for k, (name, box) in enumerate(rows, 1):
            names.add(name)
            code = chosen.code(name)
            if code is None:
                problems.append(f"{path}: object {k} is called {name!r}, which is not in the class map; not used")
            elif box[2] <= 0 or box[3] <= 0:
                problems.append(f"{path}: object {k} has an empty box; not used")
            elif code:
                cell = LabelledCell(f"{path.stem}/{k:03d}", picture, code, box)
                if groups:
                    cell = LabelledCell(
                        cell.id, picture, code, box, slide=groups.get("slide"), scanner=groups.get("scanner")
                    )
                cells.append(cell)
    chosen.check(names)
    if not cells:
        raise RbcedgeError(f"{folder}: no object is used; the first: {problems[0] if problems else 'none'}.")
    return CellSet(folder, "bccd", chosen.codes, tuple(cells), chosen.as_dict(), (), tuple(problems))


def _objects(path: Path) -> list[tuple[str, Box]]:
    out = []
    for item in ElementTree.parse(path).getroot().iter("object"):
        x0, y0, x1, y1 = (int(float(item.findtext(f"bndbox/{k}", ""))) for k in ("xmin", "ymin", "xmax", "ymax"))
        out.append((str(item.findtext("name", "")).strip(), (x0, y0, x1 - x0, y1 - y0)))
    return out


def _picture(path: Path) -> Path | None:
    folder = path.parent.parent / "JPEGImages"
    return next((p for s in sorted(SUFFIXES) if (p := folder / f"{path.stem}{s}").is_file()), None)
