"""Sets in the form of erythrocytesIDB: somewhere below, folders circular, elongated and other with crops of 80x80 px.

Names are numbers, slides are not told: they are unknown unless a pattern finds them.
"""

from __future__ import annotations

from pathlib import Path

from rbcedge.training.datasets.cellset import CellSet, pictures_below
from rbcedge.training.datasets.classmap import choose
from rbcedge.training.datasets.folders import compile_pattern, gather

from rbcedge.errors import RbcedgeError


def read(folder: Path, class_map: Path | None = None, slide_pattern: str | None = None) -> CellSet:
    """Read such a set; parameters as for `folders.read`.

    Raises
    ------
    RbcedgeError
        Where no class folder is found, or they lie at several places.
    """
    chosen = choose(folder, "erythrocytesidb", class_map)
    pattern = compile_pattern(slide_pattern)
    pictures = pictures_below(folder)
    found: dict[Path, set[str]] = {}
    for path in pictures:
        if chosen.code(path.parent.name) is not None and path.parent != folder:
            found.setdefault(path.parent.parent, set()).add(path.parent.name)
    if not found:
        raise RbcedgeError(f"{folder}: no folder {', '.join(p for p, _ in chosen.folders)} with pictures below it.")
    if len(found) > 1:
        places = ", ".join(str(p) for p in sorted(found))
        raise RbcedgeError(f"{folder}: class folders at several places ({places}). Give one of them.")
    base, names = next(iter(found.items()))
    chosen.check(names)
    return gather(base, "erythrocytesidb", [p for p in pictures if base in p.parents], chosen, pattern, depth=0)
