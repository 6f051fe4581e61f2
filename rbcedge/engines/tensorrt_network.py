"""One network as the engines that were built for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

from rbcedge.bundle import Artefact, Bundle
from rbcedge.engines import cuda
from rbcedge.engines.engine_cache import Key, Obtained, default_folder, obtain, stored, write
from rbcedge.engines.tensorrt_building import Order, Progress, build
from rbcedge.engines.tensorrt_plan import Plan
from rbcedge.engines.tensorrt_shapes import Profile, Shape, crops, pictures
from rbcedge.errors import RbcedgeError

#: Counts up whenever `rbcedge.convert.tensorrt` builds in another way.
RECIPE = 1


@dataclass(frozen=True, slots=True)
class Part:
    """One engine of a network: its name and the shapes it serves."""

    name: str
    profiles: tuple[Profile, ...]


@dataclass(frozen=True, slots=True)
class Workshop:
    """What is needed to obtain engines.

    Attributes
    ----------
    trt : module
        TensorRT.
    gpu : Gpu
    memory : Memory
    progress : Progress
    folder : Path or None
        Engine cache; None: the user's.
    """

    trt: ModuleType
    gpu: cuda.Gpu
    memory: cuda.Memory
    progress: Progress
    folder: Path | None = None

    def obtain(self, onnx: Path, sha256: str, precision: str, part: Part) -> Obtained[Plan]:
        """Load one engine from the cache, or build it.

        Raises
        ------
        RbcedgeError
            With TensorRT's reason in one line.
        """
        key = self._key(sha256, precision, part)
        timings = self._timings()
        order = Order(onnx, part.name, precision, part.profiles, timings)

        def construct(expected: float | None) -> bytes:
            built = build(order, self.progress, expected)
            # What was measured is kept for the next build; without it that only takes longer.
            with suppress(OSError):
                timings.parent.mkdir(parents=True, exist_ok=True)
                write(timings, built.timings)
            return built.plan

        return obtain(key, construct, self.load, self.progress.tell, self.folder)

    def load(self, data: bytes) -> Plan:
        """Load an engine. Raises `engine_cache.Refused`."""
        with self.memory.current():
            return Plan(self.trt, self.memory, data)

    def others(self, onnx: Path, sha256: str, precision: str, part: Part) -> list[Callable[[], Plan]]:
        """Return loaders for engines of the same network that were built for single picture sizes."""
        found: list[Callable[[], Plan]] = []
        for key in stored(self._key(sha256, precision, part), self.folder):
            if key.shapes == tuple(map(str, part.profiles)):
                continue
            with suppress(ValueError):
                shapes = tuple(tuple(int(n) for n in text.split("x")) for text in key.shapes)
                profiles = tuple(Profile(s, s, s) for s in shapes)  # type: ignore[arg-type]
                found.append(partial(self._only, onnx, sha256, precision, Part(part.name, profiles)))
        return found

    def _only(self, onnx: Path, sha256: str, precision: str, part: Part) -> Plan:
        return self.obtain(onnx, sha256, precision, part).engine

    def _key(self, sha256: str, precision: str, part: Part) -> Key:
        return Key(
            network=part.name,
            onnx_sha256=sha256,
            precision=precision,
            shapes=tuple(str(p) for p in part.profiles),
            tensorrt=str(self.trt.__version__),
            gpu=self.gpu.name,
            compute_capability=self.gpu.compute_capability,
            sm_count=self.gpu.sm_count,
            cuda=self.gpu.cuda,
            recipe=RECIPE,
        )

    def _timings(self) -> Path:
        """TensorRT's timing cache, beside the engines; one for each GPU and version, as TensorRT wants it."""
        machine = f"{self.gpu.name}-sm{self.gpu.compute_capability}-trt{self.trt.__version__}"
        plain = "".join(c if c.isalnum() or c in ".-" else "_" for c in machine)
        return (default_folder() if self.folder is None else self.folder) / f"timing.{plain}.cache"


class Network:
    """The engines of one network, narrowest first.

    Parameters
    ----------
    plans : sequence of Plan
    memory : Memory
        Closed with the network.
    """

    def __init__(self, plans: Sequence[Plan], memory: cuda.Memory) -> None:
        self.plans = tuple(plans)
        self.memory = memory

    @property
    def largest(self) -> Shape:
        """Largest batch, height and width of one call."""
        n, h, w, c = (max(p.largest[d] for plan in self.plans for p in plan.profiles) for d in range(4))
        return n, h, w, c

    def serving(self, shape: tuple[int, ...]) -> Plan | None:
        """Return the engine that holds `shape`, None where none does."""
        for plan in self.plans:
            if plan.serving(shape) is not None:
                return plan
        return None

    def batches(self, height: int, width: int) -> tuple[int, int]:
        """Return the least and the largest batch for pictures of this size.

        Raises
        ------
        RbcedgeError
            Where no engine takes the size.
        """
        fitting = [p for plan in self.plans for p in plan.profiles if p.holds((p.least[0], height, width, p.least[3]))]
        if not fitting:
            known = ", ".join(sorted({str(p) for plan in self.plans for p in plan.profiles}))
            raise RbcedgeError(
                f"No TensorRT engine takes pictures of {width}x{height} px (built for {known}). "
                "Build one with 'rbcedge convert tensorrt --size WxH', or use --engine cpu."
            )
        return min(p.least[0] for p in fitting), max(p.largest[0] for p in fitting)

    def close(self) -> None:
        """Release engines and memory. Safe to call twice."""
        for plan in self.plans:
            plan.close()
        self.memory.close()


def parts(bundle: Bundle, role: str) -> tuple[Part, ...]:
    """Engines that a network of a bundle needs, with their shapes."""
    if role == "segmenter":
        return (Part("segmenter", pictures()),)
    return tuple(Part(f"classifier-{side}", crops(side)) for side in sorted({bundle.small_crop_px, bundle.crop_px}))


def open_network(
    bundle: Bundle, artefact: Artefact, trt: ModuleType, progress: Progress, folder: Path | None = None
) -> Network:
    """Load the engines of one network of a bundle, building those that are not in the cache.

    Raises
    ------
    RbcedgeError
        With TensorRT's or the driver's reason.
    """
    gpu = cuda.gpu()
    memory = cuda.Memory()
    plans: list[Plan] = []
    try:
        workshop = Workshop(trt, gpu, memory, progress, folder)
        for part in parts(bundle, artefact.role):
            found = (bundle.path(artefact), artefact.sha256, artefact.precision, part)
            general = workshop.obtain(*found).engine
            # Engines for single sizes, where somebody built them, stand first.
            plans += [load() for load in workshop.others(*found)] if artefact.role == "segmenter" else []
            plans.append(general)
    except BaseException:
        Network(plans, memory).close()
        raise
    return Network(plans, memory)
