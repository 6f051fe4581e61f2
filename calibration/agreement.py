"""Do two engines, precisions or formats tell the same? On real fields, in the units people count in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rbcedge.calibration.marks import Mark, truth
from rbcedge.calibration.matching import boundary_distances, pairs
from rbcedge.calibration.tolerances import Change, Tolerances, Verdict, of_shares, paired

from rbcedge.bundle import Bundle, Label
from rbcedge.counting.differential import Tally, differential
from rbcedge.counting.grading import icsh_2015
from rbcedge.engines.base import Engine
from rbcedge.field import Field
from rbcedge.frame import Frame
from rbcedge.pipeline.host import HostPipeline

#: What a cell can be besides a class: below the confidence threshold, or not there at all.
UNSURE, ABSENT = -1, -2
Networks = tuple[Engine, Engine]


@dataclass(frozen=True, slots=True)
class CellPair:
    """A whole cell in both results; one of them may lack it.

    Attributes
    ----------
    box : (int, int, int, int)
        x, y, width, height, px; of the reference where it has the cell.
    before, after : int
        Class index, `UNSURE` or `ABSENT`.
    named_before, named_after : int
        Most probable class whatever its confidence, `ABSENT` where there is none.
    confidence_before, confidence_after : float
        0 to 1, NaN where it is absent.
    truth : int
        Class index, -1 where nobody named it.
    """

    box: tuple[int, int, int, int]
    before: int
    after: int
    named_before: int
    named_after: int
    confidence_before: float
    confidence_after: float
    truth: int


@dataclass(frozen=True, slots=True)
class FieldAgreement:
    """One field seen by both.

    Attributes
    ----------
    source : str
    both, either : int
        Pixels of intersection and union of the masks.
    distances : (K,) float32
        Between the outlines of cells that both have, px; see `boundary_distances`.
    pairs : tuple of CellPair
        Cells off the border in either result.
    """

    source: str
    both: int
    either: int
    distances: NDArray[np.float32]
    pairs: tuple[CellPair, ...]


@dataclass(frozen=True, slots=True)
class ClassAgreement:
    """One class of the differential in both results.

    Attributes
    ----------
    label : Label
    before, after : float
        Percent, 0 to 100, all fields together.
    change : Change
    bias, sd : float
        Mean and standard deviation over fields of after minus before, in points.
    limits : (float, float)
        Limits of agreement, bias ± 1.96 sd (Bland and Altman, Lancet 1986).
    by_field : (F, 2) float64
        Percent before and after in each field that has cells.
    """

    label: Label
    before: float
    after: float
    change: Change
    bias: float
    sd: float
    limits: tuple[float, float]
    by_field: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Check:
    """One tolerance, what was measured, and the verdict."""

    name: str
    measured: float
    tolerance: float
    verdict: Verdict
    note: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """Everything about one pair of results.

    Attributes
    ----------
    reference, candidate : str
        For people: "litert fp32".
    fields : tuple of FieldAgreement
    mask_iou : float
        All fields together, 0 to 1.
    boundary_mean, boundary_p95 : float
        Symmetric mean and 95th percentile of the distance between outlines, px.
    cells : (int, int, int)
        Whole cells of the reference, of the candidate, in both.
    labels_agree : float
        Share of cells in both with the same most probable class.
    classes : tuple of ClassAgreement
    unclassified : (float, float)
        Share of cells below the confidence threshold before and after, percent.
    accuracy : (float, float) or None
        Share of labelled cells named rightly before and after, percent; None without labels.
    accuracy_change : Change or None
    """

    reference: str
    candidate: str
    fields: tuple[FieldAgreement, ...]
    mask_iou: float
    boundary_mean: float
    boundary_p95: float
    cells: tuple[int, int, int]
    labels_agree: float
    classes: tuple[ClassAgreement, ...]
    unclassified: tuple[float, float]
    accuracy: tuple[float, float] | None
    accuracy_change: Change | None

    @property
    def largest(self) -> ClassAgreement:
        """The class whose percentage changes most."""
        return max(self.classes, key=lambda c: abs(c.change.points))

    def checks(self, tolerances: Tolerances) -> tuple[Check, ...]:
        """Hold it against the tolerances."""
        lost = 100 * (1 - self.mask_iou)
        out = [
            Check(
                "mask IoU",
                lost,
                tolerances.mask_iou,
                "within" if lost <= tolerances.mask_iou else "beyond",
                f"the masks differ by {lost:.2f} points; no mask's IoU with the truth can change by more",
            )
        ]
        if self.accuracy_change is not None:
            change = self.accuracy_change
            out.append(
                Check(
                    "accuracy", abs(min(0.0, change.points)), tolerances.accuracy,
                    "within" if change.points >= 0 else change.judge(tolerances.accuracy), _words(change),
                )
            )  # fmt: skip
        for c in self.classes:
            out.append(
                Check(
                    f"percentage of {c.label.code}", abs(c.change.points), tolerances.percentage,
                    c.change.judge(tolerances.percentage), _words(c.change),
                )
            )  # fmt: skip
        return tuple(out)


def _words(c: Change) -> str:
    return (
        f"{c.points:+.2f} points [{c.ci95[0]:+.2f}, {c.ci95[1]:+.2f}], {c.gained} of {c.n} cells came in, {c.lost} went"
    )


def compare(
    bundle: Bundle,
    reference: Networks,
    candidate: Networks,
    frames: Iterable[tuple[Frame, float]],
    marks: Mapping[str, Sequence[Mark]] | None = None,
) -> Iterable[FieldAgreement]:
    """Process each field with both pairs of networks and yield how they agree.

    Each pair finds its own cells on its own mask, as a run would; only the magnification is the same for both.

    Parameters
    ----------
    bundle : Bundle
        Labels, thresholds and scales of both.
    reference, candidate : (segmenter, classifier)
        Any engines, also of a Keras network.
    frames : iterable of (Frame, scale)
        With the native px per source px.
    marks : mapping of source to marks
        Cells that people have named.
    """
    for frame, scale in frames:
        before, after = (process(bundle, engines, frame, scale) for engines in (reference, candidate))
        yield compare_fields(before, after, bundle, (marks or {}).get(frame.source, ()))


def compare_fields(before: Field, after: Field, bundle: Bundle, marks: Sequence[Mark] = ()) -> FieldAgreement:
    """Compare two results for one picture, all whole cells classified."""
    a, b = before.mask > 0, after.mask > 0
    first, second = pairs(before.labels, after.labels)
    in_both = np.isin(before.labels, first + 1), np.isin(after.labels, second + 1)
    known = truth(before.cells, before.labels, marks, bundle.codes)
    partner = dict(zip(first.tolist(), second.tolist(), strict=True))
    left = set(range(len(after.cells))) - set(second.tolist())
    rows: list[tuple[int | None, int | None]] = [(i, partner.get(i)) for i in range(len(before.cells))]
    rows += [(None, j) for j in sorted(left)]
    return FieldAgreement(
        before.frame.source,
        int((a & b).sum()),
        int((a | b).sum()),
        boundary_distances(*in_both),
        tuple(
            _pair(before, i, after, j, known, bundle.confidence_threshold)
            for i, j in rows
            if _whole(before, i, after, j)
        ),
    )


def pool(fields: Sequence[FieldAgreement], labels: Sequence[Label], reference: str, candidate: str) -> Agreement:
    """Put fields together.

    Raises
    ------
    ValueError
        Without fields.
    """
    if not fields:
        raise ValueError("no fields to compare")
    every = [p for f in fields for p in f.pairs]
    both, either = sum(f.both for f in fields), sum(f.either for f in fields)
    distances = np.concatenate([f.distances for f in fields])
    common = [p for p in every if ABSENT not in (p.named_before, p.named_after)]
    known = [p for p in every if p.truth >= 0 and p.named_before != ABSENT]
    accuracy = change = None
    if known:
        right = np.array([(p.named_before == p.truth, p.named_after == p.truth) for p in known])
        accuracy = (100 * float(right[:, 0].mean()), 100 * float(right[:, 1].mean()))
        gained, lost = int((~right[:, 0] & right[:, 1]).sum()), int((right[:, 0] & ~right[:, 1]).sum())
        change = paired(accuracy[1] - accuracy[0], gained, lost, len(known))
    n = [sum(p.named_before != ABSENT for p in every), sum(p.named_after != ABSENT for p in every)]
    unsure = [sum(p.before == UNSURE for p in every), sum(p.after == UNSURE for p in every)]
    return Agreement(
        reference=reference,
        candidate=candidate,
        fields=tuple(fields),
        mask_iou=both / either if either else 1.0,
        boundary_mean=float(distances.mean()) if len(distances) else float("nan"),
        boundary_p95=float(np.percentile(distances, 95)) if len(distances) else float("nan"),
        cells=(n[0], n[1], len(common)),
        labels_agree=float(np.mean([p.named_before == p.named_after for p in common])) if common else float("nan"),
        classes=tuple(_class(k, fields, labels) for k in range(len(labels))),
        unclassified=(100 * unsure[0] / max(1, n[0]), 100 * unsure[1] / max(1, n[1])),
        accuracy=accuracy,
        accuracy_change=change,
    )


def process(bundle: Bundle, engines: Networks, frame: Frame, scale: float) -> Field:
    """Find and classify every cell of one picture, as `compare_fields` wants it; `scale` in native px per source px."""
    pipeline = HostPipeline(bundle, *engines, scale)
    field = pipeline.find(frame)
    return pipeline.classify(field, np.arange(len(field.cells)))


def _whole(before: Field, i: int | None, after: Field, j: int | None) -> bool:
    """Whether a cell is off the border in at least one of the results: those are counted."""
    return (i is not None and not before.cells.on_border[i]) or (j is not None and not after.cells.on_border[j])


def _pair(
    before: Field, i: int | None, after: Field, j: int | None, known: NDArray[np.intp], threshold: float
) -> CellPair:
    def of(field: Field, row: int | None) -> tuple[int, int, float]:
        # A cell that touches the border in one result only is not counted there.
        if row is None or field.cells.on_border[row]:
            return ABSENT, ABSENT, float("nan")
        named, sure = int(field.cells.best[row]), float(field.cells.confidences[row])
        return (named if sure >= threshold else UNSURE), named, sure

    (first, named_first, sure_first), (second, named_second, sure_second) = of(before, i), of(after, j)
    box = before.cells.boxes[i] if i is not None else after.cells.boxes[j]
    x, y, w, h = (int(v) for v in box)
    return CellPair(
        (x, y, w, h), first, second, named_first, named_second, sure_first, sure_second,
        -1 if i is None else int(known[i]),
    )  # fmt: skip


def _percentages(group: Sequence[CellPair], labels: Sequence[Label]) -> NDArray[np.float64]:
    """(2, K) percent before and after, by the rules of the differential."""
    out = np.empty((2, len(labels)))
    for row, outcome in enumerate(([p.before for p in group], [p.after for p in group])):
        counts = np.bincount([k for k in outcome if k >= 0], minlength=len(labels)).tolist()
        result = differential(Tally(tuple(counts), (0,) * len(labels)), labels, icsh_2015())
        out[row] = [c.percent for c in result.classes]
    return out


def _class(k: int, fields: Sequence[FieldAgreement], labels: Sequence[Label]) -> ClassAgreement:
    every = [p for f in fields for p in f.pairs]
    before, after = (float(v) for v in _percentages(every, labels)[:, k])
    single = {i for i, label in enumerate(labels) if label.cells == 1}
    base = single if k in single else set(range(len(labels)))
    change = of_shares(
        np.array([(p.before == k, p.after == k) for p in every], bool).reshape(-1, 2),
        np.array([(p.before in base, p.after in base) for p in every], bool).reshape(-1, 2),
    )
    by_field = np.array([_percentages(f.pairs, labels)[:, k] for f in fields if f.pairs]).reshape(-1, 2)
    differences = by_field[:, 1] - by_field[:, 0]
    bias = float(differences.mean()) if len(differences) else 0.0
    sd = float(differences.std(ddof=1)) if len(differences) > 1 else float("nan")
    return ClassAgreement(
        labels[k], before, after, change, bias, sd,
        (bias - 1.96 * sd, bias + 1.96 * sd), by_field,
    )  # fmt: skip
