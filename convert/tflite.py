"""Keras to TFLite: float32, float16, or INT8 calibrated on real pictures."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rbcedge.errors import RbcedgeError

#: "int8-float" is INT8 inside, with float32 pixels in and probabilities out, for programs that want no integers.
Precision = Literal["fp32", "fp16", "int8", "int8-float"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int8-float")


def convert(
    build: Callable[[], Any],
    weights: list[NDArray[np.float32]],
    precision: Precision,
    calibration: Iterable[NDArray[np.uint8]] = (),
) -> bytes:
    """Convert one network.

    Parameters
    ----------
    build : callable
        Builds the network with a static batch (a dynamic one leaves shape arithmetic in the model).
    weights : list of arrays
        As `model.get_weights()` gives them.
    precision : str
        One of `PRECISIONS`. float16 keeps weights at half the size; a CPU still reckons in float32. INT8 is
        per-channel weights, integer activations, uint8 pixels in and int8 out.
    calibration : iterable of (n, H, W, 3) uint8
        Real pictures as the network sees them at run time, red, green, blue; needed for INT8.

    Returns
    -------
    bytes
        The .tflite file.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    model = build()
    model.set_weights(weights)
    if model.inputs[0].shape[0] is None:
        raise ValueError("the network must be built with a static batch")
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if precision == "fp16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    if precision in ("int8", "int8-float"):
        pictures = [np.array(p) for p in calibration]
        if not pictures:
            raise RbcedgeError("INT8 needs calibration pictures, none were given.")
        # The engine puts pixels 0 to 255 in as they are, so the input's range must be the whole one, also where no
        # picture holds a white pixel; two pixels move no other range.
        pictures[0][0, 0, :2] = [[0] * 3, [255] * 3]

        def representative() -> Iterable[list[NDArray[np.float32]]]:
            for p in pictures:
                yield [p.astype(np.float32) / np.float32(255)]

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if precision == "int8":
            converter.inference_input_type = tf.uint8
            converter.inference_output_type = tf.int8
    try:
        # Keras announces on stdout where it kept a passing copy, and TensorFlow warns of statistics it does not need.
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            out: bytes = converter.convert()
    except Exception as e:
        reason = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise RbcedgeError(f"{model.name} cannot be converted to TFLite ({reason}).") from e
    return out


def fixed(model: Any, batch: int, height: int, width: int) -> Any:
    """Return a Keras network with a static batch and size, as the converter wants it, on the layers of `model`."""
    import keras

    inputs = keras.Input(batch_shape=(batch, height, width, 3), name="pixels")
    return keras.Model(inputs, model(inputs), name=model.name)


def write(path: Path, model: bytes) -> None:
    """Write a model file in one step: a half-written file is never taken for a good one."""
    temporary = path.with_suffix(path.suffix + ".part")
    temporary.write_bytes(model)
    temporary.replace(path)
