"""Float .tflite to INT8 .tflite, without TensorFlow: any device that can run the network can calibrate it.

The activation ranges are our own (`rbcedge.calibration.ranges`) and ai-edge-quantizer writes the model; its own
calibration averages the limits of the pictures, which cuts off what only few of them hold.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rbcedge.calibration.network import Layer, Run
from rbcedge.calibration.ranges import Method, Spread

from rbcedge.engines.litert import LiteRTEngine
from rbcedge.errors import RbcedgeError

#: Input and output stay float: `LiteRTEngine` then needs no types of its own, at the cost of one pass over pixels.
_ENDS = ("INPUT", "OUTPUT")


class TFLiteNetwork:
    """A float .tflite network. See `rbcedge.calibration.network.Network`.

    Parameters
    ----------
    model : bytes
        One (N, H, W, 3) float32 input in 0 to 1, one output, static batch.
    folder : Path
        For models that are tried; the caller removes it.
    name : str
        For messages and file names.
    threads : int

    Raises
    ------
    RbcedgeError
        It is not such a model.
    """

    format = "tflite"

    def __init__(self, model: bytes, folder: Path, name: str = "network", threads: int = 1) -> None:
        self._model, self._folder, self._name, self._threads = model, folder, name, threads
        self._spreads: dict[str, Spread] = {}
        self._ranges: dict[Method, dict[str, Any]] = {}
        graph = _graph(model, name)
        self._input = _text(graph.tensors[graph.inputs[0]].name)
        self._watched = {self._input, *(_text(graph.tensors[t].name) for op in graph.operators for t in op.outputs)}
        self.layers = tuple(_layers(model, graph))

    def calibrate(self, pictures: Sequence[NDArray[np.uint8]]) -> None:
        """Watch the activations on (n, H, W, 3) uint8 RGB, each H and W any that the network can take."""
        if not pictures:
            raise RbcedgeError("INT8 needs calibration pictures, none were given.")
        spreads = {name: Spread() for name in self._watched}
        for collect in (Spread.widen, Spread.add):
            for name, values in self._activations(pictures):
                collect(spreads[name], values)
        # The engine gives pixels as 0 to 1: the full range makes the first step exact.
        spreads[self._input].low, spreads[self._input].high = 0.0, 1.0
        bad = sorted(n for n, s in spreads.items() if not np.isfinite([s.low, s.high]).all())
        if bad:
            raise RbcedgeError(f"{self._name}: activations are not finite ({bad[0]}). The network is damaged.")
        self._spreads, self._ranges = spreads, {}

    def quantised(self, method: Method, keep: Collection[str] = ()) -> bytes:
        """Return the INT8 .tflite: weights per channel and symmetric, activations per tensor; float in and out."""
        quantizer, recipe = _quantizer()
        if not self._spreads:
            raise ValueError("calibrate first")
        rules = [
            *recipe.static_wi8_ai8(),
            *({"regex": ".*", "operation": end, "algorithm_key": "no_quantize"} for end in _ENDS),
            # An operator is addressed by the name of its output and a semicolon.
            *(
                {"regex": f"^{re.escape(name)};", "operation": "*", "algorithm_key": "no_quantize"}
                for name in sorted(keep)
            ),
        ]
        try:
            # It draws a progress bar whatever is asked, and warns of the memory it takes.
            with redirect_stderr(StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                made = quantizer.Quantizer(self._model, rules).quantize(
                    self._limits(method), enable_progress_bar=False, enable_progress_report=False
                )
        except (RuntimeError, ValueError, KeyError) as e:
            reason = (str(e).strip() or type(e).__name__).splitlines()[0]
            raise RbcedgeError(f"{self._name}: cannot be quantised ({reason}).") from e
        return bytes(made.quantized_model)

    def _limits(self, method: Method) -> dict[str, Any]:
        """As ai-edge-quantizer wants them. The entropy method takes seconds, so they are kept."""
        if method not in self._ranges:
            ends = {name: spread.range(method) for name, spread in self._spreads.items()}
            ends[self._input] = (0.0, 1.0)  # cut pixels would be no kindness
            self._ranges[method] = {
                name: {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}
                for name, (low, high) in ends.items()
            }
        return self._ranges[method]

    def runner(self, model: bytes | None = None) -> Run:
        """Return what runs a quantised model (default: the float one), as `rbcedge run` would."""
        path = self._folder / f"{self._name}.{'fp32' if model is None else 'int8'}.tflite"
        # A model in use is never written over: it may be mapped into memory.
        path.unlink(missing_ok=True)
        path.write_bytes(self._model if model is None else model)
        return LiteRTEngine(path, "fp32" if model is None else "int8", self._threads).infer

    def _activations(self, batches: Sequence[NDArray[np.uint8]]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Yield every watched tensor's values for every batch, incomplete batches without their padding."""

        for size in sorted({b.shape[1:3] for b in batches}):
            interpreter, watched = self._watching(size)
            pixels = interpreter.get_input_details()[0]
            n = int(pixels["shape"][0])
            for batch in (b for b in batches if b.shape[1:3] == size):
                for start in range(0, len(batch), n):
                    part = batch[start : start + n]
                    whole = np.zeros((n, *size, 3), np.float32)
                    np.multiply(part, np.float32(1 / 255), out=whole[: len(part)])
                    interpreter.set_tensor(pixels["index"], whole)
                    interpreter.invoke()
                    for detail in watched:
                        values = interpreter.get_tensor(detail["index"])
                        yield detail["name"], values[: len(part)] if len(values) == n else values

    def _watching(self, size: tuple[int, int]) -> tuple[Any, list[Any]]:
        """Make an interpreter for pictures of this height and width that keeps every activation."""
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        # XNNPACK is three times as fast, but a tensor may be fused away in it.
        for resolver in (OpResolverType.BUILTIN, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that keeping all tensors needs memory
                interpreter = Interpreter(
                    model_content=self._model,
                    num_threads=self._threads,
                    experimental_op_resolver_type=resolver,
                    experimental_preserve_all_tensors=True,
                )
                pixels = interpreter.get_input_details()[0]
                interpreter.resize_tensor_input(pixels["index"], [int(pixels["shape"][0]), *size, 3])
                interpreter.allocate_tensors()
            watched = [d for d in interpreter.get_tensor_details() if d["name"] in self._watched]
            if {d["name"] for d in watched} == self._watched:
                break
        return interpreter, watched


def check_available() -> None:
    """Raise RbcedgeError where ai-edge-quantizer is not installed."""
    _quantizer()


def _quantizer() -> tuple[Any, Any]:
    try:
        from ai_edge_quantizer import quantizer, recipe
    except ImportError as error:
        raise RbcedgeError("INT8 needs ai-edge-quantizer. Install it: pip install 'rbcedge[calibrate]'.") from error
    return quantizer, recipe


def _graph(model: bytes, name: str) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    try:
        if model[4:8] != b"TFL3":
            raise ValueError("not a TensorFlow Lite file")
        graph = schema.ModelT.InitFromPackedBuf(model, 0).subgraphs[0]
        inputs = graph.tensors[graph.inputs[0]]
    except Exception as error:  # flatbuffers raise anything on damaged files
        raise RbcedgeError(f"{name}: not a .tflite network ({error}).") from error
    if len(graph.inputs) != 1 or inputs.type != schema.TensorType.FLOAT32:
        raise RbcedgeError(f"{name}: a float network with one input is needed to make INT8 from.")
    return graph


def _layers(model: bytes, graph: Any) -> Iterator[Layer]:
    from ai_edge_litert import schema_py_generated as schema

    kinds = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    codes = schema.ModelT.InitFromPackedBuf(model, 0).operatorCodes
    for op in graph.operators:
        code = codes[op.opcodeIndex]
        kind = kinds.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")
        yield Layer(_text(graph.tensors[op.outputs[0]].name), kind, _macs(kind, op, graph))


def _macs(kind: str, op: Any, graph: Any) -> int:
    """Multiplications of an operator for one picture, at the size the file is laid out for."""
    shapes = [list(graph.tensors[t].shape) for t in op.inputs if t >= 0]
    out = list(graph.tensors[op.outputs[0]].shape)
    area = int(np.prod(out[1:]))
    if kind == "CONV_2D":
        return area * int(np.prod(shapes[1][1:]))
    if kind == "DEPTHWISE_CONV_2D":
        return area * int(np.prod(shapes[1][1:3]))
    if kind == "TRANSPOSE_CONV":
        # Inputs: output shape, weights (out, h, w, in), picture. Each input value meets every weight of its channel.
        return int(np.prod(shapes[2][1:])) * int(np.prod(shapes[1][:3]))
    if kind == "FULLY_CONNECTED":
        return area * int(shapes[1][-1])
    return 0


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
