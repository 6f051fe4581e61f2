"""Keras to ONNX, in float32 and float16; INT8 is in `onnx_int8`.

What is written takes float32 pixels (N, H, W, 3), red, green, blue, 0 to 1, as the Keras networks do, and gives
float32. Opset 17: newer ones turn pooling into reductions between transpositions, and TensorRT 8.6 reads no newer one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rbcedge.convert.onnx_int8 import Ranges, activation_ranges, quantise, tidy, with_ranges

from rbcedge.errors import RbcedgeError

__all__ = [
    "Ranges",
    "activation_ranges",
    "checked",
    "quantise",
    "run",
    "to_float16",
    "to_float32",
    "to_onnx",
    "with_ranges",
]

OPSET = 17
#: Of the file, so that TensorRT 8.6 and ONNX Runtime of the same age read it.
IR_VERSION = 8
#: Largest difference from Keras that rounding explains, in probability.
TOLERANCE = 1e-4
#: Sizes on which a network of free size is laid out, and compared. Multiples of 32: five poolings.
_LAYOUT = (64, 96)
_TRIALS = ((1, 64, 96), (2, 96, 64), (1, 160, 32))
#: Operators that appear where sizes are worked out at run time.
_ARITHMETIC = ("Shape", "Slice", "Tile")


def to_onnx(model: Any) -> bytes:
    """Convert a Keras network to ONNX, and make sure that both give the same.

    The batch is free, height and width are where they are free in Keras. A U-Net is laid out at one fixed size, which
    gives a plain graph, and its sizes are then set free again; that is kept only where the graph agrees with Keras on
    other sizes too, else the sizes are worked out in the graph.

    Parameters
    ----------
    model : keras.Model
        One input (N, H, W, 3) float32 in 0 to 1, one output. Loaded under the TensorFlow backend.

    Returns
    -------
    bytes
        The .onnx file.

    Raises
    ------
    RbcedgeError
        Where the network has not one input and one output, holds an operator that ONNX has not, or the result
        differs from Keras.
    """
    check_keras(model)
    sizes = tuple(model.inputs[0].shape[1:3])
    found = checked(_export(model, (None, *sizes, 3)))
    if any(n.op_type in _ARITHMETIC for n in found.graph.node):
        plain = _plain(model, sizes)
        if plain is not None:
            return plain
    out: bytes = found.SerializeToString()
    worst = difference(model, out, trials(model))
    if not worst <= TOLERANCE:
        raise RbcedgeError(f"The ONNX network differs from Keras by {worst:.2g}: it was converted wrongly.")
    return out


def to_float16(onnx: bytes, keep: Sequence[str] = ()) -> bytes:
    """Turn weights and arithmetic to float16; input and output stay float32.

    Parameters
    ----------
    onnx : bytes
        As `to_onnx` gives it.
    keep : sequence of str
        Names of nodes that stay in float32.
    """
    import warnings

    import onnx as library
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        # It says for every weight below 6e-8 that it was rounded.
        warnings.simplefilter("ignore", UserWarning)
        half = convert_float_to_float16(
            library.load_from_string(onnx), keep_io_types=True, node_block_list=list(keep) or None
        )
    out: bytes = checked(tidy(half)).SerializeToString()
    return out


def to_float32(onnx: bytes) -> bytes:
    """Take a network that `to_float16` made back to float32 arithmetic; its weights stay rounded to float16."""
    import onnx as library

    model = library.load_from_string(onnx)
    half, single = library.TensorProto.FLOAT16, library.TensorProto.FLOAT
    tensors = [*model.graph.initializer, *(a.t for n in model.graph.node for a in n.attribute if a.HasField("t"))]
    for tensor in (t for t in tensors if t.data_type == half):
        whole = library.numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(library.numpy_helper.from_array(whole, tensor.name))
    same: dict[str, str] = {}
    results = {o.name for o in model.graph.output}
    for node in model.graph.node:
        for k, name in enumerate(node.input):
            node.input[k] = same.get(name, name)
        if node.op_type == "Cast" and node.attribute[0].i in (half, single):
            node.attribute[0].i = single
            if node.output[0] not in results:
                same[node.output[0]] = node.input[0]
    for node in [n for n in model.graph.node if n.output and n.output[0] in same]:
        model.graph.node.remove(node)
    _without_last_casts(model, results)
    out: bytes = checked(tidy(model)).SerializeToString()
    return out


def _without_last_casts(model: Any, results: set[str]) -> None:
    """Let whatever feeds a cast that gives a result of the network give that result itself."""
    makers = {name: node for node in model.graph.node for name in node.output}
    for cast in [n for n in model.graph.node if n.op_type == "Cast" and n.output[0] in results]:
        source, result = cast.input[0], cast.output[0]
        maker = makers.get(source)
        if maker is None or any(source in n.input for n in model.graph.node if n is not cast):
            continue  # the picture itself, or a value that others read too
        maker.output[list(maker.output).index(source)] = result
        model.graph.node.remove(cast)


def checked(model: Any) -> Any:
    """Return an ONNX ModelProto (bytes are parsed) after a full check and a look at inputs and outputs.

    Raises
    ------
    RbcedgeError
        Where it is not ONNX, is wrong, or has not one picture input and one output.
    """
    import onnx as library

    try:
        if isinstance(model, bytes):
            model = library.load_from_string(model)
        library.checker.check_model(model, full_check=True)
    except Exception as e:  # protobuf's DecodeError, checker's ValidationError, InferenceError
        raise RbcedgeError(f"not a valid ONNX network ({_line(e)})") from e
    weights = {w.name for w in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in weights]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise RbcedgeError(
            f"a network with one input and one output is needed; this one has {len(inputs)} inputs "
            f"({', '.join(i.name for i in inputs)}) and {len(model.graph.output)} outputs"
        )
    shape = inputs[0].type.tensor_type.shape.dim
    if len(shape) != 4 or inputs[0].type.tensor_type.elem_type != library.TensorProto.FLOAT:
        raise RbcedgeError("the input must be float32 of four dimensions")
    return model


def check_keras(model: Any) -> None:
    """Make sure that a Keras network has one (N, H, W, 3) input and one output.

    Raises
    ------
    RbcedgeError
    """
    inputs, outputs = list(model.inputs), list(model.outputs)
    if len(inputs) != 1 or len(outputs) != 1:
        raise RbcedgeError(
            f"a network with one input and one output is needed; this one has {len(inputs)} inputs "
            f"and {len(outputs)} outputs"
        )
    if len(inputs[0].shape) != 4 or inputs[0].shape[3] != 3:
        raise RbcedgeError(f"the input must be pictures (N, H, W, 3), this one is {tuple(inputs[0].shape)}")


def run(onnx: bytes, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run an ONNX network once on the CPU. For checks; `rbcedge.engines.onnx` is what runs for long."""
    running = session(onnx)
    out: NDArray[np.float32] = running.run(None, {running.get_inputs()[0].name: pixels})[0]
    return out


def difference(model: Any, onnx: bytes, shapes: Sequence[tuple[int, int, int]], seed: int = 0) -> float:
    """Return the largest difference between a Keras network and its ONNX on random pictures.

    Parameters
    ----------
    shapes : sequence of (batch, height, width)
    """
    rng = np.random.default_rng(seed)
    running = session(onnx)
    name = running.get_inputs()[0].name
    worst = 0.0
    for shape in shapes:
        pixels = rng.random((*shape, 3), np.float32)
        expected = np.asarray(model(pixels, training=False))
        got = running.run(None, {name: pixels})[0]
        if got.shape != expected.shape:
            return float("inf")
        worst = max(worst, float(np.abs(got - expected).max()))
    return worst


def trials(model: Any) -> list[tuple[int, int, int]]:
    """Shapes (batch, height, width) on which a Keras network is compared with its conversions."""
    n, h, w = model.inputs[0].shape[:3]
    return sorted({(n or b, h or y, w or x) for b, y, x in _TRIALS})


def _plain(model: Any, sizes: tuple[int | None, ...]) -> bytes | None:
    """Lay the network out at one size and set the free sizes free again; None where that is not right."""
    layout = tuple(fixed or own for fixed, own in zip(sizes, _LAYOUT, strict=True))
    graph = _export(_resizing(model), (None, *layout, 3))
    _transposed(graph)
    dims = [name for name, size in zip("nhw", (None, *sizes), strict=True) if size is None]
    for value in (*graph.graph.input, *graph.graph.output):
        shape = value.type.tensor_type.shape.dim
        for name in dims if len(shape) == 4 else "n":
            shape["nhw".index(name)].dim_param = name
    try:
        out: bytes = checked(tidy(graph)).SerializeToString()
        return out if difference(model, out, trials(model)) <= TOLERANCE else None
    except Exception:  # ONNX Runtime refuses sizes that are fixed somewhere inside
        return None


def _export(model: Any, shape: tuple[int | None, ...]) -> Any:
    """Keras to an ONNX ModelProto with the input "pixels" of this shape."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import logging

    import tensorflow as tf
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    try:
        graph, _ = tf2onnx.convert.from_keras(
            model, input_signature=(tf.TensorSpec(shape, tf.float32, name="pixels"),), opset=OPSET
        )
    except Exception as e:
        raise RbcedgeError(f"{model.name} cannot be converted to ONNX ({_line(e)})") from e
    foreign = sorted({f"{n.domain}.{n.op_type}" for n in graph.graph.node if n.domain not in ("", "ai.onnx")})
    if foreign:
        raise RbcedgeError(f"{model.name} holds operators that ONNX has not: {', '.join(foreign)}")
    tidy(graph)
    graph.ir_version = IR_VERSION
    for value, names in ((graph.graph.input[0], "nhw"), (graph.graph.output[0], "nhw")):
        for dim, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            if not dim.dim_value:
                dim.dim_param = name
    return graph


def _resizing(model: Any) -> Any:
    """Return the network with nearest up-sampling as one resize, which ONNX knows; else it is tiles and reshapes."""
    import keras
    import tensorflow as tf

    class Nearest(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self, factor: tuple[int, int]) -> None:
            super().__init__()
            self.factor = factor

        def call(self, x: Any) -> Any:
            (h, w), (down, across) = x.shape[1:3], self.factor
            if h is None or w is None:  # while Keras wires the layers; the export has sizes
                return keras.ops.repeat(keras.ops.repeat(x, down, axis=1), across, axis=2)
            return tf.raw_ops.ResizeNearestNeighbor(images=x, size=[h * down, w * across])

    def swapped(layer: Any) -> Any:
        nearest = type(layer).__name__ == "UpSampling2D" and layer.interpolation == "nearest"
        return Nearest(tuple(layer.size)) if nearest else layer.__class__.from_config(layer.get_config())

    if not any(type(layer).__name__ == "UpSampling2D" for layer in model.layers):
        return model
    copy = keras.models.clone_model(model, clone_function=swapped)
    copy.set_weights(model.get_weights())
    return copy


def _transposed(model: Any) -> None:
    """Write the change from channels first to last as a transposition also where one channel makes it a reshape."""
    import onnx as library

    out = model.graph.output[0]
    last = next(n for n in model.graph.node if out.name in n.output)
    if last.op_type == "Reshape" and len(out.type.tensor_type.shape.dim) == 4:
        plain = library.helper.make_node(
            "Transpose", [last.input[0]], list(last.output), name=last.name, perm=[0, 2, 3, 1]
        )
        last.CopyFrom(plain)


def session(onnx: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
