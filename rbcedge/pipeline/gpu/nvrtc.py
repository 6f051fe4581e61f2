"""Compiling kernels with NVIDIA's run-time compiler, through its C library; no GPU is needed for it.

The library comes with the CUDA toolkit (JetPack has it) or from pip (nvidia-cuda-nvrtc); no other package is needed.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from rbcedge.errors import RbcedgeError
from rbcedge.pipeline.gpu.source import OPTIONS, cache_folder

_MISSING = (
    "NVIDIA's run-time compiler (NVRTC) is not here. Install it (pip install nvidia-cuda-nvrtc, or the CUDA toolkit), "
    "or choose --engine cpu."
)
#: Names of the library, newest CUDA first, and where pip puts it below a folder of sys.path.
_NAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2")
_IN_PACKAGES = ("nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib")
_TOOLKIT = Path("/usr/local/cuda/lib64")


class Nvrtc:
    """One NVRTC library.

    Parameters
    ----------
    library : ctypes.CDLL
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("Version", ctypes.byref(major), ctypes.byref(minor))
        self.version = major.value, minor.value

    @property
    def architectures(self) -> tuple[int, ...]:
        """Architectures it knows, ascending: 87 is sm_87."""
        count = ctypes.c_int()
        self._call("GetNumSupportedArchs", ctypes.byref(count))
        known = (ctypes.c_int * count.value)()
        self._call("GetSupportedArchs", known)
        return tuple(sorted(known))

    def compile(self, source: str, architecture: int) -> bytes:
        """Compile CUDA C for a GPU of compute capability `architecture` (87 is 8.7).

        Machine code where the architecture is known; otherwise PTX for the newest one below it, which the driver
        translates.

        Raises
        ------
        RbcedgeError
            Where it knows no such GPU, or refuses the source.
        """
        known = self.architectures
        older = [a for a in known if a <= architecture]
        if not older:
            raise RbcedgeError(
                f"The installed NVRTC compiles for sm_{known[0]} and newer, this GPU is sm_{architecture}."
            )
        exact = older[-1] == architecture
        options = [f"--gpu-architecture={'sm' if exact else 'compute'}_{older[-1]}", *OPTIONS]
        program = ctypes.c_void_p()
        self._call("CreateProgram", ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
        try:
            given = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
            if self._library.nvrtcCompileProgram(program, len(options), given):
                raise RbcedgeError(f"NVRTC cannot compile the kernels: {_complaint(self._text(program, 'ProgramLog'))}")
            return self._text(program, "CUBIN" if exact else "PTX")
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _text(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"Get{what}Size", program, ctypes.byref(size))
        out = ctypes.create_string_buffer(size.value)
        self._call(f"Get{what}", program, out)
        return out.raw

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._library, f"nvrtc{name}")(*arguments)
        if code:
            raise RbcedgeError(f"NVRTC failed ({self._library.nvrtcGetErrorString(code).decode()}).")


def installed() -> Iterator[Nvrtc]:
    """Yield every NVRTC of this machine, newest CUDA first."""
    for name in _NAMES:
        folders = [Path(p) / inner for p in sys.path for inner in _IN_PACKAGES]
        for path in (*(str(f / name) for f in (*folders, _TOOLKIT) if (f / name).exists()), name):
            with suppress(OSError, AttributeError, RbcedgeError):
                yield Nvrtc(ctypes.CDLL(path))
                break


def compiler(cuda: int | None = None, found: Callable[[], Iterator[Nvrtc]] = installed) -> Nvrtc:
    """Return the newest NVRTC that the driver can follow.

    Parameters
    ----------
    cuda : int or None
        Major CUDA version the driver serves; None: any will do.
    found : callable
        Gives what is installed.

    Raises
    ------
    RbcedgeError
        Where there is none.
    """
    newer = None
    for one in found():
        if cuda is None or one.version[0] <= cuda:
            return one
        newer = one
    if newer is None:
        raise RbcedgeError(_MISSING)
    raise RbcedgeError(
        f"The installed NVRTC is of CUDA {newer.version[0]}, the NVIDIA driver serves CUDA {cuda}. Update the driver, "
        f"or install NVRTC for it (pip install nvidia-cuda-nvrtc-cu{cuda})."
    )


def compiled(source: str, architecture: int, cuda: int | None = None, folder: Path | None = None) -> bytes:
    """Compile for a GPU with `compiler(cuda)`, and keep it in `folder` (None: the user's cache) for the next start."""
    nvrtc = compiler(cuda)
    parts = (source, str(architecture), str(nvrtc.version), *OPTIONS)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]
    path = (folder or cache_folder()) / f"kernels-sm{architecture}-{key}.bin"
    try:
        return path.read_bytes()
    except OSError:
        code = nvrtc.compile(source, architecture)
    try:
        half = path.with_name(f"{path.name}.{os.getpid()}.part")
        half.write_bytes(code)
        half.replace(path)
    except OSError:
        pass  # compiled again at the next start
    return code


def _complaint(log: bytes) -> str:
    lines = log.decode(errors="replace").strip("\0 \n").splitlines()
    return next((x for x in lines if "error" in x), lines[0] if lines else "it gives no reason")
