"""From a bundle and the user's wishes to two running networks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rbcedge.bundle import ROLES, Artefact, Bundle
from rbcedge.engines.base import Engine
from rbcedge.errors import RbcedgeError, UsageError


@dataclass(frozen=True, slots=True)
class Runtime:
    """One row of the table of engines.

    Attributes
    ----------
    name : str
        As `--engine` takes it and `Engine.name` gives it.
    title : str
        For people.
    format : str
        Format of the artefacts it runs, or makes its own files from.
    precisions : tuple of str
        What it can run, in the order in which "auto" takes them.
    problem : callable () -> str or None
        Why it cannot be used on this machine, with what to do, in words; None where it can. Quick, never raises.
    load : callable (bundle, precisions, threads) -> (segmenter, classifier)
        Loads both networks, each in the first of `precisions` that the bundle has. Raises RbcedgeError.
    gpu : bool
        Whether it needs a GPU.
    """

    name: str
    title: str
    format: str
    precisions: tuple[str, ...]
    problem: Callable[[], str | None]
    load: Callable[[Bundle, Sequence[str], int], tuple[Engine, Engine]]
    gpu: bool = False

    def serves(self, bundle: Bundle, precisions: Sequence[str]) -> bool:
        """Whether the bundle has both networks in this runtime's format and one of `precisions`."""
        return all(bundle.find(role, self.format, precisions) for role in ROLES)


def _litert_problem() -> str | None:
    from rbcedge.engines.litert import interpreter_class

    try:
        interpreter_class()
    except RbcedgeError as e:
        return str(e)
    return None


def _load_litert(bundle: Bundle, precisions: Sequence[str], threads: int) -> tuple[Engine, Engine]:
    from rbcedge.engines.litert import LiteRTEngine

    first, second = (
        LiteRTEngine(bundle.path(a), a.precision, threads) for a in artefacts(bundle, "tflite", precisions)
    )
    return first, second


def _onnx_problem() -> str | None:
    from rbcedge.engines.onnx import runtime

    try:
        runtime()
    except RbcedgeError as e:
        return str(e)
    return None


def _load_onnx(bundle: Bundle, precisions: Sequence[str], threads: int) -> tuple[Engine, Engine]:
    from rbcedge.engines.onnx import OnnxEngine

    first, second = (OnnxEngine(bundle.path(a), a.precision, threads) for a in artefacts(bundle, "onnx", precisions))
    return first, second


def _tensorrt_problem() -> str | None:
    from rbcedge.engines.tensorrt_api import problem

    return problem()


def _load_tensorrt(bundle: Bundle, precisions: Sequence[str], threads: int) -> tuple[Engine, Engine]:
    from rbcedge.engines.tensorrt import load

    return load(bundle, precisions, threads)


#: Every engine, best first: "auto" takes the first that can be used on this machine and that has networks in the
#: bundle. An engine for a GPU stands before those for a CPU.
RUNTIMES = (
    Runtime("tensorrt", "TensorRT", "onnx", ("fp16", "int8", "fp32"), _tensorrt_problem, _load_tensorrt, gpu=True),
    Runtime("litert", "LiteRT", "tflite", ("int8", "fp16", "fp32"), _litert_problem, _load_litert),
    Runtime("onnx", "ONNX Runtime", "onnx", ("fp32", "fp16", "int8"), _onnx_problem, _load_onnx),
)
ENGINES = ("auto", "cpu", *(r.name for r in RUNTIMES))
PRECISIONS = ("auto", "fp32", "fp16", "int8")


def load_engines(
    bundle: Bundle, engine: str = "auto", precision: str = "auto", threads: int | None = None
) -> tuple[Engine, Engine]:
    """Load the segmenter and the classifier of a bundle.

    Parameters
    ----------
    bundle : Bundle
    engine : str
        One of `ENGINES`; "auto" is the first of `RUNTIMES` that can be used here and has networks in the bundle; one
        that cannot be loaded is named on the error stream, and the next is taken. "cpu": the same among those that
        need no GPU.
    precision : str
        One of `PRECISIONS`; "auto" is the first of the runtime's own order that the bundle has.
    threads : int or None
        CPU threads; None: one for each core this process may use.

    Raises
    ------
    UsageError, RbcedgeError
        For unknown names, where the engine cannot be used, and where the bundle has no such networks.
    """
    check(engine, precision, threads)
    if engine in ("auto", "cpu"):
        among = [r for r in RUNTIMES if engine == "auto" or not r.gpu]
        return _load_best(bundle, precision, threads or cores(), among)
    runtime = named(engine)
    problem = runtime.problem()
    if problem is not None:
        raise RbcedgeError(problem)
    return runtime.load(bundle, wanted(runtime, precision), threads or cores())


def check(engine: str, precision: str, threads: int | None) -> None:
    """Raise `UsageError` for names that are not known and numbers of threads that make no sense."""
    if engine not in ENGINES:
        raise UsageError(f"Unknown engine '{engine}'. Known: {', '.join(ENGINES)}.")
    if precision not in PRECISIONS:
        raise UsageError(f"Unknown precision '{precision}'. Known: {', '.join(PRECISIONS)}.")
    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads make no sense. Give 1 or more.")


def named(engine: str) -> Runtime:
    """Return the row of an engine that is not "auto" or "cpu"."""
    return next(r for r in RUNTIMES if r.name == engine)


def artefacts(bundle: Bundle, format: str, precisions: Sequence[str]) -> tuple[Artefact, Artefact]:
    """Return segmenter and classifier in this format, each in the first of `precisions` that there is.

    Raises
    ------
    RbcedgeError
        Where one is missing; the message says what the bundle has.
    """
    found = []
    for role in ROLES:
        artefact = bundle.find(role, format, precisions)
        if artefact is None:
            has = sorted({f"{a.format} {a.precision}" for a in bundle.artefacts if a.role == role})
            raise RbcedgeError(
                f"Bundle '{bundle.name}' has no {format} {role} in {' or '.join(precisions)}; "
                f"it has {', '.join(has) or 'none'}. Choose another --engine or --precision, "
                "or make one with 'rbcedge convert'."
            )
        found.append(artefact)
    return found[0], found[1]


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wanted(runtime: Runtime, precision: str) -> tuple[str, ...]:
    """Precisions to look for, in this order."""
    return runtime.precisions if precision == "auto" else (precision,)


def _load_best(bundle: Bundle, precision: str, threads: int, among: Sequence[Runtime]) -> tuple[Engine, Engine]:
    """Load the first runtime that can be used here and has networks; one that fails is named and left out."""
    *others, last = _usable(bundle, precision, among)
    for runtime in others:
        try:
            return runtime.load(bundle, wanted(runtime, precision), threads)
        except RbcedgeError as e:
            print(f"rbcedge: {runtime.title} is left out: {e}", file=sys.stderr, flush=True)
    return last.load(bundle, wanted(last, precision), threads)


def _usable(bundle: Bundle, precision: str, among: Sequence[Runtime]) -> list[Runtime]:
    """Return the runtimes that can be used here and have networks, best first; at least one."""
    found, reasons = [], []
    for runtime in among:
        if not runtime.serves(bundle, wanted(runtime, precision)):
            continue
        problem = runtime.problem()
        if problem is None:
            found.append(runtime)
        else:
            reasons.append(problem)
    if found:
        return found
    if reasons:
        raise RbcedgeError(" ".join(reasons))
    has = sorted({f"{a.role} {a.format} {a.precision}" for a in bundle.artefacts})
    asked = "" if precision == "auto" else f" in {precision}"
    raise RbcedgeError(
        f"Bundle '{bundle.name}' has no pair of networks{asked} that an engine here can run; "
        f"it has {', '.join(has) or 'none'}. Choose another --precision, or make one with 'rbcedge convert'."
    )
