"""The kernels' text and what each takes, read from the text itself: one truth for every driver."""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from rbcedge.pipeline.gpu.base import Argument

#: Threads of a block.
BLOCK = 128
#: Options for every compiler: results must not depend on which products it fuses.
OPTIONS = ("--fmad=false", "--std=c++14")

_DECLARATION = re.compile(r"^KERNEL\s+(\w+)\(([^)]*)\)", re.MULTILINE)
_TYPES: Mapping[str, Any] = {"pointer": ctypes.c_void_p, "int": ctypes.c_int, "float": ctypes.c_float}


def text(name: str = "kernels.cu") -> str:
    """Return a file of this package."""
    return (files("rbcedge.pipeline.gpu") / name).read_text(encoding="utf-8")


@cache
def signatures(source: str) -> Mapping[str, tuple[str, ...]]:
    """For each kernel what it takes after the number of threads: "pointer", "int" or "float"."""
    return {name: tuple(_kind(p) for p in parameters.split(","))[1:] for name, parameters in declarations(source)}


def declarations(source: str) -> list[tuple[str, str]]:
    """Name and parameters of each kernel, as written."""
    return [(m[1], " ".join(m[2].split())) for m in _DECLARATION.finditer(source)]


def _kind(parameter: str) -> str:
    if "*" in parameter:
        return "pointer"
    kind = parameter.split()[0]
    if kind not in ("int", "float"):
        raise ValueError(f"kernel parameter '{parameter.strip()}': only pointers, int and float are known")
    return kind


def pack(name: str, signature: Sequence[str], threads: int, arguments: Sequence[Argument]) -> list[Any]:
    """Return ctypes values for a launch: the number of threads, then the arguments.

    Raises
    ------
    TypeError
        Where they are not what the kernel takes.
    """
    if len(arguments) != len(signature):
        raise TypeError(f"{name} takes {len(signature)} arguments, got {len(arguments)}")
    packed: list[Any] = [ctypes.c_int(threads)]
    for kind, argument in zip(signature, arguments, strict=True):
        value = argument if isinstance(argument, (int, float)) else argument.address
        if kind != "float" and not isinstance(value, int):
            raise TypeError(f"{name}: {argument!r} where it takes a {kind}")
        packed.append(_TYPES[kind](value))
    return packed


def cache_folder() -> Path:
    """Where compiled kernels are kept: the user's cache, or a temporary folder where that cannot be written."""
    folder = user_cache_path("rbcedge") / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"rbcedge-kernels-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder
