"""Measure a pipeline on a source: every picture fresh, then one at rest; on a device, the stages once more."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event

from rbcedge.bench.diagnosis import diagnose
from rbcedge.bench.gpu import Gpu
from rbcedge.bench.hardware import ROOT, text
from rbcedge.bench.loops import Held, Meter, Metered, turn
from rbcedge.bench.result import Case, Loop, Network, Run
from rbcedge.bench.sensors import Watch
from rbcedge.bundle import ROLES, Bundle
from rbcedge.errors import RbcedgeError
from rbcedge.pipeline.base import Pipeline
from rbcedge.pipeline.choosing import Network as Named
from rbcedge.pipeline.choosing import device_of
from rbcedge.pipeline.gpu.base import Transfers
from rbcedge.sources.base import Source

#: File format of the bundle that an engine runs or is built from.
_FORMATS = {"litert": "tflite", "onnx": "onnx", "tensorrt": "onnx"}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure.

    Attributes
    ----------
    frames : int
        Pictures that count, 2 or more.
    warm_up : int
        Pictures before them.
    """

    frames: int = 200
    warm_up: int = 10


def measure(
    opener: Callable[[], Source],
    pipeline: Pipeline,
    engines: tuple[Named, Named],
    bundle: Bundle,
    plan: Plan,
    *,
    cells: int | None = None,
    threads: int = 1,
    gpu: Gpu | None = None,
    stop: Event | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Run:
    """Measure one case.

    Parameters
    ----------
    opener : callable
        Opens the source anew; called again whenever it ends.
    pipeline : Pipeline
        Closed by the caller.
    engines : (Named, Named)
        Segmenter and classifier that `pipeline` uses.
    bundle : Bundle
    plan : Plan
    cells : int, optional
        Objects drawn into each simulated field, to be written down.
    threads : int
        To be written down.
    gpu, stop, progress
        `stop` ends it early: what was measured until then is given.

    Raises
    ------
    RbcedgeError
        The source has one picture only, or none; no cell was found in any of them; nothing was measured.
    """
    segmenter, classifier = engines
    engine = (segmenter.name, _precision(segmenter, classifier))
    _forget_peak()
    stop = stop or Event()
    device = device_of(pipeline)
    pictures = partial(
        turn,
        opener,
        pipeline,
        bundle,
        engine,
        plan.frames,
        plan.warm_up,
        fresh=True,
        drawn=True,
        stop=stop,
        progress=progress,
    )
    with Watch(gpu=gpu) as watch:
        meter, source = pictures(transfers=Transfers if device is None else lambda: device.transfers)
    fresh = replace(meter.loop, stages_ms=_in_order(meter.loop))
    if len(fresh.total_ms) < 2:
        raise RbcedgeError(_nothing(source.name, source.skips[0].reason if source.skips else "", meter))
    if not sum(fresh.cells):
        raise RbcedgeError(
            f"{source.name}: no cell was found in {len(fresh.cells)} pictures. The latency of empty pictures says "
            "nothing: give pictures of a blood smear, or check --scale."
        )
    resting = None if stop.is_set() else _resting(meter, pipeline, bundle, engine, plan, stop)
    lost = device is not None and device_of(pipeline) is None
    by_stage = _by_stage(pictures, pipeline, stop)
    width, height = meter.size
    run = Run(
        case=Case(source.name, *engine, width, height, cells, threads),
        networks=_networks(bundle, engines),
        pictures=source.different,
        warm_up=plan.warm_up,
        fresh=fresh,
        resting=resting,
        peak_bytes=_peak(),
        device_bytes=watch.device_bytes,
        watched=watch.result,
        scale=meter.scale,
        by_stage=by_stage,
        moved=None if device is None or lost else meter.moved,
    )
    said: tuple[str, ...] = ()
    if device is not None and device_of(pipeline) is None:
        so = "these figures are not of the GPU alone" if lost else "its stages were not told apart"
        said = (f"{pipeline.warnings[0]} So {so}.",)
    return replace(run, diagnosis=(*said, *diagnose(run, dict(meter.reasons))))


def _by_stage(pictures: Callable[[], tuple[Meter, Metered]], pipeline: Pipeline, stop: Event) -> Loop | None:
    """Show a device as many pictures again, waiting after each stage; None where there is none, or no longer.

    None, too, where it was stopped. A device is waited for once a picture: without more, its stages have no times.
    """
    device = device_of(pipeline)
    if device is None or stop.is_set():
        return None
    device.by_stage = True
    try:
        meter, _ = pictures()
    finally:
        device.by_stage = False
    if len(meter.loop.total_ms) < 2 or device_of(pipeline) is None:
        return None
    return replace(meter.loop, stages_ms=_in_order(meter.loop))


def _resting(
    meter: Meter, pipeline: Pipeline, bundle: Bundle, engine: tuple[str, str], plan: Plan, stop: Event
) -> Loop | None:
    """Hold a countable field still; None where there is none, or where it did not come to rest."""
    frame = meter.countable
    if frame is None:
        return None
    held, _ = turn(lambda: Held(frame), pipeline, bundle, engine, plan.frames, plan.warm_up, fresh=False, stop=stop)
    if not held.total_ms or 2 * held.states["repeated"] < len(held.total_ms):
        return None
    return replace(held.loop, stages_ms={})


def _in_order(loop: Loop) -> dict[str, tuple[float, ...]]:
    """Put the capture first; the others are in the order in which they ran."""
    first = {"capture": loop.stages_ms.get("capture", ())}
    return first | {k: v for k, v in loop.stages_ms.items() if k != "capture"}


def _nothing(name: str, reason: str, meter: Meter) -> str:
    got = len(meter.total_ms)
    return (
        f"{name}: {'one picture was' if got else 'no picture was'} measured; at least two are needed."
        + (f" {reason}." if reason else "")
        + " Give more pictures, or a smaller --warm-up."
    )


def _precision(segmenter: Named, classifier: Named) -> str:
    a, b = segmenter.precision, classifier.precision
    return a if a == b else f"{a}/{b}"


def _networks(bundle: Bundle, engines: tuple[Named, Named]) -> tuple[Network, ...]:
    found = []
    for role, engine in zip(ROLES, engines, strict=True):
        kind = _FORMATS.get(engine.name, engine.name)
        artefact = bundle.find(role, kind, (engine.precision, "fp32"))
        file, sha256 = (artefact.file, artefact.sha256) if artefact else ("", "")
        found.append(Network(role, kind, engine.precision, file, sha256))
    return tuple(found)


def _forget_peak() -> None:
    """Let the kernel count the process's peak memory anew (Linux; elsewhere it is that since the start)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int | None:
    for line in text(ROOT / "proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
