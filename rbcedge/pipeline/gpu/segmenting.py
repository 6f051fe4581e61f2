"""From a picture to the segmenter's probabilities, on the device; `HostPipeline` says what is computed."""

from __future__ import annotations

from math import ceil

from rbcedge.pipeline import plan
from rbcedge.pipeline.gpu.background import Background
from rbcedge.pipeline.gpu.base import Device, Executor, Stream
from rbcedge.pipeline.gpu.memory import Kernels, Pool
from rbcedge.pipeline.gpu.resampling import axis, rule, smooth

_WORD = 32


class Segmenting:
    """Runs the segmenter on pictures of one size at one working size.

    Parameters
    ----------
    device, stream, kernels
        Where it runs.
    background : Background
        Of pictures of this size.
    executor : Executor
        The segmenter.
    size, working : (int, int)
        Width and height of the picture, and at the segmenter's resolution, px.
    shrink : bool
        Whether the picture is averaged (else interpolated), as for working sizes below the picture's.
    threshold : float
        Probability from which a pixel is cell.
    """

    def __init__(
        self,
        device: Device,
        stream: Stream,
        kernels: Kernels,
        background: Background,
        executor: Executor,
        size: tuple[int, int],
        working: tuple[int, int],
        shrink: bool,
        threshold: float,
    ) -> None:
        self._stream, self._kernels, self._background, self._executor = stream, kernels, background, executor
        self._size, self.working, self._threshold = size, working, threshold
        right, below = plan.padding(working)
        self._padded = working[0] + right, working[1] + below
        self._shape = (1, self._padded[1], self._padded[0], 3)
        self._rule = rule(size, working, shrink)
        self._float = executor.input_dtype.itemsize == 4
        shape = executor.output_shape(self._shape)
        columns, rows = background.grid
        with Pool(device, stream) as pool:
            self._pool = pool
            self._x = pool.axis(axis(size[0], working[0], self._rule, horizontal=True))
            self._y = pool.axis(axis(size[1], working[1], self._rule, horizontal=False))
            self._gain_x, self._gain_y = pool.axis(smooth(columns, working[0])), pool.axis(smooth(rows, working[1]))
            pixels = self._padded[0] * self._padded[1]
            self._input = pool.memory(pixels * 3 * executor.input_dtype.itemsize)
            self._green = pool.memory(working[0] * working[1])
            self.probability = pool.memory(shape[1] * shape[2] * 4)

    @property
    def stride(self) -> int:
        """Width of a row of `probability`, px."""
        return self._padded[0]

    def normalise(self, picture: int) -> None:
        """Put the picture at this address on the stream as the segmenter's input."""
        width, height = self.working
        self._kernels["normalise"].launch(
            self._stream, self._padded[0] * self._padded[1], picture, *self._size, *self._x, *self._y, self._rule,
            self._background.gain, *self._background.grid, *self._gain_x, *self._gain_y, width, height,
            self._padded[0], int(self._float), self._input, self._green,
        )  # fmt: skip

    def infer(self, foreign: int) -> None:
        """Put the segmenter on the stream.

        `probability` then holds the result; pixels that are stained and no cell are added to the int at `foreign`.
        """
        (width, height), stream = self.working, self._stream
        self._executor.bind(self._input.address, self.probability.address, self._shape)
        self._executor.enqueue(stream.handle)
        self._kernels["count_foreign"].launch(
            stream, -(-width // _WORD) * height, self.probability, self.stride, self._threshold, self._green,
            ceil(plan.STAINED), width, height, foreign,
        )  # fmt: skip

    def free(self) -> None:
        """Free its memory."""
        self._pool.free()
