"""The differential: how many cells of each class, in percent, with exact intervals and grades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rbcedge.bundle import Label
from rbcedge.counting.grading import Scheme
from rbcedge.counting.intervals import clopper_pearson


@dataclass(frozen=True, slots=True)
class Tally:
    """Counted cells by most probable class, in the order of the bundle's labels.

    Attributes
    ----------
    confident : tuple of int
        Cells whose best probability reaches the threshold.
    doubtful : tuple of int
        Cells below it: "unclassified".
    """

    confident: tuple[int, ...]
    doubtful: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.confident) != len(self.doubtful) or min((*self.confident, *self.doubtful), default=0) < 0:
            raise ValueError("a tally needs two rows of counts, none below zero")

    @classmethod
    def empty(cls, classes: int) -> Tally:
        """Nothing counted yet, for a bundle of `classes` labels."""
        return cls((0,) * classes, (0,) * classes)

    @classmethod
    def of(cls, probabilities: NDArray[np.float32], threshold: float) -> Tally:
        """Count cells from their (N, K) class probabilities.

        Raises
        ------
        ValueError
            If a row is not classified (NaN).
        """
        if np.isnan(probabilities).any():
            raise ValueError("cells must be classified before they are counted")
        classes = probabilities.shape[1]
        best = probabilities.argmax(1) if len(probabilities) else np.zeros(0, np.intp)
        sure = probabilities.max(1, initial=0.0) >= threshold
        return cls(
            tuple(np.bincount(best[sure], minlength=classes).tolist()),
            tuple(np.bincount(best[~sure], minlength=classes).tolist()),
        )

    def __add__(self, other: Tally) -> Tally:
        """Both counts together."""
        return Tally(
            tuple(a + b for a, b in zip(self.confident, other.confident, strict=True)),
            tuple(a + b for a, b in zip(self.doubtful, other.doubtful, strict=True)),
        )

    def __sub__(self, other: Tally) -> Tally:
        """Take cells back that turned out to have been counted before."""
        return Tally(
            tuple(a - b for a, b in zip(self.confident, other.confident, strict=True)),
            tuple(a - b for a, b in zip(self.doubtful, other.doubtful, strict=True)),
        )

    @property
    def counted(self) -> int:
        """All counted objects."""
        return sum(self.confident) + sum(self.doubtful)


@dataclass(frozen=True, slots=True)
class ClassCount:
    """One class of the differential.

    Attributes
    ----------
    label : Label
    count : int
        Objects of this class with enough confidence.
    percent : float
        Of the assessable single cells; of all assessable objects for overlapped cells. 0 to 100.
    ci95 : (float, float)
        Exact 95 % limits of `percent` (Clopper-Pearson).
    grade : str
        "-", "1+", "2+", "3+", or "" where the scheme does not grade this class.
    """

    label: Label
    count: int
    percent: float
    ci95: tuple[float, float]
    grade: str

    @property
    def half_width(self) -> float:
        """Half of the interval's width, in points."""
        return (self.ci95[1] - self.ci95[0]) / 2


@dataclass(frozen=True, slots=True)
class Differential:
    """The state of a count.

    Attributes
    ----------
    classes : tuple of ClassCount
        In the order of the bundle's labels.
    scheme : str
        Name of the grading scheme.
    counted : int
        Objects counted: single + overlapped + unclassified.
    single : int
        Assessable single cells: the denominator of the percentages.
    overlapped : int
        Assessable objects of two or more cells.
    unclassified : int
        Objects below the confidence threshold.
    red_cells : int
        Estimated number of red cells: each object stands for as many as its most probable class says.
    """

    classes: tuple[ClassCount, ...]
    scheme: str
    counted: int
    single: int
    overlapped: int
    unclassified: int
    red_cells: int

    @property
    def overlap_ratio(self) -> float:
        """Overlapped to single objects (paper, section 4.1); infinite where all are overlapped."""
        if self.single:
            return self.overlapped / self.single
        return float("inf") if self.overlapped else 0.0

    @property
    def widest(self) -> ClassCount | None:
        """The significant single class with the widest interval; of all single classes if none is."""
        singles = [c for c in self.classes if c.label.cells == 1]
        significant = [c for c in singles if c.label.significant]
        return max(significant or singles, key=lambda c: c.half_width, default=None)

    def by_code(self, code: str) -> ClassCount | None:
        """Return the class of this code, or None where the bundle has no such class."""
        return next((c for c in self.classes if c.label.code == code), None)

    def reached(self, until: int | None = None, until_ci: float | None = None) -> bool:
        """Whether a goal is reached: `until` counted, or significant intervals within ±`until_ci` points.

        With two goals the first one reached ends the count.
        """
        return self.progress(until, until_ci) >= 1

    def progress(self, until: int | None = None, until_ci: float | None = None) -> float:
        """Return how far the count is towards its goal, 0 to 1; 0 where there is no goal.

        Intervals shrink with the square root of the count: progress to `until_ci` is counted in cells.
        """
        shares = [0.0]
        if until is not None:
            shares.append(self.counted / until if until > 0 else 1.0)
        if until_ci is not None and self.widest is not None and self.single:
            half = self.widest.half_width
            shares.append(1.0 if half <= until_ci else (until_ci / half) ** 2)
        return min(1.0, max(shares))


def differential(tally: Tally, labels: Sequence[Label], scheme: Scheme) -> Differential:
    """Work out percentages, intervals and grades of a tally.

    Raises
    ------
    ValueError
        If tally and labels differ in length.
    """
    if len(tally.confident) != len(labels):
        raise ValueError(f"a tally of {len(tally.confident)} classes for {len(labels)} labels")
    single = sum(n for n, label in zip(tally.confident, labels, strict=True) if label.cells == 1)
    assessable = sum(tally.confident)
    classes = []
    for n, label in zip(tally.confident, labels, strict=True):
        total = single if label.cells == 1 else assessable
        percent = 100 * n / total if total else 0.0
        low, high = clopper_pearson(n, total)
        grade = scheme.grade(label.code, percent) if total else ""
        classes.append(ClassCount(label, n, percent, (100 * low, 100 * high), grade))
    objects = zip(tally.confident, tally.doubtful, labels, strict=True)
    return Differential(
        classes=tuple(classes),
        scheme=scheme.name,
        counted=tally.counted,
        single=single,
        overlapped=assessable - single,
        unclassified=sum(tally.doubtful),
        red_cells=sum((sure + doubtful) * label.cells for sure, doubtful, label in objects),
    )
