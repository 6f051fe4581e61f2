"""Which input shapes engines are built for.

A classifier meets two crop sides and any number of cells: one engine for each side, in it one optimisation profile
for each bucket of cells. A segmenter meets pictures whose size changes with the magnification: one engine for a range
of sizes, so that nothing is ever built while cells are counted, and beside it engines for single sizes on request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rbcedge.errors import UsageError

Shape = tuple[int, int, int, int]

#: Largest number of cells of each optimisation profile of a classifier.
BUCKETS = (32, 64, 128, 256, 512)
#: Segmenter's pictures: least, usual and largest height and width, working px (half of native in the default bundle,
#: so the largest is a 4K picture at native scale). Beyond, ask for a size of its own.
SMALLEST, USUAL, LARGEST = (16, 16), (240, 320), (1088, 1920)
#: Pictures are multiples of this (four poolings).
STRIDE = 16


@dataclass(frozen=True, slots=True)
class Profile:
    """Shapes (N, H, W, C) that kernels are chosen for: any between the least and the largest, fastest at the usual."""

    least: Shape
    usual: Shape
    largest: Shape

    def __str__(self) -> str:
        parts = ["x".join(map(str, s)) for s in (self.least, self.usual, self.largest)]
        return parts[0] if len(set(parts)) == 1 else "/".join(parts)

    def holds(self, shape: Sequence[int]) -> bool:
        """Whether a shape is between the least and the largest."""
        return len(shape) == 4 and all(
            low <= n <= high for low, n, high in zip(self.least, shape, self.largest, strict=True)
        )


def crops(side: int) -> tuple[Profile, ...]:
    """Profiles of a classifier on square crops, one for each bucket, without gaps between them."""
    lower = (1, *(b + 1 for b in BUCKETS[:-1]))
    return tuple(
        Profile((low, side, side, 3), (high, side, side, 3), (high, side, side, 3))
        for low, high in zip(lower, BUCKETS, strict=True)
    )


def pictures() -> tuple[Profile, ...]:
    """Profile of a segmenter on pictures of any usual size."""
    return (Profile((1, *SMALLEST, 3), (1, *USUAL, 3), (1, *LARGEST, 3)),)


def picture(width: int, height: int, scale: float) -> tuple[Profile, ...]:
    """Profile of a segmenter on source pictures of one size.

    Parameters
    ----------
    width, height : int
        Of the source picture at native scale, px.
    scale : float
        Working px per native px (`Bundle.segmenter_scale`).

    Raises
    ------
    UsageError
        Where the size makes no sense.
    """
    if not (STRIDE <= width <= 16384 and STRIDE <= height <= 16384):
        raise UsageError(f"{width}x{height}: give a picture size between {STRIDE} and 16384 px.")
    w, h = round(width * scale), round(height * scale)
    shape = (1, h + -h % STRIDE, w + -w % STRIDE, 3)
    return (Profile(shape, shape, shape),)
