"""How well a bundle stands changes that other microscopes make: stain, light, blur, noise and magnification.

Pictures are changed as a camera would deliver them, before the pipeline sees them, so that its flat field and its
measured magnification act as they would at the microscope.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rbcedge.training.datasets.chula import LabelledField, read, split
from rbcedge.training.evaluation.changes import SHIFTS, Shift
from rbcedge.training.evaluation.report import Item
from rbcedge.training.evaluation.tables import Table, percent
from rbcedge.training.lessons import CODES, classes_of
from rbcedge.training.segmentation_scores import Overlap, match
from rbcedge.training.teacher import teach, trust

from rbcedge.bundle import Bundle
from rbcedge.engines.loading import load_engines
from rbcedge.errors import RbcedgeError, UsageError
from rbcedge.frame import Frame
from rbcedge.pipeline.host import HostPipeline
from rbcedge.simulator import CODES as SIMULATED_CODES
from rbcedge.simulator import render_field

Pixels = NDArray[np.uint8]
#: Seed of the simulated fields measured on; lessons are drawn from seeds of their own.
SEED = 924_101


@dataclass(frozen=True, slots=True)
class Truth:
    """A picture with its instances.

    Attributes
    ----------
    name : str
    pixels : (H, W, 3) uint8
        Blue, green, red, as the camera gave it.
    labels : (H, W) int32
        0 background, 1..N.
    ignore : (H, W) bool
        Where nobody knows.
    classes : (N,) int8
        Index into the codes for each instance, -1 unknown.
    """

    name: str
    pixels: Pixels
    labels: NDArray[np.int32]
    ignore: NDArray[np.bool_]
    classes: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A shift over a set of fields.

    Attributes
    ----------
    shift : Shift
    overlap : Overlap
        Masks against truth.
    counts : (K, K) int64
        Confusion of matched cells off the border with a known class, truth in rows, in the order of `CODES`.
    labelled : int
        Cells off the border with a known class, matched or not.
    scale : float
        Median of the magnification that the pipeline found, times `zoom`: 1 where it found the right one.
    """

    shift: Shift
    overlap: Overlap
    counts: NDArray[np.int64]
    labelled: int
    scale: float

    @property
    def accuracy(self) -> float:
        """Share of matched cells with the right class, NaN without any."""
        return float(np.trace(self.counts) / self.counts.sum()) if self.counts.sum() else float("nan")

    @property
    def found(self) -> float:
        """Share of labelled cells that were matched."""
        return float(self.counts.sum() / self.labelled) if self.labelled else float("nan")

    @property
    def false_abnormal(self) -> float:
        """Share of matched NOR cells that were called TEA, FRA or BUR."""
        row = self.counts[CODES.index("NOR")]
        wrong = sum(int(row[CODES.index(c)]) for c in ("TEA", "FRA", "BUR"))
        return wrong / int(row.sum()) if row.sum() else float("nan")


def real_truth(fields: Sequence[LabelledField], count: int) -> list[Truth]:
    """Take up to `count` fields, evenly spread, on which the teacher can be trusted; its masks are their truth."""
    good: list[Truth] = []
    for field in fields:
        if not len(field.points):
            continue
        pixels = cv2.imread(str(field.picture))
        if pixels is None:
            raise RbcedgeError(f"{field.picture}: cannot be read as a picture.")
        lesson = teach(pixels)
        if not trust(lesson, field.points):
            classes = classes_of(lesson.labels, field)
            good.append(Truth(field.picture.name, pixels, lesson.labels, lesson.ignore, classes))
    chosen = np.unique(np.linspace(0, len(good) - 1, min(count, len(good))).round().astype(int)) if good else []
    return [good[i] for i in chosen]


def simulated_truth(count: int, size: tuple[int, int] = (640, 480), seed: int = SEED) -> list[Truth]:
    """Draw `count` simulated fields of random looks with exact truth."""
    table = np.array([CODES.index(c) for c in SIMULATED_CODES], np.int8)
    out = []
    for i in range(count):
        view = render_field(np.random.default_rng((seed, i)), *size, overlays=bool(i % 2))
        classes = table[view.objects.codes] if len(view.objects) else np.zeros(0, np.int8)
        out.append(Truth(f"simulated {i}", view.pixels, view.dense, np.zeros(view.dense.shape, bool), classes))
    return out


def apply(shift: Shift, truth: Truth, seed: int = 0) -> Truth:
    """Change a picture and, where the shift magnifies, its truth with it."""
    pixels = shift.change(truth.pixels, np.random.default_rng(seed))
    if shift.zoom == 1:
        return Truth(truth.name, pixels, truth.labels, truth.ignore, truth.classes)
    h, w = truth.labels.shape
    size = (round(w * shift.zoom), round(h * shift.zoom))
    method = cv2.INTER_AREA if shift.zoom < 1 else cv2.INTER_CUBIC
    labels = cv2.resize(truth.labels.astype(np.float32), size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.int32)
    ignore = cv2.resize(truth.ignore.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT) > 0
    return Truth(truth.name, cv2.resize(pixels, size, interpolation=method), labels, ignore, truth.classes)


def measure_shift(shift: Shift, fields: Iterable[Truth], pipeline: HostPipeline) -> Outcome:
    """Run `pipeline` over the changed fields and compare with their truth.

    The pipeline should be new: what it measured of the magnification on other pictures would be used again.
    """
    codes = pipeline.bundle.codes
    overlap, labelled = Overlap(), 0
    counts = np.zeros((len(CODES), len(CODES)), np.int64)
    scales = []
    for index, truth in enumerate(fields):
        given = apply(shift, truth, index)
        field = pipeline.find(Frame(index, 0.0, np.ascontiguousarray(given.pixels), truth.name))
        here, pairs = match(given.labels, field.labels, given.ignore)
        overlap = overlap + here
        scales.append(pipeline.scale * shift.zoom)
        edge = np.concatenate([given.labels[[0, -1]].ravel(), given.labels[:, [0, -1]].ravel()])
        known = given.classes >= 0
        known[np.unique(edge[edge > 0]) - 1] = False
        labelled += int((known & (np.bincount(given.labels.ravel(), minlength=len(known) + 1)[1:] > 0)).sum())
        pairs = pairs[known[pairs[:, 0] - 1]]
        field = pipeline.classify(field, pairs[:, 1] - 1)
        for (t, _), guess in zip(pairs, field.cells.best[pairs[:, 1] - 1], strict=True):
            counts[given.classes[t - 1], CODES.index(codes[guess])] += 1
    return Outcome(shift, overlap, counts, labelled, float(np.median(scales)) if scales else float("nan"))


def measure_all(
    bundle: Bundle,
    fields: Sequence[Truth],
    shifts: Sequence[Shift] = SHIFTS,
    precision: str = "auto",
    threads: int | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Outcome]:
    """Measure every shift over the same fields.

    Raises
    ------
    RbcedgeError
        Without fields, or where the bundle names a class that the truth does not know.
    """
    if not fields:
        raise RbcedgeError("There is no field with a trusted truth to measure on.")
    unknown = [c for c in bundle.codes if c not in CODES]
    if unknown:
        raise RbcedgeError(f"Bundle '{bundle.name}' names classes unknown to this truth: {', '.join(unknown)}.")
    segmenter, classifier = load_engines(bundle, precision=precision, threads=threads)
    out = []
    try:
        for shift in shifts:
            begun = time.monotonic()
            out.append(measure_shift(shift, fields, HostPipeline(bundle, segmenter, classifier)))
            progress(f"{shift.kind} {shift.strength}: {time.monotonic() - begun:.1f} s")
    finally:
        segmenter.close()
        classifier.close()
    return out


def shift_table(name: str, title: str, outcomes: Sequence[Outcome]) -> Table:
    """Lay outcomes out as a table."""
    rows = [
        (
            o.shift.kind, o.shift.strength, percent(o.overlap.iou), percent(o.overlap.instance_f1),
            percent(o.overlap.matched / o.overlap.true if o.overlap.true else float("nan")),
            percent(o.overlap.matched / o.overlap.found if o.overlap.found else float("nan")),
            percent(o.accuracy), percent(o.false_abnormal), f"{o.counts.sum()}", f"{o.scale:.2f}",
        )
        for o in outcomes
    ]  # fmt: skip
    columns = (
        "shift", "strength", "IoU %", "instance F1 %", "instance recall %", "instance precision %",
        "label accuracy %", "false TEA+FRA+BUR of NOR %", "cells compared", "scale found / right",
    )  # fmt: skip
    return Table(name, title, columns, tuple(rows))


def shift_items(
    bundle: Bundle,
    labels: Path,
    real: int,
    simulated: int,
    everything: bool = False,
    seed: int = 0,
    precision: str = "auto",
    threads: int | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[list[str], list[Item]]:
    """Introduction and a table each for held-out fields of Chula-RBC-12 and for simulated ones.

    Parameters
    ----------
    bundle : Bundle
    labels : Path
        Folder of Chula-RBC-12.
    real, simulated : int
        How many pictures of each; 0 for none.
    everything : bool
        Real pictures from all blocks, not only those that the split of `seed` holds out.
    seed : int
    precision, threads
        See `load_engines`.
    progress : callable
        Given a line after each shift.

    Raises
    ------
    UsageError, RbcedgeError
        No pictures were asked for, or no field can be trusted.
    """
    if not real and not simulated:
        raise UsageError("Neither real nor simulated pictures were asked for. Give --real or --simulated a number.")
    sets: list[tuple[str, str, list[Truth]]] = []
    if real:
        fields = read(labels)
        chosen = real_truth(fields if everything else split(fields, seed=seed)[1], real)
        which = "" if everything else "held-out "
        sets.append(("shifts-real", f"{len(chosen)} {which}pictures, the teacher's masks", chosen))
    if simulated:
        sets.append(("shifts-simulated", f"{simulated} simulated pictures, exact masks", simulated_truth(simulated)))
    items: list[Item] = []
    for name, title, truths in sets:
        outcomes = measure_all(bundle, truths, precision=precision, threads=threads, progress=progress)
        items.append(shift_table(name, f"Shifts, {title}", outcomes))
    return [
        f"Bundle '{bundle.name}', manifest sha256 {bundle.sha256[:12]}, precision {precision}. Pictures are changed as "
        "a camera would deliver them; flat field and magnification are measured by the pipeline, anew for each shift. "
        "Instances match at an IoU above 0.5. Label accuracy is that of matched cells off the border with a known "
        "class."
    ], items
