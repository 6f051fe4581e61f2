"""Is this field fit to be counted? Focus, motion, light, density, overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rbcedge.bundle import Label
from rbcedge.counting.intervals import clopper_pearson
from rbcedge.counting.motion import Motion
from rbcedge.field import Field
from rbcedge.light import measure


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a field is countable, and what was measured.

    Attributes
    ----------
    countable : bool
    reason : str
        "" for a countable field, otherwise one of `REASONS`.
    sharpness : float
        Steepness of cell edges, the share of the contrast per native px; the lowest over four directions, so
        that motion blur shows as well as defocus. A perfect edge has about 0.5. NaN where there are no edges.
    density : float
        Share of the field covered by red cells, 0 to 1.
    overlap_ratio : float
        Overlapped to single objects (paper, section 4.1).
    exposure : float
        Brightness of the empty background, 0 to 1. NaN where there is no background.
    contrast : float
        How much darker the cells' rims are than the background, as a share of it, 0 to 1.
    motion_px : float
        Movement since the frame before, source px.
    foreign : float
        Share of the field covered by leucocytes, clumps and dirt, 0 to 1.
    diameter_px : float
        Median diameter of the whole cells, native px. NaN where there are none.
    """

    countable: bool
    reason: str
    sharpness: float = float("nan")
    density: float = 0.0
    overlap_ratio: float = 0.0
    exposure: float = float("nan")
    contrast: float = float("nan")
    motion_px: float = 0.0
    foreign: float = 0.0
    diameter_px: float = float("nan")


MOVING, BLURRED = "moving", "blurred"
DARK, BRIGHT, PALE = "too dark", "too bright", "too pale"
DENSE, SPARSE, OVERLAPS, FOREIGN = "too dense", "too sparse", "too many overlaps", "leucocytes or dirt"
SCALE = "wrong magnification"
REASONS = (MOVING, DARK, BRIGHT, FOREIGN, DENSE, SPARSE, SCALE, PALE, BLURRED, OVERLAPS)


@dataclass(frozen=True, slots=True)
class Gate:
    """Limits within which a field is countable: wide, to turn away what cannot be read, not what is rare.

    Attributes
    ----------
    sharpness : float
        Least steepness of cell edges, share of the contrast per native px.
    exposure : float
        Least brightness of the background, 0 to 1.
    clipped : float
        Brightness of the background from which the camera has reached its end, 0 to 1: if few or pale cells
        are left in such a field, light has eaten them.
    contrast : float
        Least contrast of cells to background, as a share of the background: below it they are too pale or
        drown in stray light.
    thin, thick : float
        Least and largest share of the field covered by cells: feathered edge and thick area.
    cells : int
        Least number of whole cells in a field.
    overlap_ratio : float
        Largest ratio of overlapped to single objects. A field is only turned away when chance does not explain
        its ratio (lower exact 95 % limit), which in a field of ten cells takes a lot.
    foreign : float
        Largest share covered by leucocytes, clumps and dirt.
    diameter_px : float or None
        Diameter of red cells the networks were trained on, native px; None lets cells of any size pass.
    size : float
        Least median diameter of the cells as a share of `diameter_px`, and 1 / the largest: what the networks
        say of objects of another size (noise, another objective than `--scale` says) means nothing.
    """

    sharpness: float = 0.16
    exposure: float = 0.2
    clipped: float = 0.99
    contrast: float = 0.08
    thin: float = 0.02
    thick: float = 0.65
    cells: int = 3
    overlap_ratio: float = 0.75
    foreign: float = 0.3
    diameter_px: float | None = None
    size: float = 0.5

    def judge(self, field: Field, motion: Motion | None = None, labels: Sequence[Label] | None = None) -> Verdict:
        """Judge a field.

        Parameters
        ----------
        field : Field
            Its probabilities may still be unknown.
        motion : Motion or None
            What `Ledger.observe` said of the frame; None for pictures that stand for themselves.
        labels : sequence of Label or None
            The bundle's labels: where they are given and all whole cells are classified, the overlap ratio is
            taken from the classes; otherwise from areas.
        """
        density, whole = _density(field), int((~field.cells.on_border).sum())
        light = field.light or measure(field.frame.pixels, field.mask, field.scale)
        ratio = overlap_ratio(field, labels)
        verdict = Verdict(
            countable=False,
            reason="",
            sharpness=light.sharpness,
            density=density,
            overlap_ratio=ratio,
            exposure=light.exposure,
            contrast=light.contrast,
            motion_px=0.0 if motion is None else motion.pixels,
            foreign=field.foreign,
            diameter_px=_diameter(field),
        )
        return self._decide(verdict, whole, motion is not None and motion.moving)

    def _decide(self, v: Verdict, whole: int, moving: bool) -> Verdict:
        sparse, pale = v.density < self.thin or whole < self.cells, v.contrast < self.contrast
        checks = (
            (MOVING, moving),
            (DARK, v.exposure < self.exposure),
            (BRIGHT, v.exposure >= self.clipped and (sparse or pale)),
            (FOREIGN, v.foreign > self.foreign),
            (DENSE, v.density > self.thick),
            (SPARSE, sparse),
            (SCALE, self._other_size(v.diameter_px)),
            (PALE, pale),
            (BLURRED, v.sharpness < self.sharpness),
            (OVERLAPS, self._overlapped(v.overlap_ratio, whole)),
        )
        reason = next((name for name, failed in checks if failed), "")
        return replace(v, countable=not reason, reason=reason)

    def _other_size(self, diameter_px: float) -> bool:
        if self.diameter_px is None or np.isnan(diameter_px):
            return False
        return not self.size <= diameter_px / self.diameter_px <= 1 / self.size

    def _overlapped(self, ratio: float, whole: int) -> bool:
        if ratio <= self.overlap_ratio:
            return False
        share = ratio / (1 + ratio) if np.isfinite(ratio) else 1.0
        least, _ = clopper_pearson(round(whole * share), whole)
        return least > self.overlap_ratio / (1 + self.overlap_ratio)


def overlap_ratio(field: Field, labels: Sequence[Label] | None = None) -> float:
    """Return overlapped : single objects among the whole cells of a field (paper, section 4.1).

    From the classes where all whole cells have one. Otherwise from areas: an object of at least 1.6 times the
    median area of those below 1.6 times the overall median counts as overlapped.
    """
    cells = field.cells
    whole = ~cells.on_border
    if not whole.any():
        return 0.0
    if labels is not None and cells.classified[whole].all():
        in_one = np.array([label.cells for label in labels])
        overlapped = int((in_one[cells.best[whole]] > 1).sum())
    else:
        areas = cells.areas[whole].astype(np.float64)
        # Clumps pull the median up: take it again without them.
        middle = np.median(areas[areas <= 1.6 * np.median(areas)])
        overlapped = int((areas >= 1.6 * middle).sum())
    single = int(whole.sum()) - overlapped
    return overlapped / single if single else float("inf") if overlapped else 0.0


def _density(field: Field) -> float:
    width, height = field.frame.size
    free = 1 - field.foreign
    return min(1.0, float(field.cells.areas.sum()) / (width * height) / free) if free > 0 else 1.0


def _diameter(field: Field) -> float:
    own = field.cells.diameters[~field.cells.on_border]
    return float(np.median(own)) * field.scale if len(own) else float("nan")
