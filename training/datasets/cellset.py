"""Labelled cells of any data set, as one value."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rbcedge.errors import RbcedgeError

#: Pictures that OpenCV reads and smear collections use.
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class LabelledCell:
    """One cell and what is known about it.

    Attributes
    ----------
    id : str
        Unique in its set.
    picture : Path
        A crop with the cell in the middle, or a whole field where `box` is given.
    box : (x, y, w, h) or None
        Where the cell is in `picture`, px; None where the picture is the cell's own crop.
    mask : Path or None
        A picture of the same size, at least 128 where this cell is.
    segmented : Path or None
        The crop with everything but the cell set to zero.
    code : str
        Class.
    slide : str or None
        Slide, that is patient. None: unknown.
    scanner : str or None
        None: unknown.
    """

    id: str
    picture: Path
    code: str
    box: Box | None = None
    mask: Path | None = None
    segmented: Path | None = None
    slide: str | None = None
    scanner: str | None = None


@dataclass(frozen=True, slots=True)
class CellSet:
    """A data set.

    Attributes
    ----------
    folder : Path
    layout : str
        Name of the reader.
    codes : tuple of str
        Classes, in the order of the network's outputs.
    cells : tuple of LabelledCell
        Sorted by id.
    class_map : mapping
        Folder pattern or name in the set to class code; "" is left out.
    notes : tuple of str
        What the reader found out.
    problems : tuple of str
        Files that are unreadable or odd, with the reason; they are not among `cells` unless the reason says so.
    """

    folder: Path
    layout: str
    codes: tuple[str, ...]
    cells: tuple[LabelledCell, ...]
    class_map: Mapping[str, str]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        twice = [i for i, n in Counter(c.id for c in self.cells).items() if n > 1]
        if twice:
            raise ValueError(f"cell ids must be unique, {twice[0]!r} occurs twice")
        foreign = {c.code for c in self.cells} - set(self.codes)
        if foreign:
            raise ValueError(f"cells of classes {sorted(foreign)}, which are not among {self.codes}")

    def counts(self) -> dict[str, int]:
        """Cells by class, in the order of `codes`."""
        found = Counter(c.code for c in self.cells)
        return {code: found[code] for code in self.codes}

    def slides(self) -> tuple[str, ...]:
        """Known slides, in the order people count them."""
        return tuple(sorted({c.slide for c in self.cells if c.slide is not None}, key=natural))

    def scanners(self) -> dict[str, str]:
        """Slide to scanner, where both are known."""
        known = {c.slide: c.scanner for c in self.cells if c.slide is not None and c.scanner is not None}
        return {slide: known[slide] for slide in sorted(known, key=natural)}

    def each_file_a_slide(self) -> CellSet:
        """Declare that every picture comes from a slide of its own, whatever the reader found.

        Only whoever made the set can know this. Where it is wrong, cells of one patient stand in training and test,
        and every figure is too good.
        """
        cells = tuple(replace(c, slide=c.picture.relative_to(self.folder).as_posix()) for c in self.cells)
        return replace(self, cells=cells, notes=(*self.notes, "every picture was declared a slide of its own"))

    def sha256(self) -> str:
        """Hash over ids, classes and slides of all cells and the contents of their pictures and masks."""
        digest = hashlib.sha256()
        known: dict[Path, bytes] = {}
        for c in self.cells:
            digest.update("\0".join((c.id, c.code, str(c.slide), str(c.box))).encode())
            for path in (c.picture, c.mask, c.segmented):
                if path is None:
                    digest.update(b"\0")
                    continue
                # A field holds many cells: it is read once.
                if path not in known:
                    known[path] = hashlib.sha256(path.read_bytes()).digest()
                digest.update(known[path])
        return digest.hexdigest()


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key in which 9 comes before 10."""
    import re

    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", text) if p)


def pictures_below(folder: Path) -> list[Path]:
    """All pictures below a folder, sorted.

    Raises
    ------
    RbcedgeError
        Where the folder is none, or holds no picture.
    """
    if not folder.is_dir():
        raise RbcedgeError(f"{folder}: no such folder.")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    found = [p for p in found if not p.name.startswith(".")]
    if not found:
        raise RbcedgeError(f"{folder}: no picture in it or below it ({', '.join(sorted(SUFFIXES))}).")
    return found


def empty_folders(folder: Path) -> set[str]:
    """Names of the folders below in which nothing is: a class that has one there is empty, not misspelt."""
    return {p.name for p in folder.rglob("*") if p.is_dir() and not any(p.iterdir())}
