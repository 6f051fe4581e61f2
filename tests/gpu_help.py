"""Devices for the tests of the kernels: the CPU everywhere, a GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from rbcedge.engines.base import Engine
from rbcedge.errors import RbcedgeError
from rbcedge.pipeline.gpu.base import Device, DeviceMemory, Stream
from rbcedge.pipeline.gpu.cpu import CpuDevice, compiler
from rbcedge.pipeline.gpu.cuda_python import CudaPythonDevice
from rbcedge.pipeline.gpu.memory import Kernels, load_kernels
from rbcedge.pipeline.gpu.pycuda_driver import PyCudaDevice

DEVICES = [
    "cpu",
    "cpu, 3 at a time",
    "cpu, shuffled",
    pytest.param("cuda-python", marks=pytest.mark.gpu),
    pytest.param("pycuda", marks=pytest.mark.gpu),
]


@dataclass(frozen=True)
class Ready:
    device: Device
    stream: Stream
    kernels: Kernels


@dataclass(frozen=True)
class At:
    """Memory known by its address."""

    address: int
    nbytes: int

    def free(self) -> None:
        pass


def open_device(name: str) -> Device:
    if name.startswith("cpu"):
        if compiler() is None:
            pytest.skip("no C++ compiler here")
        return CpuDevice(workers=3 if "3" in name else 1, order=977 if "shuffled" in name else 1)
    try:
        return CudaPythonDevice() if name == "cuda-python" else PyCudaDevice()
    except RbcedgeError as e:
        pytest.skip(str(e))


@contextmanager
def opened(name: str) -> Iterator[Ready]:
    device = open_device(name)
    stream = device.stream()
    try:
        yield Ready(device, stream, load_kernels(device))
    finally:
        stream.close()
        device.close()


def fetch(ready: Ready, memory: DeviceMemory, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    out = np.empty(shape, dtype)
    ready.device.download(memory, out, ready.stream)
    return out


class CopyingExecutor:
    """A host engine on any device's memory: what a network on the device would compute, by way of copies."""

    input_shape = (-1, -1, -1, 3)

    def __init__(self, device: Device, stream: Stream, engine: Engine, output: tuple[int, ...], dtype: type) -> None:
        self._device, self._stream, self._engine, self._output = device, stream, engine, output
        self.input_dtype = np.dtype(dtype)
        self.seen: list[np.ndarray] = []

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], *self._output) if self._output else (*shape[:3], 1)

    def bind(self, input_address: int, output_address: int, shape: tuple[int, ...]) -> None:
        self._bound = input_address, output_address, shape

    def enqueue(self, stream_handle: int) -> None:
        source, target, shape = self._bound
        pixels = np.empty(shape, self.input_dtype)
        self._device.download(At(source, pixels.nbytes), pixels, self._stream)
        self.seen.append(pixels)
        as_bytes = pixels if pixels.dtype == np.uint8 else np.rint(pixels * 255).astype(np.uint8)
        result = np.ascontiguousarray(self._engine.infer(as_bytes))
        self._device.upload(result, At(target, result.nbytes), self._stream)

    def close(self) -> None:
        pass
