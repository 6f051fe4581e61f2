"""On a real GPU with the real TensorRT: engines are built, cached, loaded and run. Skipped elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tensorrt_scenes import Watcher, onnx_bundle, onnx_network, pictures, reference

from rbcedge.bundle import Bundle
from rbcedge.engines import cuda
from rbcedge.engines.engine_cache import Refused
from rbcedge.engines.loading import load_engines
from rbcedge.engines.tensorrt_api import import_tensorrt, problem
from rbcedge.engines.tensorrt_building import Order, build
from rbcedge.engines.tensorrt_executor import open_executor
from rbcedge.engines.tensorrt_plan import Plan
from rbcedge.engines.tensorrt_shapes import crops
from rbcedge.errors import RbcedgeError

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800)]

#: Largest difference from ONNX Runtime that each precision may make on the tiny networks, in probability.
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "int8": 2e-2}


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reason = problem()
    if reason is not None:
        pytest.skip(reason)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))


def onnx_of(bundle: Bundle, role: str, precision: str) -> bytes:
    artefact = bundle.find(role, "onnx", (precision,))
    assert artefact is not None
    return bundle.path(artefact).read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engines_give_what_the_onnx_gives(tmp_path: Path, precision: str) -> None:
    bundle = onnx_bundle(tmp_path / "bundle", (precision,))
    segmenter, classifier = load_engines(bundle, "tensorrt", precision)
    try:
        for h, w in ((240, 320), (256, 336), (16, 16)):
            batch = pictures(1, h, w)
            wanted = reference(onnx_of(bundle, "segmenter", precision), batch)
            np.testing.assert_allclose(segmenter.infer(batch), wanted, atol=TOLERANCE[precision])
        for n, side in ((1, 56), (33, 80), (512, 56), (600, 80)):
            batch = pictures(n, side, side)
            wanted = reference(onnx_of(bundle, "classifier", precision), batch)
            np.testing.assert_allclose(classifier.infer(batch), wanted, atol=TOLERANCE[precision])
        assert classifier.layers(pictures(32, 56, 56), runs=3)  # type: ignore[attr-defined]
    finally:
        segmenter.close()
        classifier.close()


def test_the_second_start_builds_nothing_and_a_short_engine_is_built_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rbcedge.engines.engine_cache import default_folder

    bundle = onnx_bundle(tmp_path / "bundle")
    for engine in load_engines(bundle, "tensorrt"):
        engine.close()
    capsys.readouterr()
    for engine in load_engines(bundle, "tensorrt"):
        engine.close()
    assert capsys.readouterr().err == ""
    (path,) = default_folder().glob("classifier-56*.engine")
    path.write_bytes(path.read_bytes()[:-1])
    for engine in load_engines(bundle, "tensorrt"):
        engine.close()
    assert "damaged" in capsys.readouterr().err


def test_the_executor_on_device_addresses(tmp_path: Path) -> None:
    bundle = onnx_bundle(tmp_path / "bundle")
    artefact = bundle.find("classifier", "onnx", ("fp32",))
    assert artefact is not None
    executor = open_executor(bundle, artefact, Watcher())
    memory = cuda.Memory()
    try:
        with memory.current():
            for n, side in ((32, 56), (64, 80), (32, 56)):
                batch = pictures(n, side, side)
                pixels = np.multiply(batch, np.float32(1 / 255))
                out = np.empty(executor.output_shape((n, side, side, 3)), np.float32)
                source, target = memory.allocate(pixels.nbytes), memory.allocate(out.nbytes)
                memory.upload(pixels, source)
                executor.bind(source, target, (n, side, side, 3))
                executor.enqueue(memory.stream)
                memory.download(target, out)
                np.testing.assert_allclose(out, reference(onnx_of(bundle, "classifier", "fp32"), batch), atol=1e-4)
    finally:
        executor.close()
        memory.close()


def test_what_tensorrt_refuses_has_a_reason() -> None:
    memory = cuda.Memory()
    try:
        with memory.current(), pytest.raises(Refused) as refused:
            Plan(import_tensorrt(), memory, b"this is no engine" * 100)
        assert str(refused.value)
        assert "no reason" not in str(refused.value)
    finally:
        memory.close()


def test_the_parser_names_what_it_cannot_use(tmp_path: Path) -> None:
    path = tmp_path / "classifier.onnx"
    path.write_bytes(onnx_network("classifier", extra="NoSuchOperator"))
    with pytest.raises(RbcedgeError, match=r"classifier\.onnx: TensorRT cannot use node 0"):
        build(Order(path, "classifier", "fp32", crops(56)), Watcher())


def test_ctrl_c_ends_a_build(tmp_path: Path) -> None:
    class Impatient(Watcher):
        def update(self, seconds: float, phase: str) -> None:
            if seconds > 1:
                raise KeyboardInterrupt

    path = tmp_path / "classifier.onnx"
    path.write_bytes(onnx_network("classifier"))
    with pytest.raises(KeyboardInterrupt):
        build(Order(path, "classifier", "fp32", crops(80)), Impatient())
