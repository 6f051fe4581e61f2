"""`rbcedge train fields`: what it refuses, and that it hands over what it was given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rbcedge.training.weights import read_weights, write_weights

from rbcedge.cli import main


def _rbcedge(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    return int(left.value.code or 0)


def _lessons(work: Path) -> Path:
    for part in ("training", "simulated"):
        (work / part).mkdir(parents=True)
        for k, ignored in enumerate((0.0, 1.0)):
            np.savez(
                work / part / f"{k}.npz",
                pixels=np.full((60, 60, 3), 200, np.uint8),
                labels=np.zeros((60, 60), np.int16),
                ignore=np.full((60, 60), bool(ignored)),
                classes=np.zeros(0, np.int8),
            )
    return work


@pytest.mark.parametrize("command", ["segmenter", "classifier"])
def test_without_lessons_it_says_how_to_make_them(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _rbcedge("train", "fields", command, "--work", tmp_path, "--out", tmp_path / "out") == 1
    text = capsys.readouterr().err
    assert "no lessons. Run 'rbcedge train fields prepare' first." in text
    assert text.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_bundle_of_untrained_networks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "fields", "bundle", tmp_path / "b", "--work", _lessons(tmp_path / "w")]
    arguments += ["--segmenter", tmp_path / "s", "--classifier", tmp_path / "c"]
    assert _rbcedge(*arguments) == 1
    assert "s: no trained weights. Run 'rbcedge train fields segmenter' first." in capsys.readouterr().err
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "weights.npz").touch()
    assert _rbcedge(*arguments) == 1
    assert "c: no trained weights. Run 'rbcedge train fields classifier' first." in capsys.readouterr().err
    for content, what in (("{", "cannot be read as JSON"), ("[1]", "expected {")):
        (tmp_path / "about.json").write_text(content)
        assert _rbcedge(*arguments, "--about", tmp_path / "about.json") == 1
        assert what in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_a_folder_that_is_not_the_set_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _rbcedge("train", "fields", "prepare", tmp_path, "--work", tmp_path / "w") == 1
    assert "Give the folder of Chula-RBC-12" in capsys.readouterr().err
    assert _rbcedge("train", "fields", "prepare", tmp_path, "--simulated", -1) == 2


def test_what_is_given_is_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorflow", reason="needs the 'train' extra")
    from rbcedge.training import classifier, export, segmenter

    got: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def keep(name: str) -> Any:
        return lambda *a, **k: got.update({name: (a, k)})

    monkeypatch.setattr(segmenter, "train", keep("segmenter"))
    monkeypatch.setattr(classifier, "train", keep("classifier"))
    monkeypatch.setattr(classifier, "Draw", lambda *examples: examples)
    monkeypatch.setattr(export, "export", keep("bundle"))
    work, out = _lessons(tmp_path / "w"), tmp_path / "out"
    shared = ("--work", work, "--out", out, "--steps", 7, "--seed", 3)
    assert _rbcedge("train", "fields", "segmenter", *shared, "--width", 4) == 0
    (real, simulated, folder, width), options = got["segmenter"]
    # Of the real lessons the one that is unknown nearly everywhere is left out.
    assert (len(real), len(simulated), folder, width) == (1, 2, out, 4)
    assert options == {"steps": 7, "weights": None, "rate": 2e-3, "seed": 3}
    assert _rbcedge("train", "fields", "classifier", *shared, "--weights", "none") == 0
    assert got["classifier"][0][1] == out
    assert got["classifier"][1] == {"steps": 7, "weights": "none", "rate": 1.5e-3, "seed": 3}
    for name in ("s", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.npz").touch()
    (tmp_path / "about.json").write_text(json.dumps({"name": "mine"}))
    networks = ("--segmenter", tmp_path / "s", "--classifier", tmp_path / "c", "--about", tmp_path / "about.json")
    assert _rbcedge("train", "fields", "bundle", tmp_path / "b", "--work", work, *networks, "--onnx") == 0
    assert got["bundle"] == (
        (tmp_path / "s", tmp_path / "c", work / "training", tmp_path / "b"),
        {"onnx": True, "keras": None, "name": "mine"},
    )  # fmt: skip


def test_the_mean_of_two_trainings_is_a_training_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value, small in (("a", 1.0, 56), ("b", 3.0, 56), ("c", 3.0, 48)):
        (tmp_path / name).mkdir()
        write_weights(tmp_path / name / "weights.npz", [np.full((2, 3), value, np.float32), np.float32(value)])
        (tmp_path / name / "network.json").write_text(json.dumps({"small": small}))
    a, b, c, out = (tmp_path / n for n in ("a", "b", "c", "out"))
    assert _rbcedge("train", "fields", "mean", a, b, "--out", out) == 0
    matrix, scalar = read_weights(out / "weights.npz")
    np.testing.assert_array_equal(matrix, np.full((2, 3), 2))
    assert scalar == 2
    assert json.loads((out / "network.json").read_text()) == {"small": 56}
    capsys.readouterr()
    assert _rbcedge("train", "fields", "mean", a, b, "--out", out) == 1
    assert "out is there already" in capsys.readouterr().err
    assert _rbcedge("train", "fields", "mean", a, c, "--out", tmp_path / "new") == 1
    assert "not trainings of one and the same network" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
