"""ROC curves and the area under them, one class against the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: False-positive rates at which curves of several folds are averaged: dense where curves are steep.
GRID = np.unique(np.concatenate([np.linspace(0, 0.05, 251), np.linspace(0.05, 1, 191)]))


def auc(positive: NDArray[np.bool_], score: NDArray[np.floating]) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties counting one half.

    NaN where there is no positive or no negative (Mann and Whitney 1947).
    """
    positive = np.asarray(positive, bool)
    p, n = int(positive.sum()), int((~positive).sum())
    if not p or not n:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    return float((ranks[positive].sum() - p * (p + 1) / 2) / (p * n))


def roc(positive: NDArray[np.bool_], score: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False-positive and true-positive rate at every threshold, from (0, 0) to (1, 1); NaN where undefined."""
    order = np.argsort(-np.asarray(score, float), kind="stable")
    hit, sorted_score = np.asarray(positive, bool)[order], np.asarray(score)[order]
    ends = np.append(np.flatnonzero(np.diff(sorted_score)), len(hit) - 1) if len(hit) else np.zeros(0, int)
    tp, fp = np.cumsum(hit)[ends], np.cumsum(~hit)[ends]
    with np.errstate(invalid="ignore"):
        tpr = np.append(0, tp) / (hit.sum() or np.nan)
        fpr = np.append(0, fp) / ((~hit).sum() or np.nan)
    return fpr, tpr


def mean_roc(curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> NDArray[np.float64]:
    """Mean true-positive rate of several curves at `GRID`, (len(GRID),); NaN without a defined curve."""
    values = []
    for fpr, tpr in curves:
        if np.isnan(fpr).any() or np.isnan(tpr).any():
            continue
        rate, first = np.unique(fpr, return_index=True)
        # A curve climbs straight up at a rate: the way to it ends at the foot, the way from it begins at the top.
        foot, top = tpr[first], np.maximum.reduceat(tpr, first)
        at = np.searchsorted(rate, GRID, side="right") - 1
        after = np.minimum(at + 1, len(rate) - 1)
        with np.errstate(invalid="ignore"):
            part = np.where(after > at, (GRID - rate[at]) / (rate[after] - rate[at]), 0)
        values.append(top[at] + part * np.where(after > at, foot[after] - top[at], 0))
    return np.mean(values, axis=0) if values else np.full(len(GRID), np.nan)
