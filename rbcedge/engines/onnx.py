"""ONNX Runtime: a second engine for the CPU, and a way onto GPUs it has providers for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import RbcedgeError

#: Where a network may run, best first: the first that this ONNX Runtime was built with and that starts is taken.
#: TensorRT's provider is no part of it: it builds for minutes without a word; `rbcedge.engines.tensorrt` does better.
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
#: Pictures in one call, of a network that takes any number.
_BATCH = 32
#: Input buffers kept per network: picture sizes alternate only in odd folders.
_KEPT = 4


def runtime() -> Any:
    """Return the module `onnxruntime`.

    Raises
    ------
    RbcedgeError
        Where it cannot be imported, with what to do.
    """
    try:
        import onnxruntime
    except ImportError as e:
        raise RbcedgeError(
            "The engine 'onnx' needs ONNX Runtime, which is not installed. Install it: pip install 'rbcedge[onnx]'."
        ) from e
    except Exception as e:  # a build for another NumPy or another C library
        reason = (str(e) or type(e).__name__).splitlines()[0]
        raise RbcedgeError(f"ONNX Runtime is installed, but cannot be used ({reason}). Install it anew.") from e
    return onnxruntime


class OnnxEngine:
    """An .onnx network under ONNX Runtime. See `rbcedge.engines.base.Engine`.

    Parameters
    ----------
    path : Path
        Network with one float32 input (N, H, W, 3) in 0 to 1 and one float output; N, H, W may be free.
    precision : str
        As the manifest says, for records.
    threads : int
        CPU threads.
    providers : sequence of str
        Where it may run, best first.

    Raises
    ------
    RbcedgeError
        Where ONNX Runtime is missing, or the file is not such a network.
    """

    def __init__(self, path: Path, precision: str, threads: int = 1, providers: Sequence[str] = PROVIDERS) -> None:
        self.precision = precision
        self._path = path
        self._session: Any = _open(path, threads, providers)
        self.provider: str = self._session.get_providers()[0]
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape = inputs[0].shape if inputs else []
        if len(inputs) != 1 or len(outputs) != 1 or len(shape) != 4 or shape[3] != 3:
            raise RbcedgeError(f"{path}: a network with one (N, H, W, 3) input and one output is needed.")
        for value in (inputs[0], outputs[0]):
            if value.type != "tensor(float)":
                raise RbcedgeError(f"{path}: {value.name} is {value.type}; float32 is needed.")
        self._input, self._output = inputs[0].name, outputs[0].name
        n, h, w = (d if isinstance(d, int) else None for d in shape[:3])
        self._fixed = (n, h, w)
        self._buffers: dict[tuple[int, int], NDArray[np.float32]] = {}

    @property
    def name(self) -> str:
        """ "onnx" on the CPU, "onnx-cuda" on a GPU: what a record should say."""
        kind = self.provider.removesuffix("ExecutionProvider").lower()
        return "onnx" if kind == "cpu" else f"onnx-{kind}"

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """N, H, W, C; N is the largest batch of one call, H and W are 0 where they are free."""
        n, h, w = self._fixed
        return n or _BATCH, h or 0, w or 0, 3

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run (n, H, W, 3) uint8 RGB, n of any size, H and W any the network can take; see `Engine.infer`.

        Raises
        ------
        RbcedgeError
            For a picture size the network does not take.
        """
        n, h, w, _ = batch.shape
        fixed, fixed_h, fixed_w = self._fixed
        if (fixed_h or h, fixed_w or w) != (h, w):
            raise RbcedgeError(
                f"{self._path}: this network takes pictures of {fixed_w or 'any'}x{fixed_h or 'any'} px at working "
                f"resolution, this one is {w}x{h}. Choose another picture size or --scale, or another bundle."
            )
        size = fixed or _BATCH
        parts = []
        for start in range(0, n, size):
            parts.append(self._run(batch[start : start + size], fixed))
        if not parts:  # nothing to do still has a shape
            return self._run(np.zeros((1, h, w, 3), np.uint8), fixed)[:0]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        """Release the session and the buffers."""
        self._session = None
        self._buffers.clear()

    def _run(self, part: NDArray[np.uint8], fixed: int | None) -> NDArray[np.float32]:
        n, h, w, _ = part.shape
        pixels = self._buffer(fixed or n, h, w)
        np.multiply(part, np.float32(1 / 255), out=pixels[:n])
        pixels[n:] = 0
        try:
            found = self._session.run([self._output], {self._input: pixels})[0]
        except Exception as e:  # sizes that do not fit inside, or out of memory
            raise RbcedgeError(f"{self._path}: failed on pictures of {w}x{h} px ({_line(e)}).") from e
        out: NDArray[np.float32] = found[:n]
        return out

    def _buffer(self, n: int, h: int, w: int) -> NDArray[np.float32]:
        """(n, h, w, 3) float32, of memory that is used again; ONNX Runtime reads it in place."""
        kept = self._buffers.pop((h, w), None)
        if kept is None or len(kept) < n:
            kept = np.empty((n, h, w, 3), np.float32)
        self._buffers[h, w] = kept
        if len(self._buffers) > _KEPT:
            del self._buffers[next(iter(self._buffers))]
        return kept[:n]


def _open(path: Path, threads: int, providers: Sequence[str]) -> Any:
    """Open a session on the first of `providers` that starts.

    ONNX Runtime itself goes on to the CPU without a word where a GPU provider cannot be started; here each is tried by
    itself, so that what is shown is what runs.
    """
    ort = runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take the cores from decoding and cutting out cells.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    reasons = []
    for provider in (p for p in providers if p in ort.get_available_providers()):
        try:
            session = ort.InferenceSession(str(path), options, providers=[provider])
        except Exception as e:
            reasons.append(_line(e))
            continue
        if provider in session.get_providers():
            return session
    raise RbcedgeError(f"{path}: not a network ONNX Runtime can run ({reasons[-1] if reasons else 'no provider'}).")


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
