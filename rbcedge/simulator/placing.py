"""Where things lie: a slide of tiles, each filled the same way whatever was visited before.

Tiles are filled in four rounds by the parity of their column and row. A tile depends only on
neighbours of an earlier round, so that its contents are a function of the seed and its position
alone, and objects of different tiles still keep clear of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from rbcedge.simulator.composition import Composition
from rbcedge.simulator.debris import draw_size, reach
from rbcedge.simulator.look import Look
from rbcedge.simulator.paint import largest_part, mask_of
from rbcedge.simulator.specimens import Specimen, draw_specimen

COLUMNS = 2048
PER_TILE = 512
_TRIES = 24


@dataclass(frozen=True, eq=False)
class Thing:
    """One object on the slide.

    Attributes
    ----------
    id
        Unique on the slide, positive, fits int32.
    specimen
        Its cells, outlines around the specimen's own origin.
    origin
        (x, y) slide position of that origin, px (integers).
    mask
        (h, w) 0/1 uint8: its label region.
    x, y
        Slide position of the mask's corner, px.
    area
        Pixels in the mask.
    centre
        (x, y) slide position of the mask's centroid, px.
    """

    id: int
    specimen: Specimen
    origin: tuple[int, int]
    mask: np.ndarray
    x: int
    y: int
    area: int
    centre: tuple[float, float]


@dataclass(frozen=True)
class Litter:
    """One thing that is not a red cell: kind, centre (slide px), diameter (px), seed."""

    kind: str
    x: int
    y: int
    size: float
    seed: int


@dataclass(frozen=True, eq=False)
class Contents:
    """What was placed in a tile."""

    things: tuple[Thing, ...]
    litter: tuple[Litter, ...]


@dataclass(frozen=True)
class Slide:
    """What determines a slide: seed, composition, look, and what follows from them."""

    seed: int
    composition: Composition
    look: Look

    @cached_property
    def tile(self) -> int:
        """Side of a tile, px; a multiple of four, about 4.75 cell diameters."""
        return 4 * round(self.look.cell_px * 4.75 / 4)

    @cached_property
    def gap(self) -> int:
        """Background kept between the label regions of touching cells, px."""
        return max(1, round(1.5 * self.look.cell_px / 38.0))

    @cached_property
    def direction(self) -> float:
        """Direction of spreading, radians."""
        return float(np.random.default_rng([self.seed, 7]).uniform(0, 2 * np.pi))


def tile_id(column: int, row: int) -> int:
    """Return the number of a tile; raise `ValueError` beyond the slide's edge."""
    half = COLUMNS // 2
    if not (-half <= column < half and -half <= row < half):
        raise ValueError(f"tile {column}, {row} lies beyond the edge of the slide")
    return (row + half) * COLUMNS + column + half


def round_of(column: int, row: int) -> int:
    """Return the round, 0 to 3, in which a tile is filled."""
    return (column & 1) + 2 * (row & 1)


def fill_tile(slide: Slide, column: int, row: int, neighbour: Callable[[int, int], Contents]) -> Contents:
    """Place the objects of one tile.

    Parameters
    ----------
    slide
        The slide.
    column, row
        The tile.
    neighbour
        Returns the contents of a tile; called only for tiles of earlier rounds.
    """
    number = tile_id(column, row)
    side = slide.tile
    rng = np.random.default_rng([slide.seed, number])
    board = _Board(slide, column, row)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if round_of(column + dx, row + dy) < round_of(column, row):
                board.add_neighbour(neighbour(column + dx, row + dy))

    composition, look = slide.composition, slide.look
    units = (side * look.um_per_px / 100.0) ** 2
    litter = []
    for _ in range(int(rng.poisson(composition.leucocytes * units))):
        spot = board.place_leucocyte(rng, draw_size(rng, "leucocyte", look.cell_px))
        if spot is not None:
            litter.append(spot)

    weights = composition.weights()
    count = min(int(rng.poisson(composition.density * units)), PER_TILE - 1)
    codes = rng.choice(len(weights), size=count, p=weights / weights.sum())
    specimens = [draw_specimen(rng, int(c), composition, look.cell_px, slide.direction) for c in codes]
    masked = [(s, *mask_of(s)) for s in specimens]
    order = sorted(range(count), key=lambda i: -int(masked[i][1].size))  # large ones are hardest to place
    things: list[Thing] = []
    for i in order:
        specimen, mask, x, y = masked[i]
        thing = board.place(rng, number * PER_TILE + len(things) + 1, specimen, mask, x, y)
        if thing is not None:
            things.append(thing)

    for kind, rate in (
        ("platelet", composition.platelets),
        ("dirt", composition.dirt),
        ("ghost", composition.ghosts),
    ):
        for _ in range(int(rng.poisson(rate * units))):
            x, y = (int(v) for v in rng.integers(0, side, 2))
            x, y = x + column * side, y + row * side
            litter.append(Litter(kind, x, y, draw_size(rng, kind, look.cell_px), int(rng.integers(2**31))))
    return Contents(tuple(things), tuple(litter))


class _Board:
    """The tile and its eight neighbours as a map of what is taken."""

    def __init__(self, slide: Slide, column: int, row: int) -> None:
        self.slide = slide
        self.side = slide.tile
        self.x0, self.y0 = (column - 1) * self.side, (row - 1) * self.side
        self.taken = np.zeros((3 * self.side, 3 * self.side), np.uint8)
        self.kernel = np.ones((2 * slide.gap + 1,) * 2, np.uint8)
        self.discs: list[tuple[float, float, float]] = []

    def add_neighbour(self, contents: Contents) -> None:
        for thing in contents.things:
            self._take(thing.mask, thing.x - self.x0, thing.y - self.y0)
        for spot in contents.litter:
            if spot.kind == "leucocyte":
                self._disc(spot)

    def place_leucocyte(self, rng: np.random.Generator, size: float) -> Litter | None:
        for _ in range(_TRIES):
            x, y = (int(v) for v in rng.integers(self.side, 2 * self.side, 2))
            r = int(size * 0.6)
            if not self.taken[y - r : y + r + 1, x - r : x + r + 1].any():
                spot = Litter("leucocyte", x + self.x0, y + self.y0, size, int(rng.integers(2**31)))
                self._disc(spot)
                return spot
        return None

    def place(
        self, rng: np.random.Generator, number: int, specimen: Specimen, mask: np.ndarray, dx: int, dy: int
    ) -> Thing | None:
        """Place a specimen whose mask's corner lies at (dx, dy) from its origin."""
        h, w = mask.shape
        if max(abs(dx), abs(dy), abs(dx + w), abs(dy + h)) > self.side // 2 - self.slide.gap - 1:
            return None
        touch = rng.random() < self.slide.composition.touching
        for attempt in range(_TRIES):
            if touch and self.discs and attempt < _TRIES // 2:
                at = self._slide_in(rng, mask, dx, dy)
            else:
                at = self._free_spot(rng, mask, dx, dy)
            if at is None:
                continue
            label = self._carved(mask, at[0] + dx, at[1] + dy)
            if label is not None:
                return self._commit(number, specimen, label, at, dx, dy)
        return None

    def _free_spot(self, rng: np.random.Generator, mask: np.ndarray, dx: int, dy: int) -> tuple[int, int] | None:
        h, w = mask.shape
        x, y = (int(v) for v in rng.integers(self.side, 2 * self.side, 2))
        apart = self.slide.gap + 1
        window = self.taken[y + dy - apart : y + dy + h + apart, x + dx - apart : x + dx + w + apart]
        if cv2.countNonZero(window):
            around = cv2.dilate(cv2.copyMakeBorder(mask, *(apart,) * 4, cv2.BORDER_CONSTANT), self.kernel)
            if (window & around).any():
                return None
        return x, y

    def _slide_in(self, rng: np.random.Generator, mask: np.ndarray, dx: int, dy: int) -> tuple[int, int] | None:
        """Push the specimen towards a neighbour until they just meet."""
        h, w = mask.shape
        cx, cy, r = self.discs[int(rng.integers(len(self.discs)))]
        angle = rng.uniform(0, 2 * np.pi)
        c, s = float(np.cos(angle)), float(np.sin(angle))
        start = r + np.hypot(h, w) / 2 + 3
        best = None
        for back in range(int(start * 0.8)):
            x, y = round(cx + c * (start - back)), round(cy + s * (start - back))
            if not (self.side <= x < 2 * self.side and self.side <= y < 2 * self.side):
                if best is None:
                    return None
                break
            window = self.taken[y + dy : y + dy + h, x + dx : x + dx + w]
            if int(np.count_nonzero(window & mask)) > 2:
                break
            best = (x, y)
        return best

    def _carved(self, mask: np.ndarray, x: int, y: int) -> np.ndarray | None:
        """Return the mask without the pixels too near to others, or None if that would spoil it."""
        g = self.slide.gap
        h, w = mask.shape
        window = self.taken[y - g : y + h + g, x - g : x + w + g]
        if not cv2.countNonZero(window):
            return mask
        near = cv2.dilate(window, self.kernel)[g : g + h, g : g + w]
        label = largest_part(mask & (1 - near))
        if int(label.sum()) < 0.93 * int(mask.sum()):
            return None
        return label

    def _commit(
        self, number: int, specimen: Specimen, label: np.ndarray, at: tuple[int, int], dx: int, dy: int
    ) -> Thing:
        x, y, w, h = cv2.boundingRect(label)
        label = np.ascontiguousarray(label[y : y + h, x : x + w])
        left, top = at[0] + dx + x, at[1] + dy + y
        self._take(label, left, top)
        moments = cv2.moments(label, binaryImage=True)
        centre = (
            left + self.x0 + moments["m10"] / moments["m00"],
            top + self.y0 + moments["m01"] / moments["m00"],
        )
        origin = (at[0] + self.x0, at[1] + self.y0)
        return Thing(number, specimen, origin, label, left + self.x0, top + self.y0, int(moments["m00"]), centre)

    def _take(self, mask: np.ndarray, x: int, y: int) -> None:
        h, w = mask.shape
        size = self.taken.shape[0]
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, size), min(y + h, size)
        if left < right and top < bottom:
            self.taken[top:bottom, left:right] |= mask[top - y : bottom - y, left - x : right - x]
            self.discs.append((x + w / 2, y + h / 2, max(w, h) / 2))

    def _disc(self, spot: Litter) -> None:
        r = reach("leucocyte", spot.size) // 2 + 2
        cv2.circle(self.taken, (spot.x - self.x0, spot.y - self.y0), r, 1, -1)
