"""Pictures of disagreements: cells with what the label says and what the network says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from rbcedge.training.evaluation.figures import new_figure
from rbcedge.training.scoring import Box

from rbcedge.errors import RbcedgeError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Side of a tile in source px: the cell with what lies around it.
SIDE = 80


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A cell whose class differs from its label.

    Attributes
    ----------
    picture : Path
    box : tuple of float
        x, y, w, h in px.
    truth, guess : str
    confidence : float
        Probability of `guess`.
    """

    picture: Path
    box: Box
    truth: str
    guess: str
    confidence: float


def tile(pixels: NDArray[np.uint8], box: Box, side: int = SIDE) -> NDArray[np.uint8]:
    """Cut (side, side, 3) uint8 RGB around the middle of a box out of a BGR picture; grey beyond its edge.

    A cell larger than `side` is shown whole, smaller.
    """
    x, y, w, h = box
    window = max(side, round(max(w, h) * 1.15))
    x0, y0 = round(x + w / 2 - window / 2), round(y + h / 2 - window / 2)
    padded = cv2.copyMakeBorder(pixels, window, window, window, window, cv2.BORDER_CONSTANT, value=(200, 200, 200))
    cut = padded[y0 + window : y0 + 2 * window, x0 + window : x0 + 2 * window, ::-1]
    return cut if window == side else cv2.resize(cut, (side, side), interpolation=cv2.INTER_AREA)


def by_confidence(
    disagreements: Sequence[Disagreement], what: str = "disagreements", columns: int = 8, rows: int = 5
) -> Figure:
    """The most confident of some disagreements, `what` they are called, first."""
    shown = sorted(disagreements, key=lambda d: -d.confidence)[: columns * rows]
    figure = new_figure(1.15 * columns, 1.52 * max(1, -(-len(shown) // columns)) + 0.3)
    _tiles(figure, [shown[i : i + columns] for i in range(0, len(shown), columns)], columns, [])
    figure.suptitle(
        f"label → called, probability, picture: the most confident of {len(disagreements):,} {what}", fontsize=9
    )
    return figure


def by_pair(disagreements: Sequence[Disagreement], columns: int = 8, rows: int = 8) -> Figure:
    """The commonest pairs of classes, a row each, the most confident first."""
    pairs: dict[tuple[str, str], list[Disagreement]] = defaultdict(list)
    for d in disagreements:
        pairs[d.truth, d.guess].append(d)
    common = sorted(pairs.items(), key=lambda kv: (-len(kv[1]), kv[0]))[:rows]
    lines = [sorted(found, key=lambda d: -d.confidence)[:columns] for _, found in common]
    titles = [f"{t} → {g}\n{len(found):,} cells" for (t, g), found in common]
    figure = new_figure(1.15 * columns + 0.9, 1.4 * max(1, len(lines)) + 0.3)
    _tiles(figure, lines, columns, titles)
    figure.suptitle("label → called: the commonest pairs, the most confident first", fontsize=9)
    return figure


def places(found: Sequence[tuple[Path, Box]], title: str, columns: int = 8, rows: int = 4) -> Figure:
    """Objects without a label of their own: marks that were missed, things that hold no mark."""
    step = max(1, -(-len(found) // (columns * rows)))
    shown = [Disagreement(p, b, "", "", float("nan")) for p, b in found[::step]]
    figure = new_figure(1.15 * columns, 1.38 * max(1, -(-len(shown) // columns)) + 0.3)
    _tiles(figure, [shown[i : i + columns] for i in range(0, len(shown), columns)], columns, [])
    figure.suptitle(f"{title}: {len(shown)} of {len(found):,}", fontsize=9)
    return figure


def _tiles(figure: Figure, lines: Sequence[Sequence[Disagreement]], columns: int, titles: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle

    read = lru_cache(maxsize=64)(_read)
    grid = figure.subplots(max(1, len(lines)), columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for r, line in enumerate(lines):
        for c, d in enumerate(line):
            axes = grid[r, c]
            axes.imshow(tile(read(d.picture), d.box), interpolation="nearest")
            if not d.truth:
                w, h = d.box[2:]
                corner = ((SIDE - w) / 2 - 0.5, (SIDE - h) / 2 - 0.5)
                axes.add_patch(Rectangle(corner, w, h, fill=False, edgecolor="black", linewidth=0.7, linestyle=":"))
            first = f"{d.truth} → {d.guess} {d.confidence:.2f}\n" if not titles and d.truth else ""
            second = f"{d.confidence:.2f}  {d.picture.stem}" if titles else d.picture.name
            axes.set_title(first + second, fontsize=6.5, pad=2)
        if titles:
            grid[r, 0].text(-0.12, 0.5, titles[r], transform=grid[r, 0].transAxes, ha="right", va="center", fontsize=8)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)


def _read(path: Path) -> NDArray[np.uint8]:
    pixels = cv2.imread(str(path))
    if pixels is None:
        raise RbcedgeError(f"{path}: cannot be read as a picture.")
    return np.asarray(pixels, np.uint8)
