"""The calibration set: few fields and cells that stand for all, as the networks will see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rbcedge.calibration.descriptors import names, standardise
from rbcedge.calibration.examine import Candidate, Examined, Progress, silent
from rbcedge.calibration.recorder import Recorder
from rbcedge.calibration.selection import balanced, cover, farthest

from rbcedge.bundle import Bundle
from rbcedge.engines.base import Engine
from rbcedge.errors import RbcedgeError
from rbcedge.pipeline.host import HostPipeline

#: Cells of each class that the chosen fields should hold, and how many fields more may be taken for that.
_OF_EACH = 8
_MORE = 8


@dataclass(frozen=True, slots=True)
class FieldPicture:
    """One input of the segmenter.

    Attributes
    ----------
    pixels : (H, W, 3) uint8
        Red, green, blue at working resolution, after flat field and padding.
    source : str
    scale : float
        Native px per source px.
    figures : mapping of str to float
        Descriptors of the field.
    """

    pixels: NDArray[np.uint8]
    source: str
    scale: float
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CellPicture:
    """One input of the classifier: (S, S, 3) uint8 RGB, black around the cell; where it is from; its class."""

    pixels: NDArray[np.uint8]
    source: str
    code: str


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """Pictures to calibrate both networks of a bundle on.

    Attributes
    ----------
    fields : tuple of FieldPicture
    cells : tuple of CellPicture
    bundle : str
        Name of the bundle it was made for.
    geometry : mapping of str to float
        What the pictures depend on: see `geometry`.
    left_out : tuple of (str, str)
        Pictures that were not used, and why.
    """

    fields: tuple[FieldPicture, ...]
    cells: tuple[CellPicture, ...]
    bundle: str
    geometry: Mapping[str, float]
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def classes(self) -> Counter[str]:
        """Cells by class."""
        return Counter(c.code for c in self.cells)

    def check(self) -> None:
        """Refuse a set that no network can be calibrated on.

        Raises
        ------
        RbcedgeError
            It is empty, or holds cells of one class only.
        """
        if not self.fields or not self.cells:
            what = "no fields" if not self.fields else "no cells"
            raise RbcedgeError(f"The calibration set holds {what}.{_why(self.left_out)}")
        if len(self.classes) < 2:
            code = next(iter(self.classes))
            raise RbcedgeError(
                f"The calibration set holds one class only: all {len(self.cells)} cells are {code}. "
                "INT8 ranges found on it would cut off the others. Give fields of more slides."
            )

    def suits(self, bundle: Bundle) -> None:
        """Refuse a set whose pictures were made for other inputs than the bundle's networks have.

        Raises
        ------
        RbcedgeError
        """
        mine = geometry(bundle)
        other = [f"{k} {self.geometry.get(k)} (bundle: {v})" for k, v in mine.items() if self.geometry.get(k) != v]
        if other:
            raise RbcedgeError(
                f"This calibration set was made for bundle '{self.bundle}' and does not fit '{bundle.name}': "
                f"{', '.join(other)}. Make it anew from fields."
            )

    def batches(self, role: str, size: int) -> list[NDArray[np.uint8]]:
        """Return those of a network: "segmenter", or "classifier" with at most `size` cells in each."""
        return self.segmenter_batches() if role == "segmenter" else self.classifier_batches(size)

    def segmenter_batches(self) -> list[NDArray[np.uint8]]:
        """(1, H, W, 3) uint8 each."""
        return [f.pixels[None] for f in self.fields]

    def classifier_batches(self, size: int) -> list[NDArray[np.uint8]]:
        """(n, S, S, 3) uint8 with n at most `size`; one side per batch, classes mixed."""
        sides = sorted({c.pixels.shape[0] for c in self.cells})
        out = []
        for side in sides:
            group = [c.pixels for c in self.cells if c.pixels.shape[0] == side]
            out += [np.stack(group[k : k + size]) for k in range(0, len(group), size)]
        return out


def geometry(bundle: Bundle) -> dict[str, float]:
    """What the networks' inputs depend on."""
    return {
        "segmenter_scale": bundle.segmenter_scale,
        "crop_px": bundle.crop_px,
        "small_crop_px": bundle.small_crop_px,
        "rim_px": bundle.rim_px,
    }


def choose(
    examined: Examined,
    bundle: Bundle,
    segmenter: Engine,
    classifier: Engine,
    fields: int = 16,
    cells: int = 512,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[CalibrationSet, list[Candidate]]:
    """Choose calibration pictures and leave the other fields for judging what comes of them.

    Fields are chosen farthest from each other in stain, light, geometry and classes, at most half of what there is,
    then a few more where a class is rare. Cells come from these fields only, evenly over their (predicted) classes.

    Parameters
    ----------
    examined : Examined
    bundle : Bundle
    segmenter, classifier : Engine
        The float networks.
    fields, cells : int
        How many to choose.
    seed : int
        For the choice among the cells of a class.
    progress : callable

    Returns
    -------
    chosen : CalibrationSet
        Checked.
    rest : list of Candidate
        Fields that are not in it; all where there are fewer than four.

    Raises
    ------
    RbcedgeError
        Nothing to choose from, or cells of one class only.
    """
    pool = examined.candidates
    if not pool:
        raise RbcedgeError(
            f"The calibration set would be empty: no field can be counted.{_why(examined.left_out)} "
            "Give sharp fields with whole cells."
        )
    picked = _pick(pool, bundle, fields)
    rest = [c for i, c in enumerate(pool) if i not in picked] if len(pool) >= 4 else list(pool)
    views, crops = _record([pool[i] for i in picked], bundle, Recorder(segmenter), Recorder(classifier), progress)
    codes = np.array([bundle.codes.index(c.code) for c in crops], np.intp)
    rows = balanced(codes, cells, seed)
    # Mixed, so that each batch has cells of many classes and fields.
    order = np.random.default_rng(seed).permutation(rows)
    chosen = CalibrationSet(
        tuple(views), tuple(crops[int(i)] for i in order), bundle.name, geometry(bundle), examined.left_out
    )
    chosen.check()
    return chosen, rest


def _pick(pool: Sequence[Candidate], bundle: Bundle, fields: int) -> list[int]:
    n = len(pool)
    table = standardise(np.stack([c.figures for c in pool]), bundle.labels)
    count = n if n < 4 else min(fields, n // 2)
    picked = farthest(table, count)
    counts = np.stack([c.counts for c in pool])
    return cover(picked, counts, _OF_EACH, n if n < 4 else min(count + _MORE, n * 2 // 3))


def _record(
    picked: Sequence[Candidate], bundle: Bundle, segmenter: Recorder, classifier: Recorder, progress: Progress
) -> tuple[list[FieldPicture], list[CellPicture]]:
    """Process the chosen fields once more, and take what the networks are given."""
    views: list[FieldPicture] = []
    crops: list[CellPicture] = []
    columns = names(bundle.labels)
    for k, candidate in enumerate(picked):
        pipeline = HostPipeline(bundle, segmenter, classifier, candidate.scale)
        field = pipeline.find(candidate.frame())
        ((view, _),) = segmenter.take()
        figures = dict(zip(columns, candidate.figures.tolist(), strict=True))
        views.append(FieldPicture(view[0], candidate.source, candidate.scale, figures))
        pipeline.classify(field, np.flatnonzero(~field.cells.on_border))
        for batch, result in classifier.take():
            for crop, k_best in zip(batch, result.argmax(axis=1), strict=True):
                crops.append(CellPicture(crop, candidate.source, bundle.codes[int(k_best)]))
        progress("choosing cells", k + 1, len(picked))
    return views, crops


def _why(left_out: Sequence[tuple[str, str]], shown: int = 3) -> str:
    """Say in words why pictures were left out, the first few by name."""
    if not left_out:
        return ""
    named = "; ".join(f"{source}: {reason}" for source, reason in left_out[:shown])
    more = len(left_out) - shown
    return f" Left out: {named}{f'; and {more} more' if more > 0 else ''}."
