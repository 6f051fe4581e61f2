"""Times by stage and pictures per second, in bounded memory however long a session lasts."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

_LEAST_MS = 1e-3
_RATIO = math.log(1.02)
_BINS = 1 + math.ceil(math.log(1e7 / _LEAST_MS) / _RATIO)
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0}


class Stages:
    """Distribution of the time of each stage, kept as counts in bins 2 % wide (percentiles within ±1 %)."""

    def __init__(self) -> None:
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._largest: dict[str, float] = {}

    def add(self, timings_ms: Mapping[str, float]) -> None:
        """Take one measurement of each stage named, ms."""
        for stage, ms in timings_ms.items():
            if stage not in self._counts:
                self._counts[stage] = np.zeros(_BINS, np.int64)
                self._largest[stage] = 0.0
            k = 0 if ms <= _LEAST_MS else min(_BINS - 1, 1 + int(math.log(ms / _LEAST_MS) / _RATIO))
            self._counts[stage][k] += 1
            self._largest[stage] = max(self._largest[stage], ms)

    def summary(self) -> dict[str, dict[str, float]]:
        """Return stage -> "p50", "p90", "p99", "max" in ms, in the order in which the stages first came."""
        out: dict[str, dict[str, float]] = {}
        for stage, counts in self._counts.items():
            total, largest = np.cumsum(counts), self._largest[stage]
            figures = {
                name: min(largest, _middle(int(np.searchsorted(total, max(1.0, p / 100 * total[-1])))))
                for name, p in PERCENTILES.items()
            }
            out[stage] = {name: round(ms, 3) for name, ms in (*figures.items(), ("max", largest))}
        return out


def _middle(k: int) -> float:
    """Return the middle of bin `k`, ms."""
    return _LEAST_MS if k == 0 else _LEAST_MS * math.exp((k - 0.5) * _RATIO)


class Rate:
    """Events per second over the last `window_s` seconds."""

    def __init__(self, window_s: float = 3.0) -> None:
        self._window_s = window_s
        self._times: deque[float] = deque()

    def tick(self, now_s: float) -> None:
        """An event happened at `now_s` on a monotonic clock."""
        self._times.append(now_s)
        # The newest event before the window stays: the rate needs the interval that reaches into the window.
        while len(self._times) > 2 and self._times[1] <= now_s - self._window_s:
            self._times.popleft()

    @property
    def per_second(self) -> float:
        """Intervals between events, not events, by the time they took; 0 before the second event."""
        if len(self._times) < 2 or self._times[-1] <= self._times[0]:
            return 0.0
        return (len(self._times) - 1) / (self._times[-1] - self._times[0])


@contextmanager
def timed(timings_ms: dict[str, float], stage: str) -> Iterator[None]:
    """Add the time of the block to `timings_ms[stage]`, ms."""
    start = perf_counter()
    try:
        yield
    finally:
        timings_ms[stage] = timings_ms.get(stage, 0.0) + 1000 * (perf_counter() - start)
