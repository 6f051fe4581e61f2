"""NVIDIA GPUs through PyCUDA. It has no CUDA graphs: every launch is one call."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import DeviceError, RbcedgeError
from rbcedge.pipeline.gpu.base import Argument, DeviceMemory, Missing, OutOfMemory, Stream, Transfers
from rbcedge.pipeline.gpu.nvrtc import compiled
from rbcedge.pipeline.gpu.source import BLOCK, pack, signatures

#: How PyCUDA names the types of arguments.
_FORMATS = {"pointer": "P", "int": "i", "float": "f"}


def _pycuda() -> Any:
    try:
        import pycuda.driver
    except Exception as e:  # not installed, or built against another CUDA
        raise Missing(
            "PyCUDA cannot be loaded. Install it (pip install pycuda, which builds it with nvcc), "
            "or choose --engine cpu."
        ) from e
    return pycuda.driver


@contextmanager
def _plain(cuda: Any) -> Iterator[None]:
    """Turn PyCUDA's errors into the project's."""
    try:
        yield
    except cuda.MemoryError as e:
        raise OutOfMemory("The GPU has no memory left.") from e
    except cuda.Error as e:
        raise DeviceError(f"The GPU failed: {(str(e) or type(e).__name__).splitlines()[0]}.") from e


class PyCudaMemory:
    """Device memory. See `base.DeviceMemory`."""

    def __init__(self, cuda: Any, nbytes: int) -> None:
        self._cuda = cuda
        with _plain(cuda):
            self._allocation = cuda.mem_alloc(nbytes)
        self.nbytes, self.address = nbytes, int(self._allocation)

    def free(self) -> None:
        """Give it back."""
        if self._allocation is not None:
            allocation, self._allocation, self.address = self._allocation, None, 0
            with _plain(self._cuda):
                allocation.free()


class PyCudaMappedMemory:
    """Page-locked memory mapped into the device's addresses. See `base.MappedMemory`."""

    def __init__(self, cuda: Any, nbytes: int) -> None:
        self._cuda = cuda
        with _plain(cuda):
            whole = cuda.pagelocked_zeros(nbytes, np.uint8, mem_flags=cuda.host_alloc_flags.DEVICEMAP)
        self._allocation = whole.base
        self._array: NDArray[np.uint8] | None = whole
        self.nbytes, self.address = nbytes, int(self._allocation.get_device_pointer())

    @property
    def array(self) -> NDArray[np.uint8]:
        """(nbytes,) uint8."""
        if self._array is None:
            raise ValueError("this memory was freed")
        return self._array

    def free(self) -> None:
        """Give it back."""
        if self._array is not None:
            self._array, self.address = None, 0
            with _plain(self._cuda):
                self._allocation.free()


class PyCudaStream:
    """A CUDA stream. See `base.Stream`."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        with _plain(cuda):
            self.stream = cuda.Stream()
        self.handle = int(self.stream.handle)

    def synchronize(self) -> None:
        """Wait."""
        with _plain(self._cuda):
            self.stream.synchronize()

    def prepare(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return `work`."""
        return work

    def close(self) -> None:
        """Give it back, which PyCUDA does with the last reference."""
        self.stream = None


class PyCudaKernel:
    """A function of a module. See `base.Kernel`."""

    def __init__(self, cuda: Any, function: Any, name: str, signature: tuple[str, ...]) -> None:
        self._cuda, self._function, self._name, self._signature = cuda, function, name, signature
        function.prepare("i" + "".join(_FORMATS[kind] for kind in signature))

    def launch(self, stream: Stream, threads: int, *arguments: Argument) -> None:
        """Put the threads on the stream."""
        values = [v.value or 0 for v in pack(self._name, self._signature, threads, arguments)]
        if threads == 0:
            return
        if not isinstance(stream, PyCudaStream):
            raise TypeError("a PyCUDA kernel runs on a PyCUDA stream")
        with _plain(self._cuda):
            self._function.prepared_async_call((-(-threads // BLOCK), 1), (BLOCK, 1, 1), stream.stream, *values)


class PyCudaModule:
    """Loaded kernels. See `base.Module`."""

    def __init__(self, cuda: Any, code: bytes, source: str) -> None:
        with _plain(cuda):
            self._module = _load(cuda, code)
            self._kernels = {
                name: PyCudaKernel(cuda, self._module.get_function(name), name, signature)
                for name, signature in signatures(source).items()
            }

    def kernel(self, name: str) -> PyCudaKernel:
        """Return the kernel `name`."""
        return self._kernels[name]


def _load(cuda: Any, code: bytes) -> Any:
    try:
        return cuda.module_from_buffer(code)
    except cuda.MemoryError:
        raise
    except cuda.Error as e:
        raise RbcedgeError(
            f"The NVIDIA driver does not take the kernels ({str(e).splitlines()[0]}). Update the driver, or install an "
            "NVRTC of its CUDA version (pip install nvidia-cuda-nvrtc==MAJOR.MINOR.*)."
        ) from e


class PyCudaDevice:
    """The first NVIDIA GPU, its primary context current in this thread until `close`. See `base.Device`.

    The primary context, because TensorRT uses it: with PyCUDA's `autoinit` both would have one of their own.

    Raises
    ------
    RbcedgeError
        Where there is no PyCUDA, driver or GPU.
    """

    def __init__(self) -> None:
        self._cuda = cuda = _pycuda()
        try:
            cuda.init()
            device = cuda.Device(0)
        except cuda.Error as e:
            raise RbcedgeError(
                "No NVIDIA GPU can be used here (no driver, or no device). Run 'rbcedge doctor', "
                "or choose --engine cpu."
            ) from e
        with _plain(cuda):
            major, minor = device.compute_capability()
            self.name = str(device.name())
            context = device.retain_primary_context()
            context.push()
        self._architecture = 10 * int(major) + int(minor)
        self.transfers = Transfers()
        # Also where the interpreter ends without `close`: PyCUDA aborts the process over a context left behind.
        self._release = weakref.finalize(self, _release, cuda, context)

    def allocate(self, nbytes: int) -> PyCudaMemory:
        """Return device memory."""
        return PyCudaMemory(self._cuda, nbytes)

    def allocate_mapped(self, nbytes: int) -> PyCudaMappedMemory:
        """Return page-locked memory."""
        return PyCudaMappedMemory(self._cuda, nbytes)

    def stream(self) -> PyCudaStream:
        """Return a stream."""
        return PyCudaStream(self._cuda)

    def load(self, source: str) -> PyCudaModule:
        """Compile for this GPU and load."""
        cuda = int(self._cuda.get_driver_version()) // 1000
        return PyCudaModule(self._cuda, compiled(source, self._architecture, cuda), source)

    def upload(self, array: NDArray[np.generic], memory: DeviceMemory, stream: Stream) -> None:
        """Copy, count."""
        if not array.flags.c_contiguous or array.nbytes > memory.nbytes:
            raise ValueError("an upload needs a contiguous array that fits")
        with _plain(self._cuda):
            self._cuda.memcpy_htod(memory.address, array)
        self.transfers = self.transfers.uploaded(array.nbytes)

    def download(self, memory: DeviceMemory, array: NDArray[np.generic], stream: Stream) -> None:
        """Wait, copy, count."""
        if not array.flags.c_contiguous or array.nbytes > memory.nbytes:
            raise ValueError("a download needs a contiguous array that is no larger")
        stream.synchronize()
        with _plain(self._cuda):
            self._cuda.memcpy_dtoh(array, memory.address)
        self.transfers = self.transfers.downloaded(array.nbytes)

    def note_copy(self, nbytes: int) -> None:
        """Count a picture that the CPU copied."""
        self.transfers = self.transfers.copied(nbytes)

    def note_result(self, nbytes: int) -> None:
        """Count a result that the CPU read in mapped memory."""
        self.transfers = self.transfers.returned(nbytes)

    def close(self) -> None:
        """Release the context."""
        self._release()


def _release(cuda: Any, context: Any) -> None:
    # A lost GPU may refuse both, and nothing more can be done about it.
    with suppress(cuda.Error):
        cuda.Context.pop()
    with suppress(cuda.Error):
        context.detach()
