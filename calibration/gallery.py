"""The cells on which two results differ most, as one picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from rbcedge.calibration.agreement import ABSENT, UNSURE, Agreement, CellPair

from rbcedge.frame import Frame
from rbcedge.palette import colours

_TILE, _TEXT, _COLUMNS = 150, 58, 6
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK = (40, 40, 40)


def worst(agreement: Agreement, most: int = 24) -> list[tuple[str, CellPair]]:
    """Cells named differently, those of which both results were surest first; a cell that is missing is the worst."""

    def weight(pair: CellPair) -> float:
        sure = [1.0 if np.isnan(c) else c for c in (pair.confidence_before, pair.confidence_after)]
        return -sum(sure)

    found = [(f.source, p) for f in agreement.fields for p in f.pairs if p.named_before != p.named_after]
    return sorted(found, key=lambda item: weight(item[1]))[:most]


def gallery(
    cells: Sequence[tuple[str, CellPair]], frame: Callable[[str], Frame], codes: Sequence[str]
) -> NDArray[np.uint8] | None:
    """Draw cells with both names and confidences, and the label where there is one; None where there are no cells.

    Parameters
    ----------
    cells : sequence of (source, CellPair)
    frame : callable
        Gives the picture of a source.
    codes : sequence of str

    Returns
    -------
    (H, W, 3) uint8 BGR or None
    """
    if not cells:
        return None
    tiles = [_tile(frame(source), source, pair, codes) for source, pair in cells]
    blank = np.full_like(tiles[0], 255)
    columns = min(_COLUMNS, len(tiles))
    tiles += [blank] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)])


def _tile(frame: Frame, source: str, pair: CellPair, codes: Sequence[str]) -> NDArray[np.uint8]:
    x, y, w, h = pair.box
    side = int(1.5 * max(w, h)) + 8
    pad = side
    padded = cv2.copyMakeBorder(frame.pixels, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    x0, y0 = x + w // 2 - side // 2 + pad, y + h // 2 - side // 2 + pad
    picture = cv2.resize(padded[y0 : y0 + side, x0 : x0 + side], (_TILE, _TILE), interpolation=cv2.INTER_CUBIC)
    factor = _TILE / side
    corner = (round((x + pad - x0) * factor), round((y + pad - y0) * factor))
    far = (round((x + w + pad - x0) * factor), round((y + h + pad - y0) * factor))
    cv2.rectangle(picture, corner, far, (70, 70, 70), 1, cv2.LINE_AA)
    text = np.full((_TEXT, _TILE, 3), 255, np.uint8)
    palette = [(b, g, r) for r, g, b in colours(len(codes))]

    def line(row: int, prefix: str, named: int, shown: int, sure: float) -> None:
        code = "not found" if named == ABSENT else f"{codes[named]} {sure:.2f}{' ?' if shown == UNSURE else ''}"
        colour = _INK if named == ABSENT else palette[named]
        cv2.putText(text, prefix, (4, 13 + 15 * row), _FONT, 0.38, _INK, 1, cv2.LINE_AA)
        cv2.putText(text, code, (48, 13 + 15 * row), _FONT, 0.42, colour, 1, cv2.LINE_AA)

    line(0, "before", pair.named_before, pair.before, pair.confidence_before)
    line(1, "after", pair.named_after, pair.after, pair.confidence_after)
    name = source if len(source) <= 14 else "..." + source[-12:]
    label = f", label {codes[pair.truth]}" if pair.truth >= 0 else ""
    cv2.putText(text, f"{name}{label}", (4, 46), _FONT, 0.35, (110, 110, 110), 1, cv2.LINE_AA)
    whole = np.vstack([picture, text])
    return cv2.copyMakeBorder(whole, 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def contact_sheet(pictures: Sequence[NDArray[np.uint8]], width: int = 150, columns: int = 6) -> NDArray[np.uint8]:
    """Lay (H, W, 3) uint8 RGB pictures out as thumbnails of one width; returns BGR."""
    small = []
    for rgb in pictures:
        height = max(1, round(rgb.shape[0] * width / rgb.shape[1]))
        thumb = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), (width, height), interpolation=cv2.INTER_AREA)
        small.append(thumb)
    tallest = max(t.shape[0] for t in small)
    tiles = [
        cv2.copyMakeBorder(t, 2, 2 + tallest - t.shape[0], 2, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        for t in small
    ]
    columns = min(columns, len(tiles))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)])
