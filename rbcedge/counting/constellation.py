"""Recognise a place of the slide by its cells: match a constellation of centres and areas with stored cells.

A displacement is judged by the logarithm of a likelihood ratio: how much more probable the field's cells are
if they *are* the stored ones, seen again, than if the field were another place with cells of the same density
and sizes. Each stored cell that should be in view adds to it (seen where it should be) or takes away (not seen).
If the places differ, the ratio exceeds exp(x) with a probability of at most exp(-x) for one displacement
(Markov's inequality), so with M displacements tried, accepting above log(M) + 6 is wrong less than once in 400
searches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Scatter of a cell's centre (native px) and of the logarithm of its area between two sightings.
_SIGMA_PX, _SIGMA_AREA = 1.5, 0.08
# Share of stored cells that are not found again as they were: split, merged, missed.
_LOST = 0.1
# Pairs of cells whose areas differ by more than this (logarithm) are not the same cell.
_AREA_STEP = 0.35
# In a search among all stored cells only near ones vote.
_VOTE_STEP = 0.2
# Ranges of the iterated refinement, native px.
_RANGES = (12.0, 8.0, 6.0, 5.0)
# Displacements nearer to each other than this are one, native px.
_DISTINCT_PX = 6.0
# Votes for one displacement lie this near to each other, native px.
_TIGHT_PX = 3.0
_BIN_PX = 8.0
_BUCKETS = 1 << 19
_CROWDED = 300
# A search among few stored cells can afford to look closer: numbers of pairs that vote, and of pairs gone
# through again for the best bins.
_VOTES, _READINGS = 1_000_000, 12_000_000
_FEWEST_VOTERS, _FEWEST_PEAKS, _MOST_PEAKS = 40, 6, 24


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Cells as points: positions (N, 2) float64 in native px, log_areas (N,) float64."""

    positions: NDArray[np.float64]
    log_areas: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Points:
        """Return some of the points."""
        return Points(self.positions[rows], self.log_areas[rows])


@dataclass(frozen=True, slots=True)
class Match:
    """A displacement that brings a field's cells upon stored ones.

    Attributes
    ----------
    offset : (float, float)
        Slide position of the field's corner, native px.
    score : float
        Logarithm of the likelihood ratio against chance.
    pairs : int
        Cells found again.
    expected : int
        Stored cells that should have been found again.
    """

    offset: tuple[float, float]
    score: float
    pairs: int
    expected: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """Where in the field a stored cell should be found again, native px from the field's corner."""

    left: float
    top: float
    right: float
    bottom: float

    def holds(self, positions: NDArray[np.float64], offset: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(N,) bool: which slide positions lie in the window of a field at `offset`."""
        x, y = positions[:, 0] - offset[0], positions[:, 1] - offset[1]
        return np.asarray((x >= self.left) & (x <= self.right) & (y >= self.top) & (y <= self.bottom))


def candidates_near(
    field: Points, stored: Points, offset: NDArray[np.float64], radius: float
) -> list[NDArray[np.float64]]:
    """Return `offset` and displacements within `radius` of it for which many pairs of cells agree."""
    best = [offset]
    if len(field) and len(stored):
        apart = stored.positions[None, :, :] - field.positions[:, None, :] - offset
        alike = np.abs(stored.log_areas[None, :] - field.log_areas[:, None]) < _AREA_STEP
        votes = apart[(np.abs(apart) <= radius).all(2) & alike]
        if len(votes) and radius > _RANGES[0] / 2:
            side = int(2 * radius / _BIN_PX) + 2
            bins = ((votes + radius) / _BIN_PX).astype(np.intp)
            heap = np.bincount(bins[:, 0] * side + bins[:, 1], minlength=side * side).reshape(side, side)
            # Four bins together, so that a peak on a border between bins is not lost.
            heap = heap[:-1, :-1] + heap[1:, :-1] + heap[:-1, 1:] + heap[1:, 1:]
            for k in np.argsort(heap, axis=None)[::-1][:_FEWEST_PEAKS]:
                x, y = np.unravel_index(k, heap.shape)
                best.append(offset + (np.array([x, y]) + 1) * _BIN_PX - radius)
    return best


def candidates_anywhere(
    field: Points, stored: Points, patches: NDArray[np.int32]
) -> list[tuple[int, NDArray[np.float64]]]:
    """Return (patch, displacement) for which most pairs of cells agree, over all stored cells.

    Votes go into hashed bins, so that memory does not grow with the slide's extent. The hash is linear: the bin of
    a difference is the difference of two bins, one subtraction for each pair.
    """
    if not len(field) or not len(stored):
        return []
    # The most unusual sizes say most, and a part of the cells says enough.
    unusual = np.argsort(-np.abs(field.log_areas - np.median(field.log_areas)), kind="stable")
    voters = field.take(unusual[: max(_FEWEST_VOTERS, _VOTES // len(stored))])
    by_area = np.argsort(stored.log_areas, kind="stable")
    stored, patches = stored.take(by_area), patches[by_area]
    first = np.searchsorted(stored.log_areas, voters.log_areas - _VOTE_STEP)
    last = np.searchsorted(stored.log_areas, voters.log_areas + _VOTE_STEP)
    votes = int((last - first).sum())
    peaks = min(_MOST_PEAKS, max(_FEWEST_PEAKS, _READINGS // (4 * votes + 1)))
    buckets = min(_BUCKETS, 1 << max(14, votes.bit_length() + 1))
    salt = patches.astype(np.int64) * 2654435761
    found: list[tuple[int, int, NDArray[np.float64]]] = []
    # A displacement between bins spreads over several; in one of these four phases it hardly does.
    for phase in ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)):
        theirs = _hash(np.floor(stored.positions / _BIN_PX + phase)) + salt
        ours = _hash(np.floor(voters.positions / _BIN_PX))
        keys = np.concatenate([theirs[i:j] - k for i, j, k in zip(first, last, ours, strict=True)])
        keys &= buckets - 1
        heap = np.bincount(keys, minlength=buckets)
        high = np.flatnonzero(heap >= max(3, int(heap.max()) // 2))
        for bucket in high[np.argsort(-heap[high], kind="stable")[:peaks]]:
            vote = np.flatnonzero(keys == bucket)
            starts = np.cumsum(last - first) - (last - first)
            f = np.searchsorted(starts, vote, side="right") - 1
            s = first[f] + vote - starts[f]
            found.extend(_peaks(stored.positions[s] - voters.positions[f], patches[s]))
    found.sort(key=lambda entry: -entry[0])
    chosen: list[tuple[int, NDArray[np.float64]]] = []
    for _, patch, offset in found:
        if all(p != patch or np.abs(o - offset).max() > _DISTINCT_PX for p, o in chosen):
            chosen.append((patch, offset))
    return chosen[: 3 * _FEWEST_PEAKS]


def _hash(bins: NDArray[np.float64]) -> NDArray[np.int64]:
    whole = bins.astype(np.int64)
    return np.asarray(whole[:, 0] * 73856093 + whole[:, 1] * 19349663)


def _peaks(apart: NDArray[np.float64], patches: NDArray[np.int32]) -> list[tuple[int, int, NDArray[np.float64]]]:
    """Take a bucket apart: its patches, and within each the densest place."""
    result = []
    for patch in np.unique(patches):
        own = apart[patches == patch][:_CROWDED]
        if len(own) < 3:
            continue
        near = (np.abs(own[:, None, :] - own[None, :, :]) <= _TIGHT_PX).all(2)
        counts = near.sum(1)
        top = int(counts.argmax())
        result.append((int(counts[top]), int(patch), own[near[top]].mean(0)))
    return result


def refine(field: Points, stored: Points, offset: NDArray[np.float64], window: Window, crowd: float) -> Match:
    """Bring the field's cells upon the stored ones near `offset` by least squares, and judge the result.

    Parameters
    ----------
    field : Points
        Whole cells, positions from the field's corner.
    stored : Points
        In slide coordinates.
    offset : (2,) float
        First guess of the field's corner on the slide.
    window : Window
        Where stored cells are expected to be found again.
    crowd : float
        Cells per native px² in the field.
    """
    at = np.asarray(offset, np.float64)
    x, y = (stored.positions[:, k][None, :] - (field.positions[:, k] + at[k])[:, None] for k in (0, 1))
    f, s = np.nonzero((np.abs(x) <= 2 * _RANGES[0]) & (np.abs(y) <= 2 * _RANGES[0]))
    apart = stored.positions[s] - field.positions[f]
    areas = stored.log_areas[s] - field.log_areas[f]
    alike = np.abs(areas) < _AREA_STEP
    swelling = 0.0
    for reach in _RANGES:
        near = alike & (((apart - at) ** 2).sum(1) <= reach**2)
        if near.any():
            at = apart[near].mean(0)
            # Another focus or exposure swells all cells alike.
            swelling = float(np.median(areas[near])) if near.sum() >= 5 else 0.0
    expected = window.holds(stored.positions, at)
    spread = max(0.12, float(field.log_areas.std())) if len(field) else 0.12
    gain = (
        np.log((1 - _LOST) / (2 * np.pi * _SIGMA_PX**2 * crowd))
        - ((apart - at) ** 2).sum(1) / (2 * _SIGMA_PX**2)
        + np.log(np.sqrt(2) * spread / _SIGMA_AREA)
        - (areas - swelling) ** 2 * (1 / (2 * _SIGMA_AREA**2) - 1 / (4 * spread**2))
    )
    best = np.full(len(stored), np.log(_LOST))
    np.maximum.at(best, s, gain)
    best = best[expected]
    return Match((float(at[0]), float(at[1])), float(best.sum()), int((best > 0).sum()), len(best))


def distinct(a: Match, b: Match) -> bool:
    """Whether two matches mean different displacements."""
    return max(abs(a.offset[0] - b.offset[0]), abs(a.offset[1] - b.offset[1])) > _DISTINCT_PX


def trials(radius: float) -> float:
    """Number of different displacements within `radius` of a guess."""
    return max(1.0, (2 * radius / (2 * _SIGMA_PX)) ** 2)


def trials_anywhere(stored: Points, patches: NDArray[np.int32], size: tuple[float, float]) -> float:
    """Number of different displacements of a field of `size` over all stored cells."""
    total = 0.0
    order = np.argsort(patches, kind="stable")
    cuts = np.flatnonzero(np.diff(patches[order])) + 1
    starts = np.concatenate([[0], cuts]) if len(order) else np.zeros(0, np.intp)
    if len(starts):
        low = np.minimum.reduceat(stored.positions[order], starts)
        high = np.maximum.reduceat(stored.positions[order], starts)
        total = float(np.prod(high - low + np.array(size), axis=1).sum())
    return max(1.0, total / (2 * _SIGMA_PX) ** 2)
