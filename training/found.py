"""Lessons as the segmenter finds their cells: what the classifier meets at the microscope.

A network's outlines are smoother than a teacher's, and what it finds as one may be two. A classifier that learnt on
other outlines than those it gets loses most on burr cells, whose spicules are the outline.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rbcedge.training.lessons import CELLS, CODES

from rbcedge.frame import Frame
from rbcedge.pipeline.base import Pipeline

#: An instance is in a component where this share of it is; a component shows one instance where so much overlaps.
WITHIN, SAME = 0.6, 0.6

_CELLS = {CODES.index(code): n for code, n in CELLS.items()}
_HEAPS = {n: code for code, n in _CELLS.items()}


def found(lesson: dict[str, NDArray[Any]], pipeline: Pipeline) -> dict[str, NDArray[Any]]:
    """Return a lesson with the cells that `pipeline` finds in its picture, and the classes they have then.

    Parameters
    ----------
    lesson : dict
        As `lessons.load` gives it.
    pipeline : Pipeline
        At scale 1.
    """
    pixels = np.ascontiguousarray(lesson["pixels"][..., ::-1])
    labels = np.array(pipeline.find(Frame(0, 0.0, pixels, "lesson")).labels)
    return {**lesson, "labels": labels.astype(np.int16), "classes": classes_of(labels, lesson)}


def classes_of(labels: NDArray[np.integer[Any]], lesson: dict[str, NDArray[Any]]) -> NDArray[np.int8]:
    """Name components by the instances of the lesson in them: (N,) int8 indices into `CODES`, -1 where unknown.

    One instance that looks alike gives its class; several give TWO or THR, by the number of cells in them.
    """
    truth, classes = lesson["labels"].astype(np.int64), lesson["classes"]
    n, m = int(labels.max()), len(classes)
    counts = np.bincount((labels.astype(np.int64) * (m + 1) + truth).ravel(), minlength=(n + 1) * (m + 1))
    shared = counts.reshape(n + 1, m + 1)
    areas, own = shared.sum(axis=0)[1:], shared.sum(axis=1)[1:]
    within = shared[1:, 1:] >= WITHIN * np.maximum(areas, 1)
    out = np.full(n, -1, np.int8)
    for i in range(n):
        inside = np.flatnonzero(within[i])
        if not len(inside) or (classes[inside] < 0).any():
            continue
        both = int(shared[i + 1, 1 + inside].sum())
        if both < SAME * (int(own[i]) + int(areas[inside].sum()) - both):
            continue
        if len(inside) == 1:
            out[i] = classes[inside[0]]
        else:
            out[i] = _HEAPS.get(sum(_CELLS.get(int(c), 1) for c in classes[inside]), -1)
    return out
