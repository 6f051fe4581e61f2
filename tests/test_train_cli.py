"""Bad input to `rbcedge train`, as a user meets it: one plain line that says what, where and what to do; no traces."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training_trees as trees

from rbcedge.cli import main

keras = pytest.importorskip("keras", reason="needs the 'train' extra")
pytestmark = [pytest.mark.filterwarnings(f"ignore::{w}Warning") for w in ("User", "Deprecation", "Future")]

from rbcedge.training import checkpoint, networks  # noqa: E402

_SIDE = 32


def _tiny(name: str, classes: int, weights: str, side: int, *_: object, **__: object) -> Any:
    pixels = keras.Input((side, side, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 5, 4, activation="relu")(pixels))
    model = keras.Model(pixels, keras.layers.Dense(classes, activation="softmax")(x), name=name)
    if weights != "none":
        networks.load_weights(model, Path(weights))
    return model


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "classifier", _tiny)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return trees.elsafty(tmp_path / "data", slides=range(1, 9), each=2)


def _train(data: Path, out: Path, *more: object, task: str = "classifier") -> int:
    arguments = ["train", task, "--data", data, "--out", out, "--side", _SIDE, "--epochs", 1, "--steps", 1, "--quiet"]
    if task == "classifier":
        arguments += ["--folds", "1x1", *(() if "--weights" in more else ("--weights", "none"))]
    else:
        arguments += ["--width", 2]
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in (*arguments, *more)])
    return int(left.value.code or 0)


def _map(path: Path, folders: dict[str, str]) -> Path:
    path.write_text(json.dumps({"folders": folders}))
    return path


def _empty_class(data: Path) -> tuple[object, ...]:
    for tree in data.iterdir():
        if tree.is_dir():
            shutil.rmtree(tree / "03_teardrops")
            (tree / "03_teardrops").mkdir()
    return ()


def _one_slide(data: Path) -> tuple[object, ...]:
    for path in data.rglob("*.png"):
        if not path.name.startswith("Slide 1 "):
            path.unlink()
    return ()


def _no_masks(data: Path) -> tuple[object, ...]:
    shutil.rmtree(data / "masks")
    shutil.rmtree(data / "segmented cells")
    return ()


def _some_masks(data: Path) -> tuple[object, ...]:
    shutil.rmtree(data / "segmented cells")
    next((data / "masks").rglob("*.png")).unlink()
    return ()


def _unknown_folder(data: Path) -> tuple[object, ...]:
    return "--class-map", _map(data.parent / "map.json", {"01_rounded*": "NOR", "10_sickle*": "SIC"})


def _class_map_gone(data: Path) -> tuple[object, ...]:
    return "--class-map", data.parent / "gone.json"


def _unreadable(data: Path) -> tuple[object, ...]:
    for path in sorted((data / "cropped images").rglob("*.png"))[:3]:
        path.write_bytes(b"no picture")
    return ()


def _empty_masks(data: Path) -> tuple[object, ...]:
    import cv2

    for path in (data / "masks").rglob("*.png"):
        cv2.imwrite(str(path), np.zeros((_SIDE, _SIDE), np.uint8))
    return ()


def _gone(data: Path) -> tuple[object, ...]:
    shutil.rmtree(data)
    return ()


def _class_on_one_slide(data: Path) -> tuple[object, ...]:
    for path in data.rglob("*.png"):
        if path.parent.name == "03_teardrops" and not path.name.startswith("Slide 2 "):
            path.unlink()
    return ()


@pytest.mark.parametrize(
    ("spoil", "code", "said"),
    [
        (_empty_class, 1, "no cell of class TEA (there: NOR 16, TWO 16)"),
        (_one_slide, 1, "1 slide only. Training, validation and test need a slide each"),
        (_no_masks, 1, "48 of 48 cells have no mask"),
        (_some_masks, 1, "1 of 48 cells have no mask"),
        (_unknown_folder, 1, "no folder of the data set is called '10_sickle*'. Folders there: 01_rounded_rbcs"),
        (_class_map_gone, 1, "the class map cannot be read (No such file"),
        (_unreadable, 1, "3 of 48 cells cannot be read; the first: "),
        (_empty_masks, 1, "48 of 48 cells cannot be read; the first: "),
        (_gone, 1, "no such folder"),
        (_class_on_one_slide, 1, "has no cell of class TEA. Choose other --test-slides"),
        (lambda data: ("--layout", "zip"), 2, "No layout 'zip'; known: elsafty, folders, bccd, erythrocytesidb."),
        (lambda data: ("--test-slides", "99"), 1, "Test slides 99 are not in the set. Slides there: 1, 2, 3"),
        (lambda data: ("--recipe", "best"), 2, "No recipe 'best'; known: paper, rbcedge."),
        (lambda data: ("--weights", data / "lost.npz"), 1, "lost.npz: no such weights file"),
    ],
)
@pytest.mark.parametrize("task", ["classifier", "segmenter"])
def test_bad_input_is_said_in_a_line_and_leaves_nothing(
    data: Path,
    tmp_path: Path,
    spoil: Callable[[Path], tuple[object, ...]],
    code: int,
    said: str,
    task: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert _train(data, tmp_path / "out", *spoil(data), task=task) == code
    err = [line for line in capfd.readouterr().err.splitlines() if line.startswith("rbcedge: ")]
    assert len(err) == 1
    assert said in err[0]
    assert not (tmp_path / "out").exists()


def test_missing_masks_do_not_matter_to_crops_as_they_are(data: Path, tmp_path: Path) -> None:
    _no_masks(data)
    assert _train(data, tmp_path / "out", "--no-segmentation") == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["diameter_px"] is None


def test_a_set_of_segmented_crops_does_not_pass_for_plain_ones(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(data / "cropped images")
    for more, task in ((("--no-segmentation",), "classifier"), ((), "segmenter")):
        assert _train(data, tmp_path / "out", *more, task=task) == 1
        assert "48 of 48 cells have no plain crop, only a segmented picture" in capfd.readouterr().err
        assert not (tmp_path / "out").exists()
    assert _train(data, tmp_path / "out") == 0


def test_weights_of_another_network_are_refused(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert _train(data, tmp_path / "unet", task="segmenter") == 0
    for file in ("model.keras", "folds/r1f1/weights.npz"):
        assert _train(data, tmp_path / "out", "--weights", tmp_path / "unet" / file) == 1
        assert "these are not weights of efficientnetb0" in capfd.readouterr().err
        damaged = tmp_path / f"damaged{Path(file).suffix}"
        damaged.write_bytes((tmp_path / "unet" / file).read_bytes()[:200])
        assert _train(data, tmp_path / "out", "--weights", damaged) == 1
        assert f"{damaged.name}: these are not weights of efficientnetb0" in capfd.readouterr().err
    # Nothing stands in the way of the next try.
    assert _train(data, tmp_path / "out") == 0


def test_a_checkpoint_or_a_run_of_another_network_is_refused(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert _train(data, out) == 0
    assert _train(data, out, "--network", "resnet50") == 1
    assert "out holds another run: network is efficientnetb0 there, resnet50 now. Give another --out." in (
        capfd.readouterr().err
    )
    assert _train(data, out, task="segmenter") == 1
    assert "task is classifier there, segmenter now" in capfd.readouterr().err
    # As after an interruption, with the file of another training put in its place.
    about = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**about, "finished": False}))
    fold = out / "folds" / "r1f1"
    (fold / "fold.json").unlink()
    checkpoint.write(fold / "checkpoint.npz", checkpoint.Checkpoint("resnet50", {"weights": []}, {}))
    assert _train(data, out) == 1
    assert "a checkpoint of resnet50, not of efficientnetb0. Give another --out, or remove the file." in (
        capfd.readouterr().err
    )
    (fold / "checkpoint.npz").write_bytes(b"PK")
    assert _train(data, out) == 1
    assert "not a checkpoint" in capfd.readouterr().err
    (fold / "checkpoint.npz").unlink()
    assert _train(data, out) == 0


def test_a_bundle_needs_a_finished_run_of_a_classifier(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _train(data, tmp_path / "unet", task="segmenter") == 0
    for run, said in ((tmp_path / "unet", "a finished run of 'rbcedge train classifier' is needed"),
                      (tmp_path / "none", "run.json: cannot be read")):  # fmt: skip
        with pytest.raises(SystemExit) as left:
            main(["train", "bundle", str(run), str(tmp_path / "bundle")])
        assert left.value.code == 1
        assert said in capfd.readouterr().err
        assert not (tmp_path / "bundle").exists()


def test_what_is_cut_from_must_be_the_set(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for arguments, code, said in (
        (["cut", tmp_path, tmp_path / "cells"], 1, "Give the folder of Chula-RBC-12"),
        (["simulate", tmp_path / "cells", "--cells", 3], 1, "at least 8 are needed, one of each class"),
        (["simulate", tmp_path / "cells", "--slides", 26], 2, "'--slides'"),
    ):
        with pytest.raises(SystemExit) as left:
            main(["train", *(str(a) for a in arguments)])
        assert left.value.code == code
        assert said in capfd.readouterr().err
        assert not (tmp_path / "cells").exists()
