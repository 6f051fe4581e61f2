"""The drivers without a GPU: compiling, the build for the CPU, and against stand-ins for driver and packages.

`stub_cuda.cpp` stands in for NVIDIA's driver under the real cuda-bindings; `FakePyCuda` for PyCUDA. They show that
calls, arguments, order and release are as meant; they say nothing about a real GPU.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest

from rbcedge.errors import DeviceError, RbcedgeError
from rbcedge.pipeline.gpu import cpu, cuda_python, nvrtc, pycuda_driver, source
from rbcedge.pipeline.gpu.base import Missing, OutOfMemory
from rbcedge.pipeline.gpu.cuda_python import CudaPythonDevice
from rbcedge.pipeline.gpu.drivers import open_device
from rbcedge.pipeline.gpu.memory import load_kernels
from rbcedge.pipeline.gpu.pycuda_driver import PyCudaDevice

needs_compiler = pytest.mark.skipif(cpu.compiler() is None, reason="no C++ compiler here")


INSTALLED = tuple(nvrtc.installed())
needs_nvrtc = pytest.mark.skipif(not INSTALLED, reason="no NVRTC here")


@pytest.mark.parametrize("architecture", [72, 87, 90, 101, 110])
def test_nvrtc_compiles_the_kernels(architecture: int) -> None:
    knows = [n for n in INSTALLED if architecture in n.architectures]
    if not knows:
        known = {".".join(map(str, n.version)): n.architectures for n in INSTALLED}
        pytest.skip(f"no installed NVRTC knows sm_{architecture}: {known}")
    code = knows[0].compile(source.text(), architecture)
    assert code.startswith(b"\x7fELF")
    for name in source.signatures(source.text()):
        assert name.encode() in code


@needs_nvrtc
def test_nvrtc_says_what_it_cannot_compile(tmp_path: Path) -> None:
    newest = INSTALLED[0]
    known = newest.architectures
    with pytest.raises(RbcedgeError, match=r"error: .*nonsense"):
        newest.compile('extern "C" __global__ void k() { nonsense; }', known[-1])
    with pytest.raises(RbcedgeError, match=f"this GPU is sm_{known[0] - 1}"):
        newest.compile("", known[0] - 1)
    small = 'extern "C" __global__ void k(int n) { }'
    first = nvrtc.compiled(small, known[-1], newest.version[0], tmp_path)
    kept = next(tmp_path.iterdir())
    kept.write_bytes(b"kept")
    assert first.startswith(b"\x7fELF")
    assert nvrtc.compiled(small, known[-1], newest.version[0], tmp_path) == b"kept"
    newer = newest.compile(small, known[-1] + 1)
    assert newer.lstrip().startswith(b"//")  # PTX, for the driver to translate
    assert b".target" in newer


def test_the_compiler_is_no_newer_than_the_driver() -> None:
    newer, older = (types.SimpleNamespace(version=v) for v in ((13, 5), (12, 9)))

    def found():
        return iter([newer, older])

    assert nvrtc.compiler(13, found) is newer
    assert nvrtc.compiler(12, found) is older
    assert nvrtc.compiler(None, found) is newer
    with pytest.raises(RbcedgeError, match=r"driver serves CUDA 11\. Update the driver, or install NVRTC for it"):
        nvrtc.compiler(11, found)
    with pytest.raises(RbcedgeError, match=r"NVRTC\) is not here\. Install it"):
        nvrtc.compiler(12, lambda: iter(()))


def test_without_a_gpu_every_driver_says_so_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    if Path("/dev/nvidiactl").exists() or Path("/dev/nvhost-gpu").exists():
        pytest.skip("there is a GPU here")
    for device in (CudaPythonDevice, PyCudaDevice):
        with pytest.raises(RbcedgeError, match="--engine cpu"):
            device()
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(Missing, match="pip install"):
        CudaPythonDevice()
    with pytest.raises(RbcedgeError, match=r"no Python package that drives the GPU is installed\. Install NVIDIA's"):
        open_device([CudaPythonDevice])


def test_without_a_compiler_the_build_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RbcedgeError, match="needs a C\\+\\+ compiler"):
        cpu.build(source.text(), tmp_path)


@needs_compiler
def test_a_build_is_kept_and_a_bad_one_is_not(tmp_path: Path) -> None:
    text = (
        '#define KERNEL extern "C" __global__ void\n'
        "KERNEL twice(int threads, int *v) { if (threadIdx.x < threads) v[threadIdx.x] *= 2; }\n"
    )
    path = cpu.build(text, tmp_path)
    stamp = path.stat().st_mtime_ns
    assert cpu.build(text, tmp_path) == path
    assert path.stat().st_mtime_ns == stamp
    device = cpu.CpuDevice()
    memory = device.allocate(8)
    memory.array.view(np.int32)[:] = [3, 4]
    module = cpu.CpuModule(path, text, 1)
    module.kernel("twice").launch(device.stream(), 2, memory)
    module.kernel("twice").launch(device.stream(), 0, memory)
    assert memory.array.view(np.int32).tolist() == [6, 8]
    with pytest.raises(RbcedgeError, match="cannot compile the kernels"):
        cpu.build(text.replace("*= 2", "= nonsense"), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_arguments_are_checked_against_the_kernels_text() -> None:
    known = source.signatures(source.text())
    assert known["temper"] == ("pointer", "int", "float", "pointer")
    with pytest.raises(TypeError, match="takes 4 arguments"):
        source.pack("temper", known["temper"], 1, (1, 2))
    with pytest.raises(TypeError, match="where it takes a int"):
        source.pack("temper", known["temper"], 1, (1, 2.5, 1.0, 1))
    with pytest.raises(ValueError, match="only pointers, int and float"):
        source.signatures("KERNEL k(int threads, double x) {\n")


class FakePyCuda(types.ModuleType):
    """What this project uses of `pycuda.driver`, on the CPU; counts contexts."""

    Error = type("Error", (Exception,), {})
    MemoryError = type("MemoryError", (Error,), {})
    host_alloc_flags = types.SimpleNamespace(DEVICEMAP=2)

    def __init__(self, library: ctypes.CDLL | None, fails: str = "") -> None:
        super().__init__("pycuda.driver")
        self.pushed = self.retained = 0
        self._library, self._fails = library, fails
        self.held: set[int] = set()
        fake = self

        class Context:
            def push(self) -> None:
                fake.pushed += 1

            @staticmethod
            def pop() -> None:
                fake.pushed -= 1

            def detach(self) -> None:
                fake.retained -= 1

        class Device:
            def __init__(self, number: int) -> None:
                if fails == "device":
                    raise fake.Error("cuDeviceGet failed: no CUDA-capable device is detected")

            def compute_capability(self) -> tuple[int, int]:
                return 8, 7

            def name(self) -> str:
                return "Fake"

            def retain_primary_context(self) -> Context:
                fake.retained += 1
                return Context()

        class Stream:
            handle = 64

            def synchronize(self) -> None:
                if fails == "lost":
                    raise fake.Error("cuStreamSynchronize failed: unspecified launch failure\nmore")

        self.Context, self.Device, self.Stream = Context, Device, Stream

    def init(self) -> None:
        pass

    def get_driver_version(self) -> int:
        return 13000

    def mem_alloc(self, nbytes: int) -> object:
        if self._fails == "memory":
            raise self.MemoryError("cuMemAlloc failed: out of memory")
        fake, block = self, np.full(nbytes, 0xA5, np.uint8)

        class Allocation:
            def __int__(self) -> int:
                return block.ctypes.data

            def free(self) -> None:
                fake.held.remove(block.ctypes.data)

        self.held.add(block.ctypes.data)
        return Allocation()

    def pagelocked_zeros(self, nbytes: int, dtype: type, mem_flags: int) -> np.ndarray:
        fake = self

        class Block:
            def __init__(self) -> None:
                self._bytes = np.zeros(nbytes, dtype)
                self.__array_interface__ = self._bytes.__array_interface__

            def get_device_pointer(self) -> int:
                return self._bytes.ctypes.data

            def free(self) -> None:
                fake.held.remove(self._bytes.ctypes.data)

        assert mem_flags == 2
        block = Block()
        self.held.add(block.get_device_pointer())
        return np.asarray(block)

    def memcpy_htod(self, to: int, array: np.ndarray) -> None:
        ctypes.memmove(to, array.ctypes.data, array.nbytes)

    def memcpy_dtoh(self, array: np.ndarray, address: int) -> None:
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def module_from_buffer(self, code: bytes) -> object:
        library = self._library

        class Function:
            def __init__(self, name: str) -> None:
                self._run = getattr(library, f"launch_{name}")

            def prepare(self, formats: str) -> None:
                self._types = [{"i": ctypes.c_int, "f": ctypes.c_float, "P": ctypes.c_void_p}[f] for f in formats]

            def prepared_async_call(self, grid: tuple, block: tuple, stream: object, *arguments: object) -> None:
                values = [t(v) for t, v in zip(self._types, arguments, strict=True)]
                addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
                self._run(grid[0], block[0], 1, 1, addresses)

        return types.SimpleNamespace(get_function=Function)


def _use(monkeypatch: pytest.MonkeyPatch, fake: FakePyCuda) -> FakePyCuda:
    package = types.ModuleType("pycuda")
    package.driver = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    monkeypatch.setattr(pycuda_driver, "compiled", lambda text, architecture, cuda: b"code" if cuda == 13 else 1 / 0)
    return fake


@needs_compiler
def test_pycuda_runs_the_kernels_and_leaves_no_context_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = _use(monkeypatch, FakePyCuda(ctypes.CDLL(str(cpu.build(source.text())))))
    device = PyCudaDevice()
    assert (fake.pushed, fake.retained, device.name) == (1, 1, "Fake")
    stream, kernels = device.stream(), load_kernels(device)
    memory, mapped = device.allocate(400), device.allocate_mapped(32)
    kernels["clear"].launch(stream, 100, memory)
    out = np.ones(100, np.int32)
    device.download(memory, out, stream)
    assert not out.any()
    device.upload(np.full((1, 8), 0.125, np.float32), memory, stream)
    kernels["temper"].launch(stream, 1, memory, 8, 1.0, mapped)
    np.testing.assert_allclose(mapped.array.view(np.float32), 0.125)
    assert (device.transfers.uploads, device.transfers.downloads) == (1, 1)
    for m in (memory, mapped, memory, mapped):
        m.free()
    assert not fake.held
    device.close()
    device.close()
    assert (fake.pushed, fake.retained) == (0, 0)


def test_pycuda_pops_its_context_when_it_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = _use(monkeypatch, FakePyCuda(None))
    PyCudaDevice()
    assert (fake.pushed, fake.retained) == (0, 0)


@pytest.mark.parametrize(
    ("fails", "words"), [("device", "No NVIDIA GPU"), ("lost", "The GPU failed: .*unspecified launch failure.$")]
)
def test_pycuda_errors_are_plain(monkeypatch: pytest.MonkeyPatch, fails: str, words: str) -> None:
    _use(monkeypatch, FakePyCuda(None, fails))
    with pytest.raises(RbcedgeError, match=words):
        PyCudaDevice().stream().synchronize()


def test_a_gpu_that_fails_while_it_is_used_is_told_from_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, FakePyCuda(None, "lost"))
    device = PyCudaDevice()
    with pytest.raises(DeviceError):
        device.stream().synchronize()
    device.close()


class Library:
    """The package's driver module: what `refuses` names fails with its code, or raises as for a missing function."""

    CUstreamCaptureMode = types.SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)

    def __init__(self, refuses: dict[str, int | Exception]) -> None:
        self.refuses, self.calls = refuses, []

    def __getattr__(self, name: str):
        def call(*arguments: object):
            self.calls.append(name)
            answer = self.refuses.get(name, 0)
            if isinstance(answer, Exception):
                raise answer
            return (answer, 7)

        return call


def _driver(refuses: dict[str, int | Exception]) -> cuda_python._Driver:
    driver = object.__new__(cuda_python._Driver)
    driver.library = Library(refuses)
    return driver


def test_a_driver_too_old_for_the_package_is_said_in_words() -> None:
    missing = RuntimeError('Function "cuGraphInstantiate" not found')
    with pytest.raises(DeviceError, match=r"too old for the installed cuda-bindings \(cuGraphInstantiate\)\. Update"):
        _driver({"cuGraphInstantiate": missing})("GraphInstantiate", 1, 0)
    with pytest.raises(RbcedgeError, match=r"does not take the kernels: .* Update the driver, or install an NVRTC"):
        cuda_python.CudaModule(_driver({"cuModuleLoadData": 222}), b"code", "")
    with pytest.raises(OutOfMemory, match="no memory left"):
        _driver({"cuModuleLoadData": 2})("ModuleLoadData", b"")


@pytest.mark.parametrize("refused", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "work"])
def test_work_that_cannot_be_captured_is_done_call_by_call(refused: str) -> None:
    driver = _driver({refused: 900})
    done: list[int] = []

    def work() -> None:
        if (
            refused == "work"
            and "cuStreamBeginCapture" in driver.library.calls
            and "cuStreamEndCapture" not in (driver.library.calls)
        ):
            raise DeviceError("this network cannot be captured")
        done.append(1)

    graph = cuda_python._Graph(driver, 1, work)
    for _ in range(4):
        graph()
    # The first time, twice after the failed capture, and where it got so far once within it.
    assert len(done) - (refused in ("cuStreamEndCapture", "cuGraphInstantiate")) == 4
    assert "cuGraphLaunch" not in driver.library.calls
    graph.close()


def test_pycuda_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, FakePyCuda(None, "memory"))
    with pytest.raises(pycuda_driver.OutOfMemory):
        PyCudaDevice().allocate(10)


@needs_compiler
def test_cuda_python_against_a_stand_in_for_the_driver(tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings")
    counts = ",".join(f'{{"{name}",{len(kinds) + 1}}}' for name, kinds in source.signatures(source.text()).items())
    build = [cpu.compiler(), "-std=c++17", "-O1", "-w", "-fPIC", "-shared", f"-DPARAMETER_COUNTS={counts}"]
    stub = Path(__file__).with_name("stub_cuda.cpp")
    subprocess.run([*build, "-o", str(tmp_path / "libcuda.so.1"), str(stub), "-ldl"], check=True)
    script = textwrap.dedent("""
        import ctypes, sys
        import numpy as np
        sys.path.insert(0, sys.argv[1])
        from rbcedge import bundle as bundles
        from rbcedge.pipeline.gpu import cpu, cuda_python, source
        from rbcedge.pipeline.gpu.base import OutOfMemory
        from rbcedge.pipeline.device import DevicePipeline
        from rbcedge.pipeline.gpu.standin import HostExecutor
        from rbcedge.pipeline.host import HostPipeline
        from test_gpu_pipeline import Dark, Tint, _same, _simulated, Frame

        path = str(cpu.build(source.text())).encode() + bytes(1)
        cuda_python.compiled = lambda text, architecture, cuda: path if (architecture, cuda) == (87, 13) else 1 / 0
        stub = ctypes.CDLL("libcuda.so.1")
        bundle = bundles.load(bundles.default_folder())

        class Uncaptured(HostExecutor):  # runs at once, so it must not be part of a graph
            def enqueue(self, handle):
                assert handle == 32
                super().enqueue(handle)

        device = cuda_python.CudaPythonDevice()
        assert device.name == "Stub", device.name
        stream = device.stream()
        calls = []
        kernels = device.load(source.text())
        memory = device.allocate(40)
        def work():
            calls.append(1)
            kernels.kernel("clear").launch(stream, 10, memory)
        again = stream.prepare(work)
        out = np.empty(10, np.int32)
        for turn in range(5):
            device.upload(np.full(10, 7, np.int32), memory, stream)
            again()
            device.download(memory, out, stream)
            assert not out.any(), turn
        assert len(calls) == 2 and stub.stub_replays() == 4, (calls, stub.stub_replays())
        assert (device.transfers.uploads, device.transfers.download_bytes) == (5, 200)
        memory.free()
        stream.close()
        stub.stub_limit(ctypes.c_size_t(1000))
        try:
            device.allocate(2000)
            raise SystemExit("no OutOfMemory")
        except OutOfMemory:
            stub.stub_limit(ctypes.c_size_t(1 << 40))

        pipeline = DevicePipeline(
            bundle, device, Uncaptured.segmenter(Dark()), Uncaptured.classifier(Tint(8), 8), 1.0, by_stage=True
        )
        host = HostPipeline(bundle, Dark(), Tint(8), 1.0)
        for seed in range(2):
            frame = Frame(seed, 0.0, _simulated(seed, (160, 120)), "test")
            a, b = pipeline.find(frame), host.find(frame)
            rows = np.arange(len(b.cells))
            _same(pipeline.classify(a, rows), host.classify(b, rows))
        pipeline.close()
        del a

        # As in a run: everything as graphs, whose networks are kernels too (here: what is in memory already).
        class Still(HostExecutor):
            def enqueue(self, handle):
                pass

        replays = stub.stub_replays()
        pipeline = DevicePipeline(
            bundle, cuda_python.CudaPythonDevice(), Still.segmenter(Dark()), Still.classifier(Tint(8), 8), 1.0
        )
        buffers = pipeline.pictures(160, 120)
        for turn in range(12):
            a = pipeline.find(Frame(turn, 0.0, buffers[turn % 2], "camera"))
            if turn == 6:
                before = stub.stub_graphs()
        assert stub.stub_replays() - replays >= 8, stub.stub_replays() - replays
        assert stub.stub_graphs() == before > 0
        for width in (100, 110, 120):
            a = pipeline.find(Frame(turn, 0.0, _simulated(1, (width, 90)), "other"))
        assert stub.stub_graphs() == 0, stub.stub_graphs()
        pipeline.close()
        del a
        found = [getattr(stub, f"stub_{n}")() for n in ("pushed", "retained", "streams", "graphs", "held")]
        assert found == [0] * 5, found
        print("done")
    """)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(Path(__file__).parent)],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.stdout.strip().endswith("done"), done.stderr[-2000:]
