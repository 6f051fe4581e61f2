"""Single cells cut out of lessons, and overlapped cells made of real single ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rbcedge.training import augment

from rbcedge.cells import rim_kernel
from rbcedge.pipeline.illumination import BACKGROUND

#: Background shown around a cell, native px: masks are smoother than burr cells and shorter than thin tails.
RIM = 3
#: Side of the stored windows: room for a crop of 80 px that is turned.
WINDOW = 112


@dataclass(frozen=True, slots=True)
class Cut:
    """One cell with its surroundings.

    Attributes
    ----------
    pixels : (WINDOW, WINDOW, 3) uint8
        Red, green, blue after flat field.
    own : (WINDOW, WINDOW) uint8
        1 where this cell is.
    others : (WINDOW, WINDOW) uint8
        1 where other cells are.
    code : int
        Index into the codes.
    field : int
        Which lesson it came from: cells of one lesson share a stain.
    """

    pixels: NDArray[np.uint8]
    own: NDArray[np.uint8]
    others: NDArray[np.uint8]
    code: int
    field: int


@dataclass(frozen=True, slots=True)
class Example:
    """A cell and what the classifier shall say of it: `target` (K,) float32, a probability for each class."""

    cell: Cut
    target: NDArray[np.float32]


def plain(cuts: Iterable[Cut], classes: int) -> list[Example]:
    """Take each cell's label for the whole truth."""
    eye = np.eye(classes, dtype=np.float32)
    return [Example(c, eye[c.code]) for c in cuts]


def cut(lessons: Iterable[dict[str, NDArray[Any]]], whole_only: bool = True, labelled: bool = True) -> list[Cut]:
    """Cut out every instance with a known class, or (`labelled` False) every one without, which has the code -1.

    By default those at the picture's edge are left out.
    """
    out = []
    half = WINDOW // 2
    for number, lesson in enumerate(lessons):
        pixels = cv2.copyMakeBorder(lesson["pixels"], half, half, half, half, cv2.BORDER_CONSTANT)
        labels = np.pad(lesson["labels"], half)
        h, w = lesson["labels"].shape
        boxes = _boxes(lesson["labels"])
        for i, code in enumerate(lesson["classes"]):
            x0, y0, x1, y1 = boxes[i]
            if (code >= 0) != labelled or (whole_only and (x0 == 0 or y0 == 0 or x1 == w - 1 or y1 == h - 1)):
                continue
            cx, cy = (x0 + x1 + 1) // 2, (y0 + y1 + 1) // 2
            at = (slice(cy, cy + WINDOW), slice(cx, cx + WINDOW))
            own, others = labels[at] == i + 1, (labels[at] != i + 1) & (labels[at] > 0)
            out.append(Cut(pixels[at].copy(), own.astype(np.uint8), others.astype(np.uint8), int(code), number))
    return out


def _boxes(labels: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    n = int(labels.max())
    ys, xs = np.nonzero(labels)
    ids = labels[ys, xs].astype(np.int64) - 1
    out = np.full((n, 4), -1, np.int64)
    low = np.full((n, 2), 1 << 30)
    np.minimum.at(low, ids, np.stack([xs, ys], 1))
    np.maximum.at(out[:, 2:], ids, np.stack([xs, ys], 1))
    out[:, :2] = low
    return out


def overlap(rng: np.random.Generator, cells: Sequence[Cut], code: int) -> Cut:
    """Lay single cells of one field over each other: where they overlap their absorption adds up.

    Each next cell is put beside the heap so that 5 to 60 % of it lies on the others.
    """
    heap = glass(rng, cells[0])
    own = np.zeros((WINDOW, WINDOW), np.uint8)
    for k, cell in enumerate(cells):
        m = augment.turn(rng, WINDOW, WINDOW)
        best: tuple[float, Any, Any] | None = None
        for _ in range(12 if k else 1):
            step = m.copy()
            if k:
                # Beside what is there already, in a random direction, at about one radius.
                ys, xs = np.nonzero(own)
                pick = int(rng.integers(len(ys)))
                away = rng.uniform(0, 2 * np.pi)
                reach = 0.5 * np.sqrt(cell.own.sum()) * rng.uniform(0.3, 1.0)
                step[:, 2] += [
                    xs[pick] - WINDOW / 2 + np.cos(away) * reach,
                    ys[pick] - WINDOW / 2 + np.sin(away) * reach,
                ]
            mask = cv2.warpAffine(cell.own, step, (WINDOW, WINDOW), flags=cv2.INTER_NEAREST)
            shared = float((mask & own).sum()) / max(1.0, min(float(mask.sum()), float(own.sum())))
            miss = max(0.05 - shared, shared - 0.6, 0.0)
            if best is None or miss < best[0]:
                best = (miss, step, mask)
            if miss == 0:
                break
        assert best is not None
        _, step, mask = best
        pixels = cv2.warpAffine(cell.pixels, step, (WINDOW, WINDOW), flags=cv2.INTER_LINEAR).astype(np.float32)
        both = (mask & own)[..., None] > 0
        heap = np.where(both, heap * pixels / BACKGROUND, np.where(mask[..., None] > 0, pixels, heap))
        own |= mask
    return Cut(np.clip(heap, 0, 255).astype(np.uint8), own, np.zeros_like(own), code, cells[0].field)


def glass(rng: np.random.Generator, cell: Cut) -> NDArray[np.float32]:
    """Surroundings of a cell without any cells: a flat background would give a made-up crop away."""
    bare = cv2.blur(rng.normal(BACKGROUND, 12, (WINDOW, WINDOW, 3)).astype(np.float32), (2, 2))
    near = cv2.dilate(cell.own | cell.others, rim_kernel(RIM))
    return np.where(near[..., None] > 0, bare, cell.pixels).astype(np.float32)


def present(rng: np.random.Generator, cell: Cut, strength: float = 1.0) -> NDArray[np.uint8]:
    """Turn, stain, blur and cut out one cell as the pipeline would: (80, 80, 3) uint8, the rest zero.

    The outline is moved a little at times, because a network's mask is not the teacher's.
    """
    m = augment.turn(rng, WINDOW, WINDOW, (0.88, 1.14))
    pixels = cv2.warpAffine(cell.pixels, m, (WINDOW, WINDOW), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    soft = cv2.warpAffine(cell.own * np.uint8(255), m, (WINDOW, WINDOW), flags=cv2.INTER_LINEAR)
    others = cv2.warpAffine(cell.others, m, (WINDOW, WINDOW), flags=cv2.INTER_NEAREST)
    if rng.random() < 0.5:
        soft = cv2.GaussianBlur(soft, (0, 0), rng.uniform(0.7, 1.5))
    own = (soft > 255 * rng.choice([0.3, 0.5, 0.5, 0.7])).astype(np.uint8)
    # What lies outside of the crop need not be stained.
    x, y, w, h = cv2.boundingRect(own)
    inner = (slice(max(y - 6, 0), y + h + 6), slice(max(x - 6, 0), x + w + 6))
    pixels[inner] = augment.optics(rng, augment.stain(rng, pixels[inner], strength), strength)
    # A network with strided convolutions sees another phase of the picture at each whole pixel.
    return centred(pixels, own, others, 80, rng.integers(-3, 4, 2))


def centred(
    pixels: NDArray[np.uint8],
    own: NDArray[np.uint8],
    others: NDArray[np.uint8],
    side: int,
    shift: NDArray[np.int64] | tuple[int, int] = (0, 0),
) -> NDArray[np.uint8]:
    """Cut a square of `side` px around the centre of the box of `own`, with a rim of `RIM` px, zero outside of it."""
    x, y, w, h = cv2.boundingRect(own)
    x0, y0 = x + w // 2 - side // 2 + int(shift[0]), y + h // 2 - side // 2 + int(shift[1])
    shown = cv2.dilate(own, rim_kernel(RIM)) & (others == 0)
    out = np.zeros((side, side, 3), np.uint8)
    height, width = own.shape
    xa, ya = max(x - RIM, x0, 0), max(y - RIM, y0, 0)
    xb, yb = min(x + w + RIM, x0 + side, width), min(y + h + RIM, y0 + side, height)
    if xb > xa and yb > ya:
        cv2.copyTo(pixels[ya:yb, xa:xb], shown[ya:yb, xa:xb], out[ya - y0 : yb - y0, xa - x0 : xb - x0])
    return out


def fits(crop: NDArray[np.uint8], side: int) -> bool:
    """Whether everything of a square crop lies within its central square of `side` px."""
    edge = (crop.shape[0] - side) // 2
    inner = crop[edge : edge + side, edge : edge + side]
    return int(np.count_nonzero(crop)) == int(np.count_nonzero(inner))
