"""From labels to the classifier's probabilities, on the device; the crops are those of `rbcedge.cells.crops`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rbcedge.bundle import Bundle
from rbcedge.cells import rim_kernel
from rbcedge.pipeline.gpu.background import Background
from rbcedge.pipeline.gpu.base import Device, DeviceMemory, Executor, MappedMemory, Stream
from rbcedge.pipeline.gpu.finding import Result
from rbcedge.pipeline.gpu.memory import Kernels, Pool
from rbcedge.pipeline.gpu.resampling import LINEAR, axis, rule, smooth

#: Batches that may be under way before the host waits for them.
SLOTS = 4


@dataclass(frozen=True, slots=True)
class _Window:
    """The square around a cell, source px, and how it becomes one of `side` native px."""

    side: int
    window: int
    reach: int
    rule: int
    x: tuple[DeviceMemory, DeviceMemory]
    y: tuple[DeviceMemory, DeviceMemory]


class Cropping:
    """Cuts cells out of pictures of one size at one scale.

    Parameters
    ----------
    device, stream, kernels
        Where it runs.
    background : Background
        Of pictures of this size.
    bundle : Bundle
    size : (int, int)
        Width and height of the picture, px.
    scale : float
        Native px per source px.
    """

    def __init__(
        self,
        device: Device,
        stream: Stream,
        kernels: Kernels,
        background: Background,
        bundle: Bundle,
        size: tuple[int, int],
        scale: float,
    ) -> None:
        self._stream, self._kernels, self._background, self._size = stream, kernels, background, size
        self._rim = bundle.rim_px
        columns, rows = background.grid
        half_widths = rim_kernel(self._rim).sum(axis=1, dtype=np.int32) // 2
        with Pool(device, stream) as pool:
            self._pool = pool
            self._gain_x, self._gain_y = pool.axis(smooth(columns, size[0])), pool.axis(smooth(rows, size[1]))
            self._half_widths = pool.table(half_widths)
            self._windows = {side: self._make(pool, side, scale) for side in (bundle.small_crop_px, bundle.crop_px)}

    def _make(self, pool: Pool, side: int, scale: float) -> _Window:
        window = max(1, round(side / scale))
        how = rule((window, window), (side, side), shrink=True) if window > side else LINEAR
        reach = self._rim if window == side else int(np.ceil(self._rim / scale)) + 2
        x, y = (pool.axis(axis(window, side, how, horizontal)) for horizontal in (True, False))
        return _Window(side, window, reach, how, x, y)

    def launch(self, picture: int, result: Result, side: int, batch: Batch, as_float: bool) -> None:
        """Put crops of `side` native px for a batch's rows on the stream, from the picture at this address."""
        (width, height), w, stream = self._size, self._windows[side], self._stream
        threads = batch.size * side * side
        self._kernels["outline_crops"].launch(
            stream, threads, result.labels, width, height, result.components, batch.rows, side, w.window, w.reach,
            *w.x, *w.y, w.rule, batch.outline,
        )  # fmt: skip
        self._kernels["cut_crops"].launch(
            stream, threads, picture, width, height, self._background.gain, *self._background.grid, *self._gain_x,
            *self._gain_y, result.components, batch.rows, side, w.window, w.reach, *w.x, *w.y, w.rule, batch.outline,
            self._half_widths, self._rim, int(as_float), batch.input,
        )  # fmt: skip

    def free(self) -> None:
        """Free its memory."""
        self._pool.free()


@dataclass(frozen=True, slots=True)
class Batch:
    """Where one batch of crops is made and classified.

    Attributes
    ----------
    size : int
        Crops.
    rows : int
        Address of their row numbers, int32, -1 for none.
    outline, input : DeviceMemory
    output : int
        Address of (size, K) float32.
    """

    size: int
    rows: int
    outline: DeviceMemory
    input: DeviceMemory
    output: int


class Classifying:
    """Runs the classifier on batches of crops.

    Parameters
    ----------
    device, stream, kernels
        Where it runs.
    executor : Executor
        The classifier.
    bundle : Bundle
    sizes : sequence of int
        Batch sizes, ascending; a batch takes the smallest that holds it.

    Raises
    ------
    OutOfMemory
        Where the largest batch does not fit.
    """

    def __init__(
        self, device: Device, stream: Stream, kernels: Kernels, executor: Executor, bundle: Bundle, sizes: list[int]
    ) -> None:
        self._device, self._stream, self._kernels, self._executor = device, stream, kernels, executor
        self._classes, self._exponent = len(bundle.labels), float(np.float32(1 / bundle.temperature))
        self._sizes, self.as_float = sizes, executor.input_dtype.itemsize == 4
        largest, area = sizes[-1], bundle.crop_px**2
        with Pool(device, stream) as pool:
            self._pool = pool
            self._outline = pool.memory(largest * area)
            self._input = pool.memory(largest * area * 3 * executor.input_dtype.itemsize)
            self._raw = pool.memory(largest * self._classes * 4)
            self._rows: MappedMemory = pool.mapped(SLOTS * largest * 4)
            self._found: MappedMemory = pool.mapped(SLOTS * largest * self._classes * 4)
            # An engine may need memory of its own for each batch: better now than in the middle of a run.
            for size in sizes:
                for side in sorted({bundle.small_crop_px, bundle.crop_px}):
                    executor.bind(self._input.address, self._raw.address, (size, side, side, 3))

    def batches(self, rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        """Share rows among batches; none is lost."""
        largest = self._sizes[-1]
        return [rows[k : k + largest] for k in range(0, len(rows), largest)]

    def fill(self, slot: int, rows: NDArray[np.intp]) -> Batch:
        """Say which rows a slot's batch is to hold. What the slot held before must be done."""
        size = next(s for s in self._sizes if s >= len(rows))
        start, largest = slot * self._sizes[-1], self._sizes[-1]
        numbers = self._rows.array[: SLOTS * largest * 4].view(np.int32)
        numbers[start : start + len(rows)] = rows
        numbers[start + len(rows) : start + size] = -1
        output = self._found.address + start * self._classes * 4
        return Batch(size, self._rows.address + start * 4, self._outline, self._input, output)

    def infer(self, batch: Batch, side: int) -> None:
        """Put the classifier on the stream, for crops of `side` px that are in the batch's input."""
        self._executor.bind(self._input.address, self._raw.address, (batch.size, side, side, 3))
        self._executor.enqueue(self._stream.handle)
        self._kernels["temper"].launch(self._stream, batch.size, self._raw, self._classes, self._exponent, batch.output)

    def read(self, slot: int, count: int) -> NDArray[np.float32]:
        """(count, K) probabilities of a slot whose work is done."""
        start = slot * self._sizes[-1]
        whole = self._found.array[: SLOTS * self._sizes[-1] * self._classes * 4].view(np.float32)
        own: NDArray[np.float32] = whole.reshape(-1, self._classes)[start : start + count]
        self._device.note_result(own.nbytes)
        return np.array(own)

    def free(self) -> None:
        """Free its memory."""
        self._pool.free()
