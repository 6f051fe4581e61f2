"""A field whose pictures are on a device until somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbcedge.field import Field
from rbcedge.pipeline.gpu.base import Device, MappedMemory, Stream
from rbcedge.pipeline.gpu.finding import Result
from rbcedge.pipeline.gpu.memory import Kernels


class Planes:
    """Mask and labels of one picture, fetched when first asked for.

    Parameters
    ----------
    device, stream, kernels
        Where they are.
    result : Result
        Must hold this picture's results until `fetch` was called.
    bits : MappedMemory
        (H * ceil(W / 8)) bytes the mask comes back in.
    size : (int, int)
        Width and height, px.
    """

    __slots__ = ("__weakref__", "_bits", "_device", "_kernels", "_labels", "_mask", "_result", "_size", "_stream")

    def __init__(
        self,
        device: Device,
        stream: Stream,
        kernels: Kernels,
        result: Result,
        bits: MappedMemory,
        size: tuple[int, int],
    ) -> None:
        self._device, self._stream, self._kernels = device, stream, kernels
        self._result, self._bits, self._size = result, bits, size
        self._mask: NDArray[np.uint8] | None = None
        self._labels: NDArray[np.int32] | None = None

    def mask(self) -> NDArray[np.uint8]:
        """(H, W) uint8, 0 and 255: one bit for each pixel comes back, in mapped memory."""
        if self._mask is None:
            width, height = self._size
            row = -(-width // 8)
            self._kernels["pack_mask"].launch(self._stream, row * height, self._result.labels, width, self._bits)
            self._stream.synchronize()
            self._device.note_result(row * height)
            bits = self._bits.array[: row * height].reshape(height, row)
            self._mask = np.unpackbits(bits, axis=1, count=width) * np.uint8(255)
        return self._mask

    def labels(self) -> NDArray[np.int32]:
        """(H, W) int32: copied back, which is counted as a download."""
        if self._labels is None:
            width, height = self._size
            labels = np.empty((height, width), np.int32)
            self._device.download(self._result.labels, labels, self._stream)
            self._labels = labels
        return self._labels

    def fetch(self) -> None:
        """Fetch both, before their memory is used for another picture."""
        self.mask()
        self.labels()


class _Lazy:
    """An attribute that holds a value, or a function that gives it."""

    def __init__(self, slot: Any) -> None:
        self._slot = slot

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None:
            return self
        value = self._slot.__get__(owner, kind)
        return value() if callable(value) else value

    def __set__(self, owner: Any, value: NDArray[Any] | Callable[[], NDArray[Any]]) -> None:
        self._slot.__set__(owner, value)


class DeviceField(Field):
    """A `Field` made with `Planes.mask` and `Planes.labels` in place of arrays."""

    __slots__ = ()
    mask = _Lazy(Field.__dict__["mask"])
    labels = _Lazy(Field.__dict__["labels"])
