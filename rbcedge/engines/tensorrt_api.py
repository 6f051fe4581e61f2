"""TensorRT's Python package: whether it can be used here, its version, what it says when it refuses.

The code names only what exists in 8.6, 10.0 to 10.16 and 11.0 to 11.4, or asks with `hasattr` first;
`tests/test_tensorrt_api.py` holds it to that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from types import ModuleType
from typing import Any

from rbcedge.engines import cuda
from rbcedge.errors import RbcedgeError

_INSTALL = (
    "On Jetson it comes with JetPack (apt install python3-libnvinfer, and a venv made with --system-site-packages); "
    "elsewhere: pip install tensorrt."
)


def problem() -> str | None:
    """Say in words why TensorRT cannot be used here, None where it can. Never raises."""
    try:
        # The driver first: without a device TensorRT's first calls end the process.
        gpu = cuda.gpu()
        import_tensorrt()
    except RbcedgeError as e:
        return f"TensorRT cannot be used: {e}"
    needed = _cuda_of_package()
    if needed is not None and int(gpu.cuda.partition(".")[0]) < needed:
        return (
            f"TensorRT cannot be used: the installed one is for CUDA {needed} and needs a driver that serves it, "
            f"the NVIDIA driver here serves {gpu.cuda}. Update the driver or install TensorRT for CUDA {needed - 1}."
        )
    return None


def import_tensorrt() -> ModuleType:
    """Import TensorRT.

    Raises
    ------
    RbcedgeError
        Where it is not installed or cannot be loaded.
    """
    try:
        import tensorrt
    except ModuleNotFoundError as e:
        if e.name == "tensorrt":
            raise RbcedgeError(f"it is not installed. {_INSTALL}") from e
        raise RbcedgeError(f"it is installed, but '{e.name}' is missing.") from e
    except Exception as e:  # a broken container raises OSError, a missing library ImportError
        raise RbcedgeError(f"it is installed, but cannot be loaded ({one_line(str(e)) or type(e).__name__}).") from e
    if not hasattr(tensorrt, "Runtime"):
        raise RbcedgeError("a folder named 'tensorrt' was imported that is not TensorRT. Remove or rename it.")
    major = int(str(tensorrt.__version__).partition(".")[0])
    if major < 8 or not hasattr(tensorrt.ICudaEngine, "num_io_tensors"):
        raise RbcedgeError(f"version {tensorrt.__version__} is too old; 8.6 or newer is needed.")
    module: ModuleType = tensorrt
    return module


def make_logger(trt: ModuleType, heard: Callable[[str], None] = lambda line: None) -> Any:
    """Return a logger that prints nothing, remembers errors and passes each on to `heard` as one line.

    Its `last_error` is the newest error as one line, None where there was none; `driver_failed` says whether CUDA
    did not start, which TensorRT only warns of.
    """

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error: str | None = None
            self.driver_failed: str | None = None

        def log(self, severity: Any, msg: str) -> None:
            if "CUDA initialization failure" in msg:
                self.driver_failed = one_line(msg)
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last_error = one_line(msg)
                heard(self.last_error)

    return Logger()


def check_driver(logger: Any) -> None:
    """Raise `RbcedgeError` where TensorRT has said that CUDA does not start: its next call would end the process."""
    if logger.driver_failed is not None:
        too_old = re.search(r"error: 35\b", logger.driver_failed)
        reason = "the NVIDIA driver is too old for this TensorRT" if too_old else logger.driver_failed
        raise RbcedgeError(f"TensorRT cannot be used: {reason}.")


def one_line(text: str) -> str:
    """Return a message as one line, without TensorRT's source positions."""
    return re.sub(r"\[[\w./]+::[^\]]*\]\s*|\[[\w./]+\.cpp:\d+\]\s*", "", " ".join(text.split())).strip()


def _cuda_of_package() -> int | None:
    """Major CUDA version the installed wheel is for, None where no wheel says so (Jetson's comes from apt)."""
    for version in (13, 12, 11):
        for name in (f"tensorrt-cu{version}", f"tensorrt-cu{version}-bindings"):
            with suppress(metadata.PackageNotFoundError):
                metadata.version(name)
                return version
    # Wheels of 8.6 are named without it, but need NVIDIA's CUDA packages.
    with suppress(metadata.PackageNotFoundError):
        found = re.findall(
            r"^(?:nvidia-cuda-runtime|tensorrt)[-_]cu(\d+)", "\n".join(metadata.requires("tensorrt") or ()), re.M
        )
        return max(map(int, found), default=None)
    return None
