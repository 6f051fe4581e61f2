"""Both INT8 networks of one format, with as many layers left in float as the tolerances ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rbcedge.calibration.agreement import Agreement, Networks
from rbcedge.calibration.chosen import CalibrationSet
from rbcedge.calibration.examine import Progress, silent
from rbcedge.calibration.network import Network
from rbcedge.calibration.ranges import METHODS, Method
from rbcedge.calibration.sensitivity import Judge, Quantised, labels_differ, masks_differ, quantise, tightened
from rbcedge.calibration.tolerances import Tolerances

from rbcedge.bundle import ROLES, Bundle
from rbcedge.engines.base import Engine

#: Cells in one call while a classifier is judged.
_BATCH = 64
#: How often a goal is halved where the judged fields show a change beyond a tolerance.
_HALVED = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """What INT8 networks should reach.

    Attributes
    ----------
    methods : tuple of str
        Ways of choosing ranges to try.
    keep_layers : bool
        Whether sensitivity is measured, and layers that lose too much stay in float.
    mask_goal, label_goal : float
        Disagreement with float on the calibration pictures above which layers are kept in float, 0 to 1. Below the
        tolerances: cells of the set are the rare and the doubtful ones.
    tolerances : Tolerances
    """

    methods: tuple[Method, ...] = METHODS
    keep_layers: bool = True
    mask_goal: float = 0.002
    label_goal: float = 0.01
    tolerances: Tolerances = field(default_factory=Tolerances)


@dataclass(frozen=True, slots=True)
class Fitted:
    """Both INT8 networks by role, and how they agree with float on the judged fields."""

    quantised: Mapping[str, Quantised]
    agreement: Agreement


def fit(
    networks: Mapping[str, Network],
    chosen: CalibrationSet,
    bundle: Bundle,
    wanted: Wanted,
    folder: Path,
    agree: Callable[[Networks], Agreement],
    threads: int = 1,
    progress: Progress = silent,
) -> Fitted:
    """Quantise both networks; leave more layers in float where the judged fields show too large a change.

    The goals on the calibration pictures decide first. Where a change on the judged fields is then beyond a tolerance,
    explained by chance or not, the goal of the network it comes from is halved, up to three times, as long as that
    leaves more layers in float. The first result with the fewest changes beyond is taken.

    Parameters
    ----------
    networks : mapping of role to Network
        Float.
    chosen : CalibrationSet
    bundle : Bundle
    wanted : Wanted
    folder : Path
        For models that are tried; the caller removes it.
    agree : callable
        Compares a pair of INT8 engines with the float ones on the judged fields.
    threads : int
    progress : callable
    """
    judges, made = {}, {}
    goals = {"segmenter": wanted.mask_goal, "classifier": wanted.label_goal}
    for role in ROLES:
        network, title = networks[role], f"{networks[role].format} {role}"
        batches = chosen.batches(role, _BATCH)
        progress(f"{title}: activations", 0, 1)
        network.calibrate(batches)
        judges[role] = _judge(network, role, batches, bundle.mask_threshold)
        made[role] = quantise(
            network, judges[role], goals[role], wanted.methods, wanted.keep_layers, progress, title
        )  # fmt: skip
    best = now = Fitted(made, agree(engines(folder, networks, made, threads)))
    for _ in range(_HALVED):
        wanting = _wanting(now.agreement, wanted.tolerances)
        if not wanting or not wanted.keep_layers:
            break
        goals = {role: goal / 2 if role in wanting else goal for role, goal in goals.items()}
        closer = {
            role: tightened(networks[role], judges[role], q, goals[role]) if role in wanting else q
            for role, q in now.quantised.items()
        }
        if all(closer[role].kept == now.quantised[role].kept for role in ROLES):
            continue
        now = Fitted(closer, agree(engines(folder, networks, closer, threads)))
        if _beyond(now.agreement, wanted.tolerances) < _beyond(best.agreement, wanted.tolerances):
            best = now
    return best


def engines(folder: Path, networks: Mapping[str, Network], made: Mapping[str, Quantised], threads: int = 1) -> Networks:
    """Load INT8 networks as a run would."""
    from rbcedge.engines.litert import LiteRTEngine
    from rbcedge.engines.onnx import OnnxEngine

    out: list[Engine] = []
    for role in ROLES:
        path = folder / f"{role}.final.{networks[role].format}"
        path.unlink(missing_ok=True)  # never written over: another engine may hold it mapped into memory
        path.write_bytes(made[role].model)
        out.append((LiteRTEngine if networks[role].format == "tflite" else OnnxEngine)(path, "int8", threads))
    return out[0], out[1]


def _judge(network: Network, role: str, batches: Sequence[NDArray[np.uint8]], threshold: float) -> Judge:
    if role == "segmenter":
        return Judge(network, batches, lambda a, b: masks_differ(a, b, threshold), flat=True)
    return Judge(network, batches, labels_differ, flat=False)


def _wanting(agreement: Agreement, tolerances: Tolerances) -> set[str]:
    """Roles of the networks that changes beyond a tolerance come from."""
    off = [c.name for c in agreement.checks(tolerances) if c.verdict != "within"]
    return {"segmenter" if name == "mask IoU" else "classifier" for name in off}


def _beyond(agreement: Agreement, tolerances: Tolerances) -> tuple[int, int]:
    """Changes beyond a tolerance: those that chance does not explain, and the others."""
    verdicts = [c.verdict for c in agreement.checks(tolerances)]
    return verdicts.count("beyond"), verdicts.count("noise")
