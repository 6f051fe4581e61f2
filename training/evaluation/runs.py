"""What a training run left behind, as values: a classifier over its folds, a segmenter on its cells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rbcedge.training.measures import confusion


@dataclass(frozen=True, slots=True)
class Fold:
    """One trained network on its test cells.

    Attributes
    ----------
    repetition, fold : int
    cells, slides, scanners : (N,) str
        Scanner "" where unknown.
    truth : (N,) int64
        Index into the run's codes.
    probabilities : (N, K) float64
        Rows add up to 1.
    train_s, test_s : float
        NaN where not known.
    """

    repetition: int
    fold: int
    cells: NDArray[np.str_]
    slides: NDArray[np.str_]
    scanners: NDArray[np.str_]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    train_s: float = math.nan
    test_s: float = math.nan

    @property
    def guess(self) -> NDArray[np.intp]:
        """(N,) most probable class."""
        return self.probabilities.argmax(1)

    def counts(self, where: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """(K, K) confusion of all cells, or of those in `where`."""
        every = slice(None) if where is None else where
        return confusion(self.truth[every], self.guess[every], self.probabilities.shape[1])


@dataclass(frozen=True, slots=True)
class ClassifierRun:
    """One network trained in one way, over its folds; all folds have the same test cells.

    Attributes
    ----------
    folder : Path
    about : mapping
        `run.json`.
    network : str
    segmented, weighted : bool
    codes : tuple of str
    folds : tuple of Fold
        At least one.
    """

    folder: Path
    about: Mapping[str, Any]
    network: str
    segmented: bool
    weighted: bool
    codes: tuple[str, ...]
    folds: tuple[Fold, ...]

    @property
    def variant(self) -> tuple[str, bool, bool]:
        """Network, segmented, weighted: what no two runs of one evaluation share."""
        return self.network, self.segmented, self.weighted

    def counts(self, by: str | None = None) -> dict[str, NDArray[np.int64]] | NDArray[np.int64]:
        """(F, K, K) confusion of each fold; with `by` ("slides", "scanners") a mapping from name to such counts."""
        if by is None:
            return np.stack([f.counts() for f in self.folds])
        names = sorted(set(getattr(self.folds[0], by)), key=natural)
        return {n: np.stack([f.counts(getattr(f, by) == n) for f in self.folds]) for n in names}


@dataclass(frozen=True, slots=True)
class SegmenterRun:
    """A segmenter on its test cells.

    Attributes
    ----------
    folder : Path
    about : mapping
        `run.json`.
    network : str
    cells, slides, scanners, truth : (N,) str
        "" where unknown.
    pixels : (N, 4) int64
        True positive, false positive, false negative and true negative pixels of each cell's crop.
    objects : (N, 2) int64 or None
        Objects found in each cell's crop, and whether one of them is the cell; None where the run did not count them.
    train_s, test_s : float
        NaN where not known.
    """

    folder: Path
    about: Mapping[str, Any]
    network: str
    cells: NDArray[np.str_]
    slides: NDArray[np.str_]
    scanners: NDArray[np.str_]
    truth: NDArray[np.str_]
    pixels: NDArray[np.int64]
    objects: NDArray[np.int64] | None = None
    train_s: float = math.nan
    test_s: float = math.nan


def natural(name: str) -> tuple[int, int, str]:
    """Sort key by which slide 10 comes after slide 9."""
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)
