"""The paper in miniature, from drawing the slides to the last figure, through the command line.

Tiny networks stand in for the nine; everything else is what `benchmarks/paper_mini.py` runs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rbcedge.cli import main

pytest.importorskip("matplotlib")
keras = pytest.importorskip("keras", reason="needs the 'train' extra")
pytestmark = [pytest.mark.filterwarnings(f"ignore::{w}Warning") for w in ("User", "Deprecation", "Future")]

from rbcedge.training import networks  # noqa: E402


def _tiny(name: str, classes: int, weights: str, side: int, *_: object, **__: object) -> keras.Model:
    pixels = keras.Input((side, side, 3))
    x = keras.layers.Conv2D(4, 5, 4, activation="relu")(pixels)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, keras.layers.Dense(classes, activation="softmax")(x), name=name)


def _rbcedge(*arguments: object) -> None:
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    assert left.value.code == 0, arguments


@pytest.mark.slow
def test_every_table_and_figure_from_25_simulated_slides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(networks, "classifier", _tiny)
    cells, runs = tmp_path / "cells", tmp_path / "runs"
    short = ("--side", 16, "--epochs", 1, "--steps", 1, "--quiet")
    classifier = ("train", "classifier", "--data", cells, "--weights", "none", *short)
    _rbcedge("train", "simulate", cells, "--cells", 12)
    _rbcedge("train", "segmenter", "--data", cells, "--out", runs / "unet", "--width", 2, *short)
    _rbcedge(*classifier, "--out", runs / "b0")
    _rbcedge(*classifier, "--weighted", "--out", runs / "weighted")
    _rbcedge(*classifier, "--no-segmentation", "--out", runs / "plain")
    _rbcedge(*classifier, "--network", "mobilenetv3small", "--out", runs / "other")
    capsys.readouterr()
    _rbcedge("evaluate", "segmenter", runs, "--out", tmp_path / "segmentation")
    _rbcedge("evaluate", "classifier", runs, "--out", tmp_path / "classification")
    assert "not made" not in capsys.readouterr().out
    names = {p.name for part in ("segmentation", "classification") for p in (tmp_path / part).iterdir()}
    for table in ("table-3", "table-4a", "table-4b", "table-5", "table-6", "table-7", "table-8"):
        assert {f"{table}.md", f"{table}.csv"} <= names
    assert {"figure-6.png", "figure-7.png", "figure-8.png", "figure-reliability.png", "figure-cell-iou.png"} <= names
    page = (tmp_path / "classification" / "report.md").read_text()
    assert "10 of 10" in page
    # The simulated set has the paper's test slides.
    assert "| 13 | 4 |" in (tmp_path / "classification" / "table-8.md").read_text()
