"""The ONNX Runtime engine, and the table from which engines are chosen."""

from __future__ import annotations

import os
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the 'convert' extra")
pytest.importorskip("onnxruntime", reason="needs the 'onnx' extra")

from onnx_models import classifier, dark, dark_segmenter, half_input, unknown_operator

from rbcedge import bundle
from rbcedge.engines import loading, onnx
from rbcedge.engines.onnx import OnnxEngine
from rbcedge.errors import RbcedgeError, UsageError


def _engine(folder: Path, data: bytes, **options: Any) -> OnnxEngine:
    path = folder / "network.onnx"
    path.write_bytes(data)
    return OnnxEngine(path, "fp32", **options)


def _pixels(n: int, h: int = 12, w: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, h, w, 3), np.uint8)


@pytest.mark.parametrize("n", [0, 1, 32, 33, 70])
def test_any_number_of_pictures_of_any_size(tmp_path: Path, n: int) -> None:
    engine = _engine(tmp_path, dark_segmenter())
    for h, w in ((12, 20), (7, 5)):
        pixels = _pixels(n, h, w)
        got = engine.infer(pixels)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, dark(pixels), atol=1e-4)


def test_results_are_the_callers_own(tmp_path: Path) -> None:
    engine = _engine(tmp_path, dark_segmenter())
    first, pixels = engine.infer(_pixels(2)), _pixels(2)
    kept = first.copy()
    engine.infer(_pixels(2, seed=9))
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(engine.infer(pixels), kept)


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    engine = _engine(tmp_path, dark_segmenter(batch=4))
    assert engine.input_shape[0] == 4
    pixels = _pixels(7)
    np.testing.assert_allclose(engine.infer(pixels), dark(pixels), atol=1e-4)


def test_another_size_than_the_network_takes_is_said(tmp_path: Path) -> None:
    engine = _engine(tmp_path, dark_segmenter(size=(12, 20)))
    assert engine.infer(_pixels(1)).shape == (1, 12, 20, 1)
    with pytest.raises(RbcedgeError, match=r"takes pictures of 20x12 px at working resolution, this one is 24x12"):
        engine.infer(_pixels(1, 12, 24))


def test_few_sizes_are_kept_in_memory(tmp_path: Path) -> None:
    engine = _engine(tmp_path, dark_segmenter())
    for k in range(1, 30):
        engine.infer(_pixels(1, k, k))
    assert len(engine._buffers) <= 4
    engine.close()
    engine.close()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"nothing", "not a network ONNX Runtime can run"),
        (unknown_operator(), "not a network ONNX Runtime can run .*Magic"),
        (dark_segmenter(first=True), r"one \(N, H, W, 3\) input"),
        (half_input(), r"tensor\(float16\); float32 is needed"),
    ],
)
def test_a_file_that_will_not_do_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(RbcedgeError, match=message) as error:
        _engine(tmp_path, data)
    assert str(tmp_path / "network.onnx") in str(error.value)


def test_a_network_that_fails_inside_says_on_what(tmp_path: Path) -> None:
    from onnx import helper
    from onnx_models import _bytes

    nodes = [helper.make_node("Reshape", ["pixels", "shape"], ["out"], name="reshape")]
    engine = _engine(tmp_path, _bytes(nodes, {"shape": np.array([1, 4, 4, 3])}, ("n", "h", "w", 3), ("n", "h", "w", 3)))
    with pytest.raises(RbcedgeError, match="failed on pictures of 5x5 px"):
        engine.infer(_pixels(1, 5, 5))


def test_without_onnx_runtime_the_way_to_install_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RbcedgeError, match=r"pip install 'rbcedge\[onnx\]'"):
        onnx.runtime()
    row = next(r for r in loading.RUNTIMES if r.name == "onnx")
    assert "rbcedge[onnx]" in (row.problem() or "")


class _Runtime(types.SimpleNamespace):
    """ONNX Runtime built with CUDA, with or without a GPU that starts."""

    def __init__(self, starts: bool, raises: bool = False) -> None:
        import onnxruntime

        real = onnxruntime.InferenceSession

        def session(path: str, options: Any, providers: list[str]) -> Any:
            if providers == ["CUDAExecutionProvider"]:
                if raises:
                    raise RuntimeError("CUDA failure 100: no device")
                made = real(path, options, providers=["CPUExecutionProvider"])
                if starts:
                    made.get_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
                return made
            return real(path, options, providers=providers)

        super().__init__(
            InferenceSession=session,
            SessionOptions=onnxruntime.SessionOptions,
            get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        )


@pytest.mark.parametrize(
    ("starts", "raises", "name"), [(True, False, "onnx-cuda"), (False, False, "onnx"), (False, True, "onnx")]
)
def test_the_name_says_what_really_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starts: bool, raises: bool, name: str
) -> None:
    runtime = _Runtime(starts, raises)
    monkeypatch.setattr(onnx, "runtime", lambda: runtime)
    engine = _engine(tmp_path, dark_segmenter())
    assert engine.name == name
    assert engine.infer(_pixels(1)).shape == (1, 12, 20, 1)


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """The shipped bundle with ONNX networks beside the others."""
    import json

    folder = tmp_path / "both"
    shutil.copytree(bundle.default_folder(), folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["artefacts"] = [a for a in manifest["artefacts"] if a["format"] == "tflite"]
    for role, data in (("segmenter", dark_segmenter()), ("classifier", classifier(8))):
        (folder / f"{role}.onnx").write_bytes(data)
        manifest["artefacts"].append(bundle.describe(role, "onnx", "fp32", folder / f"{role}.onnx").entry())
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_auto_takes_the_first_engine_that_serves(both: Path) -> None:
    b = bundle.load(both)
    assert {e.name for e in loading.load_engines(b, "onnx")} == {"onnx"}
    cpu = [r for r in loading.RUNTIMES if r.name in ("litert", "onnx")]
    assert [r.name for r in cpu] == ["litert", "onnx"], "on a CPU LiteRT is faster"
    assert {e.name for e in loading.load_engines(b, "litert", "fp32")} == {"litert"}


def test_auto_goes_past_engines_that_cannot_be_used(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    b = bundle.load(both)
    broken = tuple(r if r.name == "onnx" else replace(r, problem=lambda: "it is broken.") for r in loading.RUNTIMES)
    monkeypatch.setattr(loading, "RUNTIMES", broken)
    assert {e.name for e in loading.load_engines(b)} == {"onnx"}
    with pytest.raises(RbcedgeError, match="it is broken"):
        loading.load_engines(b, precision="int8")
    with pytest.raises(RbcedgeError, match="it is broken"):
        loading.load_engines(b, "litert")


def test_networks_a_bundle_has_not_are_said_with_those_it_has(both: Path) -> None:
    b = bundle.load(both)
    with pytest.raises(RbcedgeError, match=r"no onnx segmenter in fp16; it has onnx fp32, tflite fp32, tflite int8"):
        loading.load_engines(b, "onnx", "fp16")
    with pytest.raises(RbcedgeError, match="no pair of networks in fp16 that an engine here can run"):
        loading.load_engines(b, "auto", "fp16")
    with pytest.raises(UsageError, match="Unknown engine 'warp'"):
        loading.load_engines(b, "warp")


def test_cores_are_counted_where_affinity_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert loading.cores() == (os.cpu_count() or 1)
