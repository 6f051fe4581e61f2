"""What is allocated once: for pictures of one size, and for one size at one scale."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from rbcedge.bundle import Bundle
from rbcedge.frame import Frame
from rbcedge.pipeline import plan
from rbcedge.pipeline.gpu.background import Background
from rbcedge.pipeline.gpu.base import Device, Executor, MappedMemory, Stream
from rbcedge.pipeline.gpu.cropping import Cropping
from rbcedge.pipeline.gpu.finding import Finding, Result
from rbcedge.pipeline.gpu.lazy import Planes
from rbcedge.pipeline.gpu.measuring import Measuring
from rbcedge.pipeline.gpu.memory import Kernels, Pool
from rbcedge.pipeline.gpu.segmenting import Segmenting

#: Pictures and results in turn: one is decoded into while the other is worked on.
SETS = 2


class Pictures:
    """Pictures of one size that kernels can reach, and their background.

    Parameters
    ----------
    device, stream, kernels
        Where they are.
    size : (int, int)
        Width and height, px.
    """

    def __init__(self, device: Device, stream: Stream, kernels: Kernels, size: tuple[int, int]) -> None:
        self.size, self._device = size, device
        self._staging: MappedMemory | None = None
        with Pool(device, stream) as pool:
            self._pool = pool
            self.background = pool.own(Background(device, stream, kernels, size))

    def address(self, frame: Frame, lent: Mapping[int, int]) -> int:
        """Where kernels find a frame. One that was not decoded into lent memory is copied, and counted.

        Parameters
        ----------
        frame : Frame
        lent : mapping of int to int
            Addresses of lent pictures: the CPU's to the device's.
        """
        known = lent.get(frame.pixels.ctypes.data)
        if known is not None:
            return known
        # One is enough: nothing reads it any more when the next frame comes.
        if self._staging is None:
            self._staging = self._pool.mapped(frame.pixels.nbytes)
        np.copyto(picture_in(self._staging, self.size), frame.pixels)
        self._device.note_copy(frame.pixels.nbytes)
        return self._staging.address

    def free(self) -> None:
        """Free their memory."""
        self._staging = None
        self._pool.free()


def picture_in(memory: MappedMemory, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: the picture of this width and height that lies in `memory`."""
    return memory.array[: size[0] * size[1] * 3].reshape(size[1], size[0], 3)


class Lent:
    """Page-locked pictures that a source decodes into, for as long as the pipeline lives: who writes into one, and
    when, is not the pipeline's to say. See `rbcedge.sources.buffers`.

    Parameters
    ----------
    device, stream
        Where they are.
    """

    def __init__(self, device: Device, stream: Stream) -> None:
        self._pool = Pool(device, stream)
        self._made: dict[tuple[int, int], tuple[NDArray[np.uint8], ...]] = {}
        self.addresses: dict[int, int] = {}

    def pictures(self, width: int, height: int) -> tuple[NDArray[np.uint8], ...]:
        """Return `SETS` pictures of this size, always the same ones. Raises `OutOfMemory`."""
        size = width, height
        if size not in self._made:
            memories = [self._pool.mapped(width * height * 3) for _ in range(SETS)]
            arrays = tuple(picture_in(m, size) for m in memories)
            self.addresses |= {a.ctypes.data: m.address for a, m in zip(arrays, memories, strict=True)}
            self._made[size] = arrays
        return self._made[size]

    def free(self) -> None:
        """Free their memory: nobody may write into it any more."""
        self._made.clear()
        self.addresses.clear()
        self._pool.free()


class Setup:
    """Everything that finds and cuts cells in pictures of one size at one scale.

    Parameters
    ----------
    device, stream, kernels
        Where it runs.
    bundle : Bundle
    pictures : Pictures
    segmenter : Executor
    scale : float
        Native px per source px.
    """

    def __init__(
        self,
        device: Device,
        stream: Stream,
        kernels: Kernels,
        bundle: Bundle,
        pictures: Pictures,
        segmenter: Executor,
        scale: float,
    ) -> None:
        self._device, self._stream, self._kernels, self._bundle = device, stream, kernels, bundle
        self.scale, self._size, self._background = scale, pictures.size, pictures.background
        size, background = pictures.size, pictures.background
        working = plan.working_size(bundle, size, scale)
        least = plan.least_area(bundle, scale)
        shrink = scale * bundle.segmenter_scale < 1
        threshold = bundle.mask_threshold
        self._turn = 0
        self._prepared: dict[tuple[int, ...], Callable[[], None]] = {}
        with Pool(device, stream) as pool:
            self._pool = pool
            self._results = [Result.allocate(pool, size, least) for _ in range(SETS)]
            self._bits = pool.mapped(-(-size[0] // 8) * size[1])
            self._planes: list[weakref.ref[Planes] | None] = [None] * SETS
            self._segmenting = pool.own(
                Segmenting(device, stream, kernels, background, segmenter, size, working, shrink, threshold)
            )
            self._finding = pool.own(
                Finding(device, stream, kernels, size, working, self._segmenting.stride, threshold, least)
            )
            self.measuring = pool.own(Measuring(device, stream, kernels, size, scale))
            self.cropping = pool.own(Cropping(device, stream, kernels, background, bundle, size, scale))

    def next_result(self) -> tuple[Result, Planes]:
        """Return the result whose turn it is, and its pictures. What still refers to its last ones gets them first."""
        self._turn = (self._turn + 1) % SETS
        self._rescue(self._turn)
        result = self._results[self._turn]
        planes = Planes(self._device, self._stream, self._kernels, result, self._bits, self._size)
        self._planes[self._turn] = weakref.ref(planes)
        return result, planes

    def stages(self, picture: int, result: Result) -> dict[str, Callable[[], None]]:
        """Return what to put on the stream for the picture at this address, by name, in order."""
        finding, segmenting, background = self._finding, self._segmenting, self._background

        def illuminate() -> None:
            finding.begin()
            background.launch(picture)

        return {
            "illumination": illuminate,
            "normalise": lambda: segmenting.normalise(picture),
            "segment": lambda: segmenting.infer(finding.foreign),
            "components": lambda: finding.launch(segmenting.probability, result),
            "light": lambda: self.measuring.launch(picture, result),
        }

    def launch(self, picture: int, result: Result) -> None:
        """Put all stages on the stream, with as little overhead as the driver can."""

        def work() -> None:
            for stage in self.stages(picture, result).values():
                stage()

        self.repeat((picture, result.labels.address), work)

    def repeat(self, key: tuple[int, ...], work: Callable[[], None]) -> None:
        """Do `work`, which puts the same on the stream whenever `key` is the same; see `Stream.prepare`."""
        if key not in self._prepared:
            self._prepared[key] = self._stream.prepare(work)
        self._prepared[key]()

    def share(self, foreign: int) -> float:
        """Foreign pixels as a share of the working picture, as the host works it out."""
        width, height = self._segmenting.working
        return foreign / (width * height)

    def free(self) -> None:
        """Free its memory. What still refers to its results gets them first."""
        for turn in range(SETS):
            self._rescue(turn)
        self._prepared.clear()
        self._pool.free()

    def _rescue(self, turn: int) -> None:
        kept = self._planes[turn]
        planes = kept() if kept is not None else None
        if planes is not None:
            planes.fetch()
        self._planes[turn] = None
