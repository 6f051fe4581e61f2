"""The counted cells in slide coordinates, as growing arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rbcedge.counting.constellation import Points
from rbcedge.field import Field

# Cells are remembered as a picture of 8 x 8 points over their box.
SIDE = 8


@dataclass(frozen=True, slots=True, eq=False)
class Shapes:
    """Cells with their extent, in native px, field or slide coordinates.

    Attributes
    ----------
    centres : (N, 2) float64
    areas : (N,) float64
        px².
    boxes : (N, 4) float64
        x, y, width, height.
    grids : (N, SIDE * SIDE) bool
        Which of SIDE x SIDE points, spread evenly over the box, lie in the cell.
    """

    centres: NDArray[np.float64]
    areas: NDArray[np.float64]
    boxes: NDArray[np.float64]
    grids: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.areas)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Shapes:
        """Return some of the cells."""
        return Shapes(self.centres[rows], self.areas[rows], self.boxes[rows], self.grids[rows])

    def moved(self, by: NDArray[np.float64]) -> Shapes:
        """Return the cells displaced by (2,) or (N, 2) `by`."""
        boxes = self.boxes.copy()
        boxes[:, :2] += by
        return Shapes(self.centres + by, self.areas, boxes, self.grids)

    def joined(self, other: Shapes) -> Shapes:
        """Return these cells followed by others."""
        return Shapes(
            np.concatenate([self.centres, other.centres]),
            np.concatenate([self.areas, other.areas]),
            np.concatenate([self.boxes, other.boxes]),
            np.concatenate([self.grids, other.grids]),
        )

    @property
    def points(self) -> Points:
        """Centres and logarithms of areas."""
        return Points(self.centres, np.log(self.areas))

    @property
    def diameters(self) -> NDArray[np.float64]:
        """(N,) diameter of the circle of equal area."""
        return np.asarray(np.sqrt(self.areas * (4 / np.pi)))


def shapes_of(field: Field) -> Shapes:
    """Return the cells of a field, native px from its corner."""
    cells, scale = field.cells, field.scale
    boxes = cells.boxes
    own = field.grids if field.grids is not None else _grids(field)
    return Shapes(
        cells.centroids.astype(np.float64) * scale,
        np.maximum(cells.areas.astype(np.float64), 1) * scale**2,
        boxes.astype(np.float64) * scale,
        own.reshape(len(cells), SIDE * SIDE),
    )


def _grids(field: Field) -> NDArray[np.bool_]:
    """Look at the points of each cell; a device pipeline does the same (report_cells in kernels.cu)."""
    boxes = field.cells.boxes
    steps = (np.arange(SIDE) + 0.5) / SIDE
    xs = (boxes[:, :1] + steps * boxes[:, 2:3]).astype(np.intp)
    ys = (boxes[:, 1:2] + steps * boxes[:, 3:4]).astype(np.intp)
    found: NDArray[np.bool_] = (
        field.labels[ys[:, :, None], xs[:, None, :]] == np.arange(1, len(boxes) + 1)[:, None, None]
    )
    return found


def covered(a: Shapes, b: Shapes, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return which share of cell `a[rows[k]]` cell `b[columns[k]]` covers, (len(rows),) float, 0 to 1."""
    steps = (np.arange(SIDE) + 0.5) / SIDE
    ax, ay, aw, ah = a.boxes[rows].T
    bx, by, bw, bh = b.boxes[columns].T
    # Each point of a, in units of b's grid.
    u = np.floor((ax[:, None] + steps * aw[:, None] - bx[:, None]) / bw[:, None] * SIDE).astype(np.intp)
    v = np.floor((ay[:, None] + steps * ah[:, None] - by[:, None]) / bh[:, None] * SIDE).astype(np.intp)
    inside = ((u >= 0) & (u < SIDE))[:, None, :] & ((v >= 0) & (v < SIDE))[:, :, None]
    index = np.clip(v, 0, SIDE - 1)[:, :, None] * SIDE + np.clip(u, 0, SIDE - 1)[:, None, :]
    hit = inside & b.grids[columns[:, None, None], index]
    own = a.grids[rows].reshape(-1, SIDE, SIDE)
    return np.asarray((hit & own).sum((1, 2)) / np.maximum(own.sum((1, 2)), 1))


def touching(a: Shapes, b: Shapes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and columns of all pairs of cells whose boxes overlap."""
    ax, ay, aw, ah = a.boxes.T[:, :, None]
    bx, by, bw, bh = b.boxes.T[:, None, :]
    rows, columns = np.nonzero((ax < bx + bw) & (bx < ax + aw) & (ay < by + bh) & (by < ay + ah))
    return rows, columns


class Places:
    """Every counted cell, by id: its place and its class probabilities. Memory is linear in the cells."""

    def __init__(self) -> None:
        self._n = 0
        self._centres = np.zeros((0, 2))
        self._areas: NDArray[np.float64] = np.zeros(0)
        self._boxes = np.zeros((0, 4))
        self._grids = np.zeros((0, SIDE * SIDE), np.bool_)
        self._patches = np.zeros(0, np.int32)
        self._same_as = np.zeros(0, np.int64)
        self._probabilities = np.zeros((0, 0), np.float32)

    def __len__(self) -> int:
        return self._n

    @property
    def patches(self) -> NDArray[np.int32]:
        """(N,) patch of each cell; -1 for a cell that turned out to be another one."""
        return self._patches[: self._n]

    def in_patch(self, patch: int, low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the ids of the cells of a patch whose centres lie between two corners."""
        x, y = self._centres[: self._n].T
        near = (x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1])
        return np.flatnonzero(near & (self.patches == patch))

    def shapes(self, ids: NDArray[np.intp]) -> Shapes:
        """Return cells in the coordinates of their patches."""
        return Shapes(self._centres[ids], self._areas[ids], self._boxes[ids], self._grids[ids])

    def points(self, ids: NDArray[np.intp]) -> Points:
        """Return cells as points in the coordinates of their patches."""
        return Points(self._centres[ids], np.log(self._areas[ids]))

    def add(self, cells: Shapes, patch: int, probabilities: NDArray[np.float32]) -> None:
        """Store cells (slide coordinates); their ids are the next numbers, in order."""
        a, b = self._n, self._n + len(cells)
        if probabilities.shape[1] != self._probabilities.shape[1]:
            if a:
                raise ValueError("the number of classes changed")
            self._probabilities = np.zeros((len(self._areas), probabilities.shape[1]), np.float32)
        if b > len(self._areas):
            self._grow(max(b, 2 * a, 1024))
        self._n = b
        self._centres[a:b], self._areas[a:b], self._boxes[a:b] = cells.centres, cells.areas, cells.boxes
        self._grids[a:b], self._patches[a:b] = cells.grids, patch
        self._same_as[a:b] = np.arange(a, b)
        self._probabilities[a:b] = probabilities

    def move(self, patch: int, to: int, by: NDArray[np.float64]) -> None:
        """Bring all cells of one patch into another."""
        own = np.flatnonzero(self.patches == patch)
        self._centres[own] += by
        self._boxes[own, :2] += by
        self._patches[own] = to

    def stretch(self, factor: float) -> None:
        """Multiply all lengths, in every patch."""
        self._centres *= factor
        self._boxes *= factor
        self._areas *= factor**2

    def identify(self, ids: NDArray[np.int64], others: NDArray[np.int64]) -> None:
        """Record that `ids` are the same cells as `others`: they no longer stand for themselves."""
        self._same_as[ids] = others
        self._patches[ids] = -1

    def resolve(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the ids under which cells are known now; -1 stays -1."""
        known: NDArray[np.int64] = np.array(ids, np.int64)
        while True:
            further = np.where(known >= 0, self._same_as[known] if self._n else -1, -1)
            if np.array_equal(further, known):
                return known
            known = further.astype(np.int64)

    def probabilities(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """(len(ids), K) float32, NaN where the id is -1."""
        ids = self.resolve(ids)
        out = np.full((len(ids), self._probabilities.shape[1]), np.nan, np.float32)
        out[ids >= 0] = self._probabilities[ids[ids >= 0]]
        return out

    def _grow(self, room: int) -> None:
        for name in ("_centres", "_areas", "_boxes", "_grids", "_patches", "_same_as", "_probabilities"):
            old = getattr(self, name)
            new = np.zeros((room, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)
