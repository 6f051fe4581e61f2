"""TensorRT on device addresses: nothing is copied. Implements `rbcedge.pipeline.gpu.base.Executor`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rbcedge.bundle import Artefact, Bundle
from rbcedge.engines.tensorrt_api import import_tensorrt, problem
from rbcedge.engines.tensorrt_building import Progress
from rbcedge.engines.tensorrt_network import Network, open_network
from rbcedge.engines.tensorrt_plan import Plan
from rbcedge.engines.tensorrt_shapes import Shape
from rbcedge.errors import RbcedgeError, Unfit


class TensorRTExecutor:
    """A network that runs where the pixels are. The device's primary context must be current in the calling thread.

    Each profile keeps its context, so a CUDA graph captured after `bind` stays valid. The first run at a new shape
    may allocate: run once before capturing.

    Parameters
    ----------
    network : Network
        Closed with the executor.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._bound: tuple[Plan, Any] | None = None
        inputs = {plan.input_dtype for plan in network.plans}
        outputs = {plan.output_dtype for plan in network.plans}
        if len(inputs) != 1 or not inputs <= {np.dtype(np.uint8), np.dtype(np.float32)}:
            raise RbcedgeError("The network must take uint8 or float32 pixels; make it with 'rbcedge convert onnx'.")
        if outputs != {np.dtype(np.float32)}:
            raise RbcedgeError("The network must give float32; make it with 'rbcedge convert onnx'.")
        self._dtype = inputs.pop()

    @property
    def input_shape(self) -> Shape:
        """N, H, W, C: the largest batch and picture of one call."""
        return self._network.largest

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """uint8 or float32."""
        return self._dtype

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the result for an input of `shape`. Raises `RbcedgeError` where no engine takes it."""
        return self._serving(shape).output_shape(shape)

    def bind(self, input_address: int, output_address: int, shape: tuple[int, ...]) -> None:
        """Say where the next input lies and the result goes, and the input's shape.

        Raises
        ------
        RbcedgeError
            Where no engine takes the shape.
        rbcedge.engines.cuda.OutOfDeviceMemory
            Where the profile's scratch memory does not fit; a smaller batch may.
        """
        plan = self._serving(shape)
        self._bound = plan, plan.bind(shape, input_address, output_address)

    def enqueue(self, stream_handle: int) -> None:
        """Put one run on the stream, after what is on it already. Nothing is copied, nothing waits."""
        if self._bound is None:
            raise RbcedgeError("The executor was not told where its input lies: call bind first.")
        plan, context = self._bound
        plan.enqueue(context, stream_handle)

    def _serving(self, shape: tuple[int, ...]) -> Plan:
        plan = self._network.serving(shape)
        if plan is None:
            raise Unfit(
                f"No TensorRT engine was built for an input of {'x'.join(map(str, shape))}. Build one with "
                "'rbcedge convert tensorrt --size WxH' (WxH of the picture), or use --engine cpu."
            )
        return plan

    def close(self) -> None:
        """Release engines. Safe to call twice."""
        self._bound = None
        self._network.close()


def open_executor(
    bundle: Bundle, artefact: Artefact, progress: Progress, folder: Path | None = None
) -> TensorRTExecutor:
    """Load one ONNX network of a bundle for the zero-copy loop, building its engines where they are not cached.

    Raises
    ------
    RbcedgeError
        Where TensorRT cannot be used, in words.
    """
    reason = problem()
    if reason is not None:
        raise RbcedgeError(reason)
    network = open_network(bundle, artefact, import_tensorrt(), progress, folder)
    try:
        return TensorRTExecutor(network)
    except RbcedgeError:
        network.close()
        raise
