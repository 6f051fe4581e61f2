"""The seam between the device pipeline and whatever runs kernels: PyCUDA, NVIDIA's cuda-python, or the CPU.

One thread owns a device and everything it made. Addresses are plain integers, so that engines of any kind can be
bound to the same memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import DeviceError, RbcedgeError


class OutOfMemory(DeviceError):
    """The device has no room for an allocation; the caller may try with less."""


class Missing(RbcedgeError):
    """The package that drives the device is not installed."""


@dataclass(frozen=True, slots=True)
class Transfers:
    """Copies made through a device since it was opened, and what came back without one.

    Attributes
    ----------
    uploads, upload_bytes : int
        Copies from host to device memory by the driver.
    downloads, download_bytes : int
        Copies from device to host memory by the driver.
    staged, staged_bytes : int
        Copies by the CPU of pictures that were not decoded into the device's own mapped memory.
    results, result_bytes : int
        Results that kernels wrote into mapped memory and the CPU read there.
    """

    uploads: int = 0
    upload_bytes: int = 0
    downloads: int = 0
    download_bytes: int = 0
    staged: int = 0
    staged_bytes: int = 0
    results: int = 0
    result_bytes: int = 0

    @property
    def back_bytes(self) -> int:
        """Everything that came back from the device."""
        return self.download_bytes + self.result_bytes

    def __add__(self, other: Transfers) -> Transfers:
        """Both together."""
        return Transfers(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, earlier: Transfers) -> Transfers:
        """What was added since `earlier`."""
        return Transfers(*(a - b for a, b in zip(astuple(self), astuple(earlier), strict=True)))

    def uploaded(self, nbytes: int) -> Transfers:
        """Return the record with one more upload."""
        return replace(self, uploads=self.uploads + 1, upload_bytes=self.upload_bytes + nbytes)

    def downloaded(self, nbytes: int) -> Transfers:
        """Return the record with one more download."""
        return replace(self, downloads=self.downloads + 1, download_bytes=self.download_bytes + nbytes)

    def copied(self, nbytes: int) -> Transfers:
        """Return the record with one more picture copied by the CPU."""
        return replace(self, staged=self.staged + 1, staged_bytes=self.staged_bytes + nbytes)

    def returned(self, nbytes: int) -> Transfers:
        """Return the record with one more result that the CPU read in mapped memory."""
        return replace(self, results=self.results + 1, result_bytes=self.result_bytes + nbytes)


class DeviceMemory(Protocol):
    """Memory that kernels can reach, freed by `free` and not before."""

    @property
    def address(self) -> int:
        """Where kernels find it."""

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""

    def free(self) -> None:
        """Give it back. Safe to call twice."""


class MappedMemory(DeviceMemory, Protocol):
    """Page-locked host memory that kernels read and write in place."""

    @property
    def array(self) -> NDArray[np.uint8]:
        """(nbytes,) uint8: the same memory for the CPU. Valid until `free`."""


class Stream(Protocol):
    """Work in order. What is put on it runs later, `synchronize` waits for it."""

    @property
    def handle(self) -> int:
        """The driver's own handle (CUstream), for engines; 0 on the CPU."""

    def synchronize(self) -> None:
        """Wait until everything on the stream has run."""

    def prepare(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return a call that does what `work` does, with less overhead where the driver can (a CUDA graph).

        `work` puts work on this stream and nothing else; each time the same kernels with the same arguments.
        """

    def close(self) -> None:
        """Give it back. Safe to call twice."""


#: What a kernel takes: memory, an address, an int (C int) or a float (C float).
Argument = DeviceMemory | int | float


class Kernel(Protocol):
    """One function of a module."""

    def launch(self, stream: Stream, threads: int, *arguments: Argument) -> None:
        """Put `threads` threads, numbered from 0, on the stream; nothing where `threads` is 0."""


class Module(Protocol):
    """Compiled kernels."""

    def kernel(self, name: str) -> Kernel:
        """Return the kernel `name`; KeyError where there is none."""


class Device(Protocol):
    """A device opened by this thread.

    Implementations: `pycuda_driver.PyCudaDevice`, `cuda_python.CudaPythonDevice`, `cpu.CpuDevice`. Opening one where
    there is no GPU or driver raises `RbcedgeError` in plain words, without the package `Missing`. Whatever fails
    later raises `DeviceError`: the GPU may be lost.
    """

    @property
    def name(self) -> str:
        """For people and records: the GPU's name, or "CPU"."""

    @property
    def transfers(self) -> Transfers:
        """Copies made so far."""

    def allocate(self, nbytes: int) -> DeviceMemory:
        """Return device memory, not initialised. Raises `OutOfMemory`."""

    def allocate_mapped(self, nbytes: int) -> MappedMemory:
        """Return page-locked memory that both sides see, zeroed. Raises `OutOfMemory`."""

    def stream(self) -> Stream:
        """Return a new stream."""

    def load(self, source: str) -> Module:
        """Compile CUDA C for this device. Raises `RbcedgeError` with the compiler's first complaint."""

    def upload(self, array: NDArray[np.generic], memory: DeviceMemory, stream: Stream) -> None:
        """Copy a contiguous array to device memory, and wait; counted."""

    def download(self, memory: DeviceMemory, array: NDArray[np.generic], stream: Stream) -> None:
        """Copy device memory into a contiguous array, after what is on the stream, and wait; counted."""

    def note_copy(self, nbytes: int) -> None:
        """Count a picture that the CPU copied into mapped memory."""

    def note_result(self, nbytes: int) -> None:
        """Count a result that the CPU read in mapped memory."""

    def close(self) -> None:
        """Release the device and whatever it still holds. Safe to call twice."""


class Executor(Protocol):
    """A network that runs on memory of a device, batches in NHWC.

    Pixels go in as RGB: float32 0 to 1, or uint8 0 to 255; results come out as float32.
    """

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """N, H, W, C: the largest batch and picture of one call; -1 where it may be any."""

    @property
    def input_dtype(self) -> np.dtype[np.generic]:
        """uint8 or float32."""

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the result for an input of `shape`. Raises `RbcedgeError` where the network cannot take it."""

    def bind(self, input_address: int, output_address: int, shape: tuple[int, ...]) -> None:
        """Say where the next input lies and the result goes, and the input's shape."""

    def enqueue(self, stream_handle: int) -> None:
        """Put one run on the stream, after what is on it already. Nothing is copied, nothing waits."""

    def close(self) -> None:
        """Release what is held. Safe to call twice."""
