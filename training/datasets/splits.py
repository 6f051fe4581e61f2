"""Splits by slide, never by cell: cells of one patient look alike, and would tell the test what to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rbcedge.training.datasets.cellset import CellSet, natural
from rbcedge.training.datasets.scanners import TEST_SLIDES

from rbcedge.errors import RbcedgeError

#: Draws of which the best is taken.
_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Fold:
    """One training.

    Attributes
    ----------
    repetition, fold : int
        From 1.
    training, validation : tuple of str
        Slides.
    """

    repetition: int
    fold: int
    training: tuple[str, ...]
    validation: tuple[str, ...]

    @property
    def name(self) -> str:
        """As in file names: ``r1f2``."""
        return f"r{self.repetition}f{self.fold}"


@dataclass(frozen=True, slots=True)
class Split:
    """Test slides and folds over the others.

    Attributes
    ----------
    test : tuple of str
    folds : tuple of Fold
    warnings : tuple of str
        Scanners that are missing in a part.
    """

    test: tuple[str, ...]
    folds: tuple[Fold, ...]
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        folds = [
            {"repetition": f.repetition, "fold": f.fold, "training": f.training, "validation": f.validation}
            for f in self.folds
        ]
        return {"test": self.test, "folds": folds, "warnings": self.warnings}


def slides_of(cells: CellSet) -> tuple[str, ...]:
    """All slides of a set.

    Raises
    ------
    RbcedgeError
        Where a cell's slide is unknown, or there are fewer than three slides.
    """
    unknown = [c for c in cells.cells if c.slide is None]
    if unknown:
        raise RbcedgeError(
            f"{len(unknown)} of {len(cells.cells)} cells have no known slide (patient), the first: {unknown[0].id}. "
            "A split by cell would put one patient into training and test. Give --slide-pattern, or "
            "--each-file-a-slide if every picture comes from a patient of its own."
        )
    slides = cells.slides()
    if len(slides) < 3:
        raise RbcedgeError(
            f"{cells.folder}: {len(slides)} slide{'' if len(slides) == 1 else 's'} only. Training, validation and "
            "test need a slide each at least, so three or more."
        )
    return slides


def refuse_empty(cells: CellSet) -> None:
    """Refuse a set in which a class has no cell.

    Raises
    ------
    RbcedgeError
    """
    empty = [code for code, n in cells.counts().items() if n == 0]
    if empty:
        there = ", ".join(f"{c} {n}" for c, n in cells.counts().items() if n)
        raise RbcedgeError(
            f"{cells.folder}: no cell of class {', '.join(empty)} (there: {there or 'none'}). "
            "Take it out of the class map, or check the folders."
        )


def for_classifier(
    cells: CellSet, repetitions: int = 5, folds: int = 2, seed: int = 0, test: Sequence[str] | None = None
) -> Split:
    """Split as in section 4.3: a fixed test part, the rest by slide into `folds` parts, `repetitions` times anew.

    With two folds each half is trained on once while the other validates (5x2 cross-validation); with one fold a
    fifth of the rest validates.

    Parameters
    ----------
    cells : CellSet
    repetitions, folds : int
    seed : int
    test : sequence of str, optional
        Test slides. By default the paper's 4, 5, 6, 13, 16 where the set has all 25 slides, else a fifth is drawn.

    Raises
    ------
    RbcedgeError
        Where slides are unknown or too few, or a class is missing in a part.
    """
    refuse_empty(cells)
    slides = slides_of(cells)
    table = _Table(cells, slides)
    rng = np.random.default_rng((seed, 10))
    if test is not None:
        held = _known(test, slides)
    elif set(slides) == {str(i) for i in range(1, 26)}:
        held = TEST_SLIDES
    else:
        held = table.draw(rng, slides, (0.2, 0.8))[0]
    rest = tuple(s for s in slides if s not in held)
    if len(rest) < 2:
        raise RbcedgeError(f"{len(rest)} slides beside the test slides; training and validation need one each.")
    if folds > len(rest):
        raise RbcedgeError(f"{folds} folds of {len(rest)} slides; a fold needs a slide at least.")
    out = []
    for repetition in range(1, repetitions + 1):
        if folds == 1:
            validation, training = table.draw(rng, rest, (0.2, 0.8))
            out.append(Fold(repetition, 1, training, validation))
            continue
        parts = table.draw(rng, rest, (1 / folds,) * folds)
        for k in range(folds):
            # With two folds: the one trains, the other validates. With more: all but one train.
            others = tuple(s for j, p in enumerate(parts) if j != k for s in p)
            training, validation = (parts[k], others) if folds == 2 else (others, parts[k])
            out.append(Fold(repetition, k + 1, _sorted(training), _sorted(validation)))
    return _checked(table, Split(_sorted(held), tuple(out)))


def for_segmenter(cells: CellSet, seed: int = 0, test: Sequence[str] | None = None) -> Split:
    """Split as in section 4.2: 15 slides to train, 5 to validate, 5 to test; the same shares of other sets.

    The paper does not say which slides; they are drawn so that every scanner and class is in each part.

    Raises
    ------
    RbcedgeError
        As `for_classifier`.
    """
    refuse_empty(cells)
    slides = slides_of(cells)
    table = _Table(cells, slides)
    rng = np.random.default_rng((seed, 11))
    if test is None:
        held, validation, training = table.draw(rng, slides, (0.2, 0.2, 0.6))
    else:
        held = _known(test, slides)
        rest = [s for s in slides if s not in held]
        if len(rest) < 2:
            raise RbcedgeError(f"{len(rest)} slides beside the test slides; training and validation need one each.")
        validation, training = table.draw(rng, rest, (0.25, 0.75))
    return _checked(table, Split(_sorted(held), (Fold(1, 1, training, validation),)))


class _Table:
    """Cells by slide and class, and scanners by slide."""

    def __init__(self, cells: CellSet, slides: Sequence[str]) -> None:
        self.codes = cells.codes
        self.scanners: Mapping[str, str] = cells.scanners()
        self.all_scanners = sorted(set(self.scanners.values()), key=natural)
        self.counts = {s: np.zeros(len(cells.codes), np.int64) for s in slides}
        for c in cells.cells:
            assert c.slide is not None
            self.counts[c.slide][cells.codes.index(c.code)] += 1

    def draw(
        self, rng: np.random.Generator, slides: Sequence[str], shares: tuple[float, ...]
    ) -> tuple[tuple[str, ...], ...]:
        """Draw parts of these shares of the slides: of many draws the one with every class and scanner in each part
        whose classes are nearest to the shares."""
        sizes = [max(1, round(share * len(slides))) for share in shares[:-1]]
        while sum(sizes) >= len(slides):
            sizes[sizes.index(max(sizes))] -= 1
        ends = np.cumsum(sizes)
        rows = np.stack([self.counts[s] for s in slides])
        seen = np.array([[self.scanners.get(s) == k for k in self.all_scanners] for s in slides], np.int64)
        table = np.hstack([rows, seen.reshape(len(slides), -1)])
        expected = np.stack([table.sum(0) * share for share in shares])
        orders = rng.permuted(np.tile(np.arange(len(slides)), (_DRAWS, 1)), axis=1)
        parts = np.add.reduceat(table[orders], np.concatenate([[0], ends]), axis=1)
        miss = 1000.0 * (parts == 0).sum((1, 2)) + np.mean(np.abs(parts - expected) / np.maximum(expected, 1), (1, 2))
        best = orders[int(miss.argmin())]
        return tuple(_sorted([slides[i] for i in p]) for p in np.split(best, ends))

    def missing(self, part: Sequence[str]) -> tuple[list[str], list[str]]:
        """Classes and scanners that a part lacks."""
        counts = np.sum([self.counts[s] for s in part], axis=0)
        there = {self.scanners.get(s) for s in part}
        return [c for c, n in zip(self.codes, counts, strict=True) if not n], [
            k for k in self.all_scanners if k not in there
        ]


def _checked(table: _Table, split: Split) -> Split:
    parts = {"the test part": split.test}
    for f in split.folds:
        parts[f"the training part of {f.name}"] = f.training
        parts[f"the validation part of {f.name}"] = f.validation
    warnings = []
    for name, part in parts.items():
        codes, scanners = table.missing(part)
        if codes:
            raise RbcedgeError(
                f"{name[0].upper()}{name[1:]} (slides {', '.join(part)}) has no cell of class {', '.join(codes)}. "
                "Choose other --test-slides, fewer folds, or leave the class out of the class map."
            )
        if scanners:
            warnings.append(f"{name} (slides {', '.join(part)}) has no slide of scanner {', '.join(scanners)}")
    return Split(split.test, split.folds, tuple(warnings))


def _known(wanted: Sequence[str], slides: Sequence[str]) -> tuple[str, ...]:
    foreign = [s for s in wanted if s not in slides]
    if foreign or not wanted:
        raise RbcedgeError(
            f"Test slides {', '.join(foreign) or '(none)'} are not in the set. Slides there: {', '.join(slides)}."
        )
    return tuple(dict.fromkeys(wanted))


def _sorted(slides: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(slides, key=natural))
