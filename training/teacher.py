"""A teacher for fields without masks: plain thresholding, with a rule that says where not to believe it.

Background flattening on the green channel, Otsu, hole filling, removal of what is not a red cell, and parting
of touching cells at narrow necks. Good on most fields, wrong on very pale or crowded ones: `trust` finds those,
and the network learns from the others and from the simulator.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rbcedge.cells import components, fill


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the teacher says about one picture.

    Attributes
    ----------
    labels : (H, W) int32
        0 background, 1..N red cells; touching cells are parted by a background line.
    ignore : (H, W) bool
        Pixels nobody should learn from (leucocytes with their surroundings).
    """

    labels: NDArray[np.int32]
    ignore: NDArray[np.bool_]


def optical_density(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) float32 optical density against the local background: log(background / pixel), about 0 there."""
    h, w = pixels.shape[:2]
    small = cv2.resize(pixels, (max(w // 8, 1), max(h // 8, 1)), interpolation=cv2.INTER_AREA)
    small = cv2.medianBlur(small, 3)
    background = cv2.dilate(small, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (13, 13)))
    background = cv2.GaussianBlur(background, (0, 0), 6)
    background = cv2.resize(background, (w, h), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    return np.log((background + 2) / (pixels.astype(np.float32) + 2))


def teach(pixels: NDArray[np.uint8], diameter: float = 38.0) -> Lesson:
    """Segment one field.

    Parameters
    ----------
    pixels : (H, W, 3) uint8
        Blue, green, red.
    diameter : float
        Diameter of a red cell, px.
    """
    od = optical_density(cv2.GaussianBlur(pixels, (0, 0), diameter / 45))
    blue, green, red = pixels[..., 0].astype(int), pixels[..., 1].astype(int), pixels[..., 2].astype(int)
    drawn = (green - np.maximum(blue, red) > 60) | (np.minimum(green, red) - blue > 90)
    g = np.where(drawn, 0, od[..., 1])
    level, _ = cv2.threshold(np.clip(g * 400, 0, 255).astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
    # Otsu lies midway; the edge of a cell is a little further out.
    binary = (g > level / 400 * 0.85).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    binary = cv2.morphologyEx(binary, cv2.MORPH_CLOSE, disc)
    binary = cv2.morphologyEx(fill(binary), cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    single = np.pi / 4 * diameter**2
    foreign = _nuclei(od[..., 2], binary, single)
    labels, _ = components(part(binary, diameter), 1, min_area=round(0.12 * single))
    bad = np.unique(labels[foreign])
    removed = np.isin(labels, bad[bad > 0])
    ignore = cv2.dilate((removed | foreign).astype(np.uint8), disc, iterations=round(diameter / 6)) > 0
    labels = np.where(removed, 0, labels)
    kept = np.unique(labels)
    kept = kept[kept > 0]
    lookup = np.zeros(int(labels.max()) + 1, np.int32)
    lookup[kept] = np.arange(1, len(kept) + 1)
    labels = lookup[labels]
    return Lesson(labels, ignore & (labels == 0))


def part(binary: NDArray[np.uint8], diameter: float, neck: float = 0.62) -> NDArray[np.uint8]:
    """Cut touching cells apart where the neck between them is narrow; true overlaps stay together.

    Parameters
    ----------
    binary : (H, W) uint8 of 0 and 1
    diameter : float
        Diameter of a red cell, px.
    neck : float
        Cut where the neck is narrower than this share of the smaller cell's width.

    Returns
    -------
    (H, W) uint8
        The mask with background lines where it was cut.
    """
    distance = cv2.distanceTransform(binary, cv2.DIST_L2, 5)
    smooth = cv2.GaussianBlur(distance, (0, 0), diameter / 20)
    window = 2 * round(diameter / 5) + 1
    peaks = (smooth >= cv2.dilate(smooth, np.ones((window, window), np.uint8))) & (distance > diameter * 0.16)
    n, seeds = cv2.connectedComponents(cv2.dilate(peaks.astype(np.uint8), np.ones((3, 3), np.uint8)))
    if n <= 2:
        return binary
    # Which cell's middle a pixel is nearest to along the mask: lines lie between two cells, none along an edge.
    basins = _grow(seeds.astype(np.int32), binary)
    height = np.zeros(n + 1)
    np.maximum.at(height, seeds.ravel(), distance.ravel())
    cut = np.zeros_like(binary)
    # Pixels of a basin that touch a basin of a lower number: the line between them; its largest distance to the
    # background is half the neck's width.
    far = np.where(basins > 0, basins, n + 1).astype(np.float32)
    lower = cv2.erode(far, np.ones((3, 3), np.uint8)).astype(np.int32)
    ys, xs = np.nonzero((basins > 0) & (lower < basins))
    pairs = np.stack([lower[ys, xs], basins[ys, xs]], 1)
    for a, b in np.unique(pairs, axis=0):
        on = (pairs[:, 0] == a) & (pairs[:, 1] == b)
        if distance[ys[on], xs[on]].max() < neck * min(height[a], height[b]):
            cut[ys[on], xs[on]] = 1
    return binary & (1 - cv2.dilate(cut, np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)))


def _grow(seeds: NDArray[np.int32], binary: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Spread seeds over the mask, a pixel at a time and evenly: (H, W) int32, 0 outside of the mask."""
    basins = seeds * (binary > 0)
    cross, square = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)), np.ones((3, 3), np.uint8)
    for step in range(binary.size):
        spread = cv2.dilate(basins.astype(np.float32), cross if step % 2 else square).astype(np.int32)
        grown = np.where((basins == 0) & (binary > 0), spread, basins)
        if (grown == basins).all():
            break
        basins = grown
    return basins


def _nuclei(red: NDArray[np.float32], binary: NDArray[np.uint8], single: float) -> NDArray[np.bool_]:
    """Pixels of leucocyte nuclei: much more absorption in red than the field's red cells have."""
    inside = red[binary > 0]
    usual = float(np.median(inside)) if inside.size else 0.0
    dark = (red > max(2.0 * usual, usual + 0.3)).astype(np.uint8)
    dark = cv2.morphologyEx(dark, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(dark, connectivity=8)
    return np.isin(labels, np.flatnonzero(stats[:, cv2.CC_STAT_AREA] > 0.3 * single)[1:]) & (dark > 0)


def trust(lesson: Lesson, points: NDArray[np.int32], diameter: float = 38.0) -> str:
    """Return why a lesson should not be learnt from, or "" where it looks right.

    A good field has round parts of the expected size: median diameter within 35 % of `diameter`, few ragged
    parts (area over convex hull), and at least 95 % of its marked cells outside `ignore` on the mask.
    """
    _, cells = components((lesson.labels > 0).astype(np.uint8), 1)
    inner = ~cells.on_border
    if inner.sum() < 3:
        return "hardly any cells"
    median = float(np.median(cells.diameters[inner]))
    if not 0.65 * diameter < median < 1.35 * diameter:
        return f"median diameter {median:.0f} px"
    solid = []
    for i in np.flatnonzero(inner):
        x, y, w, h = cells.boxes[i]
        own = (lesson.labels[y : y + h, x : x + w] > 0).astype(np.uint8)
        contours, _ = cv2.findContours(own, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        largest = max(contours, key=cv2.contourArea)
        hull = cv2.contourArea(cv2.convexHull(largest))
        solid.append(cv2.contourArea(largest) / hull if hull else 0.0)
    ragged = float(np.mean(np.array(solid) < 0.85))
    if ragged > 0.4:
        return f"{ragged:.0%} ragged parts"
    h, w = lesson.labels.shape
    x, y = np.clip(points[:, 0], 0, w - 1), np.clip(points[:, 1], 0, h - 1)
    near = cv2.dilate((lesson.labels > 0).astype(np.uint8), np.ones((5, 5), np.uint8))
    on = near[y, x][~lesson.ignore[y, x]] > 0
    if len(on) and on.mean() < 0.95:
        return f"only {on.mean():.0%} of the marked cells found"
    return ""
