"""Which layers lose most in INT8, and which must stay in float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rbcedge.calibration.examine import Progress, silent
from rbcedge.calibration.network import Layer, Network, Run
from rbcedge.calibration.ranges import METHODS, Method

from rbcedge.errors import RbcedgeError

#: Networks of more layers are judged by blocks first.
_SINGLY = 48
#: Groups kept in float at the most, the share of the multiplications they may have, and what each must bring, dB.
_KEPT, _SHARE, _LEAST_DB = 10, 0.5, 0.3


@dataclass(frozen=True, slots=True)
class Effect:
    """How near a model comes to the float one on the same pictures.

    Attributes
    ----------
    sqnr_db : float
        Signal to quantisation noise of the output, 10 log10(sum y² / sum (y - y')²).
    disagreement : float
        Segmenter: 1 - IoU of the masks. Classifier: share of cells with another class. 0 to 1.
    """

    sqnr_db: float
    disagreement: float


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that are kept in float, or not, together."""

    title: str
    layers: tuple[Layer, ...]

    @property
    def names(self) -> frozenset[str]:
        """Names of the layers."""
        return frozenset(x.name for x in self.layers)

    @property
    def macs(self) -> int:
        """Multiplications for one picture."""
        return sum(x.macs for x in self.layers)


@dataclass(frozen=True, slots=True)
class Finding:
    """What INT8 in one group alone does, all else in float.

    Errors of different layers add up nearly as independent noise does, so the group with the lowest signal to noise
    by itself is the one that costs most. (Leaving one group in float instead hides it behind the noise of the rest.)
    """

    group: Group
    effect: Effect


@dataclass(frozen=True, slots=True)
class Quantised:
    """An INT8 network and how it was found.

    Attributes
    ----------
    model : bytes
    method : str
        Ranges that were best.
    methods : tuple of (str, Effect)
        What each way of choosing ranges gives, all layers in INT8.
    findings : tuple of Finding
        Sensitivity, most harmful group first; empty where it was not asked for.
    kept : tuple of Group
        Groups that stay in float.
    effect : Effect
        Of the model.
    float_share : float
        Share of the multiplications that stay in float, 0 to 1.
    goal : float
        Disagreement at which no more groups were kept, 0 to 1.
    """

    model: bytes
    method: Method
    methods: tuple[tuple[Method, Effect], ...]
    findings: tuple[Finding, ...]
    kept: tuple[Group, ...]
    effect: Effect
    float_share: float
    goal: float


def groups(layers: Sequence[Layer]) -> list[Group]:
    """Group layers by block where there are many of them; each by itself otherwise, and where a block is too large."""
    if len(layers) <= _SINGLY:
        return singly(layers)
    blocks: dict[str, list[Layer]] = {}
    for layer in layers:
        blocks.setdefault(layer.block, []).append(layer)
    most = _SHARE * sum(x.macs for x in layers)
    out: list[Group] = []
    for title, found in blocks.items():
        group = Group(title, tuple(found))
        out += singly(found) if group.macs > most else [group]
    return out


def singly(layers: Sequence[Layer]) -> list[Group]:
    """Each layer by itself."""
    return [Group(f"{x.title} ({x.kind.lower()})", (x,)) for x in layers]


def masks_differ(reference: NDArray[np.float32], other: NDArray[np.float32], threshold: float = 0.5) -> float:
    """1 - IoU of two arrays of probabilities, both cut at `threshold`; 0 where both are empty."""
    a, b = reference >= threshold, other >= threshold
    either = int((a | b).sum())
    return 1 - int((a & b).sum()) / either if either else 0.0


def labels_differ(reference: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Share of (N, K) rows with another most probable class."""
    return float((reference.argmax(1) != other.argmax(1)).mean())


class Judge:
    """Compares models of one network with its float outputs on fixed pictures.

    Parameters
    ----------
    network : Network
    batches : sequence of (n, H, W, 3) uint8
    differ : callable
        `masks_differ` or `labels_differ`; given the outputs of all batches, flattened for masks.
    flat : bool
        Whether outputs are flattened before they are joined: pictures of several sizes.
    """

    def __init__(
        self,
        network: Network,
        batches: Sequence[NDArray[np.uint8]],
        differ: Callable[[NDArray[np.float32], NDArray[np.float32]], float],
        flat: bool,
    ) -> None:
        self._network, self._batches, self._differ, self._flat = network, batches, differ, flat
        self._reference = self._outputs(network.runner())

    def effect(self, model: bytes) -> Effect:
        """Judge one model."""
        got = self._outputs(self._network.runner(model))
        noise = float(np.square(self._reference - got, dtype=np.float64).sum())
        signal = float(np.square(self._reference, dtype=np.float64).sum())
        sqnr = 10 * np.log10(signal / noise) if noise > 0 and signal > 0 else 99.0
        return Effect(min(99.0, float(sqnr)), self._differ(self._reference, got))

    def _outputs(self, run: Run) -> NDArray[np.float32]:
        found = [run(b) for b in self._batches]
        return np.concatenate([x.ravel() for x in found] if self._flat else found)


def quantise(
    network: Network,
    judge: Judge,
    goal: float,
    methods: Sequence[Method] = METHODS,
    sensitivity: bool = True,
    progress: Progress = silent,
    title: str = "network",
) -> Quantised:
    """Find the ranges that lose least, then keep the most harmful layers in float until the goal is met.

    Each group of layers in turn is made INT8 while all others are float: the noise that brings is its harm. Groups
    are then left in float in the order of their harm until the disagreement is at most `goal`, or half of the
    arithmetic is in float; those that turn out to bring nothing are given up again. Harm is measured by noise,
    because on some hundred cells the number of changed labels is itself mostly chance.

    Parameters
    ----------
    network : Network
        Calibrated.
    judge : Judge
    goal : float
        Largest disagreement to accept, 0 to 1.
    methods : sequence of str
        Ranges to try.
    sensitivity : bool
        False: measure no groups, keep none.
    progress : callable
    title : str
        Of the network, for the progress.
    """
    tried: list[tuple[Method, Effect, bytes]] = []
    for k, method in enumerate(methods):
        try:
            model = network.quantised(method)
        except RbcedgeError:
            # Ranges that cannot be found (ONNX Runtime's percentile at times) are no reason to do without the others.
            if k == len(methods) - 1 and not tried:
                raise
        else:
            tried.append((method, judge.effect(model), model))
        progress(f"{title}: ranges", k + 1, len(methods))
    method, effect, model = max(tried, key=lambda t: t[1].sqnr_db)
    ways = tuple((m, e) for m, e, _ in tried)
    if not sensitivity:
        return Quantised(model, method, ways, (), (), effect, 0.0, goal)
    findings = tuple(_findings(network, judge, method, progress, title))
    return tightened(network, judge, Quantised(model, method, ways, findings, (), effect, 0.0, goal), goal)


def tightened(network: Network, judge: Judge, before: Quantised, goal: float) -> Quantised:
    """Choose anew what stays in float, for another goal, from the sensitivity that was measured; see `quantise`."""
    if not before.findings:
        return before
    effect, model = dict(before.methods)[before.method], network.quantised(before.method)
    kept: list[Group] = []
    if effect.disagreement > goal:
        kept, effect, model = _keep(network, judge, before.method, before.findings, goal, effect, model)
    share = _share(network, kept)
    return replace(before, model=model, kept=tuple(kept), effect=effect, float_share=share, goal=goal)


def _share(network: Network, kept: Sequence[Group]) -> float:
    """Share of the multiplications that `kept` has."""
    return sum(g.macs for g in kept) / max(1, sum(x.macs for x in network.layers))


def _findings(network: Network, judge: Judge, method: Method, progress: Progress, title: str) -> list[Finding]:
    """Measure every group; most harmful first, of equal ones the cheapest."""
    every = frozenset(x.name for x in network.layers)
    wanted = groups(network.layers)
    found: list[Finding] = []
    for group in wanted:
        found.append(Finding(group, judge.effect(network.quantised(method, every - group.names))))
        progress(f"{title}: layers", len(found), len(wanted))
    return sorted(found, key=lambda f: (f.effect.sqnr_db, f.group.macs))


def _keep(
    network: Network,
    judge: Judge,
    method: Method,
    findings: Sequence[Finding],
    goal: float,
    effect: Effect,
    model: bytes,
) -> tuple[list[Group], Effect, bytes]:
    """Choose what stays in float."""

    def judged(groups: Sequence[Group]) -> tuple[Effect, bytes]:
        trial = network.quantised(method, frozenset[str]().union(*(g.names for g in groups)))
        return judge.effect(trial), trial

    kept: list[Group] = []
    now, made = effect, model
    for finding in findings:
        if now.disagreement <= goal or len(kept) == _KEPT:
            break
        if _share(network, [*kept, finding.group]) <= _SHARE:
            kept.append(finding.group)
            # One may bring nothing without the next: what runs between two layers is INT8 as long as one of them is.
            now, made = judged(kept)
    for group in list(kept):
        less = [g for g in kept if g is not group]
        trial, fewer = judged(less) if less else (effect, model)
        if trial.disagreement <= goal or (now.disagreement > goal and trial.sqnr_db > now.sqnr_db - _LEAST_DB):
            kept, now, made = less, trial, fewer
    return kept, now, made
