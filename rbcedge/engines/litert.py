"""LiteRT (TensorFlow Lite): the CPU engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import RbcedgeError

#: Interpreters kept per network: picture sizes alternate only in odd folders.
_KEPT = 4


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
        self._path, self._threads = path, threads
        self._ready: dict[tuple[int, int], _Instance] = {}
        first = self._make(None)
        n, h, w, c = (int(v) for v in first.input["shape"])
        self.input_shape = (n, h, w, c)
        self._ready[h, w] = first

    def _make(self, size: tuple[int, int] | None) -> _Instance:
        try:
            interpreter = interpreter_class()(model_path=str(self._path), num_threads=self._threads)
            inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
            if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0]["shape"]) != 4 or inputs[0]["shape"][3] != 3:
                raise RbcedgeError(f"{self._path}: a network with one (N, H, W, 3) input and one output is needed.")
            if inputs[0]["dtype"] not in (np.uint8, np.float32):
                kind = np.dtype(inputs[0]["dtype"])
                raise RbcedgeError(f"{self._path}: input type {kind}, known are uint8 and float32.")
            if size is not None:
                shape = [int(inputs[0]["shape"][0]), *size, 3]
                interpreter.resize_tensor_input(inputs[0]["index"], shape)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as e:
            reason = (str(e) or type(e).__name__).splitlines()[0]
            raise RbcedgeError(f"{self._path}: not a model LiteRT can run ({reason}).") from e
        return _Instance(interpreter, interpreter.get_input_details()[0], interpreter.get_output_details()[0])

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run (n, H, W, 3) uint8 RGB, n of any size, H and W any the network can take; see `Engine.infer`.

        Short batches are padded. Each picture size gets an interpreter of its own, the last `_KEPT` are kept.
        """
        n, h, w, _ = batch.shape
        instance = self._ready.pop((h, w), None) or self._make((h, w))
        self._ready[h, w] = instance
        if len(self._ready) > _KEPT:
            del self._ready[next(iter(self._ready))]
        shape = tuple(int(v) for v in instance.output["shape"][1:])
        out = np.empty((n, *shape), np.float32)
        size = self.input_shape[0]
        for start in range(0, n, size):
            instance.run(batch[start : start + size], out[start : start + size])
        return out

    def close(self) -> None:
        """Release the interpreters."""
        self._ready.clear()


@dataclass(frozen=True, slots=True)
class _Instance:
    """An interpreter with its tensors allocated for one picture size."""

    interpreter: Any
    input: Any
    output: Any

    def run(self, part: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        # Views into the interpreter's own memory: nothing is copied but the pixels in and the numbers out.
        tensor = self.interpreter.tensor(self.input["index"])()
        if tensor.dtype == np.uint8:
            tensor[: len(part)] = part
        else:
            np.multiply(part, np.float32(1 / 255), out=tensor[: len(part)])
        tensor[len(part) :] = 0
        del tensor  # invoke() refuses while a view is held
        self.interpreter.invoke()
        result = self.interpreter.tensor(self.output["index"])()[: len(part)]
        if result.dtype == np.float32:
            out[:] = result
        else:
            scale, zero = self.output["quantization"]
            np.subtract(result, np.float32(zero), out=out, dtype=np.float32)
            out *= np.float32(scale)
