"""A FAKE of TensorRT's Python package, for tests on machines without a GPU. Nothing here is evidence about TensorRT.

It has the names that `data/tensorrt_api.json` says a version has, among those our code uses, and no others; so code
that names something a version lacks fails here as it would there. Engines are ONNX files with a header; a run is done
by ONNX Runtime on the addresses it is given, so that wrong shapes, offsets and types give wrong numbers.

FAKE_TENSORRT: the version (of the table). FAKE_TENSORRT_FAULT, joined by commas: "start" (Builder gives a null
pointer), "old driver", "crash" (the process dies in the build), "killed", "slow" (the build takes 60 s), "no plan",
"noise" (prints to stdout while building), "refuse" (engines are not loaded), "full" (out of
memory while loading), "no room" (no execution context), "cannot run".
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import onnx

__version__ = os.environ.get("FAKE_TENSORRT", "10.3.0")
_TABLE = json.loads((Path(__file__).parent / "data" / "tensorrt_api.json").read_text())
_ABSENT = set(_TABLE["absent"][__version__])
_MAGIC = b"FAKE PLAN\n"
#: Operators that the fake parser does not know.
_UNKNOWN = ("STFT", "Unique")


def _fault(name: str) -> bool:
    return name in os.environ.get("FAKE_TENSORRT_FAULT", "").split(",")


class ILogger:
    class Severity(Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class DataType(Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    UINT8 = 5


class LayerType(Enum):
    CONVOLUTION = 0
    QUANTIZE = 1


class TensorIOMode(Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


# As in the real package, what a version lacks is no member.
def _members(kind: str, **values: int) -> type[IntEnum]:
    return IntEnum(kind, {k: v for k, v in values.items() if f"{kind}.{k}" not in _ABSENT})  # type: ignore[return-value]


NetworkDefinitionCreationFlag = _members("NetworkDefinitionCreationFlag", EXPLICIT_BATCH=0, STRONGLY_TYPED=1)
BuilderFlag = _members("BuilderFlag", FP16=0, INT8=1, TF32=7)


def nptype(dtype: DataType) -> Any:
    return {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.UINT8: np.uint8, DataType.INT8: np.int8}[
        dtype
    ]


_ONNX_TYPES = {1: DataType.FLOAT, 10: DataType.HALF, 2: DataType.UINT8, 3: DataType.INT8}


class ITensor:
    def __init__(self, name: str, shape: tuple[int, ...], dtype: DataType) -> None:
        self.name, self.shape, self.dtype = name, shape, dtype


class ILayer:
    def __init__(self, type: LayerType, dtype: DataType) -> None:
        self.type, self._dtype = type, dtype
        self.num_outputs = 1

    def get_output(self, index: int) -> ITensor:
        assert index == 0
        return ITensor("", (), self._dtype)


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.onnx = b""
        self.inputs: list[ITensor] = []
        self.layers: list[ILayer] = []
        self.num_inputs = self.num_outputs = self.num_layers = 0

    def get_input(self, index: int) -> ITensor:
        return self.inputs[index]

    def get_layer(self, index: int) -> ILayer:
        return self.layers[index]


class ParserError:
    def __init__(self, node: int, name: str, operator: str, desc: str) -> None:
        self._told = node, name, operator, desc

    def node(self) -> int:
        return self._told[0]

    def node_name(self) -> str:
        return self._told[1]

    def node_operator(self) -> str:
        return self._told[2]

    def desc(self) -> str:
        return self._told[3]


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger = network, logger
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse(self, model: bytes) -> bool:
        try:
            parsed = onnx.load_from_string(model)
        except Exception:
            self._logger.log(ILogger.Severity.ERROR, "[modelImporter.cpp::parse::1] Failed to parse ONNX model")
            return False
        for i, node in enumerate(parsed.graph.node):
            if node.op_type in _UNKNOWN:
                desc = f"[x.cpp::check::9] No importer registered\n for op: {node.op_type}"
                self._errors.append(ParserError(i, node.name, node.op_type, desc))
        if self._errors:
            return False
        network = self._network
        network.onnx = model
        weights = {w.name for w in parsed.graph.initializer}
        for value in parsed.graph.input:
            if value.name not in weights:
                kind = value.type.tensor_type
                shape = tuple(d.dim_value or -1 for d in kind.shape.dim)
                network.inputs.append(ITensor(value.name, shape, _ONNX_TYPES[kind.elem_type]))
        halves = {w.name for w in parsed.graph.initializer if w.data_type == onnx.TensorProto.FLOAT16}
        for node in parsed.graph.node:
            half = any(name in halves for name in node.input)
            kind = LayerType.QUANTIZE if node.op_type == "QuantizeLinear" else LayerType.CONVOLUTION
            network.layers.append(ILayer(kind, DataType.HALF if half else DataType.FLOAT))
        network.num_inputs, network.num_outputs = len(network.inputs), len(parsed.graph.output)
        network.num_layers = len(network.layers)
        return True


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
        self.shapes = [tuple(min), tuple(opt), tuple(max)]


class ITimingCache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data + b"|built"


class IProgressMonitor:
    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class IBuilderConfig:
    def __init__(self) -> None:
        self.flags = {"TF32"}
        self.profiles: list[IOptimizationProfile] = []
        self.cache: ITimingCache | None = None
        self.progress_monitor: Any = None

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag.name)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache.data and not cache.data.startswith(__version__.encode()):
            return False
        cache.data = cache.data or __version__.encode()
        self.cache = cache
        return True


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        if _fault("start") or _fault("old driver"):
            if _fault("old driver"):
                logger.log(ILogger.Severity.WARNING, "CUDA initialization failure with error: 35. Please check")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int) -> INetworkDefinition:
        known = {1 << int(f) for f in NetworkDefinitionCreationFlag}
        assert flags in known, f"flags {flags}, this version knows {known}"
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        if _fault("noise"):
            os.write(1, b"a library prints this\n")
        if config.progress_monitor is not None:
            config.progress_monitor.phase_start("Building Engine", None, 3)
            for step in range(3):
                assert config.progress_monitor.step_complete("Building Engine", step)
        if _fault("crash"):
            self._logger.log(ILogger.Severity.ERROR, "Cask error\n in tactic 7")
            os.kill(os.getpid(), signal.SIGSEGV)
        if _fault("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if _fault("slow"):
            time.sleep(60)
        if config.progress_monitor is not None:
            config.progress_monitor.phase_finish("Building Engine")
        shape = network.inputs[0].shape
        if _fault("no plan") or (min(shape) < 0 and not config.profiles):
            self._logger.log(ILogger.Severity.ERROR, "[optimizer.cpp::compute::1] Error Code 10: no implementation")
            return None
        typed = "STRONGLY_TYPED" in NetworkDefinitionCreationFlag.__members__
        for p in config.profiles:
            for d, n in enumerate(shape):
                assert n < 0 or {s[d] for s in p.shapes} == {n}, "a fixed dimension must be the same in a profile"
        needs = {LayerType.QUANTIZE: "INT8"}
        for layer in network.layers:
            need = needs.get(layer.type) or ("FP16" if layer.get_output(0).dtype == DataType.HALF else None)
            if not typed and need is not None:
                assert need in config.flags, f"{need} layers need the flag"
        header = {
            "version": __version__,
            "flags": sorted(config.flags),
            "typed": typed,
            "shape": shape,
            "profiles": [p.shapes for p in config.profiles],
        }
        return _MAGIC + json.dumps(header).encode() + b"\n" + network.onnx


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        assert not _fault("old driver"), "the real 8.6 ends the process here"

    def deserialize_cuda_engine(self, data: bytes) -> ICudaEngine | None:
        header, _, model = data[len(_MAGIC) :].partition(b"\n")
        reason = None
        if _fault("refuse") or not data.startswith(_MAGIC):
            reason = (
                "Serialization (Serialization assertion stdVersionRead == kVERSION failed.\n Version tag does not match"
            )
        elif (version := json.loads(header)["version"]) != __version__:
            reason = f"expecting library version {__version__} got {version}, please rebuild"
        if _fault("full"):
            reason = "Error Code 2: OutOfMemory (Requested size was 123 bytes.)"
        if reason is not None:
            self._logger.log(ILogger.Severity.ERROR, f"[runtime.cpp::deserialize::7] {reason}")
            return None
        return ICudaEngine(json.loads(header), model, self._logger)


class ICudaEngine:
    num_io_tensors = 0

    def __init__(self, header: dict[str, Any], model: bytes, logger: ILogger) -> None:
        self.header, self._logger = header, logger
        import onnxruntime  # not needed where engines are only built

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._puts = (*self.session.get_inputs(), *self.session.get_outputs())
        self.num_io_tensors = len(self._puts)
        self.num_optimization_profiles = max(1, len(header["profiles"]))
        self.contexts = 0

    def get_tensor_name(self, index: int) -> str:
        return str(self._puts[index].name)

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == self._puts[0].name else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        kind = next(p.type for p in self._puts if p.name == name)
        return {"tensor(float)": DataType.FLOAT, "tensor(float16)": DataType.HALF, "tensor(uint8)": DataType.UINT8}[
            kind
        ]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert name == self._puts[0].name
        return tuple(self.header["shape"])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert name == self._puts[0].name
        return [tuple(s) for s in self.header["profiles"][profile_index]]

    def create_execution_context(self) -> IExecutionContext | None:
        if _fault("no room"):
            self._logger.log(ILogger.Severity.ERROR, "Requested amount of GPU memory could not be allocated")
            return None
        self.contexts += 1
        return IExecutionContext(self, self._logger)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine, logger: ILogger) -> None:
        self._engine, self._logger = engine, logger
        self.active_optimization_profile = 0
        self.profiler: Any = None
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}
        if not engine.header["profiles"]:
            self._shape = tuple(engine.header["shape"])

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle
        self.active_optimization_profile = profile_index
        self._shape = ()
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        profiles = self._engine.header["profiles"]
        low, high = self._engine.header["shape"], self._engine.header["shape"]
        if profiles:
            low, _, high = profiles[self.active_optimization_profile]
        if not all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True)):
            self._logger.log(ILogger.Severity.ERROR, f"{shape} is not within the profile")
            return False
        self._shape = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        zeros = np.zeros(self._shape, nptype(self._engine.get_tensor_dtype(self._engine.get_tensor_name(0))))
        return self._run(zeros).shape

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return memory != 0

    def execute_async_v3(self, stream_handle: int) -> bool:
        if _fault("cannot run"):
            self._logger.log(
                ILogger.Severity.ERROR, "[x.cpp::enqueue::3] Error Code 1: Cuda Runtime (an illegal access)"
            )
            return False
        source, target = (self._engine.get_tensor_name(i) for i in range(2))
        dtype = np.dtype(nptype(self._engine.get_tensor_dtype(source)))
        size = int(np.prod(self._shape)) * dtype.itemsize
        raw = ctypes.string_at(self._addresses[source], size)
        out = self._run(np.frombuffer(raw, dtype).reshape(self._shape))
        ctypes.memmove(self._addresses[target], np.ascontiguousarray(out).ctypes.data, out.nbytes)
        if self.profiler is not None:
            self.profiler.report_layer_time("conv + sigmoid", 0.25)
            self.profiler.report_layer_time("softmax", 0.5)
        return True

    def _run(self, pixels: Any) -> Any:
        return self._engine.session.run(None, {self._engine.get_tensor_name(0): pixels})[0]


class IProfiler:
    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError


for _name in _ABSENT:
    _owner, _, _what = _name.rpartition(".")
    if not _owner:
        del globals()[_name]
    elif (_class := globals().get(_owner)) is not None and hasattr(_class, _what) and not issubclass(_class, IntEnum):
        delattr(_class, _what)
