"""Building engines, with a FAKE TensorRT (see fake_tensorrt.py): nothing here has touched a GPU."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tensorrt_scenes import VERSIONS, Machine, Watcher, fake_driver, onnx_network

from rbcedge.engines.tensorrt_building import Built, Order
from rbcedge.engines.tensorrt_building import build as build_apart
from rbcedge.engines.tensorrt_shapes import BUCKETS, Profile, crops, picture, pictures
from rbcedge.errors import RbcedgeError, UsageError


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, driver: Path, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, driver, tmp_path)


def build(onnx: bytes, precision: str, profiles: tuple[Profile, ...], timings: bytes = b"") -> tuple[Any, list[Any]]:
    from rbcedge.convert.tensorrt import build

    reports: list[dict[str, Any]] = []
    return build(onnx, precision, profiles, timings, reports.append), reports


def header(built: Built) -> dict[str, Any]:
    _, line, _ = built.plan.split(b"\n", 2)
    found: dict[str, Any] = json.loads(line)
    return found


# Shapes.


def test_buckets_leave_no_gap() -> None:
    profiles = crops(56)
    assert [p.largest[0] for p in profiles] == list(BUCKETS) == [32, 64, 128, 256, 512]
    for n in range(1, 513):
        holding = [p for p in profiles if p.holds((n, 56, 56, 3))]
        assert len(holding) == 1
        assert holding[0].usual[0] == next(b for b in BUCKETS if b >= n)
    assert not any(p.holds((513, 56, 56, 3)) or p.holds((8, 80, 80, 3)) for p in profiles)


def test_a_picture_size_is_padded_to_the_stride() -> None:
    (profile,) = picture(1920, 1080, 0.5)
    assert profile.least == profile.largest == (1, 544, 960, 3)
    assert str(profile) == "1x544x960x3"
    assert str(pictures()[0]) == "1x16x16x3/1x240x320x3/1x1088x1920x3"
    with pytest.raises(UsageError, match="4x4"):
        picture(4, 4, 0.5)


# One path for every version.


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_version_builds_every_precision(machine: Machine, version: str, precision: str) -> None:
    machine.tensorrt(version)
    built, reports = build(onnx_network("classifier", precision), precision, crops(80))
    found = header(built)
    assert found["typed"] == (not version.startswith("8."))
    # Flags only where types are not binding; TF32 never.
    allowed = [] if found["typed"] or precision == "fp32" else [precision.upper()]
    assert found["flags"] == allowed
    assert found["shape"] == [-1, 80, 80, 3]
    assert [p[2][0] for p in found["profiles"]] == list(BUCKETS)
    phases = [r["phase"] for r in reports if "phase" in r]
    if version.startswith("8."):
        assert phases == []
    else:
        assert phases[0] == "Building Engine"


def test_a_fixed_size_needs_no_profile(machine: Machine) -> None:
    built, _ = build(onnx_network("segmenter"), "fp32", picture(640, 480, 0.5))
    assert header(built)["shape"] == [1, 240, 320, 3]
    assert header(built)["profiles"] == []


def test_a_range_of_sizes_is_one_profile(machine: Machine) -> None:
    built, _ = build(onnx_network("segmenter"), "fp32", pictures())
    assert header(built)["shape"] == [1, -1, -1, 3]
    assert header(built)["profiles"] == [[[1, 16, 16, 3], [1, 240, 320, 3], [1, 1088, 1920, 3]]]


def test_what_the_network_fixes_stays(machine: Machine) -> None:
    """A network laid out for batches of 8 gets one profile, not five."""
    built, _ = build(onnx_network("classifier", shape=(8, "h", "w", 3)), "fp32", crops(56))
    assert header(built)["shape"] == [8, 56, 56, 3]
    assert header(built)["profiles"] == []


def test_a_network_of_another_size_is_named(machine: Machine) -> None:
    with pytest.raises(RbcedgeError, match=r"the network takes anyx80x80x3, which none of the shapes asked for"):
        build(onnx_network("classifier", shape=("n", 80, 80, 3)), "fp32", crops(56))


def test_channels_first_is_named(machine: Machine) -> None:
    with pytest.raises(RbcedgeError, match=r"the input must be \(N, H, W, 3\), this one is 1x3x64x64"):
        build(onnx_network("segmenter", shape=(1, 3, 64, 64)), "fp32", pictures())


@pytest.mark.parametrize(("held", "wanted"), [("fp32", "fp16"), ("fp32", "int8"), ("fp16", "fp32"), ("int8", "fp16")])
@pytest.mark.parametrize("version", ["8.6.0", "10.3.0", "11.4.0.106"])
def test_another_precision_than_the_onnx_holds_is_refused(
    machine: Machine, version: str, held: str, wanted: str
) -> None:
    machine.tensorrt(version)
    with pytest.raises(RbcedgeError, match=rf"holds {held}, {wanted} was expected.*--precision {wanted}"):
        build(onnx_network("segmenter", held), wanted, pictures())


# Errors of TensorRT.


def test_the_parser_names_node_and_operator(machine: Machine) -> None:
    onnx = onnx_network("segmenter", extra="STFT")
    with pytest.raises(RbcedgeError) as error:
        build(onnx, "fp32", pictures())
    assert str(error.value) == (
        "TensorRT cannot use node 0 'node/stft0', operator STFT: No importer registered for op: STFT"
    )


def test_the_parser_of_8_6_names_the_node(machine: Machine) -> None:
    machine.tensorrt("8.6.0")
    with pytest.raises(RbcedgeError, match=r"^TensorRT cannot use node 0: No importer registered for op: STFT$"):
        build(onnx_network("segmenter", extra="STFT"), "fp32", pictures())


def test_a_file_that_is_no_onnx(machine: Machine) -> None:
    with pytest.raises(RbcedgeError, match=r"^TensorRT cannot read the ONNX: Failed to parse ONNX model$"):
        build(b"\xffnothing", "fp32", pictures())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no plan", r"^TensorRT could not build the engine: Error Code 10: no implementation$"),
        ("start", r"^TensorRT does not start \(it gives no reason\)\.$"),
        ("old driver", r"^TensorRT cannot be used: the NVIDIA driver is too old for this TensorRT\.$"),
    ],
)
def test_other_failures_are_one_line(machine: Machine, fault: str, words: str) -> None:
    machine.faults(fault)
    with pytest.raises(RbcedgeError, match=words):
        build(onnx_network("segmenter"), "fp32", pictures())


def test_the_timing_cache_goes_on_and_a_foreign_one_is_left_aside(machine: Machine) -> None:
    first, _ = build(onnx_network("segmenter"), "fp32", pictures())
    second, _ = build(onnx_network("segmenter"), "fp32", pictures(), first.timings)
    assert second.timings == first.timings + b"|built"
    foreign, _ = build(onnx_network("segmenter"), "fp32", pictures(), b"8.5 of another GPU")
    assert foreign.timings == first.timings


# In a process of its own.


@pytest.fixture
def order(tmp_path: Path) -> Order:
    path = tmp_path / "segmenter.onnx"
    path.write_bytes(onnx_network("segmenter"))
    return Order(path, "segmenter", "fp32", pictures())


def test_the_builders_process_gives_the_same(machine: Machine, order: Order) -> None:
    machine.faults("noise")  # what libraries print does not get among the bytes
    watcher = Watcher()
    built = build_apart(order, watcher, 12.0)
    here, _ = build(order.onnx.read_bytes(), "fp32", pictures())
    assert built == here
    assert watcher.begun == [("segmenter fp32", 12.0)]
    assert "Building Engine" in watcher.phases
    assert watcher.ends == 1


def test_errors_cross_the_process(machine: Machine, order: Order) -> None:
    order.onnx.write_bytes(onnx_network("segmenter", extra="STFT"))
    with pytest.raises(RbcedgeError, match=r"^segmenter\.onnx: TensorRT cannot use node 0 'node/stft0'"):
        build_apart(order, Watcher())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("crash", r"TensorRT crashed while it built the engine \(SIGSEGV\); its last words: Cask error in tactic 7$"),
        ("killed", r"the system stopped the build, probably for lack of memory: close other programs"),
    ],
)
def test_a_crash_is_one_line(machine: Machine, order: Order, fault: str, words: str) -> None:
    machine.faults(fault)
    watcher = Watcher()
    with pytest.raises(RbcedgeError, match=words):
        build_apart(order, watcher)
    assert watcher.ends == 1


def test_a_package_that_cannot_be_imported_there(machine: Machine, order: Order) -> None:
    (machine.modules / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10: file too short')")
    with pytest.raises(RbcedgeError, match=r"installed, but cannot be loaded \(libnvinfer\.so\.10: file too short\)"):
        build_apart(order, Watcher())


def test_ctrl_c_ends_the_builder(machine: Machine, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.faults("slow")
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        started.append(real(*args, **kwargs))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", popen)

    class Impatient(Watcher):
        def update(self, seconds: float, phase: str) -> None:
            super().update(seconds, phase)
            if phase:
                raise KeyboardInterrupt

    watcher = Impatient()
    with pytest.raises(KeyboardInterrupt):
        build_apart(order, watcher)
    assert started[0].poll() == -signal.SIGTERM
    assert watcher.ends == 1


def test_the_builder_ends_with_its_parent(machine: Machine, order: Order) -> None:
    """The parent is killed, so nobody can tell the builder to end: it notices by itself."""
    machine.faults("slow")
    code = f"""
import subprocess, sys
sys.path[:0] = {[str(machine.modules), str(Path(__file__).parent)]!r}
from pathlib import Path
from rbcedge.engines import tensorrt_building as b
from rbcedge.engines.tensorrt_shapes import pictures
from tensorrt_scenes import Watcher
real = subprocess.Popen
def popen(*args, **kwargs):
    process = real(*args, **kwargs)
    print(process.pid, flush=True)
    return process
subprocess.Popen = popen
class W(Watcher):
    def update(self, seconds, phase):
        if phase:
            print("building", flush=True)
b.build(b.Order(Path({str(order.onnx)!r}), "segmenter", "fp32", pictures()), W())
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    builder = int(parent.stdout.readline())
    assert parent.stdout.readline() == "building\n"
    parent.kill()
    parent.communicate()
    until = time.monotonic() + 30
    while Path(f"/proc/{builder}").exists() and "Z" not in _state(builder):
        assert time.monotonic() < until
        time.sleep(0.05)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_the_ticker_is_one_line_on_a_terminal_and_few_in_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rbcedge.engines.tensorrt_progress import Ticker

    ticker = Ticker()
    ticker.begin("segmenter fp16", 133)
    for second in range(0, 100):
        ticker.update(second, "Building Engine 1/3")
    ticker.end()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        "rbcedge: building the TensorRT engine: segmenter fp16 (last time it took 2:13; Ctrl-C ends it)"
    )
    assert lines[1:] == [f"rbcedge: segmenter fp16: {t}, Building Engine 1/3" for t in ("0:30", "1:00", "1:30")]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    ticker.begin("segmenter fp16", None)
    ticker.update(61, "")
    ticker.end()
    shown = capsys.readouterr().err
    assert "it can take minutes" in shown
    assert shown.endswith("\r\x1b[Ksegmenter fp16: 1:01\r\x1b[K")


def test_nothing_of_it_needs_the_working_folder(
    machine: Machine, order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's folder named tensorrt in the working folder is not imported by the builder."""
    trap = tmp_path / "work"
    (trap / "tensorrt").mkdir(parents=True)
    (trap / "tensorrt" / "__init__.py").write_text("raise SystemExit('trap')")
    monkeypatch.chdir(trap)
    assert build_apart(order, Watcher()).plan
    assert [p.name for p in trap.iterdir()] == ["tensorrt"]
