"""Chula-RBC-12 as single cells: fields through the teacher, cells cut out in the layout of the paper's data.

The set has neither masks nor slides. Masks are the teacher's; a block of neighbouring field numbers stands for a
slide. Fields are flat-fielded first, as `rbcedge run` does it, so that what is learnt here serves there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from rbcedge.training.datasets import chula, tree
from rbcedge.training.lessons import CODES, classes_of, seen
from rbcedge.training.teacher import teach, trust


def write(
    source: Path, folder: Path, seed: int = 0, limit: int | None = None, progress: Callable[[str], None] = print
) -> dict[str, int]:
    """Cut all cells of known class out of the fields that the teacher can be trusted on.

    Parameters
    ----------
    source : Path
        Folder of Chula-RBC-12.
    folder : Path
        Must be new or empty.
    seed : int
        Of the order in which fields are taken where there is a `limit`.
    limit : int, optional
        Take this many fields only.
    progress : callable
        Told each field that is left out, and why.

    Returns
    -------
    dict
        Cells by class.

    Raises
    ------
    RbcedgeError
        Where `source` is not this set or `folder` is not empty.
    """
    fields = chula.read(source)
    tree.fresh(folder)
    block = {f.number: i for i, group in enumerate(chula.blocks(fields), 1) for f in group}
    if limit is not None and limit < len(fields):
        chosen = np.random.default_rng(seed).choice(len(fields), limit, replace=False)
        fields = [fields[int(i)] for i in np.sort(chosen)]
    counts = dict.fromkeys(tree.FOLDERS, 0)
    for field in fields:
        if not len(field.points):
            continue
        picture = cv2.imread(str(field.picture))
        if picture is None:
            progress(f"{field.picture.name}: cannot be read as a picture")
            continue
        lesson = teach(picture)
        doubt = trust(lesson, field.points)
        if doubt:
            progress(f"{field.picture.name}: {doubt}")
            continue
        names = [CODES[k] if k >= 0 else "" for k in classes_of(lesson.labels, field)]
        cells = tree.cut(np.ascontiguousarray(seen(picture)[..., ::-1]), lesson.labels, names)
        tree.write(folder, cells, block[field.number], field.number)
        for cell in cells:
            counts[cell.code] += 1
    tree.describe(folder, [c for c, n in counts.items() if n], {})
    return counts
