"""Agreement beyond chance: kappa between two readers, and among several."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cohen_kappa(counts: NDArray[np.integer]) -> float:
    """Kappa of two readers from (K, K) counts; NaN without cells, or where chance alone explains all.

    Cohen, Educ. Psychol. Meas. 20 (1960) 37.
    """
    counts = np.asarray(counts, float)
    total = counts.sum()
    if not total:
        return float("nan")
    seen = np.trace(counts) / total
    chance = float(counts.sum(0) @ counts.sum(1)) / total**2
    return float((seen - chance) / (1 - chance)) if chance < 1 else float("nan")


def fleiss_kappa(votes: NDArray[np.integer]) -> float:
    """Kappa among several readers; NaN without cells, with one reader, or where chance alone explains all.

    Parameters
    ----------
    votes : (N, K) int
        How many readers gave cell n class k; every row has the same sum of at least 2.

    Raises
    ------
    ValueError
        Where rows have different sums.

    Notes
    -----
    Fleiss, Psychol. Bull. 76 (1971) 378.
    """
    votes = np.asarray(votes, float)
    if not len(votes):
        return float("nan")
    readers = votes.sum(1)
    if (readers != readers[0]).any():
        raise ValueError("every cell must have been named by the same number of readers")
    m = readers[0]
    if m < 2:
        return float("nan")
    seen = float(((votes**2).sum(1) - m).mean() / (m * (m - 1)))
    chance = float(((votes.sum(0) / votes.sum()) ** 2).sum())
    return (seen - chance) / (1 - chance) if chance < 1 else float("nan")
