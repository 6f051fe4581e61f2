"""Which of the driver layers opens the GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rbcedge.errors import RbcedgeError
from rbcedge.pipeline.gpu.base import Device, Missing
from rbcedge.pipeline.gpu.cuda_python import CudaPythonDevice
from rbcedge.pipeline.gpu.pycuda_driver import PyCudaDevice

#: Best first: NVIDIA's own package replays a step as one CUDA graph, PyCUDA launches kernel by kernel.
DRIVERS: tuple[Callable[[], Device], ...] = (CudaPythonDevice, PyCudaDevice)


def open_device(drivers: Sequence[Callable[[], Device]] = DRIVERS) -> Device:
    """Open the first GPU through the first driver layer that is installed.

    Raises
    ------
    RbcedgeError
        Where none is installed, and where the GPU cannot be used, in words.
    """
    for driver in drivers:
        try:
            return driver()
        except Missing:
            continue
    raise RbcedgeError(
        "no Python package that drives the GPU is installed. Install NVIDIA's (pip install cuda-bindings) or PyCUDA "
        "(pip install pycuda, which builds it with nvcc), or choose --engine cpu."
    )
