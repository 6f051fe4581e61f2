"""The whole job: fields in, a bundle with INT8 networks out, and a report on what they lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rbcedge.calibration import folder as on_disk
from rbcedge.calibration import plots, tflite
from rbcedge.calibration.agreement import Agreement, Networks, compare, pool
from rbcedge.calibration.chosen import CalibrationSet, choose
from rbcedge.calibration.examine import Candidate, Progress, examine, silent
from rbcedge.calibration.marks import Marks
from rbcedge.calibration.network import Network, Run
from rbcedge.calibration.ranges import METHODS, Method
from rbcedge.calibration.report import Report, figures, write_report
from rbcedge.calibration.sensitivity import Judge, Quantised, labels_differ, masks_differ, quantise
from rbcedge.calibration.target import check_free, put, staging, write_bundle
from rbcedge.calibration.tolerances import Tolerances

from rbcedge.bundle import ROLES, Bundle
from rbcedge.engines.loading import artefacts, cores
from rbcedge.errors import RbcedgeError
from rbcedge.pipeline.host import HostPipeline
from rbcedge.sources.base import Source

#: Cells in one call while a classifier is judged.
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Options:
    """How to calibrate.

    Attributes
    ----------
    formats : tuple of str
        "tflite", "onnx".
    fields, cells : int
        Size of the calibration set.
    most : int
        Fields looked at.
    methods : tuple of str
        Ways of choosing ranges to try.
    keep_layers : bool
        Whether sensitivity is measured, and layers that lose too much stay in float.
    mask_goal, label_goal : float
        Disagreement with float on the calibration pictures above which layers are kept in float, 0 to 1. Below the
        tolerances: cells of the set are the rare and the doubtful ones.
    tolerances : Tolerances
    accept_loss : bool
        Write the bundle also where it is beyond them.
    scale : float or None
        Native px per source px; None: measured.
    threads : int or None
    seed : int
    """

    formats: tuple[str, ...] = ("tflite",)
    fields: int = 16
    cells: int = 512
    most: int = 200
    methods: tuple[Method, ...] = METHODS
    keep_layers: bool = True
    mask_goal: float = 0.002
    label_goal: float = 0.01
    tolerances: Tolerances = field(default_factory=Tolerances)
    accept_loss: bool = False
    scale: float | None = None
    threads: int | None = None
    seed: int = 0


def calibrate(
    bundle: Bundle,
    source: Source,
    out: Path,
    options: Options | None = None,
    marks: Marks | None = None,
    progress: Progress = silent,
) -> Report:
    """Make a bundle with INT8 networks that were calibrated on the fields of `source`.

    Half of the fields at the most choose the ranges; what INT8 changes is measured on the others. Where that is
    beyond the tolerances no bundle is written, only the report, into ``<out>-refused``.

    Parameters
    ----------
    bundle : Bundle
        With float networks.
    source : Source
        Of countable fields.
    out : Path
        Folder of the new bundle: missing or empty.
    options : Options
    marks : mapping of source to marks
        Cells that people have named, for the accuracy.
    progress : callable

    Returns
    -------
    Report

    Raises
    ------
    RbcedgeError, UsageError
        No float networks, nothing to calibrate on, too few cells to judge, a loss beyond the tolerances.
    """
    options = options or Options()
    check_free(out)
    plots.check_available()
    if "tflite" in options.formats:
        tflite.check_available()
    threads = options.threads or cores()
    reference = float_networks(bundle, threads)
    with staging(out) as work:
        (work / "models").mkdir()
        found = examine(
            source, HostPipeline(bundle, *reference, options.scale), work / "pictures", options.most, progress
        )
        chosen, rest = choose(found, bundle, *reference, options.fields, options.cells, options.seed, progress)
        stage = work / "bundle"
        on_disk.save(chosen, stage / "calibration")
        networks = {f: _networks(bundle, f, work / "models", threads) for f in options.formats}
        quantised: dict[str, dict[str, Quantised]] = {}
        speeds: dict[str, dict[str, tuple[float, float]]] = {}
        agreements: dict[str, Agreement] = {}
        for format, pair in networks.items():
            quantised[format], speeds[format] = {}, {}
            for role in ROLES:
                made = _quantise(pair[role], role, chosen, bundle, options, progress, f"{format} {role}")
                quantised[format][role] = made
                speeds[format][role] = _speeds(pair[role], made.model, _batches(chosen, role, 8)[0])
            engines = _engines(work / "models", format, quantised[format], threads)
            agreements[format] = _agree(
                bundle, reference, engines, rest, marks, f"{format} int8", progress, _name(reference)
            )
            _enough(agreements[format], options.tolerances)
        report = Report(
            bundle=bundle,
            source=source.name,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            examined=found,
            chosen=chosen,
            held_out=len(found.candidates) >= 4,
            quantised=quantised,
            speeds_ms=speeds,
            agreements=agreements,
            tolerances=options.tolerances,
            versions=_versions(),
        )
        pictures = {c.source: c for c in found.candidates}
        write_report(report, stage, lambda name: pictures[name].frame())
        _deliver(report, stage, out, options)
    return report


def float_networks(bundle: Bundle, threads: int) -> Networks:
    """Load the float networks of a bundle: TFLite, or ONNX where it has no TFLite.

    Raises
    ------
    RbcedgeError
        It has none.
    """
    from rbcedge.engines.loading import load_engines

    for format, engine in (("tflite", "litert"), ("onnx", "onnx")):
        if all(bundle.find(role, format, ("fp32",)) for role in ROLES):
            return load_engines(bundle, engine, "fp32", threads)
    has = sorted({f"{a.role} {a.format} {a.precision}" for a in bundle.artefacts})
    raise RbcedgeError(
        f"Bundle '{bundle.name}' has no float networks to make INT8 from; it has {', '.join(has) or 'none'}. "
        "Make a bundle of the trained networks with 'rbcedge convert', in fp32, and give that."
    )


def _networks(bundle: Bundle, format: str, folder: Path, threads: int) -> dict[str, Network]:
    found = artefacts(bundle, format, ("fp32",))
    if format == "tflite":
        return {a.role: tflite.TFLiteNetwork(bundle.path(a).read_bytes(), folder, a.role, threads) for a in found}
    from rbcedge.calibration.onnx import OnnxNetwork

    return {a.role: OnnxNetwork(bundle.path(a).read_bytes(), folder, a.role, threads) for a in found}


def _batches(chosen: CalibrationSet, role: str, size: int) -> list[NDArray[np.uint8]]:
    return chosen.segmenter_batches() if role == "segmenter" else chosen.classifier_batches(size)


def _quantise(
    network: Network,
    role: str,
    chosen: CalibrationSet,
    bundle: Bundle,
    options: Options,
    progress: Progress,
    title: str,
) -> Quantised:
    batches = _batches(chosen, role, _BATCH)
    progress(f"{title}: activations", 0, 1)
    network.calibrate(batches)
    if role == "segmenter":
        threshold = bundle.mask_threshold
        judge = Judge(network, batches, lambda a, b: masks_differ(a, b, threshold), flat=True)
        goal = options.mask_goal
    else:
        judge, goal = Judge(network, batches, labels_differ, flat=False), options.label_goal
    return quantise(network, judge, goal, options.methods, options.keep_layers, progress, title)


def _speeds(network: Network, model: bytes, batch: NDArray[np.uint8]) -> tuple[float, float]:
    """Time of a call, ms, float and INT8: the best of nine, as other work on the machine only adds."""

    def best(run: Run) -> float:
        run(batch)
        took = []
        for _ in range(9):
            begun = perf_counter()
            run(batch)
            took.append(1000 * (perf_counter() - begun))
        return min(took)

    return best(network.runner()), best(network.runner(model))


def _engines(folder: Path, format: str, made: Mapping[str, Quantised], threads: int) -> Networks:
    """Load the INT8 networks as a run would."""
    engines: list[Any] = []
    for role in ROLES:
        path = folder / f"{role}.final.{format}"
        path.write_bytes(made[role].model)
        if format == "tflite":
            from rbcedge.engines.litert import LiteRTEngine

            engines.append(LiteRTEngine(path, "int8", threads))
        else:
            from rbcedge.engines.onnx import OnnxEngine

            engines.append(OnnxEngine(path, "int8", threads))
    return engines[0], engines[1]


def _agree(
    bundle: Bundle,
    reference: Networks,
    candidate: Networks,
    rest: Sequence[Candidate],
    marks: Marks | None,
    name: str,
    progress: Progress,
    reference_name: str,
) -> Agreement:
    def frames() -> Any:
        for k, candidate_field in enumerate(rest):
            yield candidate_field.frame(), candidate_field.scale
            progress(f"{name}: comparing with float", k + 1, len(rest))

    return pool(list(compare(bundle, reference, candidate, frames(), marks)), bundle.labels, reference_name, name)


def _name(networks: Networks) -> str:
    return f"{networks[0].name} {networks[0].precision}"


def _enough(agreement: Agreement, tolerances: Tolerances) -> None:
    n = agreement.cells[0]  # of the reference: cells that INT8 loses are its fault, not the fields'
    if n < tolerances.cells:
        raise RbcedgeError(
            f"Only {n} whole cells to compare INT8 with float on; {tolerances.cells} are needed to judge it. "
            "Give more fields."
        )


def _deliver(report: Report, stage: Path, out: Path, options: Options) -> None:
    """Put the bundle in its place, or only the report where it is refused."""
    if report.beyond and not options.accept_loss:
        refused = out.with_name(f"{out.name}-refused")
        put(stage, refused, ("report.html", "agreement.json"))
        raise RbcedgeError(
            f"INT8 loses more than is tolerated: {'; '.join(report.beyond)}.\n"
            f"No bundle was written. See {refused / 'report.html'}; more fields may help, or give --accept-loss."
        )
    losses = {
        format: {"date": report.created[:10], "beyond": found}
        for format, found in report.beyond_by_format.items()
        if found
    }
    models = {(role, f): made[role].model for f, made in report.quantised.items() for role in ROLES}
    described = {
        "calibration": {"set_sha256": on_disk.digest(report.chosen), **figures(report)},
        "measured": _measured(report),
        "made_from": {
            "name": report.bundle.name,
            "sha256": report.bundle.sha256,
            "measured": report.bundle.manifest.get("measured", {}),
        },
    }
    write_bundle(stage, report.bundle, out.name, models, losses, described)
    put(stage, out)


def _measured(report: Report) -> dict[str, Any]:
    """What the manifest says was measured: only what was, on these fields, with these networks."""
    found: dict[str, Any] = {}
    for format, a in report.agreements.items():
        if a.accuracy is not None:
            found[f"accuracy, {format} int8"] = round(a.accuracy[1] / 100, 4)
    return {"on": f"{len(next(iter(report.agreements.values())).fields)} fields of {report.source}", **found}


def _versions() -> dict[str, str]:
    out = {}
    for name in ("rbcedge", "ai-edge-quantizer", "ai-edge-litert", "onnxruntime", "numpy"):
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out
