"""The pipeline on a device: pictures stay where they were decoded, and only the list of cells comes back.

See docs/gpu.md for what runs where and what is copied. The results are those of `rbcedge.pipeline.host`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from rbcedge.bundle import Bundle
from rbcedge.engines.cuda import OutOfDeviceMemory
from rbcedge.errors import DeviceError, RbcedgeError, Unfit
from rbcedge.field import Field
from rbcedge.frame import Frame
from rbcedge.pipeline import plan
from rbcedge.pipeline.gpu.base import Device, Executor, OutOfMemory, Transfers
from rbcedge.pipeline.gpu.cropping import SLOTS, Classifying
from rbcedge.pipeline.gpu.finding import Found, Result
from rbcedge.pipeline.gpu.lazy import DeviceField, Planes
from rbcedge.pipeline.gpu.memory import load_kernels
from rbcedge.pipeline.gpu.setup import Lent, Pictures, Setup
from rbcedge.pipeline.illumination import Illumination
from rbcedge.pipeline.scale import Search, guess_diameter, typical_diameter
from rbcedge.sources.buffers import Buffers

#: Batch sizes of the classifier.
BUCKETS = (32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class _Found:
    """What the last `find` left on the device."""

    frame: Frame
    picture: int
    result: Result
    planes: Planes


class DevicePipeline:
    """Frame to field on a device. See `rbcedge.pipeline.base.Pipeline`.

    It belongs to the thread that opened the device. Mask and labels of a field stay on the device until somebody
    asks for them.

    Parameters
    ----------
    bundle : Bundle
    device : Device
        Closed with the pipeline.
    segmenter, classifier : Executor
        Of that bundle, on that device.
    scale : float or None
        Native px per source px; None measures it on the first fields, anew for each picture size.
    by_stage : bool
        Wait after each stage, so that `timings_ms` names them all; slower.
    buckets : sequence of int
        Batch sizes of the classifier, ascending.

    Raises
    ------
    RbcedgeError
        Where the device has no room for the smallest batch. From `find` and `classify`: `Unfit` where it has none for
        pictures of this size, `DeviceError` where it fails.

    Attributes
    ----------
    by_stage : bool
        May be changed between two frames.
    buffers : Buffers
        Page-locked pictures for a source to decode into: a frame that lies in one is not copied.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Device,
        segmenter: Executor,
        classifier: Executor,
        scale: float | None = None,
        by_stage: bool = False,
        buckets: Sequence[int] = BUCKETS,
    ) -> None:
        self.bundle = bundle
        self._device, self._segmenter, self._classifier = device, segmenter, classifier
        self.search = Search(bundle.diameter_px, bundle.um_per_px, scale)
        self.by_stage = by_stage
        self._notes: tuple[str, ...] = ()
        self._stream = device.stream()
        try:
            self._kernels = load_kernels(device)
            self._classifying = self._allocate_batches(buckets)
        except BaseException:
            with suppress(DeviceError):
                self._stream.close()
            raise
        self._lent = Lent(device, self._stream)
        self.buffers = Buffers(self._lend)
        self._pictures: Pictures | None = None
        self._setup: Setup | None = None
        self._found: _Found | None = None
        self._illumination: Illumination | None = None
        self._closed = False

    @property
    def scale(self) -> float:
        """Native px per source px of the last frame."""
        return self.search.scale

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about magnification, light and the device's memory, in words."""
        return (*self._notes, *plan.warnings(self.bundle, self.search.known, self._illumination))

    @property
    def transfers(self) -> Transfers:
        """Copies made since the device was opened."""
        return self._device.transfers

    def pictures(self, width: int, height: int) -> tuple[NDArray[np.uint8], ...]:
        """Return page-locked (height, width, 3) uint8 pictures to decode into, in turn; the same ones for each size.

        A frame whose pixels are one of these is not copied. They are valid until `close`. Sources take theirs through
        `buffers`.
        """
        return self._lent.pictures(width, height)

    def find(self, frame: Frame) -> Field:
        """Segment `frame` and list its cells, without classes."""
        start = perf_counter()
        self._found = None
        pictures = self._pictures_of(frame.size)
        self.buffers.lend(*frame.size)
        picture = self._address(pictures, frame)
        timings = {"upload": (perf_counter() - start) * 1e3}
        if not self.search.settled(frame.size):
            before = perf_counter()
            self._measure(frame, pictures, picture)
            timings["scale"] = (perf_counter() - before) * 1e3
        scale = self.search.scale
        plan.require_searchable(self.bundle, frame.size, scale)
        setup = self._setup_of(pictures, scale)
        result, planes = setup.next_result()
        found = self._run(setup, picture, result, frame.size, timings)
        self._illumination = pictures.background.read()
        light = setup.measuring.read(frame.pixels)
        self._device.note_result(found.nbytes + pictures.background.nbytes + setup.measuring.nbytes)
        self._found = _Found(frame, picture, result, planes)
        return DeviceField(
            frame,
            scale,
            planes.mask,  # type: ignore[arg-type]
            planes.labels,  # type: ignore[arg-type]
            found.cells,
            setup.share(found.foreign),
            timings,
            light,
            found.grids,
        )

    def classify(self, field: Field, rows: NDArray[np.intp]) -> Field:
        """Return `field` with probabilities for `rows` of its cells."""
        if not len(rows):
            return field
        found, setup, classifying = self._found, self._setup, self._classifying
        if found is None or setup is None or found.frame is not field.frame:
            raise ValueError("classify takes the field that find returned last")
        timings = dict(field.timings_ms)
        start = perf_counter()
        spent = {"crop": 0.0, "classify": 0.0}
        probabilities = np.empty((len(field.cells), len(self.bundle.labels)), np.float32)
        waiting: list[tuple[int, NDArray[np.intp]]] = []

        def collect() -> None:
            self._stream.synchronize()
            for slot, part in waiting:
                probabilities[part] = classifying.read(slot, len(part))
            waiting.clear()

        for side, group in plan.by_side(self.bundle, field, rows):
            for part in classifying.batches(group):
                if len(waiting) == SLOTS:
                    collect()
                slot = len(waiting)
                waiting.append((slot, part))
                self._name(setup, found, side, slot, part, spent)
        collect()
        timings |= spent if self.by_stage else {"classify": (perf_counter() - start) * 1e3}
        cells = field.cells.with_probabilities(rows, probabilities[rows])
        return DeviceField(
            field.frame,
            field.scale,
            found.planes.mask,  # type: ignore[arg-type]
            found.planes.labels,  # type: ignore[arg-type]
            cells,
            field.foreign,
            timings,
            field.light,
            field.grids,
        )

    def _name(
        self, setup: Setup, found: _Found, side: int, slot: int, rows: NDArray[np.intp], spent: dict[str, float]
    ) -> None:
        """Put one batch on the stream."""
        # What is prepared is kept: it must not keep the field's pictures.
        classifying, picture, result = self._classifying, found.picture, found.result
        batch = classifying.fill(slot, rows)

        def cut() -> None:
            setup.cropping.launch(picture, result, side, batch, classifying.as_float)

        def infer() -> None:
            classifying.infer(batch, side)

        if self.by_stage:
            for name, stage in (("crop", cut), ("classify", infer)):
                began = perf_counter()
                stage()
                spent[name] += self._stage_end(began)
            return

        def work() -> None:
            cut()
            infer()

        setup.repeat((picture, result.labels.address, side, slot, batch.size), work)

    def close(self) -> None:
        """Release networks, memory and the device; what a lost device no longer gives back is left to the driver."""
        if self._closed:
            return
        self._closed = True
        self._found = None
        self.buffers.close()
        steps = [
            self._forget_setup,
            self._forget_pictures,
            self._classifying.free,
            self._segmenter.close,
            self._classifier.close,
            self._stream.close,
            self._device.close,
        ]
        # A source that still decodes, into memory that is gone, would end the process: then it is not freed.
        if self.buffers.idle:
            steps.insert(2, self._lent.free)
        for step in steps:
            with suppress(DeviceError):
                step()

    def _run(
        self, setup: Setup, picture: int, result: Result, size: tuple[int, int], timings: dict[str, float]
    ) -> Found:
        start = perf_counter()
        if self.by_stage:
            for name, stage in setup.stages(picture, result).items():
                began = perf_counter()
                stage()
                timings[name] = self._stage_end(began)
        else:
            setup.launch(picture, result)
            self._stream.synchronize()
            timings["device"] = (perf_counter() - start) * 1e3
        return result.read(size, len(self.bundle.labels))

    def _stage_end(self, began: float) -> float:
        self._stream.synchronize()
        return (perf_counter() - began) * 1e3

    def _measure(self, frame: Frame, pictures: Pictures, picture: int) -> None:
        pictures.background.launch(picture)
        self._stream.synchronize()
        self._illumination = pictures.background.read()

        def measure(scale: float) -> tuple[float, int]:
            if not plan.searchable(self.bundle, frame.size, scale):
                return 0.0, 0
            setup = self._setup_of(pictures, scale)
            result, _ = setup.next_result()
            return typical_diameter(self._run(setup, picture, result, frame.size, {}).cells)

        self.search.add(frame.size, guess_diameter(frame.pixels, self._illumination), measure)

    def _lend(self, width: int, height: int) -> Sequence[NDArray[np.uint8]]:
        try:
            return self._lent.pictures(width, height)
        except OutOfMemory:
            # Pictures are copied then, one by one.
            return ()

    def _address(self, pictures: Pictures, frame: Frame) -> int:
        try:
            return pictures.address(frame, self._lent.addresses)
        except OutOfMemory as e:
            raise self._no_room(frame.size) from e

    def _pictures_of(self, size: tuple[int, int]) -> Pictures:
        if self._pictures is None or self._pictures.size != size:
            self._forget_pictures()
            try:
                self._pictures = Pictures(self._device, self._stream, self._kernels, size)
            except OutOfMemory as e:
                raise self._no_room(size) from e
        return self._pictures

    def _setup_of(self, pictures: Pictures, scale: float) -> Setup:
        if self._setup is None or self._setup.scale != scale:
            self._forget_setup()
            try:
                self._setup = Setup(
                    self._device, self._stream, self._kernels, self.bundle, pictures, self._segmenter, scale
                )
            except (OutOfMemory, OutOfDeviceMemory) as e:
                raise self._no_room(pictures.size) from e
        return self._setup

    def _no_room(self, size: tuple[int, int]) -> Unfit:
        return Unfit(
            f"{self._device.name} has no memory left for pictures of {size[0]}x{size[1]} px. "
            "End other programs that use it, or choose --engine cpu."
        )

    def _forget_setup(self) -> None:
        setup, self._setup = self._setup, None
        if setup is not None:
            setup.free()

    def _forget_pictures(self) -> None:
        self._forget_setup()
        pictures, self._pictures = self._pictures, None
        if pictures is not None:
            pictures.free()

    def _allocate_batches(self, buckets: Sequence[int]) -> Classifying:
        most = self._classifier.input_shape[0]
        sizes = [b for b in buckets if most < 0 or b <= most] or [most]
        wanted = sizes[-1]
        while sizes:
            try:
                made = Classifying(self._device, self._stream, self._kernels, self._classifier, self.bundle, sizes)
            except (OutOfMemory, OutOfDeviceMemory):
                sizes = sizes[:-1]
                continue
            if sizes[-1] < wanted:
                self._notes = (
                    f"{self._device.name} has little memory left: cells are classified {sizes[-1]} at a time "
                    f"instead of {wanted}.",
                )
            return made
        raise RbcedgeError(
            f"{self._device.name} has no memory left to classify cells. "
            "End other programs that use it, or choose --engine cpu."
        )
