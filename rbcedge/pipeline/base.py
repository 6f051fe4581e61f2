"""What a pipeline is: a frame goes in, a field comes out."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import DeviceError
from rbcedge.field import Field
from rbcedge.frame import Frame


class FindAgain(DeviceError):
    """From `classify`: what found the field has failed, and another engine goes on. Its frame must be found again."""


class Pipeline(Protocol):
    """Two steps, because a cell that is already counted need not be classified again.

    Implementations: `rbcedge.pipeline.host` (CPU); a device pipeline keeps the picture and the labels on the GPU
    between the two steps. A pipeline belongs to one thread.
    """

    @property
    def scale(self) -> float:
        """Factor from source px to the bundle's native px, for the last frame."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about magnification and light, in words, after the last frame."""

    def find(self, frame: Frame) -> Field:
        """Segment `frame` and list its cells, without classes (probabilities are NaN)."""

    def classify(self, field: Field, rows: NDArray[np.intp]) -> Field:
        """Return `field` with probabilities for `rows` of its cells. `field` is the one `find` returned last.

        Raises `FindAgain` where the frame must be found anew before it can be classified.
        """

    def close(self) -> None:
        """Release what is held. Safe to call twice."""
