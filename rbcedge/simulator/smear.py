"""An unbounded blood smear, drawn where one looks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

import cv2
import numpy as np

from rbcedge.simulator.composition import Composition
from rbcedge.simulator.debris import paint_debris, reach
from rbcedge.simulator.look import Look
from rbcedge.simulator.optics import CLEAR, Camera
from rbcedge.simulator.paint import paint_specimen
from rbcedge.simulator.placing import COLUMNS, Contents, Litter, Slide, Thing, fill_tile, round_of, tile_id
from rbcedge.simulator.view import Debris, Objects, View

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
_DIRT = (0.9, 0.9, 0.85)
_NOTHING = Contents((), ())


class _Recent(OrderedDict[K, V]):
    """The `size` most recently used values."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def fetch(self, key: K, make: Callable[[], V]) -> V:
        if key in self:
            self.move_to_end(key)
            return self[key]
        value = make()
        self[key] = value
        while len(self) > self.size:
            self.popitem(last=False)
        return value


class Smear:
    """A blood smear of any extent with exact truth.

    The slide is a function of its arguments: the same place looks the same in every order of visits.
    Slide coordinates are pixels at the look's scale, x to the right, y down, (0, 0) in the middle.

    Parameters
    ----------
    seed
        Which slide, 0 or more.
    composition
        What is on it; a mostly normal smear by default.
    look
        Appearance.
    cached_tiles
        Tiles kept in memory at least (about 0.3 MB each at 38 px per cell).
    size
        Where given, only the tiles from (0, 0) to this width and height (px) are filled: a single
        field is then drawn several times faster.

    Examples
    --------
    >>> view = Smear(seed=1).view(0, 0, 640, 480)
    >>> view.pixels.shape, view.labels.shape
    ((480, 640, 3), (480, 640))
    """

    def __init__(
        self,
        seed: int = 0,
        composition: Composition | None = None,
        look: Look | None = None,
        *,
        cached_tiles: int = 192,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.seed = seed
        self.composition = composition or Composition()
        self.look = look or Look()
        self.slide = Slide(seed, self.composition, self.look)
        self._size = size
        self._camera = Camera(self.look, seed)
        self._contents: _Recent[tuple[int, int], Contents] = _Recent(3 * cached_tiles)
        self._tiles: _Recent[tuple[int, int], tuple[np.ndarray, np.ndarray]] = _Recent(cached_tiles)
        self._sprites: _Recent[int, tuple[np.ndarray, int, int]] = _Recent(512)
        self._dyes = np.array([self.look.eosin, self.look.azure, _DIRT], np.float32)

    def view(
        self,
        x: float,
        y: float,
        width: int,
        height: int,
        *,
        focus: float = 0.0,
        motion: tuple[float, float] = (0.0, 0.0),
        exposure: float = 1.0,
        noise_seed: int = 0,
    ) -> View:
        """Take a picture of a part of the slide.

        Parameters
        ----------
        x, y
            Slide position of the picture's corner, px; fractions move the picture smoothly, the labels
            stay at the nearest whole pixel.
        width, height
            Size, px.
        focus
            Focus error, 0 in focus; 1 adds a blur of about `look.defocus` px.
        motion
            Way of the slide during the exposure (x, y), px.
        exposure
            Factor on the light.
        noise_seed
            Which camera noise.
        """
        if width < 1 or height < 1:
            raise ValueError("a view has at least one pixel")
        left, top = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
        m = self._camera.margin(focus, motion)
        light, labels, nearby = self._window(left - m, top - m, width + 2 * m, height + 2 * m)
        labels = np.ascontiguousarray(labels[m : m + height, m : m + width])
        pixels = self._camera.expose(light, (x - left, y - top), (width, height), focus, motion, exposure, noise_seed)
        objects = _objects(nearby, labels, left, top)
        return View(pixels, labels, objects, _debris(nearby, left, top, width, height), x, y)

    @property
    def extent(self) -> int:
        """Distance from the middle to the slide's nearest edge, px."""
        return (COLUMNS // 2 - 4) * self.slide.tile

    def whole(self, x: float, y: float, width: int, height: int) -> list[tuple[int, int]]:
        """Return id and class index of every object that `view` would report as whole."""
        left, top = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
        side = self.slide.tile
        found = []
        for row in range(top // side - 1, (top + height - 1) // side + 2):
            for column in range(left // side - 1, (left + width - 1) // side + 2):
                for thing in self.contents(column, row).things:
                    a, b = thing.x - left, thing.y - top
                    h, w = thing.mask.shape
                    if a > 0 and b > 0 and a + w < width and b + h < height:
                        found.append((thing.id, thing.specimen.code))
        return sorted(found)

    def prepare(self, x: float, y: float, width: int, height: int, jobs: int = 1) -> int:
        """Fill or draw tiles in and around a window ahead of need.

        Parameters
        ----------
        x, y, width, height
            Window, as for `view`.
        jobs
            Most pieces of work (about 10 ms each) to do now.

        Returns
        -------
        int
            How many were done; 0 when everything around is at hand.
        """
        side = self.slide.tile
        left, top = int(np.floor(x)), int(np.floor(y))
        missing = [
            (column, row)
            for row in range(top // side - 1, (top + height - 1) // side + 2)
            for column in range(left // side - 1, (left + width - 1) // side + 2)
            if (column, row) not in self._tiles
        ]
        around = {(c + dc, r + dr) for c, r in missing for dc in (-1, 0, 1) for dr in (-1, 0, 1)}
        empty = sorted((key for key in around if key not in self._contents), key=lambda key: round_of(*key))
        for key in empty[:jobs]:
            self.contents(*key)
        drawn = missing[: max(jobs - len(empty), 0)]
        for key in drawn:
            self._tile(*key)
        return min(len(empty), jobs) + len(drawn)

    def contents(self, column: int, row: int) -> Contents:
        """Return what lies in a tile."""
        if self._size is not None:
            side = self.slide.tile
            if not (0 <= column * side < self._size[0] and 0 <= row * side < self._size[1]):
                return _NOTHING
        return self._contents.fetch((column, row), lambda: fill_tile(self.slide, column, row, self.contents))

    def _window(self, left: int, top: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray, list[Contents]]:
        side = self.slide.tile
        light = np.empty((height, width, 3), np.uint8)
        labels = np.empty((height, width), np.int32)
        columns = range(left // side, (left + width - 1) // side + 1)
        rows = range(top // side, (top + height - 1) // side + 1)
        self._tiles.size = max(self._tiles.size, 2 * len(rows) * len(columns))
        self._contents.size = 3 * self._tiles.size
        for row in rows:
            for column in columns:
                tile_light, tile_labels = self._tile(column, row)
                x0, y0 = column * side - left, row * side - top
                a, b = max(x0, 0), min(x0 + side, width)
                c, d = max(y0, 0), min(y0 + side, height)
                light[c:d, a:b] = tile_light[c - y0 : d - y0, a - x0 : b - x0]
                labels[c:d, a:b] = tile_labels[c - y0 : d - y0, a - x0 : b - x0]
        nearby = [
            self.contents(column, row)
            for row in range(rows.start - 1, rows.stop + 1)
            for column in range(columns.start - 1, columns.stop + 1)
        ]
        return light, labels, nearby

    def _tile(self, column: int, row: int) -> tuple[np.ndarray, np.ndarray]:
        return self._tiles.fetch((column, row), lambda: self._draw_tile(column, row))

    def _draw_tile(self, column: int, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a tile's transmission, (S, S, 3) uint8, and labels, (S, S) int32."""
        side = self.slide.tile
        x0, y0 = column * side, row * side
        layers = np.zeros((3, side, side), np.float32)
        labels = np.zeros((side, side), np.int32)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                contents = self.contents(column + dx, row + dy)
                for thing in contents.things:
                    self._draw_thing(thing, layers, labels, x0, y0)
                for spot in contents.litter:
                    self._draw_litter(spot, layers, x0, y0)
        density = np.einsum("lhw,lc->hwc", layers, self._dyes)
        density += self._plasma(column, row)[..., None]
        light = np.exp(-density) * CLEAR
        return np.clip(np.rint(light), 0, 255).astype(np.uint8), labels

    def _draw_thing(self, thing: Thing, layers: np.ndarray, labels: np.ndarray, x0: int, y0: int) -> None:
        side = labels.shape[0]
        h, w = thing.mask.shape
        m = max(3, round(self.look.cell_px * 0.12)) + 4 + self.slide.gap
        if thing.x + w + m < x0 or thing.y + h + m < y0 or thing.x - m > x0 + side or thing.y - m > y0 + side:
            return
        sprite, sx, sy = self._sprites.fetch(thing.id, lambda: paint_specimen(thing.specimen, self.look))
        _add(layers[:2], sprite, thing.origin[0] + sx - x0, thing.origin[1] + sy - y0)
        a, b = max(thing.x - x0, 0), min(thing.x - x0 + w, side)
        c, d = max(thing.y - y0, 0), min(thing.y - y0 + h, side)
        if a < b and c < d:
            part = thing.mask[c - thing.y + y0 : d - thing.y + y0, a - thing.x + x0 : b - thing.x + x0]
            labels[c:d, a:b][part > 0] = thing.id

    def _draw_litter(self, spot: Litter, layers: np.ndarray, x0: int, y0: int) -> None:
        r = reach(spot.kind, spot.size)
        side = layers.shape[1]
        if not (x0 - r <= spot.x <= x0 + side + r and y0 - r <= spot.y <= y0 + side + r):
            return
        _add(layers, paint_debris(spot.kind, spot.size, spot.seed, self.look), spot.x - r - x0, spot.y - r - y0)

    def _plasma(self, column: int, row: int) -> np.ndarray:
        """Return the uneven background of a tile, (S, S) float32 optical density."""
        side = self.slide.tile
        look = self.look
        rng = np.random.default_rng([self.seed, tile_id(column, row), 5])
        plasma = np.zeros((side, side), np.float32)
        if look.grain:
            fine = cv2.GaussianBlur(rng.standard_normal((side, side), dtype=np.float32), (0, 0), 1.0)
            plasma += look.grain / 0.28 * fine
        if look.mottle:
            nodes = 4
            x = np.arange(-2, nodes + 3) + column * nodes
            y = np.arange(-2, nodes + 3) + row * nodes
            lattice = _hashed(x[None, :], y[:, None], self.seed)
            step = side / nodes
            move = np.array([[1 / step, 0, 2 + 0.5 / step], [0, 1 / step, 2 + 0.5 / step]])
            plasma += look.mottle * cv2.warpAffine(
                lattice, move, (side, side), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
            )
        return plasma


def _hashed(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Return a fixed random value, about -1.7 to 1.7, for each lattice point, float32."""
    mask = np.uint64(0xFFFFFFFFFFFFFFFF)
    h = (x.astype(np.int64).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) & mask
    h = h ^ ((y.astype(np.int64).astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)) & mask)
    h = h ^ np.uint64((seed * 0x165667B19E3779F9) % 2**64)
    h = h ^ (h >> np.uint64(29))
    h = (h * np.uint64(0xBF58476D1CE4E5B9)) & mask
    h = h ^ (h >> np.uint64(32))
    return np.asarray(((h >> np.uint64(40)).astype(np.float32) / np.float32(2**24) - 0.5) * np.float32(3.46))


def _add(layers: np.ndarray, patch: np.ndarray, x: int, y: int) -> None:
    h, w = patch.shape[1:]
    a, b = max(x, 0), min(x + w, layers.shape[2])
    c, d = max(y, 0), min(y + h, layers.shape[1])
    if a < b and c < d:
        layers[:, c:d, a:b] += patch[:, c - y : d - y, a - x : b - x]


def _objects(nearby: list[Contents], labels: np.ndarray, left: int, top: int) -> Objects:
    height, width = labels.shape
    rows = []
    for contents in nearby:
        for thing in contents.things:
            x, y = thing.x - left, thing.y - top
            h, w = thing.mask.shape
            if x >= width or y >= height or x + w <= 0 or y + h <= 0:
                continue
            box, area = (x, y, w, h), thing.area
            if x < 0 or y < 0 or x + w > width or y + h > height:
                a, c = max(x, 0), max(y, 0)
                part = labels[c : min(y + h, height), a : min(x + w, width)] == thing.id
                px, py, pw, ph = cv2.boundingRect(part.astype(np.uint8))
                box, area = (a + px, c + py, pw, ph), int(np.count_nonzero(part))
                if area == 0:
                    continue
            whole = box[0] > 0 and box[1] > 0 and box[0] + box[2] < width and box[1] + box[3] < height
            rows.append((thing.id, thing.specimen.code, *thing.centre, *box, area, whole, len(thing.specimen.members)))
    rows.sort()
    table = np.array(rows, np.float64).reshape(-1, 11)
    return Objects(
        ids=table[:, 0].astype(np.int32),
        codes=table[:, 1].astype(np.int32),
        centres=table[:, 2:4].copy(),
        boxes=table[:, 4:8].astype(np.int32),
        areas=table[:, 8].astype(np.int32),
        whole=table[:, 9].astype(bool),
        members=table[:, 10].astype(np.int32),
    )


def _debris(nearby: list[Contents], left: int, top: int, width: int, height: int) -> Debris:
    kinds, boxes = [], []
    for contents in nearby:
        for spot in contents.litter:
            r = int(np.ceil(spot.size / 2))
            a, b = max(spot.x - left - r, 0), min(spot.x - left + r + 1, width)
            c, d = max(spot.y - top - r, 0), min(spot.y - top + r + 1, height)
            if a < b and c < d:
                kinds.append(spot.kind)
                boxes.append((a, c, b - a, d - c))
    return Debris(tuple(kinds), np.array(boxes, np.int32).reshape(-1, 4))
