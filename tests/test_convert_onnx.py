"""Keras to ONNX in float32, float16 and INT8: agreement with Keras, and what TensorRT asks of the file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs the 'convert' extra")
onnx = pytest.importorskip("onnx", reason="needs the 'convert' extra")
pytest.importorskip("tf2onnx", reason="needs the 'convert' extra")
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

from onnx_models import dark_segmenter  # noqa: E402
from rbcedge.convert.onnx import (  # noqa: E402
    activation_ranges,
    checked,
    difference,
    quantise,
    run,
    to_float16,
    to_float32,
    to_onnx,
    with_ranges,
)
from rbcedge.training.networks import unet  # noqa: E402

from rbcedge.errors import RbcedgeError  # noqa: E402


def settled(model: Any) -> Any:
    """Give a network statistics and outputs as training would: random ones are nearly constant."""
    rng = np.random.default_rng(3)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            gamma, beta, mean, var = layer.get_weights()
            layer.set_weights(
                [gamma, rng.normal(0, 0.3, beta.shape), mean, rng.uniform(0.3, 1.0, var.shape).astype(np.float32)]
            )
    return model


@pytest.fixture(scope="module")
def small() -> tuple[Any, bytes]:
    import keras

    keras.utils.set_random_seed(0)
    model = settled(unet(2, 2, "transpose"))
    return model, to_onnx(model)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [np.random.default_rng(k).integers(0, 256, (1, 32, 48, 3), np.uint8) for k in range(5)]


def operators(data: bytes) -> set[str]:
    return {n.op_type for n in onnx.load_from_string(data).graph.node}


def test_a_unet_is_a_plain_graph_of_free_size(small: tuple[Any, bytes]) -> None:
    model, data = small
    graph = checked(data)
    assert operators(data) == {"Transpose", "Conv", "Relu", "MaxPool", "ConvTranspose", "Concat", "Sigmoid"}
    assert [(o.domain, o.version) for o in graph.opset_import] == [("", 17)]
    assert [d.dim_param or d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim] == ["n", "h", "w", 3]
    assert difference(model, data, [(1, 32, 32), (3, 64, 16), (1, 100, 36)]) < 1e-5


def test_nearest_up_sampling_is_one_operator(pictures: list[np.ndarray]) -> None:
    model = settled(unet(2, 1, "paper"))
    data = to_onnx(model)
    assert "Resize" in operators(data)
    assert not operators(data) & {"Shape", "Tile", "Reshape", "Slice"}
    assert difference(model, data, [(1, 32, 48), (2, 14, 6)]) < 1e-5


def test_a_classifier_is_right_on_both_crop_sides() -> None:
    from keras import Model, layers

    inputs = layers.Input((None, None, 3), name="pixels")
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(inputs)  # as EfficientNet pads where the side is unknown
    x = layers.Conv2D(6, 3, strides=2, activation="relu")(x)
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2D(6, 5, strides=2, padding="same", activation="swish")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = Model(inputs, layers.Dense(5, activation="softmax")(x))
    data = to_onnx(model)
    assert difference(model, data, [(3, 56, 56), (2, 80, 80), (1, 57, 63)]) < 1e-5


def test_efficientnets_own_padding_is_right_on_both_crop_sides() -> None:
    from keras import Model, layers
    from rbcedge.training.networks import efficientnet

    whole = efficientnet(8, "none", None, dropout=0.0)
    x = layers.GlobalAveragePooling2D()(whole.get_layer("block3a_project_bn").output)  # past three strided layers
    model = Model(whole.inputs, x)
    data = to_onnx(model)
    pixels = np.random.default_rng(0).random((2, 56, 56, 3), np.float32)
    spread = float(np.asarray(model(pixels)).std())
    assert spread > 1e-3, "a constant output would prove nothing"
    assert difference(model, data, [(2, 56, 56), (2, 80, 80)]) < 1e-3 * spread


def test_float16_reckons_in_half_and_keeps_float_ends(small: tuple[Any, bytes]) -> None:
    model, data = small
    half = to_float16(data)
    graph = checked(half).graph
    assert {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)} == {onnx.TensorProto.FLOAT}
    assert {w.data_type for w in graph.initializer} == {onnx.TensorProto.FLOAT16}
    assert len(half) < len(data)
    assert 0 < difference(model, half, [(1, 32, 48)]) < 0.01


def test_float16_comes_back_to_float32_and_can_be_quantised(
    small: tuple[Any, bytes], pictures: list[np.ndarray]
) -> None:
    model, data = small
    back = to_float32(to_float16(data))
    assert operators(back) == operators(data), "no casts are left"
    assert {w.data_type for w in checked(back).graph.initializer} & {onnx.TensorProto.FLOAT16} == set()
    assert 0 < difference(model, back, [(1, 32, 48)]) < 0.005, "only the weights are rounded"
    assert operators(quantise(back, pictures)) == operators(quantise(data, pictures))
    assert to_float32(data) == back or difference(model, to_float32(data), [(1, 32, 48)]) < 1e-5


def test_int8_is_what_tensorrt_asks_for(small: tuple[Any, bytes], pictures: list[np.ndarray]) -> None:
    model, data = small
    q = quantise(data, pictures)
    graph = checked(q)
    assert [(o.domain, o.version) for o in graph.opset_import] == [("", 17)]
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in graph.graph.initializer}
    pairs = [n for n in graph.graph.node if n.op_type == "QuantizeLinear"]
    convolutions = [n for n in graph.graph.node if n.op_type in ("Conv", "ConvTranspose")]
    assert len(pairs) == 2 * len(convolutions), "one for the input and one for the weights of each"
    for pair in pairs:
        assert not weights[pair.input[2]].any(), "zero points are 0"
        assert weights[pair.input[2]].dtype == np.int8
    for name, value in weights.items():
        assert value.dtype in (np.float32, np.int64) or not value.any(), f"{name}: weights are kept in float"
    pixels = pictures[0].astype(np.float32) / 255
    expected = np.asarray(model(pixels))
    assert 0 < np.abs(run(q, pixels) - expected).mean() < 0.2 * expected.std()
    assert expected.std() > 0.02, "a constant output would prove nothing"


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_other_ranges_are_no_wider_than_what_was_seen(
    small: tuple[Any, bytes], pictures: list[np.ndarray], method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, data = small
    seen, chosen = activation_ranges(data, pictures), activation_ranges(data, pictures, method)
    assert capsys.readouterr().out == ""
    assert set(seen) == set(chosen)
    inner = [n for n in seen if chosen[n][1] - chosen[n][0] < 0.999 * (seen[n][1] - seen[n][0])]
    # So few values lie all within the 99.999th percentile.
    assert inner or method == "percentile", "nothing was cut"
    for name in seen:
        assert max(map(abs, chosen[name])) <= 1.02 * max(map(abs, seen[name]))


def test_nodes_can_stay_in_float(small: tuple[Any, bytes], pictures: list[np.ndarray]) -> None:
    _, data = small
    names = [n.name for n in onnx.load_from_string(data).graph.node if n.op_type in ("Conv", "ConvTranspose")]
    ranges = activation_ranges(data, pictures)
    count = lambda d: sum(n.op_type == "QuantizeLinear" for n in onnx.load_from_string(d).graph.node)  # noqa: E731
    assert count(with_ranges(data, ranges, names[:1])) == count(with_ranges(data, ranges)) - 2
    untouched = with_ranges(data, ranges, names)
    assert count(untouched) == 0
    pixels = pictures[0].astype(np.float32) / 255
    np.testing.assert_allclose(run(untouched, pixels), run(data, pixels), atol=1e-6)
    with pytest.raises(RbcedgeError, match="No node no-such"):
        with_ranges(data, ranges, ["no-such"])


def test_int8_without_pictures_is_refused(small: tuple[Any, bytes]) -> None:
    with pytest.raises(RbcedgeError, match="needs calibration pictures"):
        quantise(small[1], [])


def test_ranges_that_cannot_be_found_are_an_error_in_words(
    small: tuple[Any, bytes], pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("Too many bins for data range. Cannot create 2048 finite-sized bins.")

    monkeypatch.setattr("onnxruntime.quantization.calibrate.PercentileCalibrater.collect_data", fail)
    with pytest.raises(RbcedgeError, match=r"percentile ranges cannot be found \(Too many bins.*Choose other ranges"):
        quantise(small[1], pictures, "percentile")


def test_several_inputs_are_refused() -> None:
    from keras import Model, layers

    a, b = layers.Input((8, 8, 3)), layers.Input((8, 8, 3))
    with pytest.raises(RbcedgeError, match="this one has 2 inputs and 1 outputs"):
        to_onnx(Model([a, b], layers.Add()([a, b])))
    with pytest.raises(RbcedgeError, match="has 2 inputs"):
        checked(dark_segmenter(inputs=2))


def test_an_operator_onnx_has_not_is_named() -> None:
    import tensorflow as tf
    from keras import Model, layers

    inputs = layers.Input((8, 8, 3), batch_size=1)
    outputs = layers.Lambda(lambda x: tf.math.bessel_i0(x)[..., :1], output_shape=(8, 8, 1))(inputs)
    with pytest.raises(RbcedgeError, match="BesselI0"):
        to_onnx(Model(inputs, outputs))
