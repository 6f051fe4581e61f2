"""From probabilities to labels and a list of cells, on the device; the same as `rbcedge.cells.components`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rbcedge.cells import Cells
from rbcedge.pipeline.gpu.base import Device, DeviceMemory, MappedMemory, Stream
from rbcedge.pipeline.gpu.memory import Kernels, Pool
from rbcedge.pipeline.gpu.resampling import smooth

_WORD = 32
#: Threads that write the report; they share its rows.
_REPORTERS = 4096
#: A component as kernels.cu lays it out.
COMPONENT = np.dtype(
    [
        ("x0", "i4"),
        ("y0", "i4"),
        ("x1", "i4"),
        ("y1", "i4"),
        ("area", "i4"),
        ("", "i4"),
        ("x", "u8"),
        ("y", "u8"),
        ("grid", "u8"),
    ]
)
_HEAD = 16


@dataclass(frozen=True, slots=True)
class Result:
    """Where one picture's results go.

    Attributes
    ----------
    labels : DeviceMemory
        (H, W) int32.
    components : DeviceMemory
        One `COMPONENT` for each row.
    report : MappedMemory
        Number of components and of foreign pixels, then the components: what the host reads.
    """

    labels: DeviceMemory
    components: DeviceMemory
    report: MappedMemory

    @classmethod
    def allocate(cls, pool: Pool, size: tuple[int, int], least: int) -> Result:
        """Allocate for pictures of this width and height and components of `least` px and more: none can be lost."""
        rows = size[0] * size[1] // least + 1
        return cls(
            pool.memory(size[0] * size[1] * 4),
            pool.memory(rows * COMPONENT.itemsize),
            pool.mapped(_HEAD + rows * COMPONENT.itemsize),
        )

    def read(self, size: tuple[int, int], classes: int) -> Found:
        """What was found in a picture whose work is done."""
        count, foreign = (int(v) for v in self.report.array[:8].view(np.int32))
        rows = self.report.array[_HEAD : _HEAD + count * COMPONENT.itemsize].view(COMPONENT)
        bits = (rows["grid"][:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
        return Found(cells_of(rows, size, classes), foreign, bits.astype(np.bool_), _HEAD + rows.nbytes)


@dataclass(frozen=True, slots=True)
class Found:
    """What comes back of a picture.

    Attributes
    ----------
    cells : Cells
    foreign : int
        Foreign pixels at working resolution.
    grids : (N, 64) bool
        See `Field.grids`.
    nbytes : int
        What was read.
    """

    cells: Cells
    foreign: int
    grids: NDArray[np.bool_]
    nbytes: int


def cells_of(rows: NDArray[np.void], size: tuple[int, int], classes: int) -> Cells:
    """Return components of a picture of this width and height as cells that are not classified."""
    corner, last = np.stack([rows["x0"], rows["y0"]], 1), np.stack([rows["x1"], rows["y1"]], 1)
    centroids = np.stack([rows["x"], rows["y"]], 1).astype(np.float64) / rows["area"][:, None]
    return Cells(
        np.concatenate([corner, last - corner + 1], axis=1).astype(np.int32),
        centroids.astype(np.float32),
        rows["area"].astype(np.int32),
        ((corner == 0) | (last == np.array(size) - 1)).any(axis=1),
        np.full((len(rows), classes), np.nan, np.float32),
    )


class Finding:
    """Finds the components of pictures of one size.

    Parameters
    ----------
    device, stream, kernels
        Where it runs.
    size, working : (int, int)
        Width and height of the picture and of the probabilities, px.
    stride : int
        Width of a row of probabilities in memory, px.
    threshold : float
        Probability from which a pixel is cell.
    least : int
        Area of the smallest component that is kept, px.
    """

    def __init__(
        self,
        device: Device,
        stream: Stream,
        kernels: Kernels,
        size: tuple[int, int],
        working: tuple[int, int],
        stride: int,
        threshold: float,
        least: int,
    ) -> None:
        self._stream, self._kernels = stream, kernels
        self._size, self._working, self._stride = size, working, stride
        self._threshold, self._least = threshold, least
        pixels = size[0] * size[1]
        words = -(-pixels // _WORD)
        first = -(-words // 32)
        second = -(-first // 32)
        self._counts = 2 + words + first + second + -(-second // 32)
        with Pool(device, stream) as pool:
            self._pool = pool
            self._x, self._y = (pool.axis(smooth(w, s)) for w, s in zip(working, size, strict=True))
            self._cell = pool.memory(pixels)
            self._parent, self._area = pool.memory(pixels * 4), pool.memory(pixels * 4)
            self._tree = pool.memory(self._counts * 4)

    @property
    def foreign(self) -> int:
        """Address of the count of foreign pixels, zero after `begin`."""
        return self._tree.address + 4

    def begin(self) -> None:
        """Put on the stream what must precede a picture: counts become zero."""
        self._kernels["clear"].launch(self._stream, self._counts, self._tree)

    def launch(self, probability: DeviceMemory, result: Result) -> None:
        """Put the work for these probabilities, (rows, stride) float32, on the stream."""
        (width, height), stream, run = self._size, self._stream, self._kernels
        pixels, words = width * height, -(-width // _WORD) * height
        cell, parent, area, tree = self._cell, self._parent, self._area, self._tree.address + 8
        run["threshold_mask"].launch(
            stream, words, probability, self._stride, *self._working, *self._x, *self._y, width, height,
            self._threshold, cell, parent, area,
        )  # fmt: skip
        run["join_runs"].launch(stream, pixels, cell, parent, width)
        run["mark_open"].launch(stream, 2 * (width + height), cell, parent, width, height, area)
        run["fill_holes"].launch(stream, pixels, cell, parent, area)
        run["join_holes"].launch(stream, pixels, cell, parent, width)
        run["count_areas"].launch(stream, words, cell, parent, width, area)
        run["keep_large"].launch(stream, pixels, cell, parent, area, self._least, tree, self._tree)
        run["number_rows"].launch(stream, -(-pixels // _WORD), tree, pixels, area, result.components)
        run["label_cells"].launch(stream, words, cell, parent, area, width, result.labels, result.components)
        run["report_cells"].launch(
            stream, _REPORTERS, self._tree, result.components, result.labels, width, result.report
        )

    def free(self) -> None:
        """Free its memory."""
        self._pool.free()
