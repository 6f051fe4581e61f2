"""Whole runs of the protocol on a network of a few hundred parameters: the real code, seconds."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training_trees as trees

pytest.importorskip("tensorflow", reason="needs the 'train' extra")
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

from rbcedge.training import networks, protocol, protocol_fit  # noqa: E402
from rbcedge.training.datasets import elsafty  # noqa: E402
from rbcedge.training.datasets.cellset import CellSet  # noqa: E402
from rbcedge.training.protocol import Settings, train_classifier, train_segmenter  # noqa: E402
from rbcedge.training.protocol_bundle import bundle as make_bundle  # noqa: E402
from rbcedge.training.recipes import CLASSIFIER, SEGMENTER, Recipe, Unet  # noqa: E402
from rbcedge.training.weights import read_weights, write_weights  # noqa: E402

from rbcedge import bundle as bundles  # noqa: E402
from rbcedge.engines import load_engines  # noqa: E402
from rbcedge.errors import RbcedgeError, UsageError  # noqa: E402
from rbcedge.frame import Frame  # noqa: E402
from rbcedge.pipeline.host import HostPipeline  # noqa: E402

SHORT = replace(CLASSIFIER["paper"], epochs=2, batch=8, norm_momentum=0.5, rate=0.02)


def _tiny(
    name: str, classes: int, weights: str = "none", side: int = 32, batch: int | None = None, dropout: float = 0.0
) -> Any:
    """A classifier with a batch norm and a random layer, in place of the large ones."""
    from keras import Model, layers

    inputs = layers.Input((side, side, 3), batch_size=batch, name="pixels")
    x = layers.BatchNormalization()(layers.Conv2D(6, 5, strides=4)(inputs))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    if dropout:
        x = layers.Dropout(dropout)(x)
    return Model(inputs, layers.Dense(classes, activation="softmax")(x), name=name)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "classifier", _tiny)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> CellSet:
    return elsafty.read(trees.elsafty(tmp_path_factory.mktemp("set"), slides=range(1, 9), each=2))


def _run(cells: CellSet, out: Path, recipe: Recipe = SHORT, watch: Any = None, **more: Any) -> protocol.Done:
    settings = Settings(recipe, side=32, test=("1", "14") if "14" in cells.slides() else ("1", "2"), seed=3)
    more = {"repetitions": 1, "folds": 2, **more}
    return train_classifier(cells, out, "mobilenetv3small", settings, watch=watch, **more)


def _weights(out: Path, fold: str) -> list[np.ndarray]:
    return read_weights(out / "folds" / fold / "weights.npz")


def _equal(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as f:
        return list(csv.DictReader(f))


def test_a_run_leaves_what_it_promises(cells: CellSet, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = _run(cells, out, weighted=True)
    rows = _rows(done.table)
    columns = ["cell", "slide", "scanner", "truth", "p_NOR", "p_TEA", "p_TWO", "fold", "repetition", "network"]
    assert list(rows[0]) == [*columns, "segmented", "weighted", "train_s", "test_s"]
    tested = [c for c in cells.cells if c.slide in ("1", "2")]
    assert [r["cell"] for r in rows] == [c.id for c in tested] * 2
    assert [r["fold"] for r in rows] == ["1"] * 12 + ["2"] * 12
    assert {(r["slide"], r["scanner"]) for r in rows} == {("1", "1"), ("2", "2")}
    assert {(r["network"], r["segmented"], r["weighted"]) for r in rows} == {("mobilenetv3small", "1", "1")}
    for r in rows:
        assert sum(float(r[f"p_{c}"]) for c in trees.CODES) == pytest.approx(1, abs=3e-6)
    about = json.loads((out / "run.json").read_text())
    assert about["finished"] is True
    assert about["codes"] == list(trees.CODES)
    assert about["diameter_px"] == pytest.approx(14, rel=0.1)
    assert about["recipe"]["rate"] == 0.02
    assert about["data"]["sha256"] == cells.sha256()
    for f in about["split"]["folds"]:
        assert not {*f["training"]} & {*f["validation"], "1", "2"}
    assert about["model_bytes"] == (out / "model.keras").stat().st_size
    log = _rows(out / "folds" / "r1f1" / "log.csv")
    assert [r["epoch"] for r in log] == ["1", "2"]
    assert not (out / "folds" / "r1f1" / "checkpoint.npz").exists()
    # A second call finds it finished.
    before = done.table.stat().st_mtime_ns
    assert _run(cells, out, weighted=True).about["finished"] is True
    assert done.table.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "recipe",
    [
        replace(SHORT, epochs=25),
        replace(CLASSIFIER["rbcedge"], epochs=40, batch=8, rate=0.02, norm_momentum=0.5, change="flips"),
    ],
    ids=["paper", "rbcedge"],
)
def test_it_learns(cells: CellSet, tmp_path: Path, recipe: Recipe) -> None:
    rows = _rows(_run(cells, tmp_path / "run", recipe, folds=1).table)
    right = np.mean([max(trees.CODES, key=lambda c: float(r[f"p_{c}"])) == r["truth"] for r in rows])
    assert right > 0.8


@pytest.mark.parametrize(("taken", "least", "most"), [(5, 0.7, 0.95), (20, 0.75, 0.95), (1000, 0.95, 0.98)])
def test_the_running_average_of_weights_forgets_the_beginning(taken: int, least: float, most: float) -> None:
    # A weight that goes from 0 to 1 on a straight line; the mean over all of it would be one half.
    average = 0.0
    for k in range(taken + 1):
        share = protocol_fit.kept(k)
        average = share * average + (1 - share) * k / taken
    assert least < average < most


@pytest.mark.parametrize(
    ("recipe", "stops"),
    [(SHORT, (2, 6, 5)), (replace(CLASSIFIER["rbcedge"], epochs=2, batch=8), (4,))],
    ids=["paper", "rbcedge"],
)
def test_interrupted_at_any_moment_it_comes_to_the_same_result(
    cells: CellSet, tmp_path: Path, recipe: Recipe, stops: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol_fit.fit, "__defaults__", (*protocol_fit.fit.__defaults__[:-1], 0.0))
    _run(cells, tmp_path / "whole", recipe)

    class Stop(protocol.Quiet):
        def __init__(self, after: int) -> None:
            self.left = after

        def told(self, told: object) -> None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    # Told after every batch: these are within an epoch, after one, and in the second fold.
    interruptions = 0
    for after in (*stops, 1000):
        try:
            _run(cells, tmp_path / "parts", recipe, watch=Stop(after))
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions == len(stops)
    for fold in ("r1f1", "r1f2"):
        assert _equal(_weights(tmp_path / "whole", fold), _weights(tmp_path / "parts", fold))
    whole, parts = (_rows(tmp_path / n / "predictions.csv") for n in ("whole", "parts"))
    for a, b in zip(whole, parts, strict=True):
        assert [a[k] for k in a if k not in ("train_s", "test_s")] == [
            b[k] for k in b if k not in ("train_s", "test_s")
        ]


def test_equal_seeds_give_equal_weights_and_others_do_not(cells: CellSet, tmp_path: Path) -> None:
    recipe = replace(SHORT, epochs=1, dropout=0.3)
    for name in ("a", "b"):
        _run(cells, tmp_path / name, recipe, folds=1)
    settings = Settings(recipe, side=32, test=("1", "2"), seed=4)
    train_classifier(cells, tmp_path / "c", "mobilenetv3small", settings, repetitions=1, folds=1)
    assert _equal(_weights(tmp_path / "a", "r1f1"), _weights(tmp_path / "b", "r1f1"))
    assert not _equal(_weights(tmp_path / "a", "r1f1"), _weights(tmp_path / "c", "r1f1"))


def test_another_run_in_the_same_folder_is_refused(cells: CellSet, tmp_path: Path) -> None:
    _run(cells, tmp_path, replace(SHORT, epochs=1), folds=1)
    with pytest.raises(RbcedgeError, match="weighted is False there, True now"):
        _run(cells, tmp_path, replace(SHORT, epochs=1), folds=1, weighted=True)
    with pytest.raises(RbcedgeError, match=r"recipe\.rate is 0\.02 there, 0\.01 now"):
        _run(cells, tmp_path, replace(SHORT, epochs=1, rate=0.01), folds=1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.txt").write_text("x")
    with pytest.raises(RbcedgeError, match="not empty"):
        _run(cells, other, folds=1)


def test_a_checkpoint_of_another_form_is_refused(cells: CellSet, tmp_path: Path) -> None:
    from rbcedge.training import checkpoint

    folder = tmp_path / "folds" / "r1f1"
    _run(cells, tmp_path, replace(SHORT, epochs=1), folds=1)
    (folder / "fold.json").unlink()
    about = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**about, "finished": False}))
    for name, match in (("resnet50", "a checkpoint of resnet50"), ("mobilenetv3small", "another mobilenetv3small")):
        checkpoint.write(folder / "checkpoint.npz", checkpoint.Checkpoint(name, {"weights": [np.zeros(3)]}, {}))
        with pytest.raises(RbcedgeError, match=match):
            _run(cells, tmp_path, replace(SHORT, epochs=1), folds=1)


def test_bad_data_is_refused_before_anything_is_written(cells: CellSet, tmp_path: Path) -> None:
    def refused(bad: CellSet, match: str) -> None:
        with pytest.raises(RbcedgeError, match=match):
            _run(bad, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    without = tuple(replace(c, mask=None, segmented=None) for c in cells.cells)
    refused(replace(cells, cells=without), "have no mask and no segmented picture")
    refused(replace(cells, cells=tuple(replace(c, slide="1") for c in cells.cells)), "1 slide only")
    refused(replace(cells, cells=tuple(replace(c, slide=None) for c in cells.cells)), "no known slide")
    refused(replace(cells, codes=(*cells.codes, "FRA")), "no cell of class FRA")
    with pytest.raises(UsageError, match="No network 'lenet'"):
        train_classifier(cells, tmp_path / "out", "lenet", Settings(SHORT, side=32))
    with pytest.raises(RbcedgeError, match="no such weights file"):
        train_classifier(cells, tmp_path / "out", "xception", Settings(SHORT, weights="lost.npz", side=32, test=("1",)))


def test_what_a_training_started_from_is_recorded(cells: CellSet, tmp_path: Path) -> None:
    file = tmp_path / "w.npz"
    write_weights(file, [np.zeros(3, np.float32)])
    known = {"file": "w.npz", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    for name, weights, recorded in (("a", "lite0", "lite0"), ("b", str(file), known)):
        settings = Settings(replace(SHORT, epochs=1), weights, side=32, test=("1", "2"))
        train_classifier(cells, tmp_path / name, "efficientnetb0", settings, repetitions=1, folds=1)
        assert json.loads((tmp_path / name / "run.json").read_text())["weights"] == recorded


def test_a_network_that_cannot_be_built_leaves_the_folder_free(
    cells: CellSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> Any:
        raise RbcedgeError("ImageNet weights could not be downloaded.")

    with monkeypatch.context() as patch:
        patch.setattr(networks, "classifier", offline)
        with pytest.raises(RbcedgeError, match="downloaded"):
            _run(cells, tmp_path / "run", folds=1)
    assert not (tmp_path / "run").exists()
    foreign = tmp_path / "other.weights.npz"
    write_weights(foreign, [np.zeros((3, 3), np.float32)])
    settings = Settings(SEGMENTER["paper"][0], weights=str(foreign), side=32)
    with pytest.raises(RbcedgeError, match="not weights of unet4"):
        train_segmenter(cells, tmp_path / "unet", Unet(4, 2, "paper", "after"), settings)
    assert not (tmp_path / "unet").exists()


def test_problems_of_a_set_are_kept_beside_the_run(cells: CellSet, tmp_path: Path) -> None:
    notes: list[str] = []

    class Listen(protocol.Quiet):
        def note(self, text: str) -> None:
            notes.append(text)

    odd = replace(cells, problems=("holiday.png: not used",))
    _run(odd, tmp_path, replace(SHORT, epochs=1), folds=1, watch=Listen())
    assert (tmp_path / "problems.txt").read_text() == "holiday.png: not used\n"
    assert any("holiday.png" in n for n in notes)
    assert any("has no slide of scanner" in n for n in notes)


def test_the_plateau_divides_the_rate_and_then_ends() -> None:
    recipe = CLASSIFIER["paper"]
    state: dict[str, Any] = {"level": None, "wait": 0, "since": 0, "rate": 4e-4}
    rates, epochs = [], 0
    # Better twice, then a gain that is too small to count, again and again.
    for k in range(40):
        protocol_fit._plateau(state, [1.0, 0.5][k] if k < 2 else 0.49995, recipe)
        rates.append(state["rate"])
        epochs += 1
        if protocol_fit._ended(state, recipe):
            break
    assert epochs == 12
    assert rates[4] == 4e-4
    assert rates[5] == pytest.approx(4e-5)
    assert rates[9] == pytest.approx(4e-6)


def test_a_segmenter_run(cells: CellSet, tmp_path: Path) -> None:
    recipe, _ = SEGMENTER["paper"]
    recipe = replace(recipe, epochs=14, batch=8, rate=5e-3, norm_momentum=0.5)
    settings = Settings(recipe, side=32, seed=1)
    done = train_segmenter(cells, tmp_path / "run", Unet(4, 2, "paper", "after"), settings)
    rows = _rows(done.table)
    assert list(rows[0]) == [
        "cell", "slide", "scanner", "truth", "tp", "fp", "fn", "tn", "objects", "matched", "network", "train_s",
        "test_s",
    ]  # fmt: skip
    for r in rows:
        union = sum(int(r[k]) for k in ("tp", "fp", "fn"))
        # A single object is the cell exactly where their pixels say so.
        if r["objects"] == "1":
            assert int(r["matched"]) == (2 * int(r["tp"]) > union)
    n = {k: sum(int(r[k]) for r in rows) for k in ("tp", "fp", "fn", "tn")}
    assert sum(n.values()) == len(rows) * 32 * 32
    assert n["tp"] / (n["tp"] + n["fp"] + n["fn"]) > 0.7
    assert {r["slide"] for r in rows} == set(done.about["split"]["test"])
    assert {r["network"] for r in rows} == {"unet4"}
    with pytest.raises(RbcedgeError, match="multiples of 16"):
        train_segmenter(cells, tmp_path / "x", Unet(4, 4, "paper", "after"), replace(settings, side=40))
    bare = tuple(replace(c, mask=None) for c in cells.cells)
    with pytest.raises(RbcedgeError, match="have no mask"):
        train_segmenter(replace(cells, cells=bare), tmp_path / "x", Unet(4, 2, "paper", "after"), settings)


def test_a_run_becomes_a_bundle_that_runs(cells: CellSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keras import Model
    from keras.saving import load_model

    done = _run(cells, tmp_path / "run", replace(SHORT, epochs=1), folds=1)
    base = bundles.load(bundles.default_folder())
    # These cells are so small that the pictures would have to be enlarged.
    with pytest.raises(RbcedgeError, match="enlarged"):
        make_bundle(done.out, tmp_path / "b")
    about = {**done.about, "diameter_px": 30.0}
    (done.out / "run.json").write_text(json.dumps(about))
    make_bundle(done.out, tmp_path / "b", name="mine")
    b = bundles.load(tmp_path / "b")
    assert (b.name, b.codes, b.crop_px, b.small_crop_px, b.rim_px) == ("mine", trees.CODES, 32, 32, 0)
    assert b.segmenter_scale == pytest.approx(base.segmenter_scale * base.diameter_px / 30)
    assert b.labels[2].cells == 2
    segmenter, classifier = load_engines(b, precision="fp32")
    crops = np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), np.uint8)
    model: Model = load_model(done.out / "model.keras", compile=False)
    expected = np.asarray(model(crops.astype(np.float32) / 255))
    np.testing.assert_allclose(classifier.infer(crops), expected, atol=1e-4)
    pipeline = HostPipeline(b, segmenter, classifier, scale=1.0)
    picture = np.full((160, 160, 3), 225, np.uint8)
    import cv2

    cv2.circle(picture, (80, 80), 15, (120, 80, 150), -1)
    field = pipeline.find(Frame(0, 0.0, picture, "x"))
    field = pipeline.classify(field, np.arange(len(field.cells)))
    assert field.cells.probabilities.shape == (len(field.cells), 3)
    with pytest.raises(RbcedgeError, match="not empty"):
        make_bundle(done.out, tmp_path / "b")
    (done.out / "run.json").write_text(json.dumps({**about, "finished": False}))
    with pytest.raises(RbcedgeError, match="finished run"):
        make_bundle(done.out, tmp_path / "c")
