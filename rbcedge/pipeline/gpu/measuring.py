"""Edges and light of a picture on the device; the same as `rbcedge.light.measure`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rbcedge.light import EVERY, LEVELS, SECTORS, THIN, Light, Sampling
from rbcedge.pipeline.gpu.base import Device, Stream
from rbcedge.pipeline.gpu.finding import Result
from rbcedge.pipeline.gpu.memory import Kernels, Pool
from rbcedge.pipeline.gpu.resampling import axis, rule

#: Bins of both grey levels and of all directions, and how many one thread adds up.
_BINS = 2 * 256 + SECTORS * LEVELS
_CHUNK = 64
_HISTOGRAMS = 2 + SECTORS


class Measuring:
    """Measures pictures of one size at one scale.

    Parameters
    ----------
    device, stream, kernels
        Where it runs.
    size : (int, int)
        Width and height of the picture, px.
    scale : float
        Native px per source px.
    """

    #: Bytes that come back of a picture.
    nbytes = _HISTOGRAMS * 8

    def __init__(self, device: Device, stream: Stream, kernels: Kernels, size: tuple[int, int], scale: float) -> None:
        self._stream, self._kernels, self._width = stream, kernels, size[0]
        self._sampling = s = Sampling.of(size, scale)
        window = s.width, s.height
        self._rule = None if s.size == window else rule(window, s.size, shrink=True)
        pixels = s.size[0] * s.size[1]
        with Pool(device, stream) as pool:
            self._pool = pool
            if self._rule is not None:
                self._x = pool.axis(axis(s.width, s.size[0], self._rule, horizontal=True))
                self._y = pool.axis(axis(s.height, s.size[1], self._rule, horizontal=False))
            self._columns, self._rows = (pool.table(s.near(k).astype(np.int32)) for k in (0, 1))
            self._green, self._marks, self._inside = (pool.memory(pixels) for _ in range(3))
            self._bins = pool.memory(_BINS * 4)
            self._sums = pool.memory(_BINS // _CHUNK * 4)
            self._report = pool.mapped(self.nbytes)

    def launch(self, picture: int, result: Result) -> None:
        """Put the work for the picture at this address, whose labels are in `result`, on the stream."""
        stream, run, s = self._stream, self._kernels, self._sampling
        width, height = s.size
        pixels, marks, inside = width * height, self._marks, self._inside
        run["clear"].launch(stream, _BINS, self._bins)
        if self._rule is None:
            run["copy_green"].launch(stream, pixels, picture, self._width, s.left, s.top, width, self._green)
        else:
            run["shrink_green"].launch(
                stream, pixels, picture, self._width, s.left, s.top, s.width, s.height, *self._x, *self._y, width,
                height, self._rule, self._green,
            )  # fmt: skip
        run["mark_cells"].launch(stream, pixels, result.labels, self._width, self._columns, self._rows, width, marks)
        run["mark_inside"].launch(stream, pixels, marks, width, height, s.reach, inside)
        thinned = -(-width // THIN) * -(-height // THIN)
        run["count_levels"].launch(stream, thinned, self._green, marks, inside, width, height, s.reach, self._bins)
        lines = len(range(2, height - 2, EVERY))
        run["count_edges"].launch(stream, lines * width, self._green, marks, width, height, self._bins)
        run["sum_bins"].launch(stream, _BINS // _CHUNK, self._bins, self._sums)
        run["report_light"].launch(stream, _HISTOGRAMS, self._bins, self._sums, self._report)

    def read(self, pixels: NDArray[np.uint8]) -> Light:
        """What was measured of the picture `pixels`, whose work is done."""
        counts = self._report.array[: self.nbytes].view(np.int32).reshape(-1, 2).tolist()
        background, rim, *edges = ((n, level) for n, level in counts)
        return self._sampling.light(background, rim, edges, pixels)

    def free(self) -> None:
        """Free its memory."""
        self._pool.free()
