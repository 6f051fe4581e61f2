"""Float ONNX to INT8 ONNX with Q/DQ nodes; see `rbcedge.convert.onnx_int8` for what is quantised and how."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rbcedge.calibration.network import Layer, Run
from rbcedge.calibration.ranges import Method
from rbcedge.convert.making import batches
from rbcedge.convert.onnx_int8 import OPERATORS, activation_ranges, with_ranges

from rbcedge.engines.onnx import OnnxEngine
from rbcedge.errors import RbcedgeError

#: Pictures in one call while activations are watched.
_BATCH = 8
#: Side of the picture for which the work of each layer is reckoned where any will do, px; shares depend on it little.
_SIDE = 64


class OnnxNetwork:
    """A float ONNX network in the convention of `rbcedge.convert.onnx`. See `rbcedge.calibration.network.Network`.

    Parameters
    ----------
    model : bytes
    folder : Path
        For models that are tried; the caller removes it.
    name : str
        For file names.
    threads : int
    """

    format = "onnx"

    def __init__(self, model: bytes, folder: Path, name: str = "network", threads: int = 1) -> None:
        model = _named(model)
        self._model, self._folder, self._name, self._threads = model, folder, name, threads
        self._batches: tuple[NDArray[np.uint8], ...] = ()
        self._ranges: dict[Method, dict[str, tuple[float, float]]] = {}
        self.layers = tuple(_layers(model))

    def calibrate(self, pictures: Sequence[NDArray[np.uint8]]) -> None:
        """Take (n, H, W, 3) uint8 RGB to watch the activations on, when ranges are asked for."""
        if not pictures:
            raise RbcedgeError("INT8 needs calibration pictures, none were given.")
        self._batches, self._ranges = tuple(pictures), {}

    def quantised(self, method: Method, keep: Collection[str] = ()) -> bytes:
        """Return the Q/DQ model: weights per channel, activations per tensor, all symmetric; float in and out."""
        if method not in self._ranges:
            self._ranges[method] = self._find(method)
        return with_ranges(self._model, self._ranges[method], sorted(keep))

    def runner(self, model: bytes | None = None) -> Run:
        """Return what runs a quantised model (default: the float one), as `rbcedge run` would."""
        path = self._folder / f"{self._name}.{'fp32' if model is None else 'int8'}.onnx"
        path.unlink(missing_ok=True)
        path.write_bytes(self._model if model is None else model)
        return OnnxEngine(path, "fp32" if model is None else "int8", self._threads).infer

    def _find(self, method: Method) -> dict[str, tuple[float, float]]:
        # Pictures of one size at a time, in equal batches: ONNX Runtime's histograms need like arrays. The widest range
        # covers all.
        found: dict[str, tuple[float, float]] = {}
        for size in sorted({b.shape[1:3] for b in self._batches}):
            alike = batches([b for b in self._batches if b.shape[1:3] == size], _BATCH)
            part = activation_ranges(self._model, alike, method)
            for name, (low, high) in part.items():
                a, b = found.get(name, (low, high))
                found[name] = (min(a, low), max(b, high))
        return found


def _layers(model: bytes) -> Iterator[Layer]:
    import onnx as library

    graph = library.shape_inference.infer_shapes(_laid_out(model)).graph
    weights = {w.name: tuple(w.dims) for w in graph.initializer}
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.value_info, *graph.output)}
    for node in graph.node:
        if node.op_type in OPERATORS:
            yield Layer(node.name, node.op_type, _macs(node, weights, shapes), _label(node, weights))


def _named(model: bytes) -> bytes:
    """Give every node a name of its own: layers are addressed by it, and ONNX asks for none."""
    import onnx as library

    whole = library.load_from_string(model)
    seen: set[str] = set()
    for k, node in enumerate(whole.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}__{k}__{node.output[0]}"
        seen.add(node.name)
    out: bytes = whole.SerializeToString()
    return out


def _label(node: Any, weights: dict[str, tuple[int, ...]]) -> str:
    """Return "network/layer/" where a weight's name tells the Keras layer; names of folded layers say nothing."""
    for name in node.input[1:]:
        parts = name.split("/")
        if name in weights and len(parts) > 2:
            return f"{parts[0]}/{parts[1]}/"
    return ""


def _laid_out(model: bytes) -> Any:
    """Return the network for one picture of a fixed size, so that the work of each layer can be reckoned."""
    import onnx as library

    whole = library.load_from_string(model)
    shape = whole.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(shape, (1, _SIDE, _SIDE), strict=False):
        dim.dim_value = dim.dim_value or size
    for value in whole.graph.output:
        value.type.tensor_type.ClearField("shape")
    return whole


def _macs(node: Any, weights: dict[str, tuple[int, ...]], shapes: dict[str, list[int]]) -> int:
    """Weights times output pixels, for a picture of `_SIDE` px where its size is free."""
    kernel = next((weights[i] for i in node.input if i in weights and len(weights[i]) > 1), ())
    out = shapes.get(node.output[0], [])
    area = int(np.prod(out[2:])) if len(out) == 4 else 1
    if node.op_type == "ConvTranspose":
        area //= max(1, int(np.prod(kernel[2:])))
    return int(np.prod(kernel)) * area if kernel else 0
