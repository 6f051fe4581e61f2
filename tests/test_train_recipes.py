"""Recipes, batches, checkpoints and networks of the protocol, without a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rbcedge.training import checkpoint
from rbcedge.training.checkpoint import Checkpoint
from rbcedge.training.networks import NETWORKS, chosen, classifier, network, unet
from rbcedge.training.protocol import class_weights
from rbcedge.training.protocol_batches import Batches, Part, change
from rbcedge.training.protocol_options import parse_folds, parse_slides
from rbcedge.training.recipes import CLASSIFIER, SEGMENTER, classifier_recipe, limited, segmenter_recipe

from rbcedge.errors import RbcedgeError, UsageError


def test_the_papers_recipe_is_as_in_section_4_4() -> None:
    r = CLASSIFIER["paper"]
    assert (r.optimiser, r.rate, r.divide, r.gain, r.patience, r.stop, r.batch) == ("adam", 4e-4, 10, 1e-4, 4, 10, 32)
    assert (r.change, r.originals, r.smoothing, r.balance) == ("flips and rotations", True, 0, 1)
    s, u = SEGMENTER["paper"]
    assert (s.change, s.rate, u.width, u.depth, u.upsampling, u.norm) == ("flips", 4e-4, 64, 4, "paper", "after")


def test_class_weights_are_equation_1() -> None:
    np.testing.assert_allclose(class_weights([10, 30, 60]), [100 / 30, 100 / 90, 100 / 180], rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: classifier_recipe("best"),
        lambda: classifier_recipe("rbcedge", weighted=True),
        lambda: segmenter_recipe("paper", 0),
        lambda: limited(CLASSIFIER["paper"], epochs=0),
        lambda: limited(CLASSIFIER["paper"], norm_momentum=1.0),
        lambda: parse_folds("5"),
        lambda: parse_folds("0x2"),
        lambda: parse_slides(" , "),
        lambda: network("alexnet"),
        lambda: chosen("everything"),
    ],
)
def test_wrong_options_are_usage_errors(make: object) -> None:
    with pytest.raises(UsageError):
        make()  # type: ignore[operator]


def test_options_are_read() -> None:
    assert parse_folds("5x2") == (5, 2)
    assert parse_slides("4, 13") == ("4", "13")
    assert parse_slides(None) is None
    assert chosen("all") == tuple(NETWORKS)
    assert chosen("ResNet50") == ("resnet50",)


def _part(n: int = 10, side: int = 16) -> Part:
    rng = np.random.default_rng(0)
    pixels = np.zeros((n, side, side, 3), np.uint8)
    pixels[:, 4:12, 5:12] = rng.integers(1, 255, (n, 8, 7, 3), np.uint8)
    return Part(pixels, np.arange(n) % 3, True)


def test_an_epoch_holds_every_original_and_a_changed_picture_of_each() -> None:
    b = Batches(_part(), replace(CLASSIFIER["paper"], batch=4), (0, 1, 1))
    assert b.number == 5
    assert sorted(b.rows(0).ravel()) == list(range(20))
    assert (b.rows(0) != b.rows(1)).any()
    pixels, targets = b.make(0, 0)
    assert pixels.shape == (4, 16, 16, 3)
    for k, row in enumerate(b.rows(0)[0]):
        same = np.array_equal((pixels[k] * 255).round().astype(np.uint8), _part().pixels[row % 10])
        assert same == (row < 10)
        assert targets[k] == _part().targets[row % 10]


def test_batches_depend_on_nothing_but_their_number() -> None:
    make = Batches(_part(), replace(CLASSIFIER["rbcedge"], batch=4), (0, 1, 1)).make
    first = make(2, 1)
    make(0, 0)
    for a, b in zip(first, make(2, 1), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (make(3, 1)[0] != first[0]).any()


def test_the_last_batch_is_full_and_steps_limit_an_epoch() -> None:
    recipe = replace(CLASSIFIER["paper"], batch=8)
    assert Batches(_part(), recipe, (0,)).rows(0).shape == (3, 8)
    assert Batches(_part(), recipe, (0,), steps=2).number == 2
    assert Batches(_part(1), recipe, (0,)).make(0, 0)[0].shape == (8, 16, 16, 3)


def test_rare_classes_are_drawn_more_often() -> None:
    part = _part(400)
    targets = np.zeros(400, np.int64)
    targets[:20] = 1
    b = Batches(Part(part.pixels, targets, True), replace(CLASSIFIER["rbcedge"], balance=0.0), (0,))
    share = targets[b.rows(0).ravel()].mean()
    assert 0.4 < share < 0.6


@pytest.mark.parametrize("how", ["flips", "flips and rotations", "microscopes"])
def test_a_changed_cell_stays_a_cell_on_black(how: str) -> None:
    rng = np.random.default_rng(1)
    part = _part(1)
    mask = (part.pixels[0].any(axis=2)).astype(np.uint8)
    for _ in range(10):
        pixels, moved = change(rng, part.pixels[0], mask, how, True)
        assert moved is not None
        assert pixels.shape == (16, 16, 3)
        assert 0.6 < moved.sum() / mask.sum() < 1.5
        shown = pixels.any(axis=2)
        # At the outline colours are mixed; farther out everything stays zero.
        import cv2

        assert not shown[cv2.dilate(moved, np.ones((5, 5), np.uint8)) == 0].any()


def test_flips_change_the_place_of_pixels_only() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (9, 9, 3), np.uint8)
    kinds = {pixels.tobytes(), pixels[::-1].tobytes(), pixels[:, ::-1].tobytes(), pixels[::-1, ::-1].tobytes()}
    seen = {change(rng, pixels, None, "flips", False)[0].tobytes() for _ in range(40)}
    assert seen == kinds


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    assert checkpoint.read(path, "a") is None
    weights = [np.random.default_rng(0).random((3, 4), np.float32), np.zeros(2, np.int64)]
    checkpoint.write(path, Checkpoint("a", {"weights": weights, "moments": [np.float32(0.1)]}, {"sum": 0.1 + 0.2}))
    found = checkpoint.read(path, "a")
    assert found is not None
    assert found.state["sum"] == 0.1 + 0.2
    for one, two in zip(weights, found.groups["weights"], strict=True):
        np.testing.assert_array_equal(one, two)
        assert one.dtype == two.dtype
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    checkpoint.write(path, Checkpoint("resnet50", {"weights": []}, {}))
    with pytest.raises(RbcedgeError, match="a checkpoint of resnet50, not of xception"):
        checkpoint.read(path, "xception")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RbcedgeError, match="not a checkpoint"):
        checkpoint.read(path, "resnet50")


#: Building these takes more than a few seconds.
_LARGE = ("densenet121", "convnexttiny", "efficientnetv2b0", "mobilenetv3large")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in _LARGE else n for n in NETWORKS])
def test_parameters_are_those_of_table_5(name: str) -> None:
    pytest.importorskip("tensorflow", reason="needs the 'train' extra")
    model = classifier(name, 8, "none", 80)
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables) / 1e6
    # The table rounds down to a tenth for some.
    assert trainable == pytest.approx(NETWORKS[name].parameters_m, rel=0.04)
    assert model.output.shape == (None, 8)


def test_a_side_that_is_too_small_is_refused() -> None:
    pytest.importorskip("tensorflow", reason="needs the 'train' extra")
    with pytest.raises(UsageError, match="xception needs crops of 71 px"):
        classifier("xception", 8, "none", 56)


def test_batch_norm_stands_where_it_is_wanted() -> None:
    pytest.importorskip("tensorflow", reason="needs the 'train' extra")
    kinds = {}
    for norm in ("before", "after"):
        names = [type(x).__name__ for x in unet(2, 1, norm=norm, shape=(16, 16, 3)).layers]
        kinds[norm] = [n for n in names if n in ("BatchNormalization", "ReLU")][:2]
    assert kinds == {"before": ["BatchNormalization", "ReLU"], "after": ["ReLU", "BatchNormalization"]}


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ("0..255", [255.0, 127.5, 0.0]),
        ("-1..1", [1.0, 0.0, -1.0]),
        ("torch", [(1 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0 - 0.406) / 0.225]),
        ("caffe", [0 - 103.939, 127.5 - 116.779, 255 - 123.68]),
    ],
)
def test_pixels_are_scaled_as_each_network_expects(scaling: str, expected: list[float]) -> None:
    pytest.importorskip("tensorflow", reason="needs the 'train' extra")
    from keras import Model, layers
    from rbcedge.training.networks import _scaled

    inputs = layers.Input((1, 1, 3))
    model = Model(inputs, _scaled(inputs, scaling))  # type: ignore[arg-type]
    out = np.asarray(model(np.array([[[[1.0, 0.5, 0.0]]]], np.float32))).ravel()
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
