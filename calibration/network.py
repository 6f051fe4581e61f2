"""What quantising needs to know of a network, whatever its format."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rbcedge.calibration.ranges import Method

#: Runs (n, H, W, 3) uint8 RGB and gives float32.
Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Layer:
    """An operator of a network.

    Attributes
    ----------
    name : str
        Unique in its network; what `quantised` takes.
    kind : str
        As the format calls it: "CONV_2D", "Conv".
    macs : int
        Multiplications for one picture.
    label : str
        What `title` is made from; the name where it is empty.
    """

    name: str
    kind: str
    macs: int
    label: str = ""

    @property
    def title(self) -> str:
        """The name as people write it: the Keras layer's own where one can be made out."""
        # Keras writes network/layer/operation, with a running number at the end of each name.
        name = self.label or self.name
        parts = [re.sub(r"_\d+$", "", p) for p in name.split(";")[0].split("/")]
        inner = [p for p in parts[:-1] if p and p not in ("batchnorm", parts[0])]
        if inner:
            return inner[-1]
        return "output" if name.startswith("StatefulPartitionedCall") else name.split(":")[0]

    @property
    def block(self) -> str:
        """The title up to the first underscore: "block2a" of "block2a_se_reduce"."""
        return self.title.partition("_")[0]


class Network(Protocol):
    """A float network that can be quantised."""

    @property
    def format(self) -> str:
        """ "tflite" or "onnx"."""

    @property
    def layers(self) -> Sequence[Layer]:
        """In the order in which they run."""

    def calibrate(self, pictures: Sequence[NDArray[np.uint8]]) -> None:
        """Watch the activations on real pictures, (n, H, W, 3) uint8 RGB each."""

    def quantised(self, method: Method, keep: Collection[str] = ()) -> bytes:
        """Return the INT8 model; layers named in `keep` stay in float. After `calibrate`."""

    def runner(self, model: bytes | None = None) -> Run:
        """Return what runs a model made by `quantised`, or the float one."""
