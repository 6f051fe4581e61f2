"""Pictures to measure on: simulated fields of exactly so many cells, or any source."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import UsageError
from rbcedge.frame import Frame, Gap
from rbcedge.simulator.composition import CODES, Composition
from rbcedge.simulator.debris import draw_size
from rbcedge.simulator.look import Look
from rbcedge.simulator.paint import mask_of
from rbcedge.simulator.placing import Contents, Litter, Slide, Thing
from rbcedge.simulator.smear import Smear
from rbcedge.simulator.specimens import draw_specimen
from rbcedge.simulator.view import View
from rbcedge.sources.base import Kind
from rbcedge.sources.buffers import Buffers, no_buffers

#: Cells of a usual field of 640x480.
USUAL_CELLS = 75
_USUAL_PX = 640 * 480
# Specimens tried for a place; below this pitch, in cell diameters, only single cells are.
_TRIES = 6
_CROWDED = 1.45
# Last, finest grids that are tried before it is said that so many do not fit.
_LAST = 3
# Times it is begun anew where there is room enough: an ill chance may have spread the first cells badly.
_ATTEMPTS = 5
_SINGLE = ("NOR", "OVA", "TEA", "FRA", "BUR")


def usual_cells(width: int, height: int) -> int:
    """Return how many cells a usual field of this size holds at the plain look's scale."""
    return max(1, round(USUAL_CELLS * width * height / _USUAL_PX))


class Laid(Smear):
    """A slide on which only given things lie."""

    def __init__(self, seed: int, composition: Composition, look: Look, tiles: dict[tuple[int, int], Contents]) -> None:
        super().__init__(seed, composition, look)
        self._laid = tiles

    def contents(self, column: int, row: int) -> Contents:
        """Return what lies in a tile."""
        return self._laid.get((column, row), Contents((), ()))


def exact_field(
    seed: int, width: int, height: int, cells: int, composition: Composition | None = None, look: Look | None = None
) -> View:
    """Draw a field that shows exactly `cells` objects, each of them whole.

    Objects lie on the shaken places of a hexagonal grid, so that more fit than on the simulator's own slides, where
    each finds its place by chance. Where it is crowded, only single cells are drawn: overlaps would find no
    place.

    Parameters
    ----------
    seed : int
    width, height : int
        px.
    cells : int
        Objects, 1 or more; two or three overlapped cells are one.
    composition, look
        Of the slide; density, touching and leucocytes of the composition are not used.

    Raises
    ------
    UsageError
        So many do not fit; the message says how many do.
    """
    composition, look = composition or Composition(), look or Look()
    slide = Slide(seed, composition, look)
    widest = max(1.12 * look.cell_px, 0.9 * float(np.sqrt(width * height / cells / 0.87)))
    # Finer grids, shifted, fill what the first one left free.
    pitches = [widest * 0.9**k for k in range(1, 20) if widest * 0.9**k > 0.8 * look.cell_px]
    pitches = [widest, *pitches, *[0.8 * look.cell_px] * _LAST]
    roomy = cells * (1.2 * look.cell_px) ** 2 < width * height
    most = 0
    for attempt in range(_ATTEMPTS if roomy else 1):
        rng = np.random.default_rng([seed, cells, attempt])
        taken = np.zeros((height, width), np.uint8)
        things: list[Thing] = []
        for k, pitch in enumerate(pitches):
            _lay(rng, slide, taken, things, cells, pitch, shifted=k > 0)
            if len(things) == cells:
                tiles = _by_tile(things, _litter(rng, slide, width, height), slide.tile)
                return Laid(seed, composition, look, tiles).view(0, 0, width, height, noise_seed=seed)
        most = max(most, len(things))
    raise UsageError(
        f"{cells} cells do not fit into {width}x{height} px at {look.cell_px:g} px each; about {most} do. "
        "Ask for fewer cells, or for a larger picture."
    )


def _lay(
    rng: np.random.Generator,
    slide: Slide,
    taken: NDArray[np.uint8],
    things: list[Thing],
    cells: int,
    pitch: float,
    shifted: bool,
) -> None:
    """Place objects on a grid of `pitch` px until there are `cells`; fills `taken` and `things`."""
    height, width = taken.shape
    around = slide.gap + 1
    kernel = np.ones((2 * around + 1,) * 2, np.uint8)
    weights = slide.composition.weights()
    if pitch < _CROWDED * slide.look.cell_px:
        weights = weights * np.array([code in _SINGLE for code in CODES])
    if not weights.any():
        return
    shake = max(0.0, (pitch - 1.1 * slide.look.cell_px) / 2)
    for x, y in _grid(rng, (width, height), pitch, slide.look.cell_px / 2 + around, shifted):
        for attempt in range(0 if taken[round(y), round(x)] else _TRIES):
            code = int(rng.choice(len(weights), p=weights / weights.sum()))
            specimen = draw_specimen(rng, code, slide.composition, slide.look.cell_px, slide.direction)
            mask, dx, dy = mask_of(specimen)
            h, w = mask.shape
            # The middle of its box on the place, shaken less with each attempt.
            jitter = rng.uniform(-shake, shake, 2) * (1 - attempt / _TRIES)
            left, top = round(x + jitter[0] - w / 2), round(y + jitter[1] - h / 2)
            if left < 1 or top < 1 or left + w > width - 1 or top + h > height - 1:
                continue
            if max(w, h) > slide.tile // 2 - around or (taken[top : top + h, left : left + w] & mask).any():
                continue
            grown = cv2.dilate(cv2.copyMakeBorder(mask, *(around,) * 4, cv2.BORDER_CONSTANT), kernel)
            _paste(taken, grown, left - around, top - around)
            moments = cv2.moments(mask, binaryImage=True)
            area = moments["m00"]
            centre = (left + moments["m10"] / area, top + moments["m01"] / area)
            things.append(Thing(len(things) + 1, specimen, (left - dx, top - dy), mask, left, top, int(area), centre))
            break
        if len(things) == cells:
            return


def _grid(
    rng: np.random.Generator, size: tuple[int, int], pitch: float, margin: float, shifted: bool
) -> list[tuple[float, float]]:
    """Places of a hexagonal grid within the margin, in random order."""
    places = []
    left, top = rng.uniform(0, pitch, 2) if shifted else (0.0, 0.0)
    y, row = margin + top, 0
    while y <= size[1] - margin:
        x = margin + (left + (row % 2) * pitch / 2) % pitch
        while x <= size[0] - margin:
            places.append((x, y))
            x += pitch
        y, row = y + pitch * 0.87, row + 1
    return [places[k] for k in rng.permutation(len(places))]


def _paste(taken: NDArray[np.uint8], mask: NDArray[np.uint8], x: int, y: int) -> None:
    h, w = mask.shape
    a, b = max(x, 0), min(x + w, taken.shape[1])
    c, d = max(y, 0), min(y + h, taken.shape[0])
    taken[c:d, a:b] |= mask[c - y : d - y, a - x : b - x]


def _litter(rng: np.random.Generator, slide: Slide, width: int, height: int) -> list[Litter]:
    """Platelets and dirt at the composition's rates, anywhere."""
    units = width * height * (slide.look.um_per_px / 100.0) ** 2
    litter = []
    for kind, rate in (("platelet", slide.composition.platelets), ("dirt", slide.composition.dirt)):
        for _ in range(int(rng.poisson(rate * units))):
            x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
            litter.append(Litter(kind, x, y, draw_size(rng, kind, slide.look.cell_px), int(rng.integers(2**31))))
    return litter


def _by_tile(things: list[Thing], litter: list[Litter], side: int) -> dict[tuple[int, int], Contents]:
    tiles: dict[tuple[int, int], tuple[list[Thing], list[Litter]]] = {}
    for thing in things:
        key = (thing.origin[0] // side, thing.origin[1] // side)
        tiles.setdefault(key, ([], []))[0].append(thing)
    for spot in litter:
        tiles.setdefault((spot.x // side, spot.y // side), ([], []))[1].append(spot)
    return {key: Contents(tuple(a), tuple(b)) for key, (a, b) in tiles.items()}


class Drawn:
    """A source of pictures that are in memory already: nothing is spent on getting them.

    Given buffers it copies them there, which stands for a camera's decoder and is part of the capture.
    """

    def __init__(self, pictures: list[NDArray[np.uint8]], name: str, buffers: Buffers | None = None) -> None:
        self._pictures, self._name = pictures, name
        self._buffers = buffers or no_buffers()
        self._buffers.want(*pictures[0].shape[1::-1])

    def into(self, buffers: Buffers | None) -> Drawn:
        """Return a source of the same pictures that decodes into `buffers`."""
        return Drawn(self._pictures, self._name, buffers)

    @property
    def name(self) -> str:
        return self._name

    @property
    def kind(self) -> Kind:
        return "stills"

    @property
    def description(self) -> str:
        h, w = self._pictures[0].shape[:2]
        return f"{self._name}: {len(self._pictures)} pictures of {w}x{h}, drawn beforehand"

    @property
    def dropped(self) -> int:
        return 0

    def __len__(self) -> int:
        return len(self._pictures)

    def frames(self) -> Iterator[Frame | Gap]:
        for k, pixels in enumerate(self._pictures):
            place = self._buffers.take()
            if place is not None:
                np.copyto(place, pixels)
            yield Frame(k, 0.0, pixels if place is None else place, f"{self._name} {k}", place is not None)
            if place is not None:
                self._buffers.give_back(place)

    def close(self) -> None:
        pass


def exact_fields(
    width: int,
    height: int,
    cells: int,
    count: int,
    seed: int = 0,
    composition: Composition | None = None,
    look: Look | None = None,
) -> Drawn:
    """Draw `count` different fields of exactly `cells` objects each; see `exact_field`."""
    pictures = [exact_field(seed + k, width, height, cells, composition, look).pixels for k in range(count)]
    return Drawn(pictures, "simulated fields")
