"""How long each layer of an engine takes, as TensorRT itself measures it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def profiled(trt: ModuleType, context: Any) -> Iterator[dict[str, float]]:
    """Collect layer times of a context while the block runs: layer name to ms, summed over runs.

    The stream must be synchronised after each run. Runs are slower than without; only shares mean anything.
    """

    class Profiler(trt.IProfiler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times[layer_name] = self.times.get(layer_name, 0.0) + ms

    profiler = Profiler()
    context.profiler = profiler
    try:
        yield profiler.times
    finally:
        context.profiler = None
