"""A picture of a part of the slide with its exact truth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Objects:
    """The red-cell objects of a view; parallel arrays, one row per object.

    Attributes
    ----------
    ids
        (N,) int32, unique on the slide, ascending.
    codes
        (N,) int32, index into `CODES`.
    centres
        (N, 2) float64, x and y of the whole object's centroid on the slide, px.
    boxes
        (N, 4) int32, x, y, w, h of the visible part in the view, px.
    areas
        (N,) int32, visible label pixels.
    whole
        (N,) bool, no pixel on the view's outermost line.
    members
        (N,) int32, red cells in the object.
    """

    ids: np.ndarray
    codes: np.ndarray
    centres: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    whole: np.ndarray
    members: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Debris:
    """What is not a red cell: `kinds` and `boxes` (M, 4) int32 x, y, w, h in the view, px."""

    kinds: tuple[str, ...]
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.kinds)


@dataclass(frozen=True, eq=False)
class View:
    """One picture and its truth.

    Attributes
    ----------
    pixels
        (H, W, 3) uint8, blue, green, red.
    labels
        (H, W) int32, 0 for background, else the object's id. Regions of different objects are never
        neighbours, not even diagonally.
    objects, debris
        What is in the view.
    x, y
        Slide position of the view's corner, px; the labels are at the nearest whole pixel.
    """

    pixels: np.ndarray
    labels: np.ndarray
    objects: Objects
    debris: Debris
    x: float
    y: float

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) bool, true where there is a red cell."""
        return self.labels > 0

    @cached_property
    def dense(self) -> np.ndarray:
        """(H, W) int32, labels renumbered 1 to N in the order of `objects`."""
        rows = np.searchsorted(self.objects.ids, self.labels.ravel()).astype(np.int32) + 1
        return np.where(self.labels > 0, rows.reshape(self.labels.shape), 0).astype(np.int32)
