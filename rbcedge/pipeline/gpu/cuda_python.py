"""NVIDIA GPUs through NVIDIA's own Python package (cuda-bindings): kernels, mapped memory, CUDA graphs."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import DeviceError, RbcedgeError
from rbcedge.pipeline.gpu.base import Argument, DeviceMemory, Missing, OutOfMemory, Stream, Transfers
from rbcedge.pipeline.gpu.nvrtc import compiled
from rbcedge.pipeline.gpu.source import BLOCK, pack, signatures

_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY


class _Driver:
    """The driver's functions by name without "cu"; errors become exceptions."""

    def __init__(self) -> None:
        try:
            from cuda.bindings import driver
        except ImportError as e:
            raise Missing(
                "NVIDIA's Python package is not installed. Install it (pip install cuda-bindings), "
                "or choose --engine cpu."
            ) from e
        self.library: Any = driver

    def __call__(self, name: str, *arguments: Any) -> Any:
        try:
            error, *values = getattr(self.library, f"cu{name}")(*arguments)
        except RuntimeError as e:  # the package's own, for functions that the driver lacks
            raise DeviceError(
                f"The NVIDIA driver is too old for the installed cuda-bindings (cu{name}). Update the driver, or "
                "install cuda-bindings of its CUDA version."
            ) from e
        if int(error) == _OUT_OF_MEMORY:
            raise OutOfMemory(f"The GPU has no memory left (cu{name}).")
        if int(error):
            raise DeviceError(f"The GPU failed in cu{name} ({getattr(error, 'name', error)}).")
        return values[0] if len(values) == 1 else tuple(values)


class CudaMemory:
    """Device memory. See `base.DeviceMemory`."""

    def __init__(self, driver: _Driver, nbytes: int) -> None:
        self._driver, self.nbytes = driver, nbytes
        self.address = int(driver("MemAlloc", nbytes))

    def free(self) -> None:
        """Give it back."""
        if self.address:
            address, self.address = self.address, 0
            self._driver("MemFree", address)


class CudaMappedMemory:
    """Page-locked memory mapped into the device's addresses. See `base.MappedMemory`."""

    def __init__(self, driver: _Driver, nbytes: int) -> None:
        self._driver, self.nbytes = driver, nbytes
        self._host = int(driver("MemHostAlloc", nbytes, int(driver.library.CU_MEMHOSTALLOC_DEVICEMAP)))
        self.address = int(driver("MemHostGetDevicePointer", self._host, 0))
        self._array: NDArray[np.uint8] | None = np.ctypeslib.as_array(
            (ctypes.c_ubyte * nbytes).from_address(self._host)
        )
        self._array[:] = 0

    @property
    def array(self) -> NDArray[np.uint8]:
        """(nbytes,) uint8."""
        if self._array is None:
            raise ValueError("this memory was freed")
        return self._array

    def free(self) -> None:
        """Give it back."""
        if self._host:
            host, self._host, self.address, self._array = self._host, 0, 0, None
            self._driver("MemFreeHost", host)


class CudaStream:
    """A CUDA stream. See `base.Stream`."""

    def __init__(self, driver: _Driver) -> None:
        self._driver = driver
        self._stream: Any = driver("StreamCreate", int(driver.library.CUstream_flags.CU_STREAM_NON_BLOCKING))
        self.handle = int(self._stream)
        self._graphs: weakref.WeakSet[_Graph] = weakref.WeakSet()

    def synchronize(self) -> None:
        """Wait."""
        self._driver("StreamSynchronize", self._stream)

    def prepare(self, work: Callable[[], None]) -> Callable[[], None]:
        """Run `work` as it is the first time (engines may still allocate), and as a CUDA graph from then on."""
        graph = _Graph(self._driver, self._stream, work)
        self._graphs.add(graph)
        return graph

    def close(self) -> None:
        """Give graphs and stream back."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        for graph in tuple(self._graphs):
            graph.close()
        self._driver("StreamDestroy", stream)


class _Graph:
    """Work that is captured the second time it is wanted, and replayed from then on.

    Work that cannot be captured is done call by call.
    """

    def __init__(self, driver: _Driver, stream: Any, work: Callable[[], None]) -> None:
        self._driver, self._stream, self._work = driver, stream, work
        self._calls = 0
        self._plain = False
        self._ready: Any = None
        self._release: Callable[[], object] | None = None

    def __call__(self) -> None:
        self._calls += 1
        if self._calls == 2:
            try:
                self._ready = self._capture()
            except DeviceError:
                # A network may do what cannot be captured; where the GPU is lost, the work itself says so.
                self._plain = True
        if self._calls == 1 or self._plain:
            self._work()
            return
        if self._release is None:
            # Destroyed with the last reference: setups come and go with the size of the pictures.
            self._release = weakref.finalize(self, _destroy, self._driver, self._ready)
        self._driver("GraphLaunch", self._ready, self._stream)

    def _capture(self) -> Any:
        mode = self._driver.library.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._driver("StreamBeginCapture", self._stream, mode)
        try:
            self._work()
        except BaseException:
            with suppress(DeviceError):
                self._driver("GraphDestroy", self._driver("StreamEndCapture", self._stream))
            raise
        graph = self._driver("StreamEndCapture", self._stream)
        try:
            return self._driver("GraphInstantiate", graph, 0)
        finally:
            self._driver("GraphDestroy", graph)

    def close(self) -> None:
        release, self._release = self._release, None
        self._ready, self._plain = None, True
        if release is not None:
            release()


def _destroy(driver: _Driver, graph: Any) -> None:
    with suppress(DeviceError):
        driver("GraphExecDestroy", graph)


class CudaKernel:
    """A function of a module. See `base.Kernel`."""

    def __init__(self, driver: _Driver, function: Any, name: str, signature: tuple[str, ...]) -> None:
        self._driver, self._function, self._name, self._signature = driver, function, name, signature

    def launch(self, stream: Stream, threads: int, *arguments: Argument) -> None:
        """Put the threads on the stream."""
        values = pack(self._name, self._signature, threads, arguments)
        if threads == 0:
            return
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        self._driver(
            "LaunchKernel", self._function, -(-threads // BLOCK), 1, 1, BLOCK, 1, 1, 0, stream.handle,
            ctypes.addressof(addresses), 0,
        )  # fmt: skip


class CudaModule:
    """Loaded kernels. See `base.Module`."""

    def __init__(self, driver: _Driver, code: bytes, source: str) -> None:
        try:
            self._module = driver("ModuleLoadData", code)
        except OutOfMemory:
            raise
        except DeviceError as e:
            raise RbcedgeError(
                f"The NVIDIA driver does not take the kernels: {e} Update the driver, or install an NVRTC of its CUDA "
                "version (pip install nvidia-cuda-nvrtc==MAJOR.MINOR.*)."
            ) from e
        self._kernels = {
            name: CudaKernel(driver, driver("ModuleGetFunction", self._module, name.encode()), name, signature)
            for name, signature in signatures(source).items()
        }

    def kernel(self, name: str) -> CudaKernel:
        """Return the kernel `name`."""
        return self._kernels[name]


class CudaPythonDevice:
    """The first NVIDIA GPU, its primary context current in this thread until `close`. See `base.Device`.

    Raises
    ------
    RbcedgeError
        Where there is no package, driver or GPU.
    """

    def __init__(self) -> None:
        self._driver = driver = _Driver()
        try:
            driver("Init", 0)
            device = driver("DeviceGet", 0)
        except Exception as e:
            # The package raises errors of its own where there is no driver.
            raise RbcedgeError(
                "No NVIDIA GPU can be used here (no driver, or no device). Run 'rbcedge doctor', "
                "or choose --engine cpu."
            ) from e
        attribute = driver.library.CUdevice_attribute
        self._architecture = 10 * int(
            driver("DeviceGetAttribute", attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device)
        ) + int(driver("DeviceGetAttribute", attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device))
        self.name = driver("DeviceGetName", 100, device).decode(errors="replace").strip("\0 ")
        self.transfers = Transfers()
        context = driver("DevicePrimaryCtxRetain", device)
        try:
            driver("CtxPushCurrent", context)
        except DeviceError:
            driver("DevicePrimaryCtxRelease", device)
            raise
        # Also where the interpreter ends without `close`.
        self._release = weakref.finalize(self, _release, driver, device)

    def allocate(self, nbytes: int) -> CudaMemory:
        """Return device memory."""
        return CudaMemory(self._driver, nbytes)

    def allocate_mapped(self, nbytes: int) -> CudaMappedMemory:
        """Return page-locked memory."""
        return CudaMappedMemory(self._driver, nbytes)

    def stream(self) -> CudaStream:
        """Return a stream."""
        return CudaStream(self._driver)

    def load(self, source: str) -> CudaModule:
        """Compile for this GPU and load."""
        cuda = int(self._driver("DriverGetVersion")) // 1000
        return CudaModule(self._driver, compiled(source, self._architecture, cuda), source)

    def upload(self, array: NDArray[np.generic], memory: DeviceMemory, stream: Stream) -> None:
        """Copy, wait, count."""
        if not array.flags.c_contiguous or array.nbytes > memory.nbytes:
            raise ValueError("an upload needs a contiguous array that fits")
        self._driver("MemcpyHtoDAsync", memory.address, array.ctypes.data, array.nbytes, stream.handle)
        stream.synchronize()
        self.transfers = self.transfers.uploaded(array.nbytes)

    def download(self, memory: DeviceMemory, array: NDArray[np.generic], stream: Stream) -> None:
        """Copy, wait, count."""
        if not array.flags.c_contiguous or array.nbytes > memory.nbytes:
            raise ValueError("a download needs a contiguous array that is no larger")
        self._driver("MemcpyDtoHAsync", array.ctypes.data, memory.address, array.nbytes, stream.handle)
        stream.synchronize()
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


def _release(driver: _Driver, device: Any) -> None:
    # A lost GPU may refuse both, and nothing more can be done about it.
    with suppress(DeviceError):
        driver("CtxPopCurrent")
    with suppress(DeviceError):
        driver("DevicePrimaryCtxRelease", device)
