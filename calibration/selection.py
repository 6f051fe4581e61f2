"""Choosing few that stand for many: fields by farthest points, cells evenly over the classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def farthest(points: NDArray[np.float64], count: int) -> list[int]:
    """Choose `count` of (N, D) `points` so that every other point has a chosen one near.

    The first is the one nearest to the middle (smallest sum of distances), each next the one farthest from all chosen
    (Gonzalez 1985: at most twice the radius of the best choice). Deterministic; equal distances: the first one.

    Returns
    -------
    list of int
        In the order of choice; all where `count` exceeds N.
    """
    n = len(points)
    if n == 0 or count < 1:
        return []
    first = int(np.argmin([np.linalg.norm(points - p, axis=1).sum() for p in points]))
    chosen, nearest = [first], np.linalg.norm(points - points[first], axis=1)
    while len(chosen) < min(count, n):
        nearest[chosen] = -1.0  # a chosen one is never taken again, also where all others equal it
        best = int(np.argmax(nearest))
        chosen.append(best)
        nearest = np.minimum(nearest, np.linalg.norm(points - points[best], axis=1))
    return chosen


def cover(chosen: list[int], counts: NDArray[np.int64], wanted: int, most: int) -> list[int]:
    """Add fields until every class has `wanted` cells among the chosen ones, or all there are.

    Parameters
    ----------
    chosen : list of int
        Fields chosen so far.
    counts : (N, K) int
        Cells of each class in each field.
    wanted : int
        Cells of each class.
    most : int
        Fields that may be chosen altogether.

    Returns
    -------
    list of int
        `chosen`, then the added ones; rarest class first, richest field first.
    """
    out = list(chosen)
    totals = counts.sum(axis=0)
    for k in np.argsort(totals, kind="stable"):
        while len(out) < most and counts[out, k].sum() < min(wanted, int(totals[k])):
            left = counts[:, k].copy()
            left[out] = -1
            out.append(int(np.argmax(left)))
    return out


def balanced(classes: NDArray[np.integer], count: int, seed: int = 0) -> NDArray[np.intp]:
    """Choose `count` rows evenly over the classes, none twice; rare classes are taken whole.

    Parameters
    ----------
    classes : (N,) int
        Class of each row; rows below 0 are never chosen.
    count : int
    seed : int
        Rows of a class are drawn at random, so over all fields.

    Returns
    -------
    (min(count, N'),) int
        Sorted, so in the order of the fields.
    """
    rng = np.random.default_rng(seed)
    pools = [rng.permutation(np.flatnonzero(classes == k)) for k in np.unique(classes[classes >= 0])]
    taken: list[int] = []
    for turn in range(max((len(p) for p in pools), default=0)):
        for pool in pools:
            if turn < len(pool) and len(taken) < count:
                taken.append(int(pool[turn]))
    return np.sort(np.array(taken, np.intp))
