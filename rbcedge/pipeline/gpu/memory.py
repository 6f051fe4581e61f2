"""Memory that is allocated together and freed together."""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import DeviceError
from rbcedge.pipeline.gpu.base import Device, DeviceMemory, Kernel, MappedMemory, Stream
from rbcedge.pipeline.gpu.resampling import Axis
from rbcedge.pipeline.gpu.source import signatures, text

Kernels = dict[str, Kernel]


class Freeable(Protocol):
    """Something that holds memory."""

    def free(self) -> None:
        """Give it back. Safe to call twice."""


_Part = TypeVar("_Part", bound=Freeable)


def load_kernels(device: Device) -> Kernels:
    """Compile the package's kernels for a device, by name."""
    source = text()
    module = device.load(source)
    return {name: module.kernel(name) for name in signatures(source)}


class Pool:
    """Allocations of one subject, freed in one go. What it gives is valid until `free`.

    As a context manager it frees only when the body raises, so that a half-made subject leaves nothing behind.
    """

    def __init__(self, device: Device, stream: Stream) -> None:
        self._device, self._stream = device, stream
        self._held: list[Freeable] = []

    def memory(self, nbytes: int) -> DeviceMemory:
        """Device memory of at least one byte. Raises `OutOfMemory`."""
        made = self._device.allocate(max(nbytes, 1))
        self._held.append(made)
        return made

    def mapped(self, nbytes: int) -> MappedMemory:
        """Page-locked memory both sides see. Raises `OutOfMemory`."""
        made = self._device.allocate_mapped(max(nbytes, 1))
        self._held.append(made)
        return made

    def table(self, values: NDArray[np.generic]) -> DeviceMemory:
        """Device memory that holds `values`."""
        made = self.memory(values.nbytes)
        self._device.upload(np.ascontiguousarray(values), made, self._stream)
        return made

    def axis(self, axis: Axis) -> tuple[DeviceMemory, DeviceMemory]:
        """Device memory that holds the starts and the weights of an axis, as kernels take them."""
        return self.table(axis.at), self.table(axis.weight)

    def own(self, part: _Part) -> _Part:
        """Free `part` with the rest, and return it."""
        self._held.append(part)
        return part

    def free(self) -> None:
        """Free everything, the rest too where one fails. Safe to call twice. Raises `DeviceError`."""
        failed: DeviceError | None = None
        while self._held:
            try:
                self._held.pop().free()
            except DeviceError as e:
                failed = failed or e
        if failed is not None:
            raise failed

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            # What went wrong is on its way up already.
            with suppress(DeviceError):
                self.free()
