"""Small ONNX networks, made by hand, whose results can be worked out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dim = int | str


def _bytes(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    shape: Sequence[Dim],
    out: Sequence[Dim],
    inputs: int = 1,
    kind: int = TensorProto.FLOAT,
) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info("pixels" if not k else f"more{k}", kind, shape) for k in range(inputs)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


def dark_segmenter(
    first: bool = False, size: tuple[Dim, Dim] = ("h", "w"), batch: Dim = "n", last: str = "Sigmoid", inputs: int = 1
) -> bytes:
    """Cell is what is darker than 0.7 in green: sigmoid(40 (0.7 - green)); a 1x1 convolution."""
    weights = {
        "w": np.array([0, -40, 0], np.float32).reshape(1, 3, 1, 1),
        "b": np.array([28], np.float32),
    }
    nodes = []
    source, target = "pixels", "out"
    if not first:
        nodes.append(helper.make_node("Transpose", ["pixels"], ["nchw"], name="in", perm=[0, 3, 1, 2]))
        source, target = "nchw", "flat"
    nodes.append(helper.make_node("Conv", [source, "w", "b"], ["z"], name="conv"))
    nodes.append(helper.make_node(last, ["z"], [target], name="last"))
    if not first:
        nodes.append(helper.make_node("Transpose", ["flat"], ["out"], name="back", perm=[0, 2, 3, 1]))
        return _bytes(nodes, weights, (batch, *size, 3), (batch, *size, 1), inputs)
    return _bytes(nodes, weights, (batch, 3, *size), (batch, 1, *size), inputs)


def dark(pixels: np.ndarray) -> np.ndarray:
    """What `dark_segmenter` gives for (n, H, W, 3) uint8."""
    green = pixels[..., 1:2].astype(np.float64) / 255
    return 1 / (1 + np.exp(-40 * (0.7 - green)))


def classifier(classes: int, side: Dim = "s", batch: Dim = "n", last: str = "Softmax") -> bytes:
    """Mean colour, a matrix, softmax."""
    rng = np.random.default_rng(1)
    weights = {"w": rng.normal(0, 3, (3, classes)).astype(np.float32)}
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], name="mean", axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["z"], name="matrix"),
        helper.make_node(last, ["z"], ["out"], name="last"),
    ]
    return _bytes(nodes, weights, (batch, side, side, 3), (batch, classes))


def unknown_operator(domain: str = "") -> bytes:
    """A network with an operator nobody knows."""
    node = helper.make_node("Magic", ["pixels"], ["out"], name="magic", domain=domain)
    model = onnx.load_from_string(_bytes([node], {}, ("n", "h", "w", 3), ("n", "h", "w", 1)))
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    return model.SerializeToString()


def half_input() -> bytes:
    """A network that takes float16."""
    nodes = [helper.make_node("Cast", ["pixels"], ["out"], name="cast", to=TensorProto.FLOAT)]
    return _bytes(nodes, {}, ("n", "h", "w", 3), ("n", "h", "w", 3), kind=TensorProto.FLOAT16)
