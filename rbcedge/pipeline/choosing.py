"""Device or host: which pipeline counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rbcedge.bundle import Artefact, Bundle
from rbcedge.engines import cuda, loading
from rbcedge.engines.tensorrt_executor import open_executor
from rbcedge.engines.tensorrt_progress import Ticker
from rbcedge.errors import RbcedgeError
from rbcedge.pipeline.base import Pipeline
from rbcedge.pipeline.device import DevicePipeline
from rbcedge.pipeline.gpu.base import Executor
from rbcedge.pipeline.gpu.drivers import open_device
from rbcedge.pipeline.host import HostPipeline
from rbcedge.pipeline.scale import Search
from rbcedge.pipeline.spare import WithSpare
from rbcedge.sources.buffers import Buffers


class Network(Protocol):
    """What is known of a loaded network, for records."""

    @property
    def name(self) -> str:
        """Runtime: "litert", "onnx", "tensorrt"."""

    @property
    def precision(self) -> str:
        """ "fp32", "fp16" or "int8"."""


@dataclass(frozen=True, slots=True)
class OnDevice:
    """A network on the GPU. See `Network`."""

    precision: str
    name: str = "tensorrt"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What counts.

    Attributes
    ----------
    pipeline : Pipeline
        To be closed by whoever asked for it.
    networks : (Network, Network)
        Segmenter and classifier, for records.
    buffers : Buffers or None
        What a source may decode into without a copy; None on the host.
    note : str
        Why a GPU that is here is left out, in words; "" where there is nothing to say.
    """

    pipeline: Pipeline
    networks: tuple[Network, Network]
    buffers: Buffers | None = None
    note: str = ""

    @property
    def precision(self) -> str:
        """Of both networks: "fp16", or "fp16/int8" where they differ."""
        first, second = (n.precision for n in self.networks)
        return first if first == second else f"{first}/{second}"


def choose(
    bundle: Bundle,
    engine: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    scale: float | None = None,
) -> Chosen:
    """Load a bundle's networks and return the pipeline that runs them.

    Parameters
    ----------
    bundle : Bundle
    engine : str
        "tensorrt": the device pipeline. "auto": the device pipeline where GPU, driver layer, TensorRT and networks
        are all there, with the CPU to go on should the GPU fail; the host pipeline elsewhere. Any other: the host
        pipeline with that engine.
    precision : str
        As `rbcedge.engines.loading.load_engines` takes it.
    threads : int or None
        Of the CPU; None: one for each core.
    scale : float or None
        Native px per source px; None measures it on the first fields.

    Raises
    ------
    UsageError, RbcedgeError
        As `load_engines`; with "tensorrt" also where the device cannot be used, with what to do.
    """
    loading.check(engine, precision, threads)

    def on_host(name: str, begun: float | Search | None) -> tuple[HostPipeline, tuple[Network, Network]]:
        engines = loading.load_engines(bundle, name, precision, threads)
        return HostPipeline(bundle, *engines, begun), engines

    def spare(begun: Search) -> tuple[Pipeline, str]:
        pipeline, (first, _) = on_host("cpu", begun)
        return pipeline, loading.named(first.name).title

    note = ""
    if engine == "tensorrt":
        pipeline, networks = _on_device(bundle, precision, scale)
        return Chosen(pipeline, networks, pipeline.buffers)
    if engine == "auto" and has_gpu():
        try:
            pipeline, networks = _on_device(bundle, precision, scale)
            return Chosen(WithSpare(pipeline, spare), networks, pipeline.buffers)
        except RbcedgeError as e:
            note = f"the GPU is left out: {e}"
    host, engines = on_host("cpu" if engine == "auto" else engine, scale)
    return Chosen(host, engines, None, note)


def device_of(pipeline: Pipeline) -> DevicePipeline | None:
    """Return the device pipeline that counts in `pipeline`; None on the host, and where the GPU was lost."""
    if isinstance(pipeline, WithSpare):
        return pipeline.device
    return pipeline if isinstance(pipeline, DevicePipeline) else None


def has_gpu() -> bool:
    """Whether an NVIDIA driver finds a GPU here, or should and fails; False on ordinary computers. Never raises."""
    try:
        cuda.gpu()
    except cuda.NoGpu:
        return False
    except RbcedgeError:
        return True
    return True


def device_problem(bundle: Bundle, precision: str = "auto") -> str | None:
    """Say in words why the device pipeline cannot be used here, None where it can. Builds and loads no network."""
    runtime = loading.named("tensorrt")
    problem = runtime.problem()
    if problem is not None:
        return problem
    try:
        loading.artefacts(bundle, runtime.format, loading.wanted(runtime, precision))
        open_device().close()
    except RbcedgeError as e:
        return str(e)
    return None


def _on_device(bundle: Bundle, precision: str, scale: float | None) -> tuple[DevicePipeline, tuple[Network, Network]]:
    """Open the GPU and load both networks; what was opened is closed again where that fails."""
    # TensorRT ends the process where there is no device: it is asked first whether it can be used.
    runtime = loading.named("tensorrt")
    problem = runtime.problem()
    if problem is not None:
        raise RbcedgeError(problem)
    found = loading.artefacts(bundle, runtime.format, loading.wanted(runtime, precision))
    device = open_device()
    opened: list[Callable[[], None]] = [device.close]
    try:
        segmenter, classifier = (_executor(bundle, a, opened) for a in found)
        pipeline = DevicePipeline(bundle, device, segmenter, classifier, scale)
    except BaseException:
        for close in reversed(opened):
            close()
        raise
    return pipeline, (OnDevice(found[0].precision), OnDevice(found[1].precision))


def _executor(bundle: Bundle, artefact: Artefact, opened: list[Callable[[], None]]) -> Executor:
    executor = open_executor(bundle, artefact, Ticker())
    opened.append(executor.close)
    return executor
