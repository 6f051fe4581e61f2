"""What an activation's values span, and where its INT8 range should end: min-max, percentile, entropy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Method = Literal["min-max", "percentile", "entropy"]
METHODS: tuple[Method, ...] = ("min-max", "percentile", "entropy")

_BINS = 2048
#: INT8 has 256 steps; the entropy method compares with so many.
_STEPS = 128
#: Share of the values that the percentile method keeps, the same from both ends.
KEPT = 0.99999


@dataclass(slots=True)
class Spread:
    """A histogram of one activation, over all its values in all calibration pictures.

    It is filled in two passes: `widen` with every batch, then `add` with every batch.

    Attributes
    ----------
    low, high : float
        Smallest and largest value seen.
    counts : (2048,) int64
        Equal bins from `low` to `high`.
    """

    low: float = float("inf")
    high: float = float("-inf")
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def widen(self, values: NDArray[np.float32]) -> None:
        """Take the limits of `values` in."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def add(self, values: NDArray[np.float32]) -> None:
        """Count `values` (within the limits) in."""
        if self.high > self.low:
            # The upper limit belongs to the last bin, not to none.
            top = float(np.nextafter(np.float32(self.high), np.float32(np.inf)))
            found = cv2.calcHist([np.ascontiguousarray(values).reshape(-1, 1)], [0], None, [_BINS], [self.low, top])
            self.counts += found.ravel().astype(np.int64)

    def range(self, method: Method) -> tuple[float, float]:
        """Return where the INT8 range should end.

        "min-max": all that was seen. "percentile": all but the outermost 0.001 %. "entropy": cut at the magnitude at
        which the quantised distribution tells least apart from the real one (Kullback-Leibler divergence, as in
        S. Migacz, 8-bit inference with TensorRT, 2017), on either side of zero.

        Returns
        -------
        low, high : float
            Within what was seen; 0 lies always between them, because zero must be exact in INT8.
        """
        low, high = self.low, self.high
        if self.counts.any():
            if method == "percentile":
                low, high = self._percentile()
            elif method == "entropy":
                cut = self._entropy()
                low, high = max(low, -cut), min(high, cut)
        return min(low, 0.0), max(high, 0.0)

    def _percentile(self) -> tuple[float, float]:
        edges = np.linspace(self.low, self.high, _BINS + 1)
        share = np.cumsum(self.counts) / self.counts.sum()
        tail = (1 - KEPT) / 2
        first, last = int(np.searchsorted(share, tail)), int(np.searchsorted(share, 1 - tail))
        return float(edges[first]), float(edges[min(last, _BINS - 1) + 1])

    def _entropy(self) -> float:
        """Magnitude to cut at."""
        centres = np.abs((np.arange(_BINS) + 0.5) / _BINS * (self.high - self.low) + self.low)
        most = max(abs(self.low), abs(self.high))
        at = np.minimum((centres / most * _BINS).astype(np.int64), _BINS - 1)
        folded = np.bincount(at, weights=self.counts, minlength=_BINS)
        # Zeros, which ReLU makes by the million, are exact whatever the range.
        folded[0] = folded[1]
        best, cut = np.inf, most
        for width in range(_STEPS, _BINS + 1, _STEPS // 4):
            kept = folded[:width].copy()
            kept[-1] += folded[width:].sum()
            divergence = _divergence(kept, folded[:width])
            if divergence < best:
                best, cut = divergence, width / _BINS * most
        return float(cut)


def _divergence(kept: NDArray[np.float64], inner: NDArray[np.float64]) -> float:
    """Kullback-Leibler divergence of `kept` from `inner` squeezed into `_STEPS` steps and spread out again."""
    starts = np.linspace(0, len(inner), _STEPS + 1)[:-1].astype(np.int64)
    filled = inner > 0
    sums, counts = np.add.reduceat(inner, starts), np.add.reduceat(filled.astype(np.float64), starts)
    step = np.repeat(np.arange(_STEPS), np.diff(np.append(starts, len(inner))))
    spread = np.where(filled, np.divide(sums, counts, out=np.zeros(_STEPS), where=counts > 0)[step], 0.0)
    if not spread.any() or not kept.any():
        return float("inf")
    # A little everywhere, so that what was cut off into an empty bin costs much, not infinitely much.
    p, q = kept / kept.sum(), (spread / spread.sum() + 1e-9)
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())
