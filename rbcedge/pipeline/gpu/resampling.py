"""How pictures are resampled on a device: OpenCV's rules, worked out once for each pair of sizes.

The kernels sum source pixels with the weights given here, in OpenCV's order, so that results are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Rules of rounding, as kernels.cu names them.
AREA, AREA_WHOLE, AREA_TWO, LINEAR = range(4)


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: output k takes source pixels starting at `at[k]`, with weights `offset[k]` to `offset[k + 1] - 1`.

    Attributes
    ----------
    at : (2 n + 1,) int32
        n starts, then n + 1 offsets into the weights.
    weight : (m,) float32
    """

    at: NDArray[np.int32]
    weight: NDArray[np.float32]


def rule(source: tuple[int, int], target: tuple[int, int], shrink: bool) -> int:
    """Return the rule for pictures of (width, height); `shrink` as where the host asks for INTER_AREA."""
    if not shrink:
        return LINEAR
    if any(s % t for s, t in zip(source, target, strict=True)):
        return AREA
    factors = tuple(s // t for s, t in zip(source, target, strict=True))
    return AREA_TWO if factors == (2, 2) else AREA_WHOLE


def axis(source: int, target: int, rule: int, horizontal: bool) -> Axis:
    """Return an axis for 8-bit pictures, px to px, under one of the rules."""
    return _fixed(source, target, horizontal) if rule == LINEAR else _area(source, target)


def smooth(source: int, target: int) -> Axis:
    """Return an axis for float pictures interpolated linearly: two weights for each output."""
    place = (np.arange(target) + 0.5) * (source / target) - 0.5
    start = np.floor(place)
    t = (place - start).astype(np.float32)
    return _pairs(start, np.stack([1 - t, t], axis=1))


def _fixed(source: int, target: int, horizontal: bool) -> Axis:
    place = ((np.arange(target) + 0.5) * (1 / (target / source)) - 0.5).astype(np.float32)
    start = np.floor(place)
    t = place - start
    if horizontal:
        t[(start < 0) | (start >= source - 1)] = 0
        start = np.clip(start, 0, source - 1)
    return _pairs(start, np.rint(np.stack([1 - t, t], axis=1) * np.float32(2048)))


def _pairs(start: NDArray[np.floating], weights: NDArray[np.floating]) -> Axis:
    n = len(start)
    at = np.concatenate([start.astype(np.int32), 2 * np.arange(n + 1, dtype=np.int32)])
    return Axis(at, np.ascontiguousarray(weights, np.float32).ravel())


def _area(source: int, target: int) -> Axis:
    scale = 1 / (target / source)
    starts, offsets, weights = [], [0], []
    for k in range(target):
        first = k * scale
        last = first + scale
        width = min(scale, source - first)
        right = min(int(np.floor(last)), source - 1)
        left = min(int(np.ceil(first)), right)
        own = [(left - first) / width] if left - first > 1e-3 else []
        starts.append(left - len(own))
        own += [1 / width] * (right - left)
        if last - right > 1e-3:
            own.append(min(min(last - right, 1.0), width) / width)
        weights += own
        offsets.append(len(weights))
    return Axis(np.array(starts + offsets, np.int32), np.array(weights, np.float32))
