"""What a network has to do: multiplications and bytes of each operator, counted from its .tflite file."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import RbcedgeError

_TOO_GENERAL = ("BiasAdd", "Relu", "Sigmoid", "add", "add_1", "batchnorm", "convolution", "mul", "mul_1")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operator of a network.

    Attributes
    ----------
    kind : str
        As TFLite names it: "CONV_2D".
    name : str
        Of its output.
    macs : int
        Multiplications with addition; 0 for what only moves or compares numbers.
    weights : int
        Elements of its constants.
    inputs, outputs : int
        Elements of the tensors it reads and writes.
    """

    kind: str
    name: str
    macs: int
    weights: int
    inputs: int
    outputs: int

    def bytes(self, element: int) -> int:
        """Bytes read and written when nothing stays in a cache, `element` bytes for each number."""
        return element * (self.weights + self.inputs + self.outputs)


@dataclass(frozen=True, slots=True)
class Graph:
    """A .tflite file taken apart: its object tree, and each tensor's shape for one picture size."""

    model: Any
    shapes: dict[int, tuple[int, ...]]
    schema: Any

    def kind(self, operator: Any) -> str:
        """Name of an operator of the first subgraph."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        names = {v: k for k, v in vars(self.schema.BuiltinOperator).items() if not k.startswith("_")}
        return str(names.get(number, number))

    def constant(self, tensor: int) -> bool:
        """Whether a tensor's values are in the file."""
        data = self.model.buffers[self.model.subgraphs[0].tensors[tensor].buffer].data
        return data is not None and len(data) > 0


def graph(path: Path, size: tuple[int, int] | None = None, batch: int | None = None) -> Graph:
    """Take a .tflite file apart.

    Parameters
    ----------
    path : Path
    size : (int, int), optional
        Height and width of the picture; the file's own by default.
    batch : int, optional
        Pictures in one call; the file's own by default.

    Raises
    ------
    RbcedgeError
        It cannot be read, it holds an operator that is not known here, or the installed LiteRT does not bring the
        format's description.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as e:
        raise RbcedgeError("Counting operations needs ai-edge-litert: pip install ai-edge-litert.") from e
    try:
        data = path.read_bytes()
        model = schema.ModelT.InitFromPackedBuf(data, 0)
        _gather(model, data)
        whole = model.subgraphs[0]
        first = [int(v) for v in whole.tensors[whole.inputs[0]].shape]
    except (OSError, ValueError, IndexError, AttributeError, TypeError, struct.error) as e:
        raise RbcedgeError(f"{path}: not a .tflite network that can be read ({type(e).__name__}).") from e
    g = Graph(model, {}, schema)
    n, h, w, c = first
    _infer(g, (batch or n, *(size or (h, w)), c), path)
    return g


def _gather(model: Any, data: bytes) -> None:
    """Bring constants that a writer put behind the description, at an offset in the file, to the others."""
    for buffer in model.buffers:
        if buffer.data is None and buffer.size:
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0


def _infer(g: Graph, first: tuple[int, ...], path: Path) -> None:
    """Work out every tensor's shape from that of the input.

    The interpreter does not tell them: inside a delegate tensors keep the shapes of the file, and without one it
    refuses other sizes, as the file fixes the output shapes of transposed convolutions.
    """
    whole, shapes = g.model.subgraphs[0], g.shapes
    for index, tensor in enumerate(whole.tensors):
        if g.constant(index):
            shapes[index] = tuple(int(v) for v in (tensor.shape if tensor.shape is not None else ()))
    shapes[int(whole.inputs[0])] = first
    for operator in whole.operators:
        kind = g.kind(operator)
        inputs = [int(t) for t in operator.inputs if t >= 0]
        moving = [t for t in inputs if not g.constant(t)]
        try:
            shape = _shape(kind, g, operator.builtinOptions, inputs, moving)
        except (KeyError, IndexError, AttributeError, StopIteration) as e:
            raise RbcedgeError(f"{path}: an operator {kind} with inputs that are not understood.") from e
        if shape is None:
            raise RbcedgeError(f"{path}: the operator {kind} is not known here; its operations cannot be counted.")
        for t in operator.outputs:
            shapes[int(t)] = shape


def _shape(kind: str, g: Graph, options: Any, inputs: list[int], moving: list[int]) -> tuple[int, ...] | None:
    """Shape of an operator's output; None for a kind that is not known."""
    shapes = g.shapes
    if kind in ("QUANTIZE", "DEQUANTIZE", "LOGISTIC", "RELU", "RELU6", "HARD_SWISH", "SOFTMAX"):
        return shapes[moving[0]]
    if kind in ("ADD", "MUL", "SUB", "DIV"):
        return tuple(int(v) for v in np.broadcast_shapes(*(shapes[t] for t in inputs)))
    if kind == "CONCATENATION":
        total = sum(shapes[t][options.axis] for t in inputs)
        return tuple(total if k == options.axis % 4 else v for k, v in enumerate(shapes[inputs[0]]))
    if kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        weights = shapes[inputs[1]]
        depth = weights[0] if kind == "CONV_2D" else weights[3]
        return *_reduced(shapes[inputs[0]], weights[1:3], options), depth
    if kind in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        size = (options.filterHeight, options.filterWidth)
        return *_reduced(shapes[moving[0]], size, options), shapes[moving[0]][3]
    if kind == "TRANSPOSE_CONV":
        n, h, w, _ = shapes[inputs[2]]
        return n, h * options.strideH, w * options.strideW, shapes[inputs[1]][0]
    if kind == "PAD":
        around = _values(g, inputs[1]).reshape(-1, 2).sum(axis=1)
        return tuple(int(v + a) for v, a in zip(shapes[inputs[0]], around, strict=True))
    if kind == "MEAN":
        axes = {int(a) % len(shapes[inputs[0]]) for a in _values(g, inputs[1]).ravel()}
        kept = [1 if k in axes else v for k, v in enumerate(shapes[inputs[0]])]
        return tuple(v for k, v in enumerate(kept) if options.keepDims or k not in axes)
    if kind == "FULLY_CONNECTED":
        depth, width = shapes[inputs[1]]
        return math.prod(shapes[inputs[0]]) // width, depth
    return None


def _reduced(shape: tuple[int, ...], size: Sequence[int], options: Any) -> tuple[int, int, int]:
    """N, height and width after a window of `size` with the strides and the padding (0 same, 1 valid) of `options`."""
    n, *sides = shape[:3]
    strides = (options.strideH, options.strideW)
    cut = (0, 0) if options.padding == 0 else (size[0] - 1, size[1] - 1)
    h, w = (-(-(side - c) // stride) for side, c, stride in zip(sides, cut, strides, strict=True))
    return n, h, w


def _values(g: Graph, tensor: int) -> NDArray[np.int32]:
    """Whole numbers of a constant."""
    data = g.model.buffers[g.model.subgraphs[0].tensors[tensor].buffer].data
    return np.frombuffer(bytes(bytearray(data)), np.int32)


def operations(path: Path, size: tuple[int, int] | None = None, batch: int | None = None) -> tuple[Operation, ...]:
    """Count what each operator of a .tflite network does; parameters as for `graph`."""
    g = graph(path, size, batch)
    subgraph = g.model.subgraphs[0]
    found = []
    for operator in subgraph.operators:
        kind = g.kind(operator)
        used = [int(t) for t in operator.inputs if t >= 0]
        weights = [t for t in used if g.constant(t)]
        inputs = [t for t in used if not g.constant(t)]
        outputs = [int(t) for t in operator.outputs]
        found.append(
            Operation(
                kind,
                _name(subgraph.tensors[outputs[0]].name),
                _macs(kind, g, used, outputs[0]),
                sum(_elements(g.shapes[t]) for t in weights),
                sum(_elements(g.shapes[t]) for t in inputs),
                sum(_elements(g.shapes[t]) for t in outputs),
            )
        )
    return tuple(found)


def _macs(kind: str, g: Graph, inputs: list[int], output: int) -> int:
    """Multiplications of the kinds of operators the two networks have."""
    out = _elements(g.shapes[output])
    if kind == "CONV_2D":
        _, kh, kw, depth = g.shapes[inputs[1]]
        return out * kh * kw * depth
    if kind == "DEPTHWISE_CONV_2D":
        _, kh, kw, _ = g.shapes[inputs[1]]
        return out * kh * kw
    if kind == "TRANSPOSE_CONV":
        # Inputs are the output's shape, weights (out, h, w, in), picture: each input value goes into every place.
        depth, kh, kw, _ = g.shapes[inputs[1]]
        return _elements(g.shapes[inputs[2]]) * kh * kw * depth
    if kind == "FULLY_CONNECTED":
        return out * g.shapes[inputs[1]][-1]
    return 0


def _elements(shape: tuple[int, ...]) -> int:
    return math.prod(shape)


def _name(raw: object) -> str:
    """Name of a layer from that of its output tensor: without the network's name and what the converter added."""
    text = raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)
    # Fused operators carry the names of all their parts.
    parts = [part for part in text.split(";")[0].split("/") if part]
    telling = [part for part in parts if part not in _TOO_GENERAL]
    return (telling or parts or [text])[-1]


def copy_speed(repeats: int = 7) -> float:
    """Return how many bytes a second this machine reads and writes when it copies 64 MB, one thread."""
    from time import perf_counter

    source = np.ones(64 * 2**20, np.uint8)
    target = np.empty_like(source)
    np.copyto(target, source)
    best = math.inf
    for _ in range(repeats):
        begun = perf_counter()
        np.copyto(target, source)
        best = min(best, perf_counter() - begun)
    return 2 * source.nbytes / best
