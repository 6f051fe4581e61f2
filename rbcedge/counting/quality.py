"""Is this field fit to be counted? Focus, motion, light, density, overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from rbcedge.bundle import Label
from rbcedge.counting.intervals import clopper_pearson
from rbcedge.counting.motion import Motion
from rbcedge.field import Field

# Larger pictures are judged by their centre: the time must not grow with the camera.
_LARGEST_SIDE = 1000
_SECTORS = 4
# Boundary pixels needed in one direction before its focus is judged.
_FEWEST_EDGES = 20
# Edges are sampled on every third row: medians need no more.
_EVERY = 3
# Pictures at less than this native px per source px are reduced first.
_REDUCE = 0.75


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
        light = _light(field)
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
    free = 1 - field.foreign
    return min(1.0, float(cv2.countNonZero(field.mask)) / field.mask.size / free) if free > 0 else 1.0


def _diameter(field: Field) -> float:
    own = field.cells.diameters[~field.cells.on_border]
    return float(np.median(own)) * field.scale if len(own) else float("nan")


@dataclass(frozen=True, slots=True)
class _Light:
    sharpness: float
    exposure: float
    contrast: float


def _light(field: Field) -> _Light:
    """Measure edges and light on the green channel, which haemoglobin absorbs."""
    nan = float("nan")
    h, w = field.mask.shape
    y0, x0 = max(0, (h - _LARGEST_SIDE) // 2), max(0, (w - _LARGEST_SIDE) // 2)
    window = np.s_[y0 : y0 + _LARGEST_SIDE, x0 : x0 + _LARGEST_SIDE]
    mask = np.ascontiguousarray(field.mask[window])
    green = cv2.extractChannel(field.frame.pixels[window], 1)
    scale = field.scale
    if scale < _REDUCE and min(green.shape) * scale >= 2:
        # Larger cells than needed: the same measure at less cost.
        green = cv2.resize(green, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, (green.shape[1], green.shape[0]), interpolation=cv2.INTER_NEAREST)
        scale = 1.0
    reach = max(1, round(2 / scale))
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    grown, shrunk = cv2.dilate(mask, kernel), cv2.erode(mask, kernel)
    background = _median(green, cv2.bitwise_not(grown))
    if np.isnan(background):
        # All cell: the brightest pixels are as near to background as it gets.
        return _Light(nan, float(np.percentile(green, 99)) / 255, nan)
    # The rim, not the whole cell: central pallor says nothing of the light.
    inner = cv2.erode(shrunk, kernel)
    rim = _median(green, cv2.subtract(shrunk, inner))
    if np.isnan(rim):
        return _Light(nan, background / 255, nan)
    contrast = background - rim
    steepness = _steepness(green, mask) / max(contrast, 1.0) / scale
    return _Light(float(steepness), background / 255, float(contrast) / max(background, 1.0))


def _steepness(green: NDArray[np.uint8], mask: NDArray[np.uint8]) -> float:
    """Return grey levels per px across cell edges: least of the medians in four directions."""
    outline = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    # The picture's own edge is no cell edge.
    outline[:, [0, 1, -2, -1]] = 0
    rows = np.s_[2:-2:_EVERY]
    at = np.flatnonzero(outline[rows])
    if len(at) < _FEWEST_EDGES:
        return float("nan")
    gx, gy = cv2.spatialGradient(green)
    # The Sobel kernel sums to 8 times the slope. The mask's edge may miss the steepest place by a pixel.
    steep = cv2.dilate(_magnitude(gx, gy), np.ones((3, 3), np.uint8))[rows].ravel()[at] / 8
    # Direction of the outline itself, from the mask: blur would turn the picture's own gradient.
    nx, ny = cv2.spatialGradient(cv2.blur(mask, (5, 5)))
    angle = np.arctan2(ny[rows].ravel()[at].astype(np.float32), nx[rows].ravel()[at].astype(np.float32))
    sector = np.round(angle * (_SECTORS / np.pi)).astype(np.intp) % _SECTORS
    medians = [float(np.median(steep[sector == k])) for k in range(_SECTORS) if (sector == k).sum() >= _FEWEST_EDGES]
    return min(medians, default=float("nan"))


def _magnitude(gx: NDArray[np.int16], gy: NDArray[np.int16]) -> NDArray[np.float32]:
    length: NDArray[np.float32] = cv2.magnitude(gx.astype(np.float32), gy.astype(np.float32))
    return length


def _median(values: NDArray[np.uint8], where: NDArray[np.uint8]) -> float:
    """Return the median of `values` where `where` is not zero, NaN where that is nowhere."""
    thin = np.s_[::2, ::2]
    values, where = np.ascontiguousarray(values[thin]), np.ascontiguousarray(where[thin])
    histogram = cv2.calcHist([values], [0], where, [256], [0, 256]).ravel()
    total = histogram.sum()
    return float(np.searchsorted(np.cumsum(histogram), total / 2)) if total else float("nan")
