"""The whole job: fields in, a bundle with INT8 networks out, and a report on what they lose."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rbcedge.calibration import folder as on_disk
from rbcedge.calibration import plots, tflite
from rbcedge.calibration.agreement import Agreement, Networks, compare, pool
from rbcedge.calibration.chosen import choose
from rbcedge.calibration.examine import Candidate, Examined, Progress, examine, silent
from rbcedge.calibration.fitting import Wanted, fit
from rbcedge.calibration.marks import Marks
from rbcedge.calibration.network import Network, Run
from rbcedge.calibration.report import Report, Speed, summary, write_report
from rbcedge.calibration.sensitivity import Quantised
from rbcedge.calibration.target import check_free, put, staging, write_bundle
from rbcedge.calibration.tolerances import Tolerances

from rbcedge.bundle import ROLES, Bundle
from rbcedge.engines.loading import cores
from rbcedge.errors import RbcedgeError
from rbcedge.pipeline.host import HostPipeline
from rbcedge.sources.base import Source

#: Cells in one call while the time of a call is taken.
_CALL = 8

T = TypeVar("T")


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
    wanted : Wanted
        How INT8 networks are made, and the tolerances.
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
    wanted: Wanted = field(default_factory=Wanted)
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
    judge: Source | None = None,
) -> Report:
    """Make a bundle with INT8 networks that were calibrated on the fields of `source`.

    Half of the fields at the most choose the ranges; what INT8 changes is measured on the others, or on those of
    `judge`. Where that is beyond the tolerances no bundle is written, only the report, into ``<out>-refused``.

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
    judge : Source or None
        Of countable fields to measure on, where those of `source` shall not be.

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

        def look(at: Source, folder: str) -> Examined:
            return examine(at, HostPipeline(bundle, *reference, options.scale), work / folder, options.most, progress)

        networks = {f: _networks(bundle, f, work / "models", threads) for f in options.formats}
        found = look(source, "pictures")
        chosen, rest = choose(found, bundle, *reference, options.fields, options.cells, options.seed, progress)
        held_out = len(found.candidates) >= 4
        if judge is not None:
            calibrated = set(found.candidates) - set(rest if held_out else ())
            rest, held_out = _others(look(judge, "judged"), calibrated), True
        stage = work / "bundle"
        on_disk.save(chosen, stage / "calibration")
        quantised: dict[str, dict[str, Quantised]] = {}
        speeds: dict[str, dict[str, Speed]] = {}
        agreements: dict[str, Agreement] = {}
        for format, pair in networks.items():

            def agree(made: Networks, name: str = f"{format} int8") -> Agreement:
                agreement = _agree(bundle, reference, made, rest, marks, name, progress)
                _enough(agreement, options.wanted.tolerances)
                return agreement

            fitted = fit(pair, chosen, bundle, options.wanted, work / "models", agree, threads, progress)
            quantised[format], agreements[format] = dict(fitted.quantised), fitted.agreement
            speeds[format] = {
                role: _speed(pair[role], q, chosen.batches(role, _CALL)[0]) for role, q in fitted.quantised.items()
            }
        report = Report(
            bundle=bundle,
            source=source.name,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            examined=found,
            chosen=chosen,
            held_out=held_out,
            quantised=quantised,
            speeds=speeds,
            agreements=agreements,
            judged_on=source.name if judge is None else judge.name,
            tolerances=options.wanted.tolerances,
            versions=_versions(),
        )
        pictures = {c.source: c for c in rest}
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
    if format == "tflite":
        found = [bundle.find(role, "tflite", ("fp32",)) for role in ROLES]
        return {
            a.role: tflite.TFLiteNetwork(bundle.path(a).read_bytes(), folder, a.role, threads)
            for a in _all(found, bundle, "float32 TFLite", "onnx")
        }
    from rbcedge.calibration.onnx import OnnxNetwork
    from rbcedge.convert.networks import of_bundle

    whole = _all([of_bundle(bundle, role, ("onnx",)) for role in ROLES], bundle, "float ONNX", "tflite")
    return {n.role: OnnxNetwork(n.onnx or b"", folder, n.role, threads) for n in whole}


def _all(found: Sequence[T | None], bundle: Bundle, kind: str, other: str) -> list[T]:
    whole = [x for x in found if x is not None]
    if len(whole) < len(found):
        raise RbcedgeError(
            f"Bundle '{bundle.name}' has not both networks as {kind}. "
            f"Give --format {other}, or make them with 'rbcedge convert'."
        )
    return whole


def _others(judged: Examined, calibrated: set[Candidate]) -> list[Candidate]:
    """Fields to judge by that were not calibrated on, whatever they are called.

    Raises
    ------
    RbcedgeError
        There is none.
    """

    def content(c: Candidate) -> bytes:
        return hashlib.sha256(c.picture.read_bytes()).digest()

    known = {content(c) for c in calibrated}
    rest = [c for c in judged.candidates if content(c) not in known]
    if not rest:
        raise RbcedgeError("No field to judge by: none can be counted, or all are calibrated on. Give other fields.")
    return rest


def _speed(network: Network, made: Quantised, batch: NDArray[np.uint8]) -> Speed:
    """The best of nine calls of each, as other work on the machine only adds."""

    def best(run: Run) -> float:
        run(batch)
        took = []
        for _ in range(9):
            begun = perf_counter()
            run(batch)
            took.append(1000 * (perf_counter() - begun))
        return min(took)

    whole = best(network.runner())
    small = best(network.runner(made.model))
    return Speed(whole, best(network.runner(network.quantised(made.method))) if made.kept else small, small)


def _agree(
    bundle: Bundle,
    reference: Networks,
    candidate: Networks,
    rest: Sequence[Candidate],
    marks: Marks | None,
    name: str,
    progress: Progress,
) -> Agreement:
    def frames() -> Any:
        for k, candidate_field in enumerate(rest):
            yield candidate_field.frame(), candidate_field.scale
            progress(f"{name}: comparing with float", k + 1, len(rest))

    of = f"{reference[0].name} {reference[0].precision}"
    return pool(list(compare(bundle, reference, candidate, frames(), marks)), bundle.labels, of, name)


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
        "calibration": {"set_sha256": on_disk.digest(report.chosen), **summary(report)},
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
    return {"on": f"{len(next(iter(report.agreements.values())).fields)} fields of {report.judged_on}", **found}


def _versions() -> dict[str, str]:
    out = {}
    for name in ("rbcedge", "ai-edge-quantizer", "ai-edge-litert", "onnxruntime", "numpy"):
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out
