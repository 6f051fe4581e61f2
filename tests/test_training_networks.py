"""Networks, training that survives interruption, and conversion: small, but the real code."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rbcedge import bundle
from rbcedge.bundle import Label
from rbcedge.engines import load_engines
from rbcedge.engines.litert import LiteRTEngine
from rbcedge.errors import RbcedgeError
from rbcedge.frame import Frame
from rbcedge.pipeline.host import HostPipeline

pytest.importorskip("tensorflow", reason="needs the 'train' extra")
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

from rbcedge.convert.bundle import build  # noqa: E402
from rbcedge.convert.making import LAYOUT  # noqa: E402
from rbcedge.convert.networks import Network  # noqa: E402
from rbcedge.convert.tflite import convert, write  # noqa: E402
from rbcedge.training import classifier, segmenter  # noqa: E402
from rbcedge.training.crops import Cut, plain  # noqa: E402
from rbcedge.training.networks import efficientnet, load_weights, unet  # noqa: E402
from rbcedge.training.steps import resume  # noqa: E402
from rbcedge.training.weights import read_weights, write_weights  # noqa: E402


def test_the_papers_unet_has_31_million_parameters() -> None:
    assert unet(64).count_params() == pytest.approx(31.0e6, rel=0.01)


def test_the_papers_classifier_has_4_million_parameters() -> None:
    model = efficientnet(8, "none")
    assert model.count_params() == pytest.approx(4.02e6, rel=0.02)
    out = np.asarray(model(np.zeros((2, 80, 80, 3), np.float32)))
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("upsampling", ["paper", "transpose"])
def test_unet_keeps_the_pictures_size(upsampling: str) -> None:
    model = unet(4, 2, upsampling)
    out = np.asarray(model(np.random.default_rng(0).random((1, 48, 64, 3), np.float32)))
    assert out.shape == (1, 48, 64, 1)
    assert 0 <= out.min() <= out.max() <= 1


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.weights.h5"
    unet(4, 2).save_weights(path)
    with pytest.raises(RbcedgeError, match="these are not weights of unet8"):
        load_weights(unet(8, 2), path)
    with pytest.raises(RbcedgeError, match="no such weights file"):
        efficientnet(8, tmp_path / "none.h5")


def test_without_a_network_imagenet_weights_are_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    from keras import applications

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(applications, "EfficientNetB0", refuse)
    with pytest.raises(
        RbcedgeError,
        match=r"Use --weights lite0 \(efficientnetb0 alone\), none to start from random weights, or a file",
    ):
        efficientnet(8, "imagenet")


def _lesson(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.zeros((120, 120), np.int16)
    yy, xx = np.mgrid[:120, :120]
    for i, (x, y) in enumerate([(30, 30), (85, 35), (50, 90)]):
        labels[(xx - x) ** 2 + (yy - y) ** 2 < 15**2] = i + 1
    pixels = np.where(labels > 0, 120, 235)[..., None] + rng.normal(0, 3, (120, 120, 3))
    return {
        "pixels": np.clip(pixels, 0, 255).astype(np.uint8),
        "labels": labels,
        "ignore": np.zeros((120, 120), bool),
    }


def test_segmenter_training_learns_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lessons = [_lesson(i) for i in range(3)]
    train = partial(segmenter.train, lessons, [], tmp_path, 4, 2, "transpose", 0.5, batch=4, side=32)
    train(steps=100)
    first = read_weights(tmp_path / "weights.npz")
    train(steps=200)
    out = capsys.readouterr().out.split("\n")
    losses = [float(line.split()[-1]) for line in out if line.startswith("step")]
    assert [line.split()[1] for line in out if line.startswith("step")] == ["100/100", "200/200"]
    assert losses[1] < losses[0]
    assert any((a != b).any() for a, b in zip(first, read_weights(tmp_path / "weights.npz"), strict=True))
    assert json.loads((tmp_path / "network.json").read_text())["width"] == 4


def _tiny_classifier(classes: int, *_: object) -> object:
    """A network with one batch norm, in place of EfficientNetB0, whose graphs take a minute to build."""
    from keras import Model, layers

    inputs = layers.Input((None, None, 3))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, strides=2)(inputs))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return Model(inputs, layers.Dense(classes, activation="softmax")(x), name="tiny")


def test_classifier_training_settles_its_batch_norm_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "efficientnet", _tiny_classifier)
    rng = np.random.default_rng(0)
    own = np.zeros((112, 112), np.uint8)
    own[36:76, 40:72] = 1
    cuts = [Cut(rng.integers(0, 255, (112, 112, 3), np.uint8), own, np.zeros_like(own), i % 8, 0) for i in range(24)]
    draw = classifier.Draw(plain(cuts, 8), plain(cuts, 8))
    train = partial(classifier.train, draw, tmp_path, batch=4, weights="none", norm_batches=3)
    train(steps=4, settle=0.5)
    model = _tiny_classifier(8)

    def norm() -> np.ndarray:
        weights = read_weights(tmp_path / "weights.npz")
        return next(w for w, v in zip(weights, model.weights, strict=True) if v.path == "norm/moving_mean")

    settled = norm()
    assert np.abs(settled).max() > 1e-4
    # What follows is trained with the norm as it was measured, also after an interruption.
    train(steps=8, settle=0.25)
    assert resume(tmp_path, model.name)[0] == 8
    np.testing.assert_array_equal(norm(), settled)


@pytest.fixture(scope="module")
def small() -> tuple[object, list[np.ndarray], np.ndarray]:
    make = partial(unet, 4, 2, "transpose", (32, 48, 3), 1)
    model = make()
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.normal(0, 0.1, w.shape) if "kernel" in v.path else w
                       for w, v in zip(model.get_weights(), model.weights, strict=True)])  # fmt: skip
    return make, model.get_weights(), rng.integers(0, 255, (6, 32, 48, 3), np.uint8)


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-4), ("int8", 0.08)])
def test_tflite_gives_what_keras_gives(small: tuple, precision: str, bound: float, tmp_path: Path) -> None:
    make, weights, pictures = small
    path = tmp_path / "unet.tflite"
    write(path, convert(make, weights, precision, [p[None] for p in pictures]))
    model = make()
    model.set_weights(weights)
    expected = np.concatenate([np.asarray(model(p[None].astype(np.float32) / 255)) for p in pictures])
    got = LiteRTEngine(path, precision).infer(pictures)
    assert np.abs(got - expected).max() < bound
    assert expected.std() > 0.02, "a constant output would prove nothing"


def test_the_engine_takes_other_picture_sizes(small: tuple, tmp_path: Path) -> None:
    make, weights, _ = small
    path = tmp_path / "unet.tflite"
    write(path, convert(make, weights, "fp32"))
    engine = LiteRTEngine(path, "fp32")
    tall = np.random.default_rng(1).integers(0, 255, (1, 64, 32, 3), np.uint8)
    model = unet(4, 2, "transpose", (64, 32, 3), 1)
    model.set_weights(weights)
    expected = np.asarray(model(tall.astype(np.float32) / 255))
    np.testing.assert_allclose(engine.infer(tall), expected, atol=1e-4)
    assert engine.infer(np.zeros((1, 32, 48, 3), np.uint8)).shape == (1, 32, 48, 1)


def test_int8_without_calibration_is_refused(small: tuple) -> None:
    make, weights, _ = small
    with pytest.raises(RbcedgeError, match="calibration"):
        convert(make, weights, "int8")


def test_a_dynamic_batch_is_refused(small: tuple) -> None:
    _, weights, _ = small
    with pytest.raises(ValueError, match="static batch"):
        convert(partial(unet, 4, 2, "transpose", (32, 48, 3)), weights, "fp32")


def test_a_bundle_of_three_classes_runs(small: tuple, tmp_path: Path) -> None:
    from keras import Model, layers

    _, weights, pictures = small
    segmenter = unet(4, 2, "transpose")
    segmenter.set_weights(weights)
    inputs = layers.Input((80, 80, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, strides=4)(inputs))
    tiny = Model(inputs, layers.Dense(3, activation="softmax")(x))
    crops = [np.random.default_rng(2).integers(0, 255, (4, 80, 80, 3), np.uint8)]
    build(
        tmp_path / "mine",
        {
            "segmenter": (Network("segmenter", "unet", keras=segmenter), [p[None] for p in pictures]),
            "classifier": (Network("classifier", "tiny", keras=tiny), crops),
        },
        {
            "name": "mine",
            "licence": "MIT",
            "scale": {"diameter_px": 38.0, "um_per_px": 0.19},
            "segmenter": {"scale": 0.5, "threshold": 0.5},
            "classifier": {"crop_px": 80, "confidence_threshold": 0.1, "temperature": 1.0},
        },
        [Label("A", "first"), Label("B", "second"), Label("C", "third")],
    )
    b = bundle.load(tmp_path / "mine")
    assert b.codes == ("A", "B", "C")
    pipeline = HostPipeline(b, *load_engines(b, precision="int8"), scale=1.0)
    picture = np.random.default_rng(3).integers(0, 255, (96, 128, 3), np.uint8)
    field = pipeline.find(Frame(0, 0.0, picture, "x"))
    field = pipeline.classify(field, np.arange(len(field.cells)))
    assert field.cells.probabilities.shape == (len(field.cells), 3)


def test_weights_are_kept_as_they_are(tmp_path: Path) -> None:
    weights = [np.random.default_rng(0).random((3, 4), np.float32), np.zeros(2, np.float32)]
    write_weights(tmp_path / "w.npz", weights)
    for a, b in zip(weights, read_weights(tmp_path / "w.npz"), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [p.name for p in tmp_path.iterdir()] == ["w.npz"]


def test_the_converted_classifier_agrees_with_the_trained_one_on_both_crop_sides(tmp_path: Path) -> None:
    model = efficientnet(8, "none", None)
    rng = np.random.default_rng(5)
    # Random weights give nearly constant outputs: spread the last layer.
    *body, kernel, bias = model.get_weights()
    # Gates and deep layers hardly matter with fresh weights; larger ones show what the converter leaves out.
    body = [w * 2.5 if w.ndim == 4 and min(w.shape[:2]) == 1 else w for w in body]
    weights = [*body, kernel * 40, bias]
    model.set_weights(weights)
    path = tmp_path / "classifier.tflite"
    write(path, convert(partial(efficientnet, 8, "none", LAYOUT, 4, 0.0), weights, "fp32"))
    engine = LiteRTEngine(path, "fp32")
    for side in (56, 80):
        crops = rng.integers(0, 255, (4, side, side, 3), np.uint8)
        expected = np.asarray(model(crops.astype(np.float32) / 255))
        np.testing.assert_allclose(engine.infer(crops), expected, atol=2e-3)
