"""LiteRT (TensorFlow Lite): the CPU engine."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbcedge.engines.portions import portions
from rbcedge.errors import RbcedgeError

#: Interpreters kept per network: picture sizes alternate only in odd folders.
_KEPT = 4
#: Pictures in one call of a network of batches. Each size needs an interpreter of its own, about 8 MB for
#: EfficientNetB0; larger calls gain 4 % and leave the cores waiting for each other at the end.
_CALLS = (1, 4, 16)


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

    A network of one picture runs on all threads together. One of batches runs on each thread by itself, every thread
    with batches of its own: the cores then wait for each other once a call, not once a layer, and a few cells do not
    cost a whole batch.

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
        first = _open(path, 1, None)
        n, h, w, c = (int(v) for v in first.input["shape"])
        self._sizes = _batches(path, n, (h, w))
        self.input_shape = (self._sizes[-1], h, w, c)
        lanes = threads if n > 1 else 1
        #: Threads of one call.
        self.threads = threads // lanes
        self._lanes = [_Lane(path, self.threads) for _ in range(lanes)]
        self._pool: ThreadPoolExecutor | None = None

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run (n, H, W, 3) uint8 RGB, n of any size, H and W any the network can take; see `Engine.infer`.

        Each picture size and batch size gets interpreters of its own; those of the last `_KEPT` picture sizes are
        kept.
        """
        n, h, w, _ = batch.shape
        lanes = self._lanes[: max(1, n)]
        todo = deque(portions(n, len(lanes), self._sizes))
        shape = lanes[0].instance(todo[0].batch if todo else self._sizes[0], h, w).output["shape"]
        out = np.empty((n, *(int(v) for v in shape[1:])), np.float32)

        def work(lane: _Lane) -> None:
            while todo:
                try:
                    part = todo.popleft()
                except IndexError:  # another lane was quicker
                    return
                rows = slice(part.start, part.start + part.rows)
                lane.instance(part.batch, h, w).run(batch[rows], out[rows])

        if len(lanes) > 1 and self._pool is None:
            self._pool = ThreadPoolExecutor(len(self._lanes) - 1, "rbcedge-litert")
        others = [self._pool.submit(work, lane) for lane in lanes[1:]] if self._pool else []
        try:
            work(lanes[0])
        finally:
            todo.clear()
            wait(others)
        for other in others:
            other.result()
        return out

    def close(self) -> None:
        """Release the interpreters."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        for lane in self._lanes:
            lane.close()


class _Lane:
    """The interpreters that one thread at a time uses."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._threads = path, threads
        self._ready: dict[tuple[int, int], dict[int, _Instance]] = {}

    def instance(self, batch: int, h: int, w: int) -> _Instance:
        """Return the interpreter for calls of `batch` pictures of this size."""
        of_size = self._ready.pop((h, w), None)
        if of_size is None:
            of_size = {}
        # Put in last: the first is the one that was not used for longest.
        self._ready[h, w] = of_size
        if len(self._ready) > _KEPT:
            del self._ready[next(iter(self._ready))]
        if batch not in of_size:
            of_size[batch] = _open(self._path, self._threads, (batch, h, w))
        return of_size[batch]

    def close(self) -> None:
        self._ready.clear()


def _batches(path: Path, own: int, size: tuple[int, int]) -> tuple[int, ...]:
    """Batch sizes a network can be called with, the smallest first.

    Only the file's own where that is one picture, or where it is fixed inside, as a Reshape layer does.
    """
    if own > 1:
        try:
            single = _open(path, 1, (1, *size))
        except RbcedgeError:
            return (own,)
        if int(single.output["shape"][0]) == 1:
            return _CALLS
    return (own,)


def _open(path: Path, threads: int, shape: tuple[int, int, int] | None) -> _Instance:
    """Return an interpreter for pictures (N, H, W), the file's own by default.

    Always a new one: an interpreter that is given another shape a second time has been seen to compute wrongly.
    """
    try:
        interpreter = interpreter_class()(model_path=str(path), num_threads=threads)
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0]["shape"]) != 4 or inputs[0]["shape"][3] != 3:
            raise RbcedgeError(f"{path}: a network with one (N, H, W, 3) input and one output is needed.")
        if inputs[0]["dtype"] not in (np.uint8, np.float32):
            kind = np.dtype(inputs[0]["dtype"])
            raise RbcedgeError(f"{path}: input type {kind}, known are uint8 and float32.")
        if shape is not None:
            interpreter.resize_tensor_input(inputs[0]["index"], [*shape, 3])
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as e:
        reason = (str(e) or type(e).__name__).splitlines()[0]
        raise RbcedgeError(f"{path}: not a model LiteRT can run ({reason}).") from e
    return _Instance(interpreter, interpreter.get_input_details()[0], interpreter.get_output_details()[0])


@dataclass(frozen=True, slots=True)
class _Instance:
    """An interpreter with its tensors allocated for one picture size and batch."""

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
