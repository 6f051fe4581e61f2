"""A picture's background on the device; the same as `rbcedge.pipeline.illumination.estimate`."""

from __future__ import annotations

import cv2
import numpy as np

from rbcedge.pipeline.gpu.base import Device, DeviceMemory, Stream
from rbcedge.pipeline.gpu.memory import Kernels, Pool
from rbcedge.pipeline.gpu.resampling import axis, rule
from rbcedge.pipeline.illumination import BACKGROUND, Illumination, Layout


class Background:
    """Finds the background of pictures of one size.

    Parameters
    ----------
    device, stream, kernels
        Where it runs.
    size : (int, int)
        Width and height of the pictures, px.
    """

    def __init__(self, device: Device, stream: Stream, kernels: Kernels, size: tuple[int, int]) -> None:
        self._stream, self._kernels, self._size = stream, kernels, size
        layout = Layout.of(size)
        self._layout = layout
        self._rule = rule(size, layout.reduced, shrink=True)
        edges = [*layout.x_edges, *layout.y_edges, *layout.ranks.ravel()]
        smoothing = cv2.getGaussianKernel(3, 0.8, cv2.CV_32F).ravel()
        self._side, self._middle = float(smoothing[0]), float(smoothing[1])
        rows, columns = layout.grid
        with Pool(device, stream) as pool:
            self._pool = pool
            self._x = pool.axis(axis(size[0], layout.reduced[0], self._rule, horizontal=True))
            self._y = pool.axis(axis(size[1], layout.reduced[1], self._rule, horizontal=False))
            self._edges = pool.table(np.array(edges, np.int32))
            self._small = pool.memory(layout.reduced[0] * layout.reduced[1] * 3)
            self._blocks = pool.memory(rows * columns * 12)
            self._found = pool.mapped(rows * columns * 12)
            self.gain: DeviceMemory = pool.memory(rows * columns * 12)

    @property
    def nbytes(self) -> int:
        """Bytes that come back of a picture."""
        rows, columns = self._layout.grid
        return rows * columns * 12

    @property
    def grid(self) -> tuple[int, int]:
        """Columns and rows of the background's grid."""
        rows, columns = self._layout.grid
        return columns, rows

    def launch(self, picture: int) -> None:
        """Put the work for the picture at this address on the stream; `gain` then holds its flat field."""
        (width, height), small, (columns, rows) = self._size, self._layout.reduced, self.grid
        stream, blocks = self._stream, rows * columns * 3
        self._kernels["shrink"].launch(
            stream, small[0] * small[1] * 3, picture, width, height, self._small, small[0], *self._x, *self._y,
            small[1], self._rule,
        )  # fmt: skip
        self._kernels["block_background"].launch(
            stream, blocks, self._small, small[0], self._edges, columns, rows, self._blocks
        )
        self._kernels["even_background"].launch(
            stream, blocks, self._blocks, columns, rows, self._side, self._middle, BACKGROUND, self._found, self.gain
        )

    def read(self) -> Illumination:
        """What was found in the last picture whose work is done."""
        rows, columns = self._layout.grid
        grid = self._found.array[: rows * columns * 12].view(np.float32).reshape(rows, columns, 3)
        return Illumination(grid.copy())

    def free(self) -> None:
        """Free its memory."""
        self._pool.free()
