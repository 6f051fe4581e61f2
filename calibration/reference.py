"""The network as it was trained, as an engine: what every conversion is held against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rbcedge.convert.networks import Network

_BATCH = 32


class ReferenceEngine:
    """A Keras (or ONNX) float network behind the seam of `rbcedge.engines.base.Engine`. Slow, and right.

    Parameters
    ----------
    network : Network
        As `rbcedge.convert.networks.open_network` gives it.
    """

    precision = "fp32"

    def __init__(self, network: Network) -> None:
        self._network = network
        self.name = "keras" if network.keras is not None else "onnx"
        height, width = network.size
        self.input_shape = (_BATCH, height or 0, width or 0, 3)

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run (n, H, W, 3) uint8 RGB and return (n, ...) float32."""
        parts = [self._network.run(batch[k : k + _BATCH]) for k in range(0, len(batch), _BATCH)]
        return np.concatenate(parts).astype(np.float32, copy=False)

    def close(self) -> None:
        """Nothing is held."""
