"""One way into all data sets."""

from __future__ import annotations

from pathlib import Path

from rbcedge.training.datasets import bccd, elsafty, erythrocytesidb, folders
from rbcedge.training.datasets.cellset import CellSet

from rbcedge.errors import UsageError

LAYOUTS = ("elsafty", "folders", "bccd", "erythrocytesidb")


def read(
    folder: Path,
    layout: str,
    class_map: Path | None = None,
    slide_pattern: str | None = None,
    each_file_a_slide: bool = False,
) -> CellSet:
    """Read a data set in one of `LAYOUTS`.

    Raises
    ------
    RbcedgeError
        Where the folder is not such a set.
    UsageError
        Where the layout is unknown, or the options do not go together.
    """
    if each_file_a_slide and slide_pattern:
        raise UsageError("Give --slide-pattern or --each-file-a-slide, not both.")
    if layout == "elsafty":
        if slide_pattern:
            raise UsageError("--slide-pattern is for other layouts: in this one slides stand in the file names.")
        cells = elsafty.read(folder, class_map)
    elif layout == "folders":
        cells = folders.read(folder, class_map, slide_pattern)
    elif layout == "bccd":
        cells = bccd.read(folder, class_map, slide_pattern)
    elif layout == "erythrocytesidb":
        cells = erythrocytesidb.read(folder, class_map, slide_pattern)
    elif layout == "chula":
        raise UsageError("Cut the cells of Chula-RBC-12 first: rbcedge train cut CHULA DIR; then --data DIR.")
    else:
        raise UsageError(f"No layout {layout!r}; known: {', '.join(LAYOUTS)}.")
    return cells.each_file_a_slide() if each_file_a_slide else cells
