"""The kernels on the CPU: a C++ compiler builds them through `cuda_on_cpu.h`, ctypes launches them.

For tests and for looking at the device pipeline where there is no GPU. The host pipeline is what runs a count on a
CPU.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import RbcedgeError
from rbcedge.pipeline.gpu.base import Argument, DeviceMemory, OutOfMemory, Stream, Transfers
from rbcedge.pipeline.gpu.source import BLOCK, cache_folder, declarations, pack, signatures, text

_BUILD = ("-fPIC", "-shared", "-pthread", "-x", "c++")
_FLAGS = ("-std=c++17", "-O2", "-ffp-contract=off", "-fno-math-errno", "-w", *_BUILD)


class CpuMemory:
    """Host memory in the part of device memory and of mapped memory. See `base.MappedMemory`."""

    def __init__(self, nbytes: int) -> None:
        try:
            whole = np.zeros(max(nbytes, 1) + 255, np.uint8)
        except MemoryError as e:
            raise OutOfMemory(f"{nbytes} bytes") from e
        start = -whole.ctypes.data % 256  # as aligned as a GPU's
        self._array: NDArray[np.uint8] | None = whole[start : start + nbytes]
        self.nbytes = nbytes
        self.address = int(whole.ctypes.data) + start

    @property
    def array(self) -> NDArray[np.uint8]:
        """(nbytes,) uint8."""
        if self._array is None:
            raise ValueError("this memory was freed")
        return self._array

    def free(self) -> None:
        """Give the memory back."""
        self._array = None
        self.address = 0


class CpuStream:
    """Work that is done when it is put on the stream."""

    handle = 0

    def synchronize(self) -> None:
        """Nothing is ever under way."""

    def prepare(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return `work`."""
        return work

    def close(self) -> None:
        """Nothing is held."""


class CpuKernel:
    """One compiled kernel. See `base.Kernel`."""

    def __init__(self, name: str, function: Any, signature: tuple[str, ...], workers: int, order: int) -> None:
        self._name, self._function, self._signature = name, function, signature
        self._workers, self._order = workers, order

    def launch(self, stream: Stream, threads: int, *arguments: Argument) -> None:
        """Run the threads, and return when all are done."""
        values = pack(self._name, self._signature, threads, arguments)
        if threads == 0:
            return
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        self._function(-(-threads // BLOCK), BLOCK, self._workers, self._order, addresses)


class CpuModule:
    """A shared library of kernels. See `base.Module`."""

    def __init__(self, path: Path, source: str, workers: int, order: int = 1) -> None:
        library = ctypes.CDLL(str(path))
        self._kernels = {}
        for name, signature in signatures(source).items():
            function = getattr(library, f"launch_{name}")
            function.argtypes = (ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
            function.restype = None
            self._kernels[name] = CpuKernel(name, function, signature, workers, order)

    def kernel(self, name: str) -> CpuKernel:
        """Return the kernel `name`."""
        return self._kernels[name]


class CpuDevice:
    """The CPU as a device. See `base.Device`.

    Parameters
    ----------
    workers : int
        CPU threads a launch is shared among.
    order : int
        In which order a kernel's threads run: 1 forwards, -1 backwards, any other number one of its own.
    """

    name = "CPU"

    def __init__(self, workers: int = 1, order: int = 1) -> None:
        self._workers, self._order = workers, order
        self.transfers = Transfers()

    def allocate(self, nbytes: int) -> CpuMemory:
        """Return memory."""
        return CpuMemory(nbytes)

    def allocate_mapped(self, nbytes: int) -> CpuMemory:
        """Return memory."""
        return CpuMemory(nbytes)

    def stream(self) -> CpuStream:
        """Return a stream."""
        return CpuStream()

    def load(self, source: str) -> CpuModule:
        """Build the kernels, or take them from the cache."""
        return CpuModule(build(source), source, self._workers, self._order)

    def upload(self, array: NDArray[np.generic], memory: DeviceMemory, stream: Stream) -> None:
        """Copy, and count it."""
        if not array.flags.c_contiguous or array.nbytes > memory.nbytes:
            raise ValueError("an upload needs a contiguous array that fits")
        ctypes.memmove(memory.address, array.ctypes.data, array.nbytes)
        self.transfers = self.transfers.uploaded(array.nbytes)

    def download(self, memory: DeviceMemory, array: NDArray[np.generic], stream: Stream) -> None:
        """Copy, and count it."""
        if not array.flags.c_contiguous or array.nbytes > memory.nbytes:
            raise ValueError("a download needs a contiguous array that is no larger")
        ctypes.memmove(array.ctypes.data, memory.address, array.nbytes)
        self.transfers = self.transfers.downloaded(array.nbytes)

    def note_copy(self, nbytes: int) -> None:
        """Count a picture that was copied."""
        self.transfers = self.transfers.copied(nbytes)

    def note_result(self, nbytes: int) -> None:
        """Count a result that the CPU read in mapped memory."""
        self.transfers = self.transfers.returned(nbytes)

    def close(self) -> None:
        """Nothing is held."""


def compiler() -> str | None:
    """Path of a C++ compiler: $CXX, c++, g++ or clang++, whichever is there first."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        found = shutil.which(name) if name else None
        if found:
            return found
    return None


def build(source: str, folder: Path | None = None) -> Path:
    """Compile kernels to a shared library, once for each text, and return its path.

    Parameters
    ----------
    source : str
        CUDA C.
    folder : Path or None
        Cache; None: the user's cache folder, or a temporary one where that cannot be written.

    Raises
    ------
    RbcedgeError
        Where there is no compiler, or it refuses the text.
    """
    shim = text("cuda_on_cpu.h")
    whole = "\n".join((shim, source, *(_launcher(name, parameters) for name, parameters in declarations(source))))
    key = hashlib.sha256("\0".join((whole, *_FLAGS, *os.uname()[::4])).encode()).hexdigest()[:20]
    folder = folder or cache_folder()
    path = folder / f"kernels-{key}.so"
    if path.exists():
        return path
    program = compiler()
    if program is None:
        raise RbcedgeError(
            "Running the GPU's kernels on the CPU needs a C++ compiler, and none was found. "
            "Install one (apt install g++) or set CXX; a count on the CPU needs none: --engine cpu."
        )
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        half = Path(scratch) / "kernels.so"
        done = subprocess.run(
            [program, *_FLAGS, "-o", str(half), "-"], input=whole, capture_output=True, text=True, check=False
        )
        if done.returncode:
            first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
            raise RbcedgeError(f"{program} cannot compile the kernels: {first}")
        half.replace(path)
    return path


def _launcher(name: str, parameters: str) -> str:
    """C++ that runs a kernel's threads on arguments given by address, as cuLaunchKernel takes them."""
    types = [p.rpartition("*")[0] + "*" if "*" in p else p.split()[0] for p in parameters.split(",")]
    values = ", ".join(f"*({t} *)arguments[{i}]" for i, t in enumerate(types))
    return (
        f'extern "C" void launch_{name}(unsigned blocks, unsigned size, unsigned workers, int order, '
        f"void **arguments) {{\n"
        f"    run_grid(blocks, size, workers, order, [=] {{ {name}({values}); }});\n}}"
    )
