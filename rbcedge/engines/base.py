"""What an engine is: one network that runs on arrays."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """A loaded network with one input and one output, images in NHWC.

    Pixels go in as uint8 RGB, 0 to 255, whatever the network's own type: scaling is the engine's business
    (an integer model takes them almost as they are). Results come out as float32, dequantised.
    """

    @property
    def name(self) -> str:
        """Runtime, for people and records: "litert", "onnx", "tensorrt"."""

    @property
    def precision(self) -> str:
        """ "fp32", "fp16" or "int8"."""

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """N, H, W, C; N is the largest batch of one call."""

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run (n, H, W, 3) uint8 RGB, n of any size, and return (n, ...) float32. The array is the caller's own."""

    def close(self) -> None:
        """Release what is held. Safe to call twice."""
