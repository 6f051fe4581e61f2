"""What a field looks like in a few figures: stain, light, geometry, classes. Cheap, and comparable between fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rbcedge.bundle import Label
from rbcedge.counting.quality import Verdict
from rbcedge.field import Field
from rbcedge.pipeline.illumination import BACKGROUND, estimate

#: Figures by subject. Each subject has the same say in a distance, whatever its number of figures.
SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "stain": ("od_blue", "od_green", "od_red"),
    "light": ("brightness", "tint_blue", "tint_red", "contrast", "sharpness"),
    "geometry": ("density", "diameter", "overlaps", "scale"),
}
#: Robust standard deviations beyond which a field is only "far": one odd field must not draw all others near.
_FAR = 4.0


def names(labels: Sequence[Label]) -> tuple[str, ...]:
    """Names of the figures `describe` returns, in their order."""
    return (*(n for group in SUBJECTS.values() for n in group), *(f"share_{x.code}" for x in labels))


def describe(field: Field, verdict: Verdict, labels: Sequence[Label]) -> NDArray[np.float64]:
    """Describe a classified field.

    Parameters
    ----------
    field : Field
        All its whole cells classified.
    verdict : Verdict
        What the gate measured on it.
    labels : sequence of Label
        K classes, in the order of the probabilities.

    Returns
    -------
    (12 + K,) float64
        In the order of `names`. Optical densities of the cells (Beer-Lambert: -log10 of the transmitted share) by
        channel; log2 of the background and of its tint; contrast and sharpness as the gate has them; share covered;
        log2 diameter in source px; overlapped share; log2 scale; square roots of the class shares. All finite.
    """
    light = estimate(field.frame.pixels)
    cell = field.mask > 0
    density = stain(light.apply(field.frame.pixels)[cell])
    level = np.log2(light.level.astype(np.float64))
    whole = ~field.cells.on_border
    best = field.cells.best[whole]
    shares = np.bincount(best[best >= 0], minlength=len(labels)) / max(1, int((best >= 0).sum()))
    overlapped = sum(s for s, label in zip(shares, labels, strict=True) if label.cells > 1)
    diameter = float(np.median(field.cells.diameters[whole])) if whole.any() else 1.0
    figures = [
        *density,
        level[1], level[0] - level[1], level[2] - level[1], verdict.contrast, verdict.sharpness,
        verdict.density, np.log2(max(diameter, 1.0)), overlapped, np.log2(field.scale),
        *np.sqrt(shares),
    ]  # fmt: skip
    return np.nan_to_num(np.array(figures, np.float64))


def stain(cells: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(3,) mean optical density by channel of (N, 3) uint8 flat-fielded pixels of cells; 0 where there are none."""
    if not len(cells):
        return np.zeros(3)
    density: NDArray[np.float64] = -np.log10(np.clip(cells.mean(axis=0), 1, 255) / BACKGROUND)
    return density


def standardise(table: NDArray[np.float64], labels: Sequence[Label]) -> NDArray[np.float64]:
    """Bring (N, D) figures to one scale, so that Euclidean distances mean something.

    Each figure by its median and median absolute deviation (times 1.4826; the standard deviation where that is 0),
    cut at ±4; each subject divided by the square root of its number of figures. Figures that do not vary become 0.
    """
    centred = table - np.median(table, axis=0)
    spread = 1.4826 * np.median(np.abs(centred), axis=0)
    spread = np.where(spread > 1e-9, spread, table.std(axis=0))
    out = np.clip(np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-9), -_FAR, _FAR)
    sizes = [*(len(group) for group in SUBJECTS.values()), len(labels)]
    weights = np.concatenate([np.full(n, 1 / np.sqrt(n)) for n in sizes if n])
    scaled: NDArray[np.float64] = out * weights
    return scaled
