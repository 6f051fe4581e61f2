"""Our code names only what TensorRT's Python packages have: 8.6, 10.0 to 10.16, 11.0 to 11.4.

`data/tensorrt_api.json` was made from the real packages (`tensorrt_names.py`); where one is installed it is asked too.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorrt_names

from rbcedge.engines import tensorrt_api
from rbcedge.errors import RbcedgeError

TABLE = json.loads(tensorrt_names.TABLE.read_text())

#: Names that not every version has: the name whose presence the code asks for first, or the branch it stands in.
GUARDED = {
    "IProgressMonitor": "IProgressMonitor",
    "IProgressMonitor.phase_start": "IProgressMonitor",
    "IProgressMonitor.step_complete": "IProgressMonitor",
    "IProgressMonitor.phase_finish": "IProgressMonitor",
    "IBuilderConfig.progress_monitor": "IProgressMonitor",
    "ParserError.node_name": "ParserError.node_name",
    "ParserError.node_operator": "ParserError.node_name",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
}
#: Used only where the network cannot be strongly typed.
WEAKLY_TYPED_ONLY = {"BuilderFlag.FP16", "BuilderFlag.INT8", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH"}


def test_the_table_knows_every_name_in_the_code() -> None:
    assert tensorrt_names.used() == TABLE["names"], "run tests/tensorrt_names.py --add for every version"


def test_the_table_covers_the_supported_versions() -> None:
    series = {".".join(v.split(".")[:2]) for v in TABLE["absent"]}
    assert {"8.6", "10.0", "10.3", "10.13", "10.16", "11.0", "11.4"} <= series


@pytest.mark.parametrize("version", TABLE["absent"])
def test_what_a_version_lacks_is_asked_for_first(version: str) -> None:
    absent = set(TABLE["absent"][version])
    typed = "NetworkDefinitionCreationFlag.STRONGLY_TYPED" not in absent
    for name in absent:
        if name in GUARDED:
            # The guard goes with what it guards: never one without the other.
            assert GUARDED[name] in absent
        else:
            assert name in WEAKLY_TYPED_ONLY
            assert typed
    if not typed:
        assert not absent & WEAKLY_TYPED_ONLY


def test_the_guards_are_in_the_code() -> None:
    text = (tensorrt_names.ROOT / "convert" / "tensorrt.py").read_text()
    for owner, name in (("trt", "IProgressMonitor"), ("error", "node_name"), ("kinds", "STRONGLY_TYPED")):
        assert f'hasattr({owner}, "{name}")' in text


def test_the_scan_sees_what_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name used through a variable, a chain, a call's result, hasattr or a subclass is found."""
    (tmp_path / "code.py").write_text(
        "def f(trt, builder, layer):\n"
        "    builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.NEW))\n"
        "    layer.get_output(0).dtype\n"
        "    hasattr(builder, 'odd')\n"
        "    class M(trt.IProfiler):\n"
        "        def report(self): other.thing\n"
    )
    monkeypatch.setattr(tensorrt_names, "ROOT", tmp_path)
    variables = {"code.py": {"trt": "", "builder": "Builder", "layer": "ILayer"}}
    monkeypatch.setattr(tensorrt_names, "VARIABLES", variables)
    assert set(tensorrt_names.used()) == {
        "Builder.create_network",
        "Builder.odd",
        "ILayer.get_output",
        "IProfiler",
        "IProfiler.report",
        "ITensor.dtype",
        "NetworkDefinitionCreationFlag",
        "NetworkDefinitionCreationFlag.NEW",
    }


def test_the_installed_package_is_as_the_table_says() -> None:
    """Only where TensorRT, or its bindings with stub libraries, can be imported."""
    if not any(importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_bindings")):
        pytest.skip("no tensorrt package installed")
    # In a process of its own: some versions end the process when they are unloaded without a device.
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); import tensorrt_names as t; trt = t.package();"
        "print(json.dumps([trt.__version__, [n for n in t.used() if not t.has(trt, n)]]), flush=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, text=True, check=False
    )
    if not done.stdout:
        pytest.skip(f"the tensorrt package cannot be imported: {done.stderr.splitlines()[-1]}")
    version, absent = json.loads(done.stdout)
    series = version.split(".")[:2]
    near = [a for v, a in TABLE["absent"].items() if v.split(".")[:2] == series]
    if near:
        assert absent == near[0]
    assert set(absent) <= set(GUARDED) | WEAKLY_TYPED_ONLY


# What the package may do on import.


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    return tmp_path


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(RbcedgeError, match=r"cannot be loaded|not installed"):
        tensorrt_api.import_tensorrt()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise OSError('libnvdla_compiler.so: file\\n too short')", "(libnvdla_compiler.so: file too short)"),
        ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", "(libnvinfer.so.10: cannot open"),
        ("import tensorrt_libs_that_are_not_there", "'tensorrt_libs_that_are_not_there' is missing"),
        ("raise SystemError", "cannot be loaded (SystemError)"),
        ("", "that is not TensorRT. Remove or rename it"),
        ("__version__ = '8.4.1'\nclass Runtime: pass\nclass ICudaEngine: pass", "version 8.4.1 is too old"),
    ],
)
def test_a_broken_package_is_told_in_one_line(site: Path, code: str, words: str) -> None:
    (site / "tensorrt.py").write_text(code)
    with pytest.raises(RbcedgeError) as error:
        tensorrt_api.import_tensorrt()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_in_the_way_is_not_tensorrt(site: Path) -> None:
    (site / "tensorrt").mkdir()
    with pytest.raises(RbcedgeError, match="a folder named 'tensorrt'"):
        tensorrt_api.import_tensorrt()


# What it says.


def logger() -> tuple[SimpleNamespace, object]:
    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    trt = SimpleNamespace(ILogger=ILogger)
    return trt, tensorrt_api.make_logger(trt)  # type: ignore[arg-type]


def test_the_logger_remembers_errors_as_one_line() -> None:
    _, log = logger()
    log.log(2, "a warning")  # type: ignore[attr-defined]
    assert log.last_error is None  # type: ignore[attr-defined]
    text = (
        "[runtime.cpp::parsePlan::314] Error Code 1: Serialization (Serialization assertion plan->header.magicTag == "
        "rt::kPLAN_MAGIC_TAG failed.Trying to load an engine\n created with incompatible serialization version.)"
    )
    log.log(1, text)  # type: ignore[attr-defined]
    found = log.last_error  # type: ignore[attr-defined]
    assert found.startswith("Error Code 1: Serialization")
    assert "\n" not in found
    assert found.endswith("incompatible serialization version.)")


def test_a_driver_that_fails_is_noticed_though_it_is_only_a_warning() -> None:
    """As the real 8.6 said it, on a machine without a driver; what comes after ends its process."""
    _, log = logger()
    tensorrt_api.check_driver(log)
    log.log(2, "CUDA initialization failure with error: 35. Please check your CUDA installation")  # type: ignore[attr-defined]
    with pytest.raises(RbcedgeError, match="the NVIDIA driver is too old for this TensorRT"):
        tensorrt_api.check_driver(log)
    _, log = logger()
    log.log(2, "CUDA initialization failure with error: 999")  # type: ignore[attr-defined]
    with pytest.raises(RbcedgeError, match="error: 999"):
        tensorrt_api.check_driver(log)
