"""A pipeline with another one to go on with, should the first fail."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import DeviceError, RbcedgeError, Unfit
from rbcedge.field import Field
from rbcedge.frame import Frame
from rbcedge.pipeline.base import FindAgain, Pipeline
from rbcedge.pipeline.device import DevicePipeline
from rbcedge.pipeline.scale import Search


class WithSpare:
    """The device for as long as it works, then another pipeline, for good. See `rbcedge.pipeline.base.Pipeline`.

    What the device has found stays valid: pictures may lie in its memory, so it is closed at the end only.

    Parameters
    ----------
    device : DevicePipeline
        Closed with this one.
    spare : callable
        Makes the other pipeline, when it is needed, and says what it is called. Takes over what was measured of the
        magnification.
    """

    def __init__(self, device: DevicePipeline, spare: Callable[[Search], tuple[Pipeline, str]]) -> None:
        self._device, self._make = device, spare
        self._spare: Pipeline | None = None
        self._warning = ""

    @property
    def scale(self) -> float:
        """Native px per source px of the last frame."""
        return self._now.scale

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know, in words."""
        return (*([self._warning] if self._warning else []), *self._now.warnings)

    @property
    def device(self) -> DevicePipeline | None:
        """The device for as long as it works."""
        return self._device if self._spare is None else None

    def find(self, frame: Frame) -> Field:
        """Segment `frame` and list its cells, without classes; on the other pipeline where the device fails."""
        if self._spare is None:
            try:
                return self._device.find(frame)
            except (DeviceError, Unfit) as e:
                return self._give_up(e).find(frame)
        return self._spare.find(frame)

    def classify(self, field: Field, rows: NDArray[np.intp]) -> Field:
        """Return `field` with probabilities for `rows` of its cells.

        Raises
        ------
        FindAgain
            Where the device fails: its labels are lost with it.
        """
        if self._spare is None:
            try:
                return self._device.classify(field, rows)
            except (DeviceError, Unfit) as e:
                self._give_up(e)
                raise FindAgain(str(e)) from e
        return self._spare.classify(field, rows)

    def close(self) -> None:
        """Close both."""
        if self._spare is not None:
            self._spare.close()
        with suppress(DeviceError):
            self._device.close()

    @property
    def _now(self) -> Pipeline:
        return self._device if self._spare is None else self._spare

    def _give_up(self, error: RbcedgeError) -> Pipeline:
        """Change over. Raises `error` where there is nothing to change to."""
        try:
            self._spare, name = self._make(self._device.search)
        except RbcedgeError as e:
            raise RbcedgeError(f"{error} The CPU cannot go on either: {e}") from error
        self._device.buffers.close()
        self._warning = f"{error} The count goes on with {name} on the CPU."
        return self._spare
