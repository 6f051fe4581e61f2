"""An engine that remembers what went through it: the network's real inputs, padding, flat field and all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rbcedge.engines.base import Engine


class Recorder:
    """Wraps an engine and keeps every batch it is given, with the result. See `rbcedge.engines.base.Engine`.

    Calibration data made in any other way may differ from what the network meets at run time.

    Parameters
    ----------
    engine : Engine
        Does the work. `close` leaves it open: it belongs to the caller.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.precision, self.input_shape = engine.name, engine.precision, engine.input_shape
        self._seen: list[tuple[NDArray[np.uint8], NDArray[np.float32]]] = []

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run (n, H, W, 3) uint8 RGB and remember a copy of it and of the result."""
        result = self._engine.infer(batch)
        self._seen.append((batch.copy(), result.copy()))
        return result

    def take(self) -> list[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        """Return batches and results since the last call, and forget them."""
        seen, self._seen = self._seen, []
        return seen

    def close(self) -> None:
        """Forget what was seen."""
        self._seen = []
