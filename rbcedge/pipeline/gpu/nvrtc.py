"""Compiling kernels with NVIDIA's run-time compiler; no GPU is needed for it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from rbcedge.errors import RbcedgeError
from rbcedge.pipeline.gpu.source import OPTIONS, cache_folder

_MISSING = (
    "NVIDIA's run-time compiler (NVRTC) is not here. Install it (pip install 'rbcedge[gpu]', or the CUDA toolkit), "
    "or choose --engine litert."
)


def supported() -> tuple[int, ...]:
    """Architectures the installed NVRTC knows, ascending: 87 is sm_87.

    Raises
    ------
    RbcedgeError
        Where there is no NVRTC.
    """
    return tuple(sorted(int(a) for a in _call(_nvrtc().nvrtcGetSupportedArchs())))


def compiled(source: str, architecture: int, folder: Path | None = None) -> bytes:
    """`compile_for`, kept in `folder` (None: the user's cache) for the next start."""
    version = ".".join(str(v) for v in _call(_nvrtc().nvrtcVersion()))
    key = hashlib.sha256("\0".join((source, str(architecture), version, *OPTIONS)).encode()).hexdigest()[:20]
    path = (folder or cache_folder()) / f"kernels-sm{architecture}-{key}.bin"
    try:
        return path.read_bytes()
    except OSError:
        code = compile_for(source, architecture)
    try:
        half = path.with_name(f"{path.name}.{os.getpid()}.part")
        half.write_bytes(code)
        half.replace(path)
    except OSError:
        pass  # compiled again at the next start
    return code


def compile_for(source: str, architecture: int) -> bytes:
    """Compile CUDA C for a GPU of compute capability `architecture` (87 is 8.7).

    Machine code where NVRTC knows the architecture; otherwise PTX for the newest one below it, which the driver
    translates.

    Raises
    ------
    RbcedgeError
        Where there is no NVRTC, it knows no such GPU, or it refuses the source.
    """
    nvrtc = _nvrtc()
    older = [a for a in supported() if a <= architecture]
    if not older:
        raise RbcedgeError(
            f"The installed NVRTC compiles for sm_{supported()[0]} and newer, this GPU is sm_{architecture}."
        )
    exact = older[-1] == architecture
    target = f"--gpu-architecture={'sm' if exact else 'compute'}_{older[-1]}"
    program = _call(nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], []))
    try:
        options = [o.encode() for o in (target, *OPTIONS)]
        if int(nvrtc.nvrtcCompileProgram(program, len(options), options)[0]) != 0:
            log = b" " * _call(nvrtc.nvrtcGetProgramLogSize(program))
            nvrtc.nvrtcGetProgramLog(program, log)
            lines = log.decode(errors="replace").strip("\0 \n").splitlines()
            raise RbcedgeError(
                f"NVRTC cannot compile the kernels: {next((x for x in lines if 'error' in x), lines[:1])}"
            )
        size, get = (
            (nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN) if exact else (nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)
        )
        code: bytes = b" " * _call(size(program))
        _call(get(program, code))
        return code
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except Exception as e:  # no package, no library, or one that does not load
        raise RbcedgeError(_MISSING) from e
    return nvrtc


def _call(answer: Any) -> Any:
    """Return what an NVRTC call gave, or raise."""
    error, *values = answer
    if int(error) != 0:
        raise RbcedgeError(f"NVRTC failed ({error.name}).")
    return values[0] if len(values) == 1 else values
