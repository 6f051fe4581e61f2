"""`rbcedge bench` as a user calls it, with made-up networks."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from cli_help import Cli
from session_fakes import disc_picture, fake_engines, make_bundle, write_pictures


@pytest.fixture
def bench(call: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Call `rbcedge bench` with a bundle of made-up networks."""
    monkeypatch.setattr("rbcedge.engines.loading.load_engines", fake_engines)
    monkeypatch.setattr("rbcedge.bench.series.copy_speed", lambda: 1e10)
    monkeypatch.setenv("COLUMNS", "80")
    make_bundle(tmp_path / "bundle")

    return lambda *arguments: call("bench", "--bundle", tmp_path / "bundle", "--scale", 1, *arguments)


def test_pictures_are_measured_written_and_compared(bench, tmp_path: Path) -> None:
    slides = write_pictures(tmp_path / "slides", 3)
    result = tmp_path / "a.json"
    code, out, err = bench(slides, "-n", 4, "--warm-up", 1, "--json", result)
    assert (code, err) == (0, "")
    for word in ("capture to count", "segment", "classify", "a field at rest", "cells found in each", "320x240"):
        assert word in out
    content = json.loads(result.read_text())
    assert len(content["runs"][0]["fresh"]["total_ms"]) == 4
    assert content["machine"]["cpu"]
    code, out, _ = bench(slides, "-n", 4, "--warm-up", 1, "--compare", result)
    assert code == 0
    assert "now : before" in out


def test_simulated_fields_in_a_sweep(bench, tmp_path: Path) -> None:
    figure = tmp_path / "a.png"
    arguments = ["--sizes", "160x120,240x160", "--cells", "3,60", "-n", 2, "--warm-up", 0]
    code, out, err = bench(*arguments, "--figure", figure)
    assert (code, err) == (0, "")
    assert "all cases" in out
    assert "left out: 60 cells do not fit into 160x120" in out
    assert cv2.imread(str(figure)) is not None


def test_a_source_of_the_simulator_is_drawn_beforehand(bench) -> None:
    code, out, _ = bench("sim:?size=160x120&seed=3", "-n", 9, "--warm-up", 0)
    assert code == 0
    assert "simulated fields: 9 different" in out or "every picture a new one" in out
    assert "160x120" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-n", 1], 2, "--frames"),
        (["-n", "many"], 2, "--frames"),
        (["--sizes", "big"], 2, "--sizes big"),
        (["--cells", "0"], 2, "--cells 0"),
        (["--cells", "4000"], 2, "4000 cells do not fit into 640x480"),
        (["--engine", "all"], 1, "no engine can be measured here"),
        (["--compare", "none.json"], 2, "no such file"),
        (["--json", "no/such/folder/a.json"], 2, "there is no folder"),
        (["--camera", "0", "sim:"], 2, "not both"),
        (["nowhere.png"], 1, "no such file or folder"),
        (["--scale", "huge"], 2, "--scale huge"),
    ],
)
def test_bad_wishes_are_named(bench, arguments: list[object], code: int, message: str) -> None:
    got, _, err = bench(*arguments)
    assert got == code
    assert message in err
    assert "Traceback" not in err


def test_bad_sources_are_named(bench, tmp_path: Path) -> None:
    one = write_pictures(tmp_path / "one", 1)
    code, _, err = bench(one, "-n", 4)
    assert code == 1
    assert "holds one picture" in err
    glass = tmp_path / "glass"
    glass.mkdir()
    for k in range(2):
        cv2.imwrite(str(glass / f"{k}.png"), disc_picture([]))
    code, _, err = bench(glass, "-n", 4)
    assert code == 1
    assert "no cell was found" in err
    code, _, err = bench(one, "--cells", 5)
    assert code == 2
    assert "--cells is for simulated fields" in err


def test_another_file_is_not_compared(bench, tmp_path: Path) -> None:
    slides = write_pictures(tmp_path / "slides", 2)
    other = tmp_path / "b.json"
    other.write_text('{"kind": "rbcedge bench", "schema": 7}')
    code, out, err = bench(slides, "--compare", other)
    assert code == 1
    assert "has schema 7" in err
    assert "capture to count" not in out


def test_without_matplotlib_a_figure_is_refused_in_words(bench, tmp_path: Path, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, out, err = bench(write_pictures(tmp_path / "s", 2), "-n", 2, "--figure", tmp_path / "a.png")
    assert code == 1
    assert "--figure needs matplotlib" in err
    assert "capture to count" in out
