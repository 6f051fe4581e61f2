"""One TensorRT engine, loaded: its shapes, its contexts, one run on device addresses."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import numpy as np

from rbcedge.engines.cuda import Memory, OutOfDeviceMemory
from rbcedge.engines.engine_cache import Refused
from rbcedge.engines.tensorrt_api import check_driver, make_logger
from rbcedge.engines.tensorrt_shapes import Profile
from rbcedge.errors import DeviceError, RbcedgeError


class Plan:
    """A deserialised engine with one input and one output. All calls need the primary context current.

    Every profile has an execution context of its own, made when it is first needed: a captured CUDA graph stays valid
    only as long as its context keeps its profile.

    Parameters
    ----------
    trt : module
        TensorRT.
    memory : Memory
        Holds the device, and a stream for changing profiles.
    data : bytes
        The engine.

    Raises
    ------
    Refused
        Where TensorRT does not load it, with its reason.
    RbcedgeError
        Where TensorRT cannot use the GPU at all, or the GPU is full.
    """

    def __init__(self, trt: ModuleType, memory: Memory, data: bytes) -> None:
        self._memory = memory
        self._logger = make_logger(trt)
        # With a driver that is too old 8.6 ends the process here. It does not come to that: the builder's process
        # fails first, and an engine in the cache is taken only for the CUDA version it was built with.
        try:
            runtime = trt.Runtime(self._logger)
        except TypeError as e:  # what the bindings make of a null pointer
            check_driver(self._logger)
            raise RbcedgeError(f"TensorRT does not start ({self._reason()}).") from e
        check_driver(self._logger)
        engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            # Building it again would not help against a full GPU.
            if re.search(r"out ?of ?memory|could not be allocated", self._reason(), re.IGNORECASE):
                raise OutOfDeviceMemory(f"TensorRT cannot load the engine: {self._reason()}.")
            raise Refused(self._reason())
        self._runtime, self._engine = runtime, engine
        self._contexts: dict[int, Any] = {}
        self._shapes: dict[int, tuple[int, ...]] = {}
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        outputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.OUTPUT]
        if len(inputs) != 1 or len(outputs) != 1:
            raise Refused(f"it has {len(inputs)} inputs and {len(outputs)} outputs, one each are needed")
        self.input, self.output = inputs[0], outputs[0]
        self.input_dtype: np.dtype[Any] = np.dtype(trt.nptype(engine.get_tensor_dtype(self.input)))
        self.output_dtype: np.dtype[Any] = np.dtype(trt.nptype(engine.get_tensor_dtype(self.output)))
        self.profiles = self._read_profiles()

    def _read_profiles(self) -> tuple[Profile, ...]:
        fixed = tuple(int(n) for n in self._engine.get_tensor_shape(self.input))
        if len(fixed) != 4 or fixed[3] != 3:
            raise Refused(f"its input is {fixed}, pictures (N, H, W, 3) are needed")
        if min(fixed) > 0:
            return (Profile(fixed, fixed, fixed),)
        found = []
        for i in range(self._engine.num_optimization_profiles):
            least, usual, largest = (
                tuple(int(n) for n in shape) for shape in self._engine.get_tensor_profile_shape(self.input, i)
            )
            found.append(Profile(least, usual, largest))  # type: ignore[arg-type]
        return tuple(found)

    def serving(self, shape: tuple[int, ...]) -> int | None:
        """Return the number of the narrowest profile that holds `shape`, None where none does."""
        fitting = [(np.prod(p.largest, dtype=np.int64), i) for i, p in enumerate(self.profiles) if p.holds(shape)]
        return min(fitting)[1] if fitting else None

    def context(self, shape: tuple[int, ...]) -> Any:
        """Return the execution context for `shape`, set to it.

        Raises
        ------
        RbcedgeError
            Where no profile holds the shape.
        OutOfDeviceMemory
            Where the context does not fit into the GPU's memory.
        """
        number = self.serving(shape)
        if number is None:
            raise RbcedgeError(f"No TensorRT engine was built for an input of {'x'.join(map(str, shape))}.")
        context = self._contexts.get(number)
        if context is None:
            context = self._contexts[number] = self._make(number)
        if self._shapes.get(number) != shape:
            if not context.set_input_shape(self.input, shape):
                raise RbcedgeError(f"TensorRT refuses an input of {'x'.join(map(str, shape))}: {self._reason()}.")
            self._shapes[number] = shape
        return context

    def _make(self, number: int) -> Any:
        self._logger.last_error = None
        try:
            context = self._engine.create_execution_context()
        except (MemoryError, RuntimeError, TypeError) as e:
            raise OutOfDeviceMemory(f"TensorRT cannot make ready to run: {e}.") from e
        if context is None:
            raise OutOfDeviceMemory(f"TensorRT cannot make ready to run: {self._reason()}.")
        if context.active_optimization_profile != number:
            done = context.set_optimization_profile_async(number, self._memory.stream)
            self._memory.synchronize()
            if not done:
                raise DeviceError(f"TensorRT does not change to profile {number}: {self._reason()}.")
        return context

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the result for an input of `shape`."""
        return tuple(int(n) for n in self.context(shape).get_tensor_shape(self.output))

    def bind(self, shape: tuple[int, ...], source: int, target: int) -> Any:
        """Return the context for `shape`, with input and output at these addresses."""
        context = self.context(shape)
        if not (context.set_tensor_address(self.input, source) and context.set_tensor_address(self.output, target)):
            raise DeviceError(f"TensorRT refuses the memory it was given: {self._reason()}.")
        return context

    def enqueue(self, context: Any, stream: int) -> None:
        """Put one run on a stream."""
        if not context.execute_async_v3(stream):
            raise DeviceError(f"TensorRT could not run the network: {self._reason()}.")

    def _reason(self) -> str:
        reason: str | None = self._logger.last_error
        return reason or "it gives no reason"

    def close(self) -> None:
        """Release contexts, then engine, then runtime. Safe to call twice."""
        self._contexts.clear()
        self._shapes.clear()
        self._engine = self._runtime = None
