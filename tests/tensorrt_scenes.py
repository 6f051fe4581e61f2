"""A machine with a FAKE GPU and a FAKE TensorRT, tiny ONNX networks, and a bundle of them."""

from __future__ import annotations

import ctypes
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from session_fakes import make_bundle

from rbcedge.bundle import Bundle, load
from rbcedge.engines import cuda

TESTS = Path(__file__).parent
#: Versions the fake can be; the real packages' names are in data/tensorrt_api.json.
VERSIONS = tuple(json.loads((TESTS / "data" / "tensorrt_api.json").read_text())["absent"])


def fake_driver(folder: Path) -> Path:
    """Compile the stand-in for libcuda; skips where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler for the stand-in of libcuda")
    out = folder / "libfakecuda.so"
    source = TESTS / "fake_libcuda.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", out, source], check=True)
    return out


class Machine:
    """What the fakes can be told and asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, driver: Path, folder: Path) -> None:
        self._monkeypatch = monkeypatch
        self._driver = ctypes.CDLL(str(driver))
        monkeypatch.setattr(cuda, "LIBRARY", str(driver))
        modules = folder / "site"
        modules.mkdir()
        text = "from fake_tensorrt import *\nfrom fake_tensorrt import __version__\n"
        (modules / "tensorrt.py").write_text(text)
        # The builder's process gets this process's path, and so the fake.
        monkeypatch.syspath_prepend(str(modules))
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "user-cache"))
        self.modules = modules
        self.tensorrt("10.3.0")

    @property
    def cache(self) -> Path:
        """The user's engine cache."""
        from rbcedge.engines.engine_cache import default_folder

        return default_folder()

    def tensorrt(self, version: str, *faults: str) -> Any:
        """Install a version of the fake, with faults; return it."""
        self._monkeypatch.setenv("FAKE_TENSORRT", version)
        self.faults(*faults)
        for name in ("tensorrt", "fake_tensorrt"):
            self._monkeypatch.delitem(sys.modules, name, raising=False)
        import tensorrt

        return tensorrt

    def faults(self, *faults: str) -> None:
        """Switch faults on, all others off."""
        self._monkeypatch.setenv("FAKE_TENSORRT_FAULT", ",".join(faults))

    def gpu(self, **what: str) -> None:
        """Change the GPU: NAME, SMS, VERSION, INIT, COUNT, ROOM."""
        for name, value in what.items():
            self._monkeypatch.setenv(f"FAKE_CUDA_{name}", value)

    def without_driver(self) -> None:
        """Take the driver away."""
        self._monkeypatch.setattr(cuda, "LIBRARY", "libcuda-that-is-not-there.so.1")

    def held(self) -> tuple[int, int, int, int]:
        """Memory blocks, retained contexts, pushed contexts and streams that were not given back."""
        return tuple(int(getattr(self._driver, f"fake_{w}")()) for w in ("held", "contexts", "depth", "streams"))  # type: ignore[return-value]


class Watcher:
    """Progress that only writes down."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, float | None]] = []
        self.phases: list[str] = []
        self.told: list[str] = []
        self.ends = 0

    def begin(self, what: str, expected: float | None) -> None:
        self.begun.append((what, expected))

    def update(self, seconds: float, phase: str) -> None:
        self.phases.append(phase)

    def end(self) -> None:
        self.ends += 1

    def tell(self, line: str) -> None:
        self.told.append(line)


def onnx_network(
    role: str,
    precision: str = "fp32",
    shape: Sequence[int | str] = ("n", "h", "w", 3),
    classes: int = 4,
    extra: str | None = None,
    seed: int = 0,
) -> bytes:
    """Make a network of a few nodes, (N, H, W, 3) in 0 to 1 to probabilities.

    Parameters
    ----------
    role : "segmenter" or "classifier"
    precision : "fp32", "fp16" (weights, with casts around them) or "int8" (a Q/DQ pair)
    shape : sequence
        Of the input; names are free dimensions.
    extra : str or None
        An operator to put in that no TensorRT knows.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    half = precision == "fp16"
    dtype = np.float16 if half else np.float32
    nodes, weights = [], []

    def node(operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator.lower()}{len(nodes)}"
        nodes.append(helper.make_node(operator, list(inputs), [name], name=f"node/{name}", **attributes))
        return name

    def weight(values: NDArray[Any]) -> str:
        weights.append(numpy_helper.from_array(values, f"w{len(weights)}"))
        return weights[-1].name

    x = "pixels"
    if extra is not None:
        x = node(extra, x)
    if half:
        x = node("Cast", x, to=TensorProto.FLOAT16)
    if precision == "int8":
        scale, zero = weight(np.float32(1 / 127) * np.ones((), np.float32)), weight(np.zeros((), np.int8))
        x = node("DequantizeLinear", node("QuantizeLinear", x, scale, zero), scale, zero)
    x = node("Transpose", x, perm=[0, 3, 1, 2])
    if role == "segmenter":
        kernel = weight((rng.standard_normal((1, 3, 3, 3)) * 0.5).astype(dtype))
        x = node("Sigmoid", node("Conv", x, kernel, pads=[1, 1, 1, 1]))
        x = node("Transpose", x, perm=[0, 2, 3, 1])
        out = [shape[0], shape[1], shape[2], 1]
    else:
        kernel = weight((rng.standard_normal((8, 3, 3, 3))).astype(dtype))
        x = node("Relu", node("Conv", x, kernel, strides=[2, 2]))
        x = node("Flatten", node("GlobalAveragePool", x))
        x = node("MatMul", x, weight((rng.standard_normal((8, classes)) * 3).astype(dtype)))
        out = [shape[0], classes]
    if half:
        x = node("Cast", x, to=TensorProto.FLOAT)
    x = node("Softmax", x, axis=1) if role == "classifier" else node("Identity", x)
    graph = helper.make_graph(
        nodes,
        role,
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, out)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if extra is None:
        onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def reference(onnx: bytes, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What ONNX Runtime makes of uint8 pictures."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    pixels = np.multiply(pictures, np.float32(1 / 255))
    out: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: pixels})[0]
    return out


def pictures(n: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random pictures (n, height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), np.uint8)


def onnx_bundle(folder: Path, precisions: Sequence[str] = ("fp32",), small: int = 56) -> Bundle:
    """Write a bundle with both networks as ONNX."""
    make_bundle(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["classifier"]["small_crop_px"] = small
    for role in ("segmenter", "classifier"):
        for precision in precisions:
            data = onnx_network(role, precision)
            path = folder / f"{role}.{precision}.onnx"
            path.write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            entry = {"role": role, "format": "onnx", "precision": precision, "file": path.name}
            manifest["artefacts"].append({**entry, "bytes": len(data), "sha256": digest})
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return load(folder)
