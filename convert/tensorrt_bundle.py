"""All TensorRT engines a bundle needs on this machine, ahead of the first run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rbcedge.bundle import Bundle
from rbcedge.engines import cuda
from rbcedge.engines.loading import artefacts
from rbcedge.engines.tensorrt_api import import_tensorrt, problem
from rbcedge.engines.tensorrt_building import Progress
from rbcedge.engines.tensorrt_network import Part, Workshop, parts
from rbcedge.engines.tensorrt_shapes import picture
from rbcedge.errors import RbcedgeError


@dataclass(frozen=True, slots=True)
class Made:
    """One engine.

    Attributes
    ----------
    name : str
        "segmenter", "classifier-56".
    precision : str
    shapes : tuple of str
        One entry for each optimisation profile.
    built : bool
        Whether it was built now; else it was in the cache.
    seconds : float
        What building took, now or then.
    nbytes : int
    path : Path or None
        None where it could not be kept.
    """

    name: str
    precision: str
    shapes: tuple[str, ...]
    built: bool
    seconds: float
    nbytes: int
    path: Path | None


def make(
    bundle: Bundle,
    precisions: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    progress: Progress,
    folder: Path | None = None,
) -> Iterator[Made]:
    """Build and load every engine of a bundle that is not in the cache yet.

    Parameters
    ----------
    bundle : Bundle
        With ONNX networks.
    precisions : sequence of str
        Each network in the first of these that the bundle has.
    sizes : sequence of (width, height)
        Source pictures, at native scale, that get a segmenter engine of their own beside the general one.
    progress : Progress
    folder : Path or None
        Engine cache; None: the one `rbcedge run` uses.

    Yields
    ------
    Made
        As soon as each is there.

    Raises
    ------
    RbcedgeError
        Where TensorRT cannot be used, a network is missing, or an engine cannot be built.
    """
    wanted = [picture(width, height, bundle.segmenter_scale) for width, height in sizes]
    networks = artefacts(bundle, "onnx", precisions)
    reason = problem()
    if reason is not None:
        raise RbcedgeError(reason)
    trt, gpu, memory = import_tensorrt(), cuda.gpu(), cuda.Memory()
    try:
        workshop = Workshop(trt, gpu, memory, progress, folder)
        for artefact in networks:
            single = [Part("segmenter", p) for p in dict.fromkeys(wanted)] if artefact.role == "segmenter" else []
            for part in (*parts(bundle, artefact.role), *single):
                found = workshop.obtain(bundle.path(artefact), artefact.sha256, artefact.precision, part)
                found.engine.close()
                shapes = tuple(str(p) for p in part.profiles)
                yield Made(part.name, artefact.precision, shapes, found.built, found.seconds, found.nbytes, found.path)
    finally:
        memory.close()
