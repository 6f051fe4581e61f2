"""Every case of a command, one after another, and the report on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib import metadata
from threading import Event

from rbcedge.bench.cases import Pictures
from rbcedge.bench.diagnosis import growth, traffic
from rbcedge.bench.gpu import Gpu
from rbcedge.bench.hardware import last_cache_bytes, machine
from rbcedge.bench.layers import profile
from rbcedge.bench.measuring import Plan, measure
from rbcedge.bench.operations import copy_speed
from rbcedge.bench.result import Report, Run
from rbcedge.bundle import Bundle
from rbcedge.engines import loading
from rbcedge.engines.loading import cores
from rbcedge.errors import RbcedgeError, UsageError
from rbcedge.pipeline.choosing import choose
from rbcedge.pipeline.plan import padding, working_size

#: Packages whose version decides how fast it is.
_PACKAGES = (
    "rbcedge",
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "ai-edge-litert",
    "tflite-runtime",
    "onnxruntime",
    "tensorrt",
    "pycuda",
    "cuda-core",
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked of every case.

    Attributes
    ----------
    engines : sequence of (str, str)
        Engine and precision, as `load_engines` takes them.
    threads : int or None
    scale : float or None
        Native px per source px for sources that are not simulated; None measures it.
    plan : Plan
    layers : bool
        Whether the layers are timed, too.
    """

    engines: Sequence[tuple[str, str]]
    threads: int | None
    scale: float | None
    plan: Plan
    layers: bool = False


def series(
    bundle: Bundle,
    pictures: Sequence[Pictures],
    wish: Wish,
    stop: Event,
    gpu: Gpu | None = None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Iterator[Run | str]:
    """Measure every engine on all pictures.

    Yields a `Run` as soon as it is measured, or in words why a case was left out. Where there is one engine only,
    or the first one fails on pictures that no engine could use, the error is raised instead.

    Parameters
    ----------
    bundle, pictures, wish
    stop : Event
        Ends it after the picture in hand; what was measured is yielded.
    gpu : Gpu, optional
    progress : callable
        Called with the case, pictures done, and pictures in all.
    """
    copied, cache = copy_speed(), last_cache_bytes()
    whole = wish.plan.frames + wish.plan.warm_up
    for name, precision in wish.engines:
        for shown in pictures:
            if stop.is_set():
                return
            title = f"{name} {precision}" + ("" if shown.cells is None else f", {shown.cells} cells")
            try:
                # Loaded anew for each case: networks keep memory for every picture size they have seen.
                chosen = choose(
                    bundle, name, precision, wish.threads, wish.scale if shown.scale is None else shown.scale
                )
            except UsageError:
                raise
            except RbcedgeError as e:
                if len(wish.engines) == 1:
                    raise
                yield f"{title}: {e}"
                break
            if chosen.note:
                yield f"{title}: {chosen.note}"
            pipeline = chosen.pipeline
            try:
                run = measure(
                    lambda shown=shown, chosen=chosen: shown.opener(chosen.buffers),  # type: ignore[misc]
                    pipeline,
                    chosen.networks,
                    bundle,
                    wish.plan,
                    cells=shown.cells,
                    threads=wish.threads or cores(),
                    gpu=gpu,
                    stop=stop,
                    progress=lambda done, title=title: progress(title, done, whole),  # type: ignore[misc]
                )
                run = replace(run, diagnosis=(*run.diagnosis, *traffic(run, bundle, copied, cache)))
                if wish.layers and not stop.is_set():
                    size = working_size(bundle, (run.case.width, run.case.height), run.scale)
                    right, below = padding(size)
                    working = (size[1] + below, size[0] + right)
                    engines = loading.load_engines(bundle, chosen.networks[0].name, precision, wish.threads)
                    try:
                        layers = profile(bundle, engines[0].name, engines, working, run.case.threads)
                    finally:
                        for engine in engines:
                            engine.close()
                    run = replace(run, layers=layers)
            finally:
                pipeline.close()
            yield run


def assemble(bundle: Bundle, runs: Sequence[Run], skipped: Sequence[str], gpu: Gpu | None = None) -> Report:
    """Put runs together with machine, versions and what they say as a whole."""
    kinds = dict.fromkeys((r.case.engine, r.case.precision) for r in runs)
    grown = [growth([r for r in runs if (r.case.engine, r.case.precision) == kind]) for kind in kinds]
    return Report(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions=_versions(),
        machine=machine(gpus=(gpu.name,) if gpu else ()),
        bundle=bundle.name,
        bundle_sha256=bundle.sha256,
        runs=tuple(runs),
        skipped=tuple(skipped),
        notes=tuple(line for line in grown if line),
    )


def _versions() -> dict[str, str]:
    import platform

    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
