"""Loading and running engines, with a FAKE driver and a FAKE TensorRT: the arithmetic is ONNX Runtime's.

What these tests show is our side: buckets, padding, addresses, the cache, messages, and that everything is given back.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tensorrt_scenes import Machine, Watcher, fake_driver, onnx_bundle, pictures, reference

from rbcedge.bundle import Bundle
from rbcedge.cli import main
from rbcedge.engines import cuda, engine_cache, loading, tensorrt_api, tensorrt_building, tensorrt_network
from rbcedge.engines.cuda import OutOfDeviceMemory
from rbcedge.engines.tensorrt import TensorRTEngine
from rbcedge.engines.tensorrt_building import Built, Order, Progress
from rbcedge.engines.tensorrt_executor import open_executor
from rbcedge.engines.tensorrt_network import Part, Workshop, open_network
from rbcedge.engines.tensorrt_shapes import picture
from rbcedge.errors import RbcedgeError
from rbcedge.pipeline.gpu.cpu import CpuDevice, compiler


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_driver(tmp_path_factory.mktemp("driver"))


class Yard(Machine):
    """A machine whose builds happen in this process, counted: processes are tested in test_tensorrt_build.py."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, driver: Path, folder: Path) -> None:
        super().__init__(monkeypatch, driver, folder)
        self.builds: list[str] = []

        def build(order: Order, progress: Progress, expected: float | None = None) -> Built:
            from rbcedge.convert.tensorrt import build

            self.builds.append(order.network)
            timings = order.timings.read_bytes() if order.timings is not None and order.timings.exists() else b""
            return build(order.onnx.read_bytes(), order.precision, order.profiles, timings, lambda message: None)

        self.apart = tensorrt_building.build
        monkeypatch.setattr(tensorrt_network, "build", build)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, driver: Path, tmp_path: Path) -> Iterator[Yard]:
    yard = Yard(monkeypatch, driver, tmp_path)
    yield yard
    # Whatever a test did, memory, contexts and streams were given back.
    assert yard.held() == (0, 0, 0, 0)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return onnx_bundle(tmp_path / "bundle")


def onnx_of(bundle: Bundle, role: str, precision: str = "fp32") -> bytes:
    artefact = bundle.find(role, "onnx", (precision,))
    assert artefact is not None
    return bundle.path(artefact).read_bytes()


def classifier(bundle: Bundle, precision: str = "fp32") -> TensorRTEngine:
    artefact = bundle.find("classifier", "onnx", (precision,))
    assert artefact is not None
    return TensorRTEngine(open_network(bundle, artefact, tensorrt_api.import_tensorrt(), Watcher()), precision)


# The driver.


def test_the_gpu_is_asked(machine: Yard) -> None:
    machine.gpu(NAME="NVIDIA H200", SMS="132", VERSION="13020")
    assert cuda.gpu() == cuda.Gpu("NVIDIA H200", "8.7", 132, "13.2", 1 << 33)
    assert cuda.problem() is None


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"INIT": "100"}, "The NVIDIA driver finds no GPU."),
        ({"COUNT": "0"}, "The NVIDIA driver finds no GPU."),
        ({"INIT": "999"}, "The NVIDIA driver reports error 999: unknown error."),
        ({"INIT": "35"}, "error 35: CUDA driver version is insufficient for CUDA runtime version."),
    ],
)
def test_a_driver_that_does_not_work_is_told(machine: Yard, what: dict[str, str], words: str) -> None:
    machine.gpu(**what)
    found = tensorrt_api.problem()
    assert found is not None
    assert found.startswith("TensorRT cannot be used: ")
    assert words in found


def test_no_driver_at_all(machine: Yard) -> None:
    machine.without_driver()
    assert tensorrt_api.problem() == (
        "TensorRT cannot be used: No NVIDIA driver on this machine (libcuda.so.1 is not there)."
    )


def test_without_a_gpu_tensorrt_is_not_even_imported(machine: Yard) -> None:
    """Its first calls without a device end the process."""
    (machine.modules / "tensorrt.py").write_text("raise AssertionError('imported')")
    machine.gpu(INIT="100")
    assert "finds no GPU" in str(tensorrt_api.problem())


@pytest.mark.parametrize(
    ("name", "needs", "driver_cuda", "fine"),
    [
        ("tensorrt-cu13", "", "12080", False),
        ("tensorrt-cu13", "", "13000", True),
        ("tensorrt-cu12", "", "13000", True),
        ("tensorrt", "Requires-Dist: nvidia-cuda-runtime-cu12\n", "11080", False),
        ("tensorrt", "Requires-Dist: tensorrt_cu13 (==10.13.0)\n", "12080", False),
        ("tensorrt", "Requires-Dist: nvidia-cuda-runtime-cu12\n", "12000", True),
        ("tensorrt", "", "11080", True),
    ],
)
def test_a_driver_too_old_for_the_wheel(machine: Yard, name: str, needs: str, driver_cuda: str, fine: bool) -> None:
    info = machine.modules / f"{name.replace('-', '_')}-10.13.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 10.13.0\n{needs}")
    machine.gpu(VERSION=driver_cuda)
    found = tensorrt_api.problem()
    if fine:
        assert found is None
    else:
        served = f"{driver_cuda[:2]}.{driver_cuda[3]}"
        assert found is not None
        assert "needs a driver that serves it" in found
        assert f"the NVIDIA driver here serves {served}" in found


def test_device_memory_is_given_back(machine: Yard) -> None:
    memory = cuda.Memory()
    first, second = memory.allocate(1000), memory.allocate(10)
    data = np.arange(250, dtype=np.float32)
    back = np.empty_like(data)
    memory.upload(data, first)
    memory.download(first, back)
    assert np.array_equal(data, back)
    memory.free(second)
    assert machine.held() == (1, 1, 0, 1)
    machine.gpu(ROOM="2000")
    with pytest.raises(OutOfDeviceMemory, match="no memory left"):
        memory.allocate(4000)
    memory.close()
    memory.close()


# Arrays in, arrays out.


@pytest.mark.parametrize("n", [1, 32, 33, 200, 512, 700])
def test_any_number_of_cells(machine: Yard, bundle: Bundle, n: int) -> None:
    engine = classifier(bundle)
    for side in (56, 80):
        batch = pictures(n, side, side)
        got = engine.infer(batch)
        assert got.dtype == np.float32
        assert got.shape == (n, 4)
        np.testing.assert_allclose(got, reference(onnx_of(bundle, "classifier"), batch), atol=1e-6)
    engine.close()
    engine.close()


def test_no_cells(machine: Yard, bundle: Bundle) -> None:
    engine = classifier(bundle)
    assert engine.infer(pictures(0, 56, 56)).shape == (0, 4)
    engine.close()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("version", ["8.6.0", "10.3.0", "11.4.0.106"])
def test_every_precision_on_every_generation(machine: Yard, tmp_path: Path, version: str, precision: str) -> None:
    machine.tensorrt(version)
    bundle = onnx_bundle(tmp_path / "other", (precision,))
    first, second = loading.load_engines(bundle, "tensorrt", precision)
    assert (first.name, first.precision, second.precision) == ("tensorrt", precision, precision)
    for engine, role, batch in (
        (first, "segmenter", pictures(1, 48, 64)),
        (second, "classifier", pictures(40, 80, 80)),
    ):
        wanted = reference(onnx_of(bundle, role, precision), batch)
        np.testing.assert_allclose(engine.infer(batch), wanted, atol=1e-6)
        engine.close()


def test_results_belong_to_the_caller(machine: Yard, bundle: Bundle) -> None:
    engine = classifier(bundle)
    first = engine.infer(pictures(3, 56, 56, seed=1))
    kept = first.copy()
    engine.infer(pictures(3, 56, 56, seed=2))
    assert np.array_equal(first, kept)
    engine.close()


def test_pictures_of_any_size_without_building_again(machine: Yard, bundle: Bundle) -> None:
    """The magnification is measured on the first fields: nothing may be built while they wait."""
    first, second = loading.load_engines(bundle, "tensorrt")
    built = list(machine.builds)
    assert built == ["segmenter", "classifier-56", "classifier-80"]
    for h, w in ((240, 320), (16, 16), (256, 336), (112, 80)):
        batch = pictures(1, h, w)
        np.testing.assert_allclose(first.infer(batch), reference(onnx_of(bundle, "segmenter"), batch), atol=1e-6)
    assert machine.builds == built
    with pytest.raises(RbcedgeError, match=r"No TensorRT engine takes pictures of 2048x1600 px"):
        first.infer(pictures(1, 1600, 2048))
    first.close()
    second.close()


def test_a_bundle_with_one_crop_side_needs_one_engine(machine: Yard, tmp_path: Path) -> None:
    bundle = onnx_bundle(tmp_path / "other", small=80)
    classifier(bundle).close()
    assert machine.builds == ["classifier-80"]


def test_an_engine_for_one_picture_size_is_preferred(machine: Yard, bundle: Bundle) -> None:
    trt = tensorrt_api.import_tensorrt()
    artefact = bundle.find("segmenter", "onnx", ("fp32",))
    assert artefact is not None
    memory = cuda.Memory()
    workshop = Workshop(trt, cuda.gpu(), memory, Watcher())
    part = Part("segmenter", picture(640, 480, 0.5))
    workshop.obtain(bundle.path(artefact), artefact.sha256, "fp32", part).engine.close()
    memory.close()
    network = open_network(bundle, artefact, trt, Watcher())
    assert [str(plan.profiles[0]) for plan in network.plans] == [
        "1x240x320x3",
        "1x16x16x3/1x240x320x3/1x1088x1920x3",
    ]
    assert network.serving((1, 240, 320, 3)) is network.plans[0]
    assert network.serving((1, 240, 336, 3)) is network.plans[1]
    engine = TensorRTEngine(network, "fp32")
    for h, w in ((240, 320), (240, 336)):
        batch = pictures(1, h, w)
        np.testing.assert_allclose(engine.infer(batch), reference(onnx_of(bundle, "segmenter"), batch), atol=1e-6)
    engine.close()


def test_layer_times(machine: Yard, bundle: Bundle) -> None:
    engine = classifier(bundle)
    assert engine.layers(pictures(7, 56, 56), runs=4) == [("conv + sigmoid", 0.25), ("softmax", 0.5)]
    # Profiling is off again.
    engine.infer(pictures(7, 56, 56))
    engine.close()


def test_bench_shows_the_layers_of_both_networks(machine: Yard, bundle: Bundle) -> None:
    """From TensorRT's own profiler, on a picture at working size and a field's worth of cells."""
    from rbcedge.bench.layers import Layer, profile

    engines = loading.load_engines(bundle, "tensorrt", "fp32")
    profiles = profile(bundle, "tensorrt", engines, (240, 320), 1)
    assert [p.role for p in profiles] == ["segmenter", "classifier"]
    assert profiles[0].shape == (1, 240, 320, 3)
    assert profiles[1].shape == (64, 56, 56, 3)
    for found in profiles:
        assert found.layers == (Layer("", "conv + sigmoid", 0.25, None), Layer("", "softmax", 0.5, None))
        assert found.sum_ms == pytest.approx(0.75)
        assert found.whole_ms > 0
        assert found.method.startswith("TensorRT's profiler")
    for engine in engines:
        engine.close()


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("no room", OutOfDeviceMemory, "Requested amount of GPU memory could not be allocated"),
        ("cannot run", RbcedgeError, r"could not run the network: Error Code 1: Cuda Runtime \(an illegal access\)"),
    ],
)
def test_failures_while_running(machine: Yard, bundle: Bundle, fault: str, error: Any, words: str) -> None:
    engine = classifier(bundle)
    machine.faults(fault)
    with pytest.raises(error, match=words):
        engine.infer(pictures(3, 56, 56))
    machine.faults()
    assert engine.infer(pictures(3, 56, 56)).shape == (3, 4)
    engine.close()


def test_no_memory_for_the_pictures(machine: Yard, bundle: Bundle) -> None:
    engine = classifier(bundle)
    machine.gpu(ROOM="1000")
    with pytest.raises(OutOfDeviceMemory):
        engine.infer(pictures(3, 56, 56))
    machine.gpu(ROOM=str(1 << 30))
    assert engine.infer(pictures(3, 56, 56)).shape == (3, 4)
    engine.close()


def test_a_full_gpu_is_no_reason_to_build_again(machine: Yard, bundle: Bundle) -> None:
    classifier(bundle).close()
    machine.faults("full")
    with pytest.raises(OutOfDeviceMemory, match="cannot load the engine: Error Code 2: OutOfMemory"):
        classifier(bundle)
    assert len(machine.builds) == 2


# Device addresses.


def test_the_executor_runs_where_the_pixels_are(machine: Yard, bundle: Bundle) -> None:
    artefact = bundle.find("classifier", "onnx", ("fp32",))
    assert artefact is not None
    executor = open_executor(bundle, artefact, Watcher())
    assert executor.input_shape == (512, 80, 80, 3)
    assert executor.input_dtype == np.float32
    for n, side in ((32, 56), (64, 80), (5, 56), (300, 56), (32, 56)):
        batch = pictures(n, side, side, seed=n)
        pixels = np.multiply(batch, np.float32(1 / 255))
        out = np.zeros(executor.output_shape((n, side, side, 3)), np.float32)
        executor.bind(pixels.ctypes.data, out.ctypes.data, (n, side, side, 3))
        executor.enqueue(1)
        np.testing.assert_allclose(out, reference(onnx_of(bundle, "classifier"), batch), atol=1e-6)
    executor.close()
    executor.close()


def test_the_executor_says_what_it_cannot_take(machine: Yard, bundle: Bundle) -> None:
    artefact = bundle.find("classifier", "onnx", ("fp32",))
    assert artefact is not None
    executor = open_executor(bundle, artefact, Watcher())
    with pytest.raises(RbcedgeError, match="call bind first"):
        executor.enqueue(1)
    for shape in ((513, 80, 80, 3), (8, 64, 64, 3)):
        with pytest.raises(RbcedgeError, match=rf"No TensorRT engine was built for an input of {shape[0]}x"):
            executor.output_shape(shape)
        with pytest.raises(RbcedgeError, match="No TensorRT engine was built"):
            executor.bind(1, 1, shape)
    executor.close()


def test_each_profile_keeps_its_context(machine: Yard, bundle: Bundle) -> None:
    """A captured CUDA graph holds on to its context: going back to a bucket must not make or move one."""
    network = classifier(bundle)._network
    plan = network.plans[0]
    with network.memory.current():
        contexts = [plan.context((n, 56, 56, 3)) for n in (32, 64, 20, 40, 32)]
    assert contexts[0] is contexts[2] is contexts[4]
    assert contexts[1] is contexts[3]
    assert contexts[0] is not contexts[1]
    assert [c.active_optimization_profile for c in contexts[:2]] == [0, 1]
    network.close()


def test_the_executor_without_a_gpu(machine: Yard, bundle: Bundle) -> None:
    machine.gpu(INIT="100")
    artefact = bundle.find("classifier", "onnx", ("fp32",))
    assert artefact is not None
    with pytest.raises(RbcedgeError, match=r"^TensorRT cannot be used: The NVIDIA driver finds no GPU\.$"):
        open_executor(bundle, artefact, Watcher())


# The cache, as users meet it.


def test_the_second_start_builds_nothing(machine: Yard, bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    for engine in loading.load_engines(bundle, "tensorrt"):
        engine.close()
    assert len(machine.builds) == 3
    assert "there is no engine for this GPU yet; it is built now, once" in capsys.readouterr().err
    for engine in loading.load_engines(bundle, "tensorrt"):
        engine.close()
    assert len(machine.builds) == 3
    assert capsys.readouterr().err == ""
    # Engines, records, locks and the timing cache; nothing half-written.
    assert {p.suffix for p in machine.cache.iterdir()} == {".engine", ".json", ".lock", ".cache"}


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ({"NAME": "Fake Thor"}, "the GPU Fake Orin (here Fake Thor)"),
        ({"SMS": "16"}, "SM count 8 (here 16)"),
        ({"VERSION": "13000"}, "CUDA 12.6 (here 13.0)"),
    ],
)
def test_another_gpu_is_named(
    machine: Yard, bundle: Bundle, capsys: pytest.CaptureFixture[str], what: dict[str, str], told: str
) -> None:
    classifier(bundle).close()
    machine.gpu(**what)
    watcher = Watcher()
    artefact = bundle.find("classifier", "onnx", ("fp32",))
    assert artefact is not None
    open_network(bundle, artefact, tensorrt_api.import_tensorrt(), watcher).close()
    assert len(machine.builds) == 4
    assert len(watcher.told) == 2
    assert all(told in line for line in watcher.told)


def test_another_tensorrt_is_named(machine: Yard, bundle: Bundle) -> None:
    classifier(bundle).close()
    machine.tensorrt("10.16.1.11")
    watcher = Watcher()
    artefact = bundle.find("classifier", "onnx", ("fp32",))
    assert artefact is not None
    open_network(bundle, artefact, tensorrt_api.import_tensorrt(), watcher).close()
    assert all("TensorRT 10.3.0 (here 10.16.1.11)" in line for line in watcher.told)


def test_another_training_is_named(machine: Yard, bundle: Bundle, tmp_path: Path) -> None:
    classifier(bundle).close()
    onnx = bundle.folder / "classifier.fp32.onnx"
    onnx.write_bytes(onnx_of(bundle, "classifier"))
    artefact = bundle.find("classifier", "onnx", ("fp32",))
    assert artefact is not None
    watcher = Watcher()
    workshop = Workshop(tensorrt_api.import_tensorrt(), cuda.gpu(), cuda.Memory(), watcher)
    part = tensorrt_network.parts(bundle, "classifier")[0]
    workshop.obtain(onnx, "cd" * 32, "fp32", part).engine.close()
    workshop.memory.close()
    assert "was built for another ONNX file" in watcher.told[0]


def test_an_engine_short_of_a_byte_is_built_again(machine: Yard, bundle: Bundle) -> None:
    classifier(bundle).close()
    (path,) = machine.cache.glob("classifier-56*.engine")
    path.write_bytes(path.read_bytes()[:-1])
    classifier(bundle).close()
    assert machine.builds == ["classifier-56", "classifier-80", "classifier-56"]


def test_an_engine_that_tensorrt_refuses_is_built_again(machine: Yard, bundle: Bundle) -> None:
    """deserialize_cuda_engine gives None: seen by users of other tools as an error about NoneType."""
    classifier(bundle).close()
    (path,) = machine.cache.glob("classifier-56*.json")
    # A patched library of the same version: only TensorRT itself can tell.
    engine = path.with_suffix(".engine")
    data = engine.read_bytes().replace(b'"version": "10.3.0"', b'"version": "10.3.9"')
    key = engine_cache._key(engine_cache._recorded(path)["key"])  # type: ignore[index, arg-type]
    assert key is not None
    engine_cache._keep(machine.cache, key, data, 1.0, lambda line: None)
    watcher = Watcher()
    artefact = bundle.find("classifier", "onnx", ("fp32",))
    assert artefact is not None
    open_network(bundle, artefact, tensorrt_api.import_tensorrt(), watcher).close()
    assert watcher.told == [
        "classifier-56: TensorRT refuses the engine in the cache "
        "(expecting library version 10.3.0 got 10.3.9, please rebuild); it is built now, once"
    ]


def test_the_timing_cache_lies_beside_the_engines(machine: Yard, bundle: Bundle) -> None:
    classifier(bundle).close()
    (path,) = machine.cache.glob("timing.*.cache")
    assert path.name == "timing.Fake_Orin-sm8.7-trt10.3.0.cache"
    assert path.read_bytes() == b"10.3.0|built|built"  # both engines added to it


# The command line.


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda m: m.without_driver(), "No NVIDIA driver on this machine"),
        (lambda m: m.gpu(INIT="100"), "The NVIDIA driver finds no GPU."),
        (lambda m: m.tensorrt("10.3.0", "refuse"), "was built, but TensorRT does not load it: Serialization"),
        (lambda m: m.tensorrt("8.6.0", "old driver"), "the NVIDIA driver is too old for this TensorRT."),
        (lambda m: m.tensorrt("10.3.0", "no plan"), "could not build the engine: Error Code 10: no implementation"),
    ],
)
def test_run_with_a_tensorrt_that_does_not_work(
    machine: Yard,
    bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    prepare: Any,
    words: str,
) -> None:
    prepare(machine)
    monkeypatch.setattr("rbcedge.pipeline.choosing.open_device", CpuDevice)
    out = str(tmp_path / "out")
    code, err = run(
        capsys, "run", "sim:?frames=1", "--bundle", str(bundle.folder), "--engine", "tensorrt", "--out", out
    )
    assert code == 1
    assert words in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not Path(out).exists()


def test_run_on_the_device_and_on_the_cpu_give_the_same(
    machine: Yard,
    bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The kernels run on the CPU, the fake TensorRT on their memory: all of `rbcedge run` but the GPU."""
    if compiler() is None:
        pytest.skip("no C++ compiler here")
    monkeypatch.setattr("rbcedge.pipeline.choosing.open_device", CpuDevice)
    tables = {}
    for engine in ("auto", "tensorrt", "onnx"):
        out = tmp_path / engine
        code, err = run(
            capsys, "run", "sim:?frames=2&pan=rest", "--scale", "1", "--bundle", str(bundle.folder), "--engine", engine,
            "--out", str(out), "--quiet",
        )  # fmt: skip
        assert code == 0, err
        summary = json.loads((out / "summary.json").read_text())
        assert summary["engine"]["name"] == ("onnx" if engine == "onnx" else "tensorrt")
        assert summary["cells"]["detected"] > 0
        tables[engine] = summary["fields"], summary["cells"], summary["differential"]
    assert tables["auto"] == tables["tensorrt"] == tables["onnx"]


def test_auto_says_in_one_line_why_the_gpu_is_left_out(
    machine: Yard, bundle: Bundle, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # The driver is a fake, and so no package finds a GPU behind it.
    arguments = ("run", "sim:?frames=1", "--scale", "1", "--bundle", str(bundle.folder), "--quiet", "--out")
    code, err = run(capsys, *arguments, str(tmp_path / "a"))
    (line,) = err.splitlines()
    assert code == 0
    assert line.startswith("rbcedge: the GPU is left out: ")
    machine.faults("refuse")
    code, err = run(capsys, *arguments, str(tmp_path / "b"))
    assert (code, len(err.splitlines())) == (0, 1)
    machine.without_driver()
    assert run(capsys, *arguments, str(tmp_path / "c")) == (0, "")


@pytest.mark.parametrize("fault", ["refuse", "no plan", "start"])
def test_auto_goes_on_without_a_broken_tensorrt(
    machine: Yard, bundle: Bundle, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    machine.faults(fault)
    first, second = loading.load_engines(bundle, "auto")
    assert first.name == second.name == "onnx"
    said = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(said) == 1
    assert said[0].startswith("rbcedge: TensorRT is left out: ")
    first.close()
    second.close()


def test_auto_does_not_speak_of_tensorrt_where_there_is_no_gpu(
    machine: Yard, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.without_driver()
    first, second = loading.load_engines(bundle, "auto")
    assert first.name == "onnx"
    assert capsys.readouterr().err == ""
    first.close()
    second.close()


def test_auto_takes_tensorrt_where_it_works(machine: Yard, bundle: Bundle) -> None:
    first, second = loading.load_engines(bundle, "auto")
    assert first.name == second.name == "tensorrt"
    first.close()
    second.close()


def test_ctypes_sees_the_whole_address(machine: Yard) -> None:
    """Addresses above 4 GiB pass through whole."""
    memory = cuda.Memory()
    address = memory.allocate(8)
    ctypes.memmove(address, b"12345678", 8)
    back = np.empty(8, np.uint8)
    memory.download(address, back)
    assert bytes(back) == b"12345678"
    memory.close()


# `rbcedge convert tensorrt`.


def convert(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    import typer

    from rbcedge.cli.convert_tensorrt import tensorrt

    app = typer.Typer()
    app.command()(tensorrt)
    capsys.readouterr()
    if app(list(arguments), standalone_mode=False) == 130:  # as `rbcedge.cli.main` takes it
        raise KeyboardInterrupt
    shown = capsys.readouterr()
    return shown.out, shown.err


def test_convert_builds_what_run_then_finds(
    machine: Yard, bundle: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out, _ = convert(capsys, "--bundle", str(bundle.folder), "--size", "640x480", "--size", "1280x720")
    assert machine.builds == ["segmenter"] * 3 + ["classifier-56", "classifier-80"]
    lines = [line for line in out.splitlines() if not line.startswith("  ")]
    assert [line.split(":")[0] for line in lines] == [f"{name} fp32" for name in machine.builds]
    assert "1x480x640x3" in lines[1]
    assert "1x720x1280x3" in lines[2]
    assert all("built in 0:0" in line for line in lines)
    out, err = convert(capsys, "--bundle", str(bundle.folder), "--size", "640x480")
    assert out.count("in the cache") == 4
    assert err == ""
    first, second = loading.load_engines(bundle, "tensorrt")
    assert len(machine.builds) == 5
    assert len(first._network.plans) == 3  # type: ignore[attr-defined]
    first.close()
    second.close()


def test_convert_into_another_folder(
    machine: Yard, bundle: Bundle, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    convert(capsys, "--bundle", str(bundle.folder), "--cache", str(tmp_path / "volume"))
    assert len(list((tmp_path / "volume").glob("*.engine"))) == 3
    assert not machine.cache.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--size", "640"), "--size 640: write width x height"),
        (("--size", "4x4"), "4x4: give a picture size between"),
        (("--precision", "fp8"), "--precision fp8: known are"),
        (("--precision", "int8"), "has no onnx segmenter in int8; it has onnx fp32"),
    ],
)
def test_convert_refuses_what_makes_no_sense(
    machine: Yard, bundle: Bundle, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    with pytest.raises(RbcedgeError, match=words):
        convert(capsys, "--bundle", str(bundle.folder), *arguments)
    assert machine.builds == []


def test_convert_without_a_gpu(machine: Yard, bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    machine.without_driver()
    with pytest.raises(RbcedgeError, match=r"^TensorRT cannot be used: No NVIDIA driver"):
        convert(capsys, "--bundle", str(bundle.folder))


def test_ctrl_c_while_building_keeps_what_was_finished(
    machine: Yard, bundle: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tensorrt_network.build

    def build(order: Order, progress: Progress, expected: float | None = None) -> Built:
        if order.network == "classifier-56":
            raise KeyboardInterrupt
        return real(order, progress, expected)

    monkeypatch.setattr(tensorrt_network, "build", build)
    with pytest.raises(KeyboardInterrupt):
        convert(capsys, "--bundle", str(bundle.folder))
    assert [p.name.split(".")[0] for p in machine.cache.glob("*.engine")] == ["segmenter"]
    assert not list(machine.cache.glob("*.part"))
    monkeypatch.setattr(tensorrt_network, "build", real)
    convert(capsys, "--bundle", str(bundle.folder))
    assert machine.builds == ["segmenter", "classifier-56", "classifier-80"]
