"""A field with its cells drawn in: outline in the colour of the class, code beside it, a legend below."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from rbcedge.field import Field
from rbcedge.palette import RGB, colours

_FONT = cv2.FONT_HERSHEY_SIMPLEX
# A cell is drawn at least this wide, so that its code can be read; pictures are enlarged by whole numbers.
_LEAST_CELL_PX = 60
_LARGEST_SIDE = 2600
_LEGEND_PX = 34
# Of cells that are not counted.
_EDGE = (90, 90, 90)


def draw(field: Field, codes: Sequence[str], confidence_threshold: float) -> NDArray[np.uint8]:
    """Draw a classified field.

    Cells that touch the picture's edge are not counted: they are dashed grey lines. Cells below the
    confidence threshold are dashed in the colour of their most probable class, with a question mark.

    Parameters
    ----------
    field : Field
    codes : sequence of str
        In the order of the probabilities.
    confidence_threshold : float

    Returns
    -------
    (H', W', 3) uint8
        Blue, green, red; an integer multiple of the source picture, and the legend strip below it.
    """
    cells, (width, height) = field.cells, field.frame.size
    factor = _enlargement(field)
    out = cv2.resize(field.frame.pixels, (width * factor, height * factor), interpolation=cv2.INTER_CUBIC)
    palette = [_bgr(c) for c in colours(len(codes))]
    best, sure = cells.best, cells.confidences >= confidence_threshold
    thickness = 2 if factor * _typical(field) >= 40 else 1
    texts: list[tuple[int, str, tuple[int, int, int]]] = []
    for i in range(len(cells)):
        border, k = bool(cells.on_border[i]), int(best[i])
        colour = _EDGE if border or k < 0 else palette[k]
        for outline in _outlines(field.labels, cells.boxes[i], i + 1, factor):
            if border or k < 0 or not sure[i]:
                _dashed(out, outline, colour, thickness)
            else:
                cv2.polylines(out, [outline], True, colour, thickness, cv2.LINE_AA)
        if k >= 0 and not border:
            texts.append((i, codes[k] + ("" if sure[i] else "?"), colour))
    for i, text, colour in texts:
        x, y, w, h = (int(v) for v in cells.boxes[i] * factor)
        _tag(out, text, x + w / 2, y + h, colour)
    inside = ~cells.on_border & (best >= 0)
    counts = Counter(codes[k] for k in best[inside & sure])
    legend = _legend(out.shape[1], codes, palette, counts, int((inside & ~sure).sum()), int(cells.on_border.sum()))
    return np.vstack([out, legend])


def _enlargement(field: Field) -> int:
    wanted = int(np.ceil(_LEAST_CELL_PX / max(_typical(field), 1.0)))
    return max(1, min(wanted, 4, _LARGEST_SIDE // max(field.frame.size)))


def _typical(field: Field) -> float:
    """Median diameter, px of the picture; that of a cell which needs no enlargement where there are none."""
    return float(np.median(field.cells.diameters)) if len(field.cells) else float(_LEAST_CELL_PX)


def _outlines(labels: NDArray[np.int32], box: NDArray[np.int32], label: int, factor: int) -> list[NDArray[np.int32]]:
    """Outer outlines of one cell in px of the enlarged picture, (n, 1, 2) each."""
    x, y, w, h = (int(v) for v in box)
    own = np.pad((labels[y : y + h, x : x + w] == label).view(np.uint8), 1)
    if factor > 1:
        own = cv2.resize(own, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    found, _ = cv2.findContours(own, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [np.asarray(c + np.array([x - 1, y - 1]) * factor, np.int32) for c in found]


def _dashed(out: NDArray[np.uint8], outline: NDArray[np.int32], colour: tuple[int, int, int], thickness: int) -> None:
    for start in range(0, len(outline), 12):
        cv2.polylines(out, [outline[start : start + 7]], False, colour, thickness, cv2.LINE_AA)


def _tag(out: NDArray[np.uint8], text: str, x: float, y: float, colour: tuple[int, int, int]) -> None:
    """Write `text` in white on a plate of the class colour, its middle at x, y; the cell itself stays visible."""
    (w, h), _ = cv2.getTextSize(text, _FONT, 0.42, 1)
    left = min(max(0, round(x - w / 2)), max(0, out.shape[1] - w - 1))
    base = min(max(h + 2, round(y + h / 2)), out.shape[0] - 3)
    cv2.rectangle(out, (left - 2, base - h - 2), (left + w + 1, base + 2), colour, -1)
    cv2.putText(out, text, (left, base), _FONT, 0.42, (255, 255, 255), 1, cv2.LINE_AA)


def _legend(
    width: int,
    codes: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
    counts: Counter[str],
    doubtful: int,
    border: int,
) -> NDArray[np.uint8]:
    """Strip of `width` px: the classes that occur with their numbers of cells, in as many lines as needed."""
    entries = [(f"{c} {counts[c]}", palette[k]) for k, c in enumerate(codes) if counts[c]]
    if doubtful:
        entries.append((f"? unclassified {doubtful}", (60, 60, 60)))
    if border:
        entries.append((f"at the edge {border}", _EDGE))
    if not entries:
        entries.append(("no cells", (60, 60, 60)))
    lines: list[list[tuple[int, str, tuple[int, int, int]]]] = [[]]
    x = 10
    for text, colour in entries:
        w = 22 + int(cv2.getTextSize(text, _FONT, 0.5, 1)[0][0]) + 18
        if lines[-1] and x + w > width:
            lines.append([])
            x = 10
        lines[-1].append((x, text, colour))
        x += w
    strip = np.full((_LEGEND_PX * len(lines), width, 3), 255, np.uint8)
    for row, line in enumerate(lines):
        y = row * _LEGEND_PX + _LEGEND_PX // 2
        for x, text, colour in line:
            cv2.rectangle(strip, (x, y - 7), (x + 14, y + 7), colour, -1)
            cv2.putText(strip, text, (x + 22, y + 5), _FONT, 0.5, (30, 30, 30), 1, cv2.LINE_AA)
    return strip


def _bgr(colour: RGB) -> tuple[int, int, int]:
    r, g, b = colour
    return b, g, r
