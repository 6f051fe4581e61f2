"""Networks to be converted: Keras files, ONNX files, training folders, what a bundle holds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rbcedge.convert.onnx import check_keras, checked, to_float32
from rbcedge.convert.onnx_file import to_convention

from rbcedge.bundle import Bundle
from rbcedge.errors import RbcedgeError, UsageError

#: Runs (n, H, W, 3) uint8 RGB and gives (n, ...) float32.
Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Network:
    """A float32 network from which others are made.

    Attributes
    ----------
    role : str
        "segmenter" or "classifier".
    origin : str
        Where it comes from, for messages.
    keras : keras.Model or None
    onnx : bytes or None
        In the convention of `rbcedge.convert.onnx`. Either this or `keras` is there.
    """

    role: str
    origin: str
    keras: Any = None
    onnx: bytes | None = None

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Height and width of its input, px; None where any will do."""
        if self.keras is not None:
            height, width = self.keras.inputs[0].shape[1:3]
            return height, width
        dims = checked(self.onnx).graph.input[0].type.tensor_type.shape.dim
        height, width = (d.dim_value or None for d in dims[1:3])
        return height, width

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run (n, H, W, 3) uint8 RGB and return (n, ...) float32."""
        scaled = pixels.astype(np.float32) / np.float32(255)
        if self.keras is not None:
            return np.asarray(self.keras(scaled, training=False))
        from rbcedge.convert.onnx import run

        assert self.onnx is not None
        return run(self.onnx, scaled)


def open_network(path: Path, role: str) -> Network:
    """Open a network that a user gives: a `.keras` or `.onnx` file, or the folder of a trained segmenter.

    Raises
    ------
    RbcedgeError
        Where it cannot be read, or has not one picture input and one output.
    """
    if path.is_dir():
        return _trained(path, role)
    if not path.is_file():
        raise UsageError(f"{path}: no such file.")
    if path.suffix == ".onnx":
        try:
            return Network(role, str(path), onnx=to_convention(path.read_bytes(), role))
        except RbcedgeError as e:
            raise RbcedgeError(f"{path}: {e}.") from e
    if path.suffix in (".keras", ".h5"):
        return Network(role, str(path), keras=_keras(path))
    raise UsageError(f"{path}: networks are read from .keras, .h5 and .onnx files.")


def of_bundle(bundle: Bundle, role: str, formats: Sequence[str] = ("keras", "onnx")) -> Network | None:
    """Return the float network that a bundle holds in one of `formats`, None where it holds none.

    Float32 comes first; where "onnx" is wanted and there is float16 ONNX only, that is taken back to float32.
    """
    for format in formats:
        artefact = bundle.find(role, format, ("fp32",))
        if artefact is not None:
            path = bundle.path(artefact)
            if format == "keras":
                return Network(role, str(path), keras=_keras(path))
            return Network(role, str(path), onnx=path.read_bytes())
    half = bundle.find(role, "onnx", ("fp16",)) if "onnx" in formats else None
    if half is None:
        return None
    path = bundle.path(half)
    return Network(role, f"{path} (taken back to float32)", onnx=to_float32(path.read_bytes()))


def _keras(path: Path) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    if keras.backend.backend() != "tensorflow":
        raise RbcedgeError(
            f"Keras runs on {keras.backend.backend()} here; conversion needs TensorFlow. "
            "Unset KERAS_BACKEND, or set it to tensorflow. Files trained on another backend are read all the same."
        )
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as e:  # Keras raises whatever a layer it does not know brings up
        reason = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise RbcedgeError(f"{path}: Keras cannot read it ({reason}).") from e
    try:
        check_keras(model)
    except RbcedgeError as e:
        raise RbcedgeError(f"{path}: {e}.") from e
    return model


def _trained(folder: Path, role: str) -> Network:
    from rbcedge.training.networks import unet
    from rbcedge.training.weights import read_weights

    if role != "segmenter":
        raise UsageError(
            f"{folder}: a training folder of a classifier lacks the order of the classes and their frequencies. "
            "Make a bundle of it with 'rbcedge train fields bundle', then convert that."
        )
    try:
        shape = json.loads((folder / "network.json").read_text())
        model = unet(shape["width"], shape["depth"], shape["upsampling"])
        model.set_weights(read_weights(folder / "weights.npz"))
    except (OSError, ValueError, KeyError) as e:
        reason = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise RbcedgeError(f"{folder}: not the folder of a trained segmenter ({reason}).") from e
    return Network(role, str(folder), keras=model)
