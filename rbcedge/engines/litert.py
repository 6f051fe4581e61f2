"""LiteRT (TensorFlow Lite): the CPU engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import RbcedgeError


def interpreter_class() -> Any:
    """Return the `Interpreter` of ai-edge-litert, or of its predecessor tflite-runtime where only that is there.

    Raises
    ------
    RbcedgeError
        Where neither can be imported.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except Exception as e:  # tflite-runtime dies on NumPy 2 with an AttributeError
            raise RbcedgeError("No LiteRT runtime. Install it: pip install ai-edge-litert.") from e
    return Interpreter


class LiteRTEngine:
    """A .tflite network on the CPU (XNNPACK). See `rbcedge.engines.base.Engine`.

    Parameters
    ----------
    path : Path
        Model with one image input (N, H, W, 3), uint8 (full integer) or float32 in 0 to 1.
    precision : str
        As the manifest says, for records.
    threads : int
        CPU threads.

    Raises
    ------
    RbcedgeError
        Where the file is not such a model.
    """

    name = "litert"

    def __init__(self, path: Path, precision: str, threads: int = 1) -> None:
        self.precision = precision
        try:
            self._interpreter = interpreter_class()(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as e:
            raise RbcedgeError(f"{path}: not a model LiteRT can run ({str(e).splitlines()[0]}).") from e
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0]["shape"]) != 4 or inputs[0]["shape"][3] != 3:
            raise RbcedgeError(f"{path}: a network with one (N, H, W, 3) input and one output is needed.")
        self._input, self._output = inputs[0], outputs[0]
        if self._input["dtype"] not in (np.uint8, np.float32):
            raise RbcedgeError(f"{path}: input type {np.dtype(self._input['dtype'])}, known are uint8 and float32.")

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """N, H, W, C."""
        n, h, w, c = (int(v) for v in self._input["shape"])
        return n, h, w, c

    def resize(self, height: int, width: int) -> None:
        """Change the picture size of a fully convolutional network, px."""
        n, h, w, c = self.input_shape
        if (h, w) == (height, width):
            return
        self._interpreter.resize_tensor_input(self._input["index"], [n, height, width, c])
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run (n, H, W, 3) uint8 RGB, n of any size; short batches are padded. Returns (n, ...) float32."""
        size = self.input_shape[0]
        shape = tuple(int(v) for v in self._output["shape"][1:])
        out = np.empty((len(batch), *shape), np.float32)
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            self._run(part, out[start : start + size])
        return out

    def _run(self, part: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        # Views into the interpreter's own memory: nothing is copied but the pixels in and the numbers out.
        tensor = self._interpreter.tensor(self._input["index"])()
        if tensor.dtype == np.uint8:
            tensor[: len(part)] = part
        else:
            np.multiply(part, np.float32(1 / 255), out=tensor[: len(part)])
        tensor[len(part) :] = 0
        del tensor
        self._interpreter.invoke()
        result = self._interpreter.tensor(self._output["index"])()[: len(part)]
        if result.dtype == np.float32:
            out[:] = result
        else:
            scale, zero = self._output["quantization"]
            np.subtract(result, np.float32(zero), out=out, dtype=np.float32)
            out *= np.float32(scale)

    def close(self) -> None:
        """Nothing outlives the object."""
