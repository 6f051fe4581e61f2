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
class Shift:
    """One change of one strength.

    Attributes
    ----------
    kind, strength : str
        What it is called in the table.
    change : callable
        (H, W, 3) uint8 BGR and a seeded generator to the changed picture of the same size.
    zoom : float
        Magnification applied afterwards.
    """

    kind: str
    strength: str
    change: Callable[[Pixels, np.random.Generator], Pixels]
    zoom: float = 1.0


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


def _same(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return pixels


def _dyes(blue: float, green: float, red: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    """Multiply the optical density over the glass, channel by channel."""

    def change(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        glass = np.quantile(pixels.reshape(-1, 3)[::7], 0.9, axis=0)
        grey = np.maximum(np.arange(256), 1)[:, None]
        # What is brighter than glass (halos, noise) stays as it is.
        density = np.maximum(np.log(glass[None] / grey), 0)
        table = np.where(density > 0, glass * np.exp(-density * (blue, green, red)), grey)
        return cv2.LUT(pixels, np.clip(table, 0, 255).round().astype(np.uint8)[:, None])

    return change


def _mixed(share: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    """Bring the channels together by `share`; 1 is a grey picture of the green channel."""

    def change(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        green = np.repeat(pixels[..., 1:2], 3, axis=2)
        return cv2.addWeighted(pixels, 1 - share, green, share, 0)

    return change


def _blur(sigma: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    return lambda pixels, rng: cv2.GaussianBlur(pixels, (0, 0), sigma)


def _sharp(amount: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    return lambda pixels, rng: cv2.addWeighted(
        pixels, 1 + amount, cv2.GaussianBlur(pixels, (0, 0), 1.2), -amount, 0
    )  # fmt: skip


def _noise(sd: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    def change(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        return cv2.add(pixels, rng.standard_normal(pixels.shape, np.float32) * np.float32(sd), dtype=cv2.CV_8U)

    return change


def _light(factor: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    return lambda pixels, rng: cv2.multiply(pixels, np.full(4, factor), dtype=cv2.CV_8U)


def _tint(blue: float, green: float, red: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    return lambda pixels, rng: cv2.multiply(pixels, np.array([blue, green, red, 1.0]), dtype=cv2.CV_8U)


def _gamma(exponent: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    table = (255 * (np.arange(256) / 255) ** exponent).round().astype(np.uint8)
    return lambda pixels, rng: cv2.LUT(pixels, table)


def _vignette(loss: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    def change(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        h, w = pixels.shape[:2]
        y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
        return (pixels * (1 - loss * (x**2 + y**2) / 2)[..., None]).round().astype(np.uint8)

    return change


def _jpeg(quality: int) -> Callable[[Pixels, np.random.Generator], Pixels]:
    def change(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)

    return change


#: Every shift measured, mild to strong within a kind.
SHIFTS: tuple[Shift, ...] = (
    Shift("none", "", _same),
    Shift("stain strength", "x 0.4", _dyes(0.4, 0.4, 0.4)),
    Shift("stain strength", "x 0.6", _dyes(0.6, 0.6, 0.6)),
    Shift("stain strength", "x 1.5", _dyes(1.5, 1.5, 1.5)),
    Shift("stain strength", "x 2.2", _dyes(2.2, 2.2, 2.2)),
    Shift("stain hue", "orange (blue x 1.8)", _dyes(1.8, 0.9, 1.0)),
    Shift("stain hue", "blue-grey (red x 3, blue x 0.6)", _dyes(0.6, 0.9, 3.0)),
    Shift("stain hue", "pink (red x 0.3)", _dyes(1.0, 1.2, 0.3)),
    Shift("stain hue", "grey", _mixed(1.0)),
    Shift("blur", "sigma 1 px", _blur(1.0)),
    Shift("blur", "sigma 2 px", _blur(2.0)),
    Shift("blur", "sigma 3 px", _blur(3.0)),
    Shift("sharpening", "1.5", _sharp(1.5)),
    Shift("noise", "sd 5", _noise(5)),
    Shift("noise", "sd 12", _noise(12)),
    Shift("noise", "sd 25", _noise(25)),
    Shift("JPEG", "quality 30", _jpeg(30)),
    Shift("brightness", "x 0.4", _light(0.4)),
    Shift("brightness", "x 0.7", _light(0.7)),
    Shift("brightness", "x 1.4", _light(1.4)),
    Shift("gamma", "0.6", _gamma(0.6)),
    Shift("gamma", "1.6", _gamma(1.6)),
    Shift("white balance", "yellow", _tint(0.7, 0.95, 1.0)),
    Shift("white balance", "blue", _tint(1.0, 0.9, 0.75)),
    Shift("vignette", "40 % in the corners", _vignette(0.4)),
    Shift("scale", "x 0.5", _same, 0.5),
    Shift("scale", "x 0.75", _same, 0.75),
    Shift("scale", "x 0.88", _same, 0.88),
    Shift("scale", "x 1.13", _same, 1.13),
    Shift("scale", "x 1.5", _same, 1.5),
    Shift("scale", "x 2", _same, 2.0),
)


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
    labels = cv2.resize(truth.labels.astype(np.float32), size, interpolation=cv2.INTER_NEAREST).astype(np.int32)
    ignore = cv2.resize(truth.ignore.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
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
        f"Bundle '{bundle.name}', manifest sha256 {bundle.sha256[:12]}, precision {precision}. Pictures are changed as a "
        "camera would deliver them; flat field and magnification are measured by the pipeline, anew for each shift. "
        "Instances match at an IoU above 0.5. Label accuracy is that of matched cells off the border with a known class."
    ], items
