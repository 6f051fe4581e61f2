"""Host engines in the part of device executors, on memory the CPU can reach."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbcedge.engines.base import Engine


class HostExecutor:
    """An engine that runs on a device's buffers. See `base.Executor`; only for `CpuDevice`.

    Parameters
    ----------
    engine : Engine
        Closed with the executor.
    output : tuple of int
        Shape of one picture's result; () where each pixel has one.
    """

    input_shape = (-1, -1, -1, 3)
    input_dtype: np.dtype[np.generic] = np.dtype(np.uint8)

    def __init__(self, engine: Engine, output: tuple[int, ...]) -> None:
        self._engine, self._output = engine, output
        self._input: NDArray[np.uint8] | None = None
        self._result: NDArray[np.float32] | None = None

    @classmethod
    def segmenter(cls, engine: Engine) -> HostExecutor:
        """Return an executor whose result is one probability for each pixel."""
        return cls(engine, ())

    @classmethod
    def classifier(cls, engine: Engine, classes: int) -> HostExecutor:
        """Return an executor whose result is `classes` probabilities for each crop."""
        return cls(engine, (classes,))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the result for an input of `shape`."""
        return (shape[0], *self._output) if self._output else (*shape[:3], 1)

    def bind(self, input_address: int, output_address: int, shape: tuple[int, ...]) -> None:
        """Say where input and result lie."""
        self._input = _view(input_address, shape, np.uint8)
        self._result = _view(output_address, self.output_shape(shape), np.float32)

    def enqueue(self, stream_handle: int) -> None:
        """Run at once."""
        if self._input is None or self._result is None:
            raise ValueError("bind comes before enqueue")
        self._result[...] = self._engine.infer(self._input)

    def close(self) -> None:
        """Release the engine."""
        self._input = self._result = None
        self._engine.close()


def _view(address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(memoryview((ctypes.c_ubyte * size).from_address(address)), dtype).reshape(shape)
