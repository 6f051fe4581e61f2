"""From a bundle and the user's wishes to two running networks."""

from __future__ import annotations

import os

from rbcedge.bundle import ROLES, Bundle
from rbcedge.engines.base import Engine
from rbcedge.engines.litert import LiteRTEngine
from rbcedge.errors import RbcedgeError, UsageError

ENGINES = ("auto", "litert")
PRECISIONS = ("auto", "fp32", "int8")


def load_engines(
    bundle: Bundle, engine: str = "auto", precision: str = "auto", threads: int | None = None
) -> tuple[Engine, Engine]:
    """Load the segmenter and the classifier of a bundle.

    Parameters
    ----------
    bundle : Bundle
    engine : str
        One of `ENGINES`.
    precision : str
        One of `PRECISIONS`; "auto" is the smallest that the bundle has.
    threads : int or None
        CPU threads; None: one for each core this process may use.

    Raises
    ------
    UsageError, RbcedgeError
        For unknown names, and where the bundle has no such networks.
    """
    if engine not in ENGINES:
        raise UsageError(f"Unknown engine '{engine}'. Known: {', '.join(ENGINES)}.")
    if precision not in PRECISIONS:
        raise UsageError(f"Unknown precision '{precision}'. Known: {', '.join(PRECISIONS)}.")
    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads make no sense. Give 1 or more.")
    wanted = ("int8", "fp16", "fp32") if precision == "auto" else (precision,)
    count = threads or len(os.sched_getaffinity(0))
    found = []
    for role in ROLES:
        artefact = bundle.find(role, "tflite", wanted)
        if artefact is None:
            has = sorted({f"{a.format} {a.precision}" for a in bundle.artefacts if a.role == role})
            raise RbcedgeError(
                f"Bundle '{bundle.name}' has no TFLite {role} in {' or '.join(wanted)}; "
                f"it has {', '.join(has) or 'none'}. Choose another --precision."
            )
        found.append(LiteRTEngine(bundle.path(artefact), artefact.precision, count))
    return found[0], found[1]
