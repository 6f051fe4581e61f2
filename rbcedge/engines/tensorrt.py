"""TensorRT: the GPU engine. Pictures and results are copied through the host; `tensorrt_executor` copies nothing.

Engines are built from a bundle's ONNX networks on this machine, once, into the engine cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbcedge.bundle import Bundle
from rbcedge.engines.tensorrt_api import import_tensorrt, problem
from rbcedge.engines.tensorrt_network import Network, open_network
from rbcedge.engines.tensorrt_progress import Ticker
from rbcedge.errors import RbcedgeError

__all__ = ["TensorRTEngine", "load", "problem"]


class TensorRTEngine:
    """A network on the GPU, arrays in and out. See `rbcedge.engines.base.Engine`.

    Parameters
    ----------
    network : Network
        Closed with the engine.
    precision : str
        As the manifest says, for records.
    """

    name = "tensorrt"

    def __init__(self, network: Network, precision: str) -> None:
        self.precision = precision
        self._network = network
        self._room: dict[str, tuple[int, int]] = {}
        self.input_shape = network.largest

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run (n, H, W, 3) uint8 RGB, n of any size; see `Engine.infer`.

        Raises
        ------
        RbcedgeError
            Where no engine takes this picture size, and where TensorRT or the driver fails.
        """
        n, h, w, c = batch.shape
        least, largest = self._network.batches(h, w)
        if n == 0:
            return np.empty((0, *self._shape_out((least, h, w, c))[1:]), np.float32)
        results = [self._run(batch[start : start + largest], least) for start in range(0, n, largest)]
        return results[0] if len(results) == 1 else np.concatenate(results)

    def _shape_out(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        with self._network.memory.current():
            plan = self._network.serving(shape)
            assert plan is not None
            return plan.output_shape(shape)

    def _run(self, part: NDArray[np.uint8], least: int) -> NDArray[np.float32]:
        memory = self._network.memory
        count = max(len(part), least)
        shape = (count, *part.shape[1:])
        plan = self._network.serving(shape)
        if plan is None:
            raise RbcedgeError(f"No TensorRT engine was built for an input of {'x'.join(map(str, shape))}.")
        pixels = np.zeros(shape, plan.input_dtype)
        if plan.input_dtype == np.uint8:
            pixels[: len(part)] = part
        else:
            np.multiply(part, np.float32(1 / 255), out=pixels[: len(part)], casting="same_kind")
        with memory.current():
            result = np.empty(plan.output_shape(shape), plan.output_dtype)
            source, target = self._place("in", pixels.nbytes), self._place("out", result.nbytes)
            context = plan.bind(shape, source, target)
            memory.upload(pixels, source)
            plan.enqueue(context, memory.stream)
            memory.download(target, result)
        return result[: len(part)].astype(np.float32)

    def _place(self, what: str, nbytes: int) -> int:
        """Return device memory of at least this size, kept from call to call."""
        address, size = self._room.get(what, (0, 0))
        if size < nbytes:
            if size:
                del self._room[what]
                self._network.memory.free(address)
            address = self._network.memory.allocate(nbytes)
            self._room[what] = (address, nbytes)
        return address

    def layers(self, batch: NDArray[np.uint8], runs: int = 20) -> list[tuple[str, float]]:
        """Time every layer: (name, mean ms per run), in the order of the network.

        Parameters
        ----------
        batch : (n, H, W, 3) uint8 RGB
            One call's worth of pictures.
        runs : int
            Runs measured, after one that is not.
        """
        from rbcedge.engines.tensorrt_layers import profiled

        self.infer(batch)
        n, h, w, c = batch.shape
        shape = (max(n, self._network.batches(h, w)[0]), h, w, c)
        with self._network.memory.current():
            plan = self._network.serving(shape)
            if plan is None:
                raise RbcedgeError(f"{n} pictures of {w}x{h} px are more than one call takes.")
            with profiled(import_tensorrt(), plan.context(shape)) as times:
                for _ in range(runs):
                    self.infer(batch)
        return [(name, total / runs) for name, total in times.items()]

    def close(self) -> None:
        """Release engines and memory. Safe to call twice."""
        self._room.clear()
        self._network.close()


def load(bundle: Bundle, precisions: Sequence[str], threads: int) -> tuple[TensorRTEngine, TensorRTEngine]:
    """Load both networks of a bundle; see `rbcedge.engines.loading.Runtime.load`. The CPU threads do not matter.

    Raises
    ------
    RbcedgeError
        Where the bundle has no ONNX networks, and with TensorRT's or the driver's reason.
    """
    from rbcedge.engines.loading import artefacts

    trt: Any = import_tensorrt()
    ticker = Ticker()
    made: list[TensorRTEngine] = []
    try:
        for artefact in artefacts(bundle, "onnx", precisions):
            network = open_network(bundle, artefact, trt, ticker)
            made.append(TensorRTEngine(network, artefact.precision))
    except BaseException:
        for engine in made:
            engine.close()
        raise
    return made[0], made[1]
