"""Time of each layer of a network.

LiteRT: the Python interpreter of ai-edge-litert has no profiler, and its fast kernels (XNNPACK) run the whole
network as one node. So each operator is put into a model of its own, with the shapes and constants it has in the
network, and timed alone. It then reads its input from memory that nobody has just written, and pays a call of its
own: the sum over the layers differs from the time of the whole network, and both are given.

ONNX Runtime and TensorRT: their own profilers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbcedge.bench.operations import Graph, graph, operations
from rbcedge.bundle import ROLES, Bundle
from rbcedge.engines.base import Engine
from rbcedge.engines.litert import LiteRTEngine, interpreter_class
from rbcedge.engines.tensorrt import TensorRTEngine
from rbcedge.errors import RbcedgeError

_REPEATS = 30
_SHORT_MS = 60.0
#: Cells in the call of the classifier that is profiled, about a field's; fewer where one call takes fewer.
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's kind, name, median time, and multiplications with addition (None where they are not counted)."""

    kind: str
    name: str
    ms: float
    macs: int | None


@dataclass(frozen=True, slots=True)
class Profile:
    """The layers of one network.

    Attributes
    ----------
    role : str
        "segmenter" or "classifier".
    shape : tuple of int
        Of the input it was timed on: N, H, W, C.
    method : str
        How the layers were timed, in words.
    whole_ms : float
        Median time of the whole network.
    layers : tuple of Layer
        In the order of the network.
    """

    role: str
    shape: tuple[int, ...]
    method: str
    whole_ms: float
    layers: tuple[Layer, ...]

    @property
    def sum_ms(self) -> float:
        """Times of all layers together."""
        return sum(layer.ms for layer in self.layers)


def profile(
    bundle: Bundle, engine: str, engines: tuple[Engine, Engine], size: tuple[int, int], threads: int
) -> tuple[Profile, ...]:
    """Profile both networks of an engine.

    Parameters
    ----------
    bundle : Bundle
    engine : str
        Name of the runtime.
    engines : (Engine, Engine)
        The loaded networks, for the time of the whole.
    size : (int, int)
        Height and width of the picture at the segmenter's working resolution.
    threads : int

    Raises
    ------
    RbcedgeError
        This engine gives no times of layers.
    """
    profilers: dict[str, _Profiler] = {"litert": _litert, "onnx": _onnx, "tensorrt": _tensorrt}
    if engine not in profilers:
        raise RbcedgeError(f"--layers: no times of layers from {engine}. Known: --engine {', '.join(profilers)}.")
    found = []
    side = bundle.small_crop_px
    shapes = ((1, *size, 3), (min(engines[1].input_shape[0], _BATCH), side, side, 3))
    for role, network, shape in zip(ROLES, engines, shapes, strict=True):
        method, whole, layers = profilers[engine](bundle, role, network, shape, threads)
        found.append(Profile(role, shape, method, whole, layers))
    return tuple(found)


def _file(bundle: Bundle, role: str, kind: str, precision: str) -> Path:
    artefact = bundle.find(role, kind, (precision,))
    if artefact is None:
        raise RbcedgeError(f"--layers: the bundle has no {kind} {role} in {precision}.")
    return bundle.path(artefact)


_Found = tuple[str, float, tuple[Layer, ...]]
_Profiler = Callable[[Bundle, str, Engine, tuple[int, ...], int], _Found]


def _pixels(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _whole_ms(network: Engine, shape: tuple[int, ...]) -> float:
    pixels = _pixels(shape)
    return _median_ms(lambda: network.infer(pixels))


def _median_ms(call: Callable[[], Any]) -> float:
    """Median of up to 30 calls, ms; fewer where one takes long."""
    call()
    times: list[float] = []
    while len(times) < _REPEATS and (sum(times) < _REPEATS * _SHORT_MS or len(times) < 5):
        begun = perf_counter()
        call()
        times.append(1e3 * (perf_counter() - begun))
    return float(np.median(times))


def _litert(bundle: Bundle, role: str, network: Engine, shape: tuple[int, ...], threads: int) -> _Found:
    path = _file(bundle, role, "tflite", network.precision)
    n, h, w, _ = shape
    # What one lane of the engine does; the others do the same beside it.
    lane = LiteRTEngine(path, network.precision, threads if n == 1 else 1)
    g = graph(path, (h, w), n)
    counted = operations(path, (h, w), n)
    layers = []
    for operator, operation in zip(g.model.subgraphs[0].operators, counted, strict=True):
        layers.append(
            Layer(operation.kind, operation.name, _alone_ms(_single(g, operator), lane.threads), operation.macs)
        )
    whole = _whole_ms(lane, shape)
    lane.close()
    method = f"each operator alone, threads {lane.threads}, as LiteRT's Python interpreter has no profiler"
    return method, whole, tuple(layers)


def _single(g: Graph, operator: Any) -> bytes:
    """Return a .tflite model that holds one operator of a graph."""
    flatbuffers: Any = import_module("flatbuffers")

    s, whole = g.schema, g.model.subgraphs[0]
    model, sub = s.ModelT(), s.SubGraphT()
    model.version, model.description = g.model.version, b"one operator"
    model.operatorCodes = [g.model.operatorCodes[operator.opcodeIndex]]
    model.buffers = [s.BufferT()]
    sub.tensors, sub.inputs, sub.outputs = [], [], []
    places: dict[int, int] = {-1: -1}
    for index in [*operator.inputs, *operator.outputs]:
        if int(index) in places:
            continue
        old, new = whole.tensors[index], s.TensorT()
        places[int(index)] = len(sub.tensors)
        new.shape, new.type, new.name = list(g.shapes[int(index)]), old.type, old.name
        new.quantization, new.hasRank = old.quantization, True
        new.buffer = 0
        if g.constant(int(index)):
            new.buffer = len(model.buffers)
            model.buffers.append(g.model.buffers[old.buffer])
            if g.kind(operator) == "TRANSPOSE_CONV" and int(index) == int(operator.inputs[0]):
                # The file names the output's shape for its own picture size.
                shape = s.BufferT()
                shape.data = np.array(g.shapes[int(operator.outputs[0])], np.int32).tobytes()
                model.buffers[-1] = shape
        elif index in operator.outputs:
            sub.outputs.append(places[int(index)])
        else:
            sub.inputs.append(places[int(index)])
        sub.tensors.append(new)
    single = s.OperatorT()
    single.opcodeIndex = 0
    single.builtinOptions, single.builtinOptionsType = operator.builtinOptions, operator.builtinOptionsType
    single.inputs = [places[int(t)] for t in operator.inputs]
    single.outputs = [places[int(t)] for t in operator.outputs]
    sub.operators, model.subgraphs = [single], [sub]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _alone_ms(model: bytes, threads: int) -> float:
    interpreter = interpreter_class()(model_content=model, num_threads=threads)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for entry in interpreter.get_input_details():
        shape, kind = entry["shape"], np.dtype(entry["dtype"])
        values = rng.integers(0, 100, shape) if kind.kind in "iu" else rng.random(shape)
        interpreter.set_tensor(entry["index"], values.astype(kind))
    return _median_ms(interpreter.invoke)


def _tensorrt(bundle: Bundle, role: str, network: Engine, shape: tuple[int, ...], threads: int) -> _Found:
    assert isinstance(network, TensorRTEngine)
    # TensorRT fuses operators: a layer's name holds those of its parts, and it has no kind of its own.
    layers = tuple(Layer("", name, ms, None) for name, ms in network.layers(_pixels(shape), _REPEATS))
    return "TensorRT's profiler, which slows the runs", _whole_ms(network, shape), layers


def _onnx(bundle: Bundle, role: str, network: Engine, shape: tuple[int, ...], threads: int) -> _Found:
    import onnxruntime

    path = _file(bundle, role, "onnx", network.precision)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    with TemporaryDirectory(prefix="rbcedge-bench-") as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        entry = session.get_inputs()[0]
        integer = "uint8" in entry.type
        pixels = _pixels(_layout(shape, entry.shape))
        feed = {entry.name: pixels if integer else pixels.astype(np.float32) / np.float32(255)}
        for _ in range(1 + _REPEATS):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith("_kernel_time"):
            name = str(event["name"]).removesuffix("_kernel_time")
            times.setdefault(name, []).append(event["dur"] / 1e3)
            kinds[name] = str(event.get("args", {}).get("op_name", ""))
    layers = tuple(Layer(kinds[k], k, float(np.median(v[1:] or v)), None) for k, v in times.items())
    return "ONNX Runtime's profiler", _whole_ms(network, shape), layers


def _layout(shape: tuple[int, ...], declared: list[Any]) -> tuple[int, ...]:
    """Bring N, H, W, C into the order the network declares, with its own batch where that is fixed."""
    n, h, w, c = shape
    batch = declared[0] if isinstance(declared[0], int) else n
    return (batch, c, h, w) if declared[1] == 3 else (batch, h, w, c)
