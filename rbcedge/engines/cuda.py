"""The NVIDIA driver, through its C library: which GPU is here, and the little memory that host copies need.

TensorRT ends the process where there is no device, so the driver is asked first, and asked without TensorRT. The
driver's library is on every machine with a GPU; no package is needed for it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import DeviceError, RbcedgeError

#: The driver's library. Part of the driver, never of a package.
LIBRARY = "libcuda.so.1"

_OUT_OF_MEMORY = 2
_SM_COUNT, _MAJOR, _MINOR = 16, 75, 76  # CUdevice_attribute


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first GPU this process may use.

    Attributes
    ----------
    name : str
        As the driver gives it ("Orin", "NVIDIA H200").
    compute_capability : str
        "8.7".
    sm_count : int
        Streaming multiprocessors.
    cuda : str
        Newest CUDA version the driver serves ("12.6").
    memory : int
        Bytes in all.
    """

    name: str
    compute_capability: str
    sm_count: int
    cuda: str
    memory: int


class CudaError(DeviceError):
    """A call to the driver failed."""


class NoGpu(CudaError):
    """There is no driver, or it finds no device: an ordinary computer."""


class OutOfDeviceMemory(CudaError):
    """The GPU has no room."""


def problem() -> str | None:
    """Say in words why no GPU can be used here, None where one can. Quick, never raises."""
    try:
        gpu()
    except RbcedgeError as e:
        return str(e)
    return None


def gpu() -> Gpu:
    """Ask the driver for the first GPU.

    Raises
    ------
    CudaError
        Where the driver does not start; `NoGpu` where there is no driver or no device.
    """
    cuda = _open()
    device = _device(cuda)
    version, memory = ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    _check(cuda, cuda.cuDriverGetVersion(ctypes.byref(version)))
    _check(cuda, cuda.cuDeviceGetName(name, len(name), device))
    _check(cuda, cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device))

    def attribute(which: int) -> int:
        value = ctypes.c_int()
        _check(cuda, cuda.cuDeviceGetAttribute(ctypes.byref(value), which, device))
        return value.value

    return Gpu(
        name.value.decode(errors="replace"),
        f"{attribute(_MAJOR)}.{attribute(_MINOR)}",
        attribute(_SM_COUNT),
        f"{version.value // 1000}.{version.value % 1000 // 10}",
        memory.value,
    )


class Memory:
    """Plain device memory, one stream, and copies through it, in the device's primary context.

    The primary context is the one that TensorRT, PyCUDA's `retain_primary_context` and cuda-python share. It is made
    current for each call and put back, so that whoever holds another one is not disturbed.

    Raises
    ------
    CudaError
        Where the context cannot be had.
    """

    def __init__(self) -> None:
        self._cuda = _open()
        self._device = _device(self._cuda)
        self._context = ctypes.c_void_p()
        self._stream = ctypes.c_void_p()
        self._held: dict[int, int] = {}
        self._open = False
        _check(self._cuda, self._cuda.cuDevicePrimaryCtxRetain(ctypes.byref(self._context), self._device))
        self._open = True
        try:
            with self.current():
                _check(self._cuda, self._cuda.cuStreamCreate(ctypes.byref(self._stream), 1))  # 1: non-blocking
        except CudaError:
            self.close()
            raise

    @property
    def stream(self) -> int:
        """The stream's handle (CUstream)."""
        return self._stream.value or 0

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the primary context current for the time being."""
        _check(self._cuda, self._cuda.cuCtxPushCurrent_v2(self._context))
        try:
            yield
        finally:
            self._cuda.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))

    def allocate(self, nbytes: int) -> int:
        """Return the address of `nbytes` of device memory. Raises `OutOfDeviceMemory`."""
        address = ctypes.c_uint64()
        with self.current():
            _check(self._cuda, self._cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(nbytes)))
        self._held[address.value] = nbytes
        return address.value

    def free(self, address: int) -> None:
        """Give memory back."""
        del self._held[address]
        with self.current():
            _check(self._cuda, self._cuda.cuMemFree_v2(ctypes.c_uint64(address)))

    def upload(self, array: NDArray[np.generic], address: int) -> None:
        """Copy a contiguous array to the device and wait."""
        with self.current():
            source = ctypes.c_void_p(array.ctypes.data)
            size = ctypes.c_size_t(array.nbytes)
            _check(self._cuda, self._cuda.cuMemcpyHtoDAsync_v2(ctypes.c_uint64(address), source, size, self._stream))
            _check(self._cuda, self._cuda.cuStreamSynchronize(self._stream))

    def download(self, address: int, array: NDArray[np.generic]) -> None:
        """Copy from the device into a contiguous array, after what is on the stream, and wait."""
        with self.current():
            target = ctypes.c_void_p(array.ctypes.data)
            size = ctypes.c_size_t(array.nbytes)
            _check(self._cuda, self._cuda.cuMemcpyDtoHAsync_v2(target, ctypes.c_uint64(address), size, self._stream))
            _check(self._cuda, self._cuda.cuStreamSynchronize(self._stream))

    def synchronize(self) -> None:
        """Wait until everything on the stream has run."""
        with self.current():
            _check(self._cuda, self._cuda.cuStreamSynchronize(self._stream))

    def close(self) -> None:
        """Give everything back. Safe to call twice."""
        if not self._open:
            return
        self._open = False
        with self.current():
            for address in self._held:
                self._cuda.cuMemFree_v2(ctypes.c_uint64(address))
            if self._stream:
                self._cuda.cuStreamDestroy_v2(self._stream)
        self._held.clear()
        self._cuda.cuDevicePrimaryCtxRelease_v2(self._device)


def _open() -> ctypes.CDLL:
    try:
        cuda = ctypes.CDLL(LIBRARY)
    except OSError as e:
        raise NoGpu("No NVIDIA driver on this machine (libcuda.so.1 is not there).") from e
    code = int(cuda.cuInit(0))
    if code == 100:
        raise NoGpu("The NVIDIA driver finds no GPU.")
    _check(cuda, code)
    return cuda


def _device(cuda: ctypes.CDLL) -> ctypes.c_int:
    count, device = ctypes.c_int(), ctypes.c_int()
    _check(cuda, cuda.cuDeviceGetCount(ctypes.byref(count)))
    if count.value == 0:
        raise NoGpu("The NVIDIA driver finds no GPU.")
    _check(cuda, cuda.cuDeviceGet(ctypes.byref(device), 0))
    return device


def _check(cuda: ctypes.CDLL, code: int) -> None:
    if code == 0:
        return
    text = ctypes.c_char_p()
    cuda.cuGetErrorString(code, ctypes.byref(text))
    words = (text.value or b"unknown error").decode(errors="replace")
    if code == _OUT_OF_MEMORY:
        raise OutOfDeviceMemory("The GPU has no memory left.")
    raise CudaError(f"The NVIDIA driver reports error {code}: {words}.")
