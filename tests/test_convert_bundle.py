"""`rbcedge bundle create` and `rbcedge convert`: one's own networks, run at once, and everything that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs the 'convert' extra")
pytest.importorskip("onnx", reason="needs the 'convert' extra")
pytest.importorskip("tf2onnx", reason="needs the 'convert' extra")
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

from cli_help import Cli  # noqa: E402
from onnx_models import classifier, dark, dark_segmenter, half_input, unknown_operator  # noqa: E402
from rbcedge.convert.making import make  # noqa: E402
from rbcedge.convert.networks import Network  # noqa: E402
from rbcedge.convert.onnx_file import to_convention  # noqa: E402
from session_fakes import write_pictures  # noqa: E402

from rbcedge.bundle import default_folder, load  # noqa: E402
from rbcedge.engines import load_engines  # noqa: E402


@pytest.fixture
def cli(call: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Call the command line."""
    monkeypatch.setenv("COLUMNS", "160")
    return call


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A segmenter, a classifier and labels, as a user would bring them."""
    found = {k: tmp_path / f"{k}{end}" for k, end in (("s", ".onnx"), ("c", ".onnx"), ("labels", ".json"))}
    found["s"].write_bytes(dark_segmenter())
    found["c"].write_bytes(classifier(3))
    found["labels"].write_text('["ROUND", "LONG", {"code": "PAIR", "name": "two", "cells": 2}]')
    return found


def _create(cli: Cli, files: dict[str, Path], folder: Path, *more: object) -> tuple[int, str, str]:
    return cli(
        "bundle", "create", folder,
        "--segmenter", files["s"], "--classifier", files["c"], "--labels", files["labels"], *more,
    )  # fmt: skip


def test_own_onnx_networks_run_at_once(cli: Cli, files: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    code, out, err = _create(cli, files, folder, "--licence", "MIT", "--confidence", "0")
    assert (code, "error" in err) == (0, False), err
    assert "segmenter.fp32.onnx" in out
    b = load(folder)
    assert (b.name, b.licence, b.codes) == ("mine", "MIT", ("ROUND", "LONG", "PAIR"))
    assert {a.format for a in b.artefacts} == {"onnx"}
    pictures = write_pictures(tmp_path / "pictures", 2)
    code, _, err = cli("run", pictures, "--bundle", folder, "--out", tmp_path / "run", "--scale", "1.0", "--no-live")
    assert (code, err) == (0, "")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["engine"] == {"name": "onnx", "precision": "fp32"}
    assert summary["cells"]["detected"] == 26
    assert set(summary["differential"]) == {"ROUND", "LONG", "PAIR"}


def test_networks_with_channels_first_are_turned() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 9, 11, 3), np.uint8)
    network = Network("segmenter", "x", onnx=to_convention(dark_segmenter(first=True), "segmenter"))
    assert network.size == (None, None)
    np.testing.assert_allclose(network.run(pixels), dark(pixels), atol=1e-4)


@pytest.mark.parametrize(
    ("which", "data", "message"),
    [
        ("s", dark_segmenter(inputs=2), "this one has 2 inputs"),
        ("s", unknown_operator(), r"No Op registered for Magic"),
        ("s", unknown_operator("com.acme"), r"ONNX Runtime cannot run it .*com\.acme.*Magic"),
        ("s", half_input(), "input must be float32"),
        ("s", classifier(3), r"a segmenter gives \(N, H, W, 1\)"),
        ("s", dark_segmenter(last="Relu"), "which are no probabilities. Let it end with a sigmoid"),
        ("s", b"garbage", "not a valid ONNX network"),
        ("c", dark_segmenter(), r"a classifier gives \(N, classes\)"),
        ("c", classifier(4), r"gives 4 classes, but there are 3 labels \(ROUND, LONG, PAIR\)"),
        ("c", classifier(3, last="Identity"), "no probabilities|Let it end with a softmax"),
        ("c", classifier(3, side=64), "takes crops of 64x64 px only; the bundle has 80 px.*--crop-px"),
    ],
)
def test_a_network_that_will_not_do_is_one_clear_error(
    cli: Cli, files: dict[str, Path], tmp_path: Path, which: str, data: bytes, message: str
) -> None:
    import re

    files[which].write_bytes(data)
    code, out, err = _create(cli, files, tmp_path / "mine")
    lines = [line for line in err.splitlines() if not line.endswith(" ...")]
    assert code in (1, 2)
    assert out == ""
    assert lines[0].startswith("rbcedge: ")
    assert len(lines) <= 2
    assert re.search(message, err), err
    assert files[which].name in err
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["A", "A", "B"]', "list of different codes"),
        ('["A", "B/C", "D"]', "plain words"),
        ('{"A": 1}', "must be a list in brackets"),
        ('[{"name": "a"}]', r"'code' is missing in labels\[0\]"),
        ("[", "Expecting value"),
    ],
)
def test_wrong_labels_are_said(cli: Cli, files: dict[str, Path], tmp_path: Path, text: str, message: str) -> None:
    import re

    files["labels"].write_text(text)
    code, _, err = _create(cli, files, tmp_path / "mine")
    assert code == 2
    assert re.search(message, err), err


def test_a_side_the_network_is_fixed_to_can_be_given(cli: Cli, files: dict[str, Path], tmp_path: Path) -> None:
    files["c"].write_bytes(classifier(3, side=64))
    code, _, err = _create(cli, files, tmp_path / "mine", "--crop-px", "64")
    assert code == 0, err
    assert load(tmp_path / "mine").small_crop_px == 64


def test_existing_folders_and_missing_files_are_refused(cli: Cli, files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    assert _create(cli, files, tmp_path / "full")[0] == 2
    files["s"] = tmp_path / "none.keras"
    code, _, err = _create(cli, files, tmp_path / "mine")
    assert (code, "no such file" in err) == (2, True)
    files["s"] = tmp_path / "labels.json"
    code, _, err = _create(cli, files, tmp_path / "mine")
    assert (code, "are read from .keras, .h5 and .onnx files" in err) == (2, True)
    code, _, err = _create(cli, files, tmp_path / "mine", "--segmenter-scale", "3")
    assert code == 2


@pytest.fixture(scope="module")
def keras_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from keras import Model, layers, utils
    from rbcedge.training.networks import unet

    utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("keras")
    unet(2, 1, "transpose").save(folder / "s.keras")
    inputs = layers.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(inputs))
    Model(inputs, layers.Dense(3, activation="softmax")(x)).save(folder / "c.keras")
    (folder / "labels.json").write_text('["A", "B", "C"]')
    return {"s": folder / "s.keras", "c": folder / "c.keras", "labels": folder / "labels.json"}


def test_own_keras_networks_in_every_format(cli: Cli, keras_files: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    code, out, err = _create(cli, keras_files, folder, "--small-crop-px", "56", "--segmenter-scale", "0.5")
    assert code == 0, err
    assert {(a.format, a.precision) for a in load(folder).artefacts} == {("tflite", "fp32"), ("onnx", "fp32")}
    pixels = np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3), np.uint8)
    both = [load_engines(load(folder), engine)[0].infer(pixels) for engine in ("litert", "onnx")]
    np.testing.assert_allclose(both[0], both[1], atol=1e-5)

    # Half precision beside what is there; the ONNX starts from the bundle's own.
    code, out, err = cli("convert", "onnx", folder, "--precision", "fp16")
    assert code == 0, err
    assert "segmenter.fp16.onnx" in out
    code, _, err = cli("convert", "tflite", folder, "--precision", "fp16")
    assert (code, "holds no float32 segmenter as keras" in err) == (2, True)
    code, _, err = cli(
        "convert", "tflite", folder, "--precision", "fp16",
        "--segmenter", keras_files["s"], "--classifier", keras_files["c"],
    )  # fmt: skip
    assert code == 0, err
    b = load(folder)
    assert {(a.format, a.precision) for a in b.artefacts if a.role == "classifier"} == {
        (f, p) for f in ("tflite", "onnx") for p in ("fp32", "fp16")
    }
    half = [load_engines(b, engine, "fp16")[0].infer(pixels) for engine in ("litert", "onnx")]
    np.testing.assert_allclose(half[0], both[0], atol=0.01)
    np.testing.assert_allclose(half[1], both[0], atol=0.01)
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_int8_with_integer_and_with_float_ends(keras_files: dict[str, Path], tmp_path: Path, cli: Cli) -> None:
    from ai_edge_litert.interpreter import Interpreter
    from rbcedge.convert.networks import open_network

    b = load(default_folder())
    network = open_network(keras_files["s"], "segmenter")
    pictures = [np.random.default_rng(k).integers(40, 200, (1, 48, 64, 3), np.uint8) for k in range(4)]
    wanted = [("tflite", "int8"), ("tflite", "int8-float"), ("onnx", "int8")]
    made = list(make(network, b, wanted, pictures))
    assert [m.precision for m in made] == ["int8"] * 3
    kinds, scales = [], []
    for m in made[:2]:
        interpreter = Interpreter(model_content=m.data)
        scales.append(interpreter.get_input_details()[0]["quantization"])
        kinds.append(tuple(d[0]["dtype"] for d in (interpreter.get_input_details(), interpreter.get_output_details())))
    # No picture is darker than 40 or lighter than 200, and still a pixel's value is what it is.
    assert scales[0] == (pytest.approx(1 / 255), 0)
    assert kinds == [(np.uint8, np.int8), (np.float32, np.float32)]
    assert all(0 < m.deviation < 0.2 for m in made)


def test_convert_refuses_what_makes_no_sense(cli: Cli, keras_files: dict[str, Path], tmp_path: Path) -> None:
    s, c = ("--segmenter", keras_files["s"]), ("--classifier", keras_files["c"])
    new = tmp_path / "new"
    for arguments, text in (
        (("onnx", default_folder(), *s, *c), "bundle that comes with the package"),
        (("onnx", new, "--precision", "int3"), "'int3' is not known for onnx. Known: fp32, fp16, int8"),
        (("onnx", new, "--precision", "int8", *s, *c), "give --calibration"),
        (("tflite", new, "--precision", "int8,int8-float", *s, *c), "choose one of them"),
        (("onnx", new, "--ranges", "widest", *s, *c), "known are min-max, entropy, percentile"),
        (("onnx", new, *s, *c, "--precision", "fp32"), "gives 3 classes, but there are 8 labels"),
        (("onnx", keras_files["s"].parent, *s, *c), "exists and is not a bundle"),
        (("onnx", tmp_path / "x", "--bundle", tmp_path), "is not a bundle"),
    ):
        code, out, err = cli("convert", *arguments)
        assert code in (1, 2), arguments
        assert text in err, err
        assert out == ""
    assert not new.exists()


def test_an_interrupted_conversion_leaves_the_bundle_as_it_was(
    cli: Cli, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    assert _create(cli, files, folder)[0] == 0
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def interrupted(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("rbcedge.convert.making.to_float16", interrupted)
    code, _, err = cli("convert", "onnx", folder, "--precision", "fp16")
    assert code == 130
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    monkeypatch.undo()
    monkeypatch.setattr("rbcedge.convert.bundle.describe", interrupted)
    assert cli("convert", "onnx", folder, "--precision", "fp16")[0] == 130
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert cli("convert", "onnx", tmp_path / "copy", "--bundle", folder, "--precision", "fp16")[0] == 130
    code, _, err = cli("bundle", "verify", tmp_path / "copy")
    assert (code, "is not a bundle" in err) == (1, True)


def test_a_bundle_is_copied_before_it_is_added_to(cli: Cli, files: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    assert _create(cli, files, folder)[0] == 0
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    code, _, err = cli("convert", "onnx", tmp_path / "copy", "--bundle", folder, "--precision", "fp16")
    assert code == 0, err
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert len(load(tmp_path / "copy").artefacts) == 4
    code, _, err = cli("convert", "onnx", tmp_path / "copy", "--bundle", folder)
    assert (code, "--bundle has no say" in err) == (2, True)


def test_without_the_packages_the_extra_is_named(
    cli: Cli, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = __import__("importlib.util", fromlist=["find_spec"]).find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tf2onnx" else real(name))
    code, _, err = _create(cli, files, tmp_path / "mine")
    assert (code, "pip install 'rbcedge[convert]'" in err) == (1, True)


def test_a_trained_segmenters_folder_is_read(tmp_path: Path) -> None:
    from rbcedge.convert.networks import open_network
    from rbcedge.training.networks import unet
    from rbcedge.training.weights import write_weights

    from rbcedge.errors import RbcedgeError, UsageError

    model = unet(2, 1, "transpose")
    write_weights(tmp_path / "weights.npz", model.get_weights())
    shape = {"width": 2, "depth": 1, "upsampling": "transpose", "scale": 0.5}
    (tmp_path / "network.json").write_text(json.dumps(shape))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    network = open_network(tmp_path, "segmenter")
    expected = np.asarray(model(pixels.astype(np.float32) / 255))
    np.testing.assert_allclose(network.run(pixels), expected, atol=1e-6)
    with pytest.raises(UsageError, match=r"rbcedge train fields bundle"):
        open_network(tmp_path, "classifier")
    (tmp_path / "network.json").write_text(json.dumps(shape | {"width": 4}))
    with pytest.raises(RbcedgeError, match="not the folder of a trained segmenter"):
        open_network(tmp_path, "segmenter")


def test_the_papers_up_sampling_works_on_any_size_in_tflite() -> None:
    from keras import Model, layers
    from rbcedge.convert.making import OneSizeError
    from rbcedge.convert.upsampling import merged
    from rbcedge.training.networks import unet

    model = unet(2, 2, "paper")
    pixels = np.random.default_rng(0).random((2, 24, 40, 3), np.float32)
    assert not any("UpSampling2D" in type(layer).__name__ for layer in merged(model).layers)
    np.testing.assert_allclose(np.asarray(merged(model)(pixels)), np.asarray(model(pixels)), atol=1e-6)
    # Converted, it is compared on two sizes, neither that of the layout.
    (made,) = make(Network("segmenter", "unet", keras=model), load(default_folder()), [("tflite", "fp32")])
    assert made.deviation < 1e-4

    inputs = layers.Input((None, None, 3))
    x = layers.UpSampling2D(2)(layers.MaxPooling2D(2)(inputs))
    tied = Model(inputs, layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x))
    assert merged(tied) is tied, "a 3x3 convolution is not merged"
    with pytest.raises(OneSizeError, match="one picture size only"):
        list(make(Network("segmenter", "tied", keras=tied), load(default_folder()), [("tflite", "fp32")]))
